//! Passes one of the child's streams on, byte for byte, while the observer watches. It never stops draining: neither
//! a closed output of ours nor anything in the bytes may block the child.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::filter::Filter;
use super::observer::{Observer, Source};

/// Bytes read at once: what a pipe holds by default on Linux.
const CHUNK_BYTES: usize = 64 * 1024;

/// What those who wait for the streams can see of them.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes read so far.
    pub(super) bytes: AtomicU64,
    /// Bytes are waiting for our own output.
    pub(super) writing: AtomicBool,
}

/// Reads `from` to its end. The first failure of `to` closes it for good.
pub(super) async fn pass(
    source: Source,
    mut from: impl AsyncRead + Unpin,
    to: Option<impl AsyncWrite + Unpin>,
    mut filter: Filter,
    observer: Arc<Mutex<Observer>>,
    flow: Arc<Flow>,
) {
    let mut to = to;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut passed = Vec::new();
    loop {
        // A failing read of a pipe is its end.
        let length = from.read(&mut chunk).await.unwrap_or(0);
        let bytes = chunk.get(..length).unwrap_or_default();
        flow.bytes.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
        if bytes.is_empty() {
            filter.finish(&mut passed);
        } else {
            filter.feed(bytes, &mut passed);
        }
        if !passed.is_empty()
            && let Some(output) = &mut to
        {
            flow.writing.store(true, Ordering::Relaxed);
            if write(output, &passed).await.is_err() {
                to = None;
            }
            flow.writing.store(false, Ordering::Relaxed);
        }
        passed.clear();
        if bytes.is_empty() {
            return;
        }
        observer.lock().unwrap_or_else(PoisonError::into_inner).feed(source, bytes);
    }
}

async fn write(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    output.write_all(bytes).await?;
    output.flush().await
}
