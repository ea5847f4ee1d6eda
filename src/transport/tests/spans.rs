//! What a session's lines in the log say.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_line_of_a_session_names_its_peer_and_its_session_once() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(lines);
    // A line that another test meets first is asked about by that test's thread while there is only one subscriber,
    // and counts as unwanted everywhere if nobody listens there. Of two subscribers each is asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    tracing::callsite::rebuild_interest_cache();
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = Instance::new(2);
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), hub.url(), "READ_OPERATIONS:*").await;
    host.hears_proof_of(hub.key(), 0).await;
    drop(guard);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let begun: Vec<_> = log.lines().filter(|line| line.contains("a session begins")).collect();
    assert_eq!(begun.len(), 2, "{log}");
    for (line, peer) in begun.iter().zip([hub.key(), host.key()]) {
        assert!(log.contains(&format!("peer={peer} session=")), "{log}");
        assert_eq!((line.matches("peer=").count(), line.matches("session=").count()), (1, 1), "{line}");
    }
}
