//! How long a record takes from the call at the host's daemon to the event at the hub's, over TLS between two real
//! processes, beside one fsync of the same disk. The hub's commit and the host's are one fsync each.
//! `cargo bench --bench latency`
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench: a broken assumption ends it"
)]

#[path = "rig/daemon.rs"]
#[expect(dead_code, reason = "shared with benches that use the rest")]
mod daemon;
#[path = "rig/report.rs"]
mod report;

use std::time::Duration;

use opmesh::admin::Client;
use opmesh::admin::pb;
use opmesh::clock::Clock;

use daemon::Instance;
use report::{fsync_median, is_short, machine, micros, percentile, table};

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    machine("latency", home.path());
    let (mut hub, mut host) = (Instance::new(home.path(), "hub"), Instance::new(home.path(), "host"));
    let url = hub.serve("127.0.0.1:0");
    host.join(&hub, &url);
    host.serve("none");
    let (mut durable, mut visible) = measure(&hub, &host, if is_short() { 50 } else { 1_000 }).await;
    let fsync = fsync_median(home.path());
    host.stop();
    hub.stop();
    let row = |what: &str, spans: &mut Vec<Duration>| {
        let (middle, high) = (percentile(spans.clone(), 50), percentile(std::mem::take(spans), 99));
        let times = format!("{:.1}", middle.as_secs_f64() / fsync.as_secs_f64());
        vec![what.to_owned(), micros(middle), micros(high), times]
    };
    let rows = [row("durable at the host", &mut durable), row("visible at the hub", &mut visible)];
    table(&["from the call until it is", "p50", "p99", "p50 in fsyncs"], &rows);
}

/// One record at a time: when the host has answered, and when the hub has told of it.
async fn measure(hub: &Instance, host: &Instance, records: usize) -> (Vec<Duration>, Vec<Duration>) {
    let clock = Clock::system();
    let at_hub = Client::connect(&hub.places.socket()).await.unwrap();
    let at_host = Client::connect(&host.places.socket()).await.unwrap();
    let mut events = at_hub.watch_operations(pb::WatchOperationsRequest::default()).await.unwrap();
    let (mut durable, mut visible) = (Vec::new(), Vec::new());
    for n in 0..=records {
        let began = clock.monotonic();
        let transaction = pb::ApplyTransaction { changes: vec![create(n)], more: false };
        let mut replies = at_host.apply_operations(tokio_stream::iter([transaction])).await.unwrap();
        replies.next().await.unwrap().unwrap();
        let answered = clock.monotonic();
        let event = events.next().await.unwrap().unwrap();
        let seen = clock.monotonic();
        assert_eq!(event.operation.unwrap().message, format!("record {n}"));
        // The first one waits for the session, too.
        if n > 0 {
            durable.push(answered - began);
            visible.push(seen - began);
        }
    }
    (durable, visible)
}

fn create(n: usize) -> pb::Change {
    let create = pb::CreateOperation {
        kind: "backup".to_owned(),
        status: "success".to_owned(),
        repo_id: "nas".to_owned(),
        plan_id: "documents".to_owned(),
        message: format!("record {n}"),
        ..pb::CreateOperation::default()
    };
    pb::Change { line: 1, change: Some(pb::change::Change::Create(create)) }
}
