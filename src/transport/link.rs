//! The two directions of one Sync stream, the same on both sides.
//!
//! What is sent goes into a short queue that gRPC empties as the peer reads; that is the writer, a task of its own.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::store::Role;
use crate::wire::Frame;

use super::ending::Ending;
use super::status;

/// Frames that wait for gRPC to take them. Each is at most a frame's limit; two keep the writer busy while the next
/// one is read from the store, and more would only lie in memory.
pub(super) const OUTBOUND_FRAMES: usize = 2;
/// How long a session that is over waits for its last frames to be taken and for the peer to finish.
const FAREWELL: Duration = Duration::from_secs(2);

/// A stream of frames in and a queue of frames out. A dialer's queue carries no status.
#[derive(Debug)]
pub(super) struct Link {
    /// What the other side is to us.
    pub(super) role: Role,
    pub(super) inbound: Streaming<Frame>,
    pub(super) outbound: mpsc::Sender<Result<Frame, Status>>,
}

impl Link {
    /// The next frame, where the end of the stream is not expected.
    pub(super) async fn receive(&mut self) -> Result<Frame, Ending> {
        received(self.role, self.inbound.message().await)
    }

    /// Waits for room; only for the handshake, where nothing else happens meanwhile.
    pub(super) async fn send(&self, frame: Frame) -> Result<(), Ending> {
        self.outbound.send(Ok(frame)).await.map_err(|_| interrupted())
    }

    /// Sends what is left and the final status, then lets the peer finish, all within [`FAREWELL`].
    pub(super) async fn close(mut self, rest: impl IntoIterator<Item = Frame>, ending: &Ending) {
        let farewell = async {
            for last in rest.into_iter().map(Ok).chain(status::status(ending).map(Err)) {
                if self.outbound.send(last).await.is_err() {
                    return;
                }
            }
            drop(self.outbound);
            // A stream that is dropped while the peer still sends is reset, and the reset may overtake our last frame.
            while let Ok(Some(_)) = self.inbound.message().await {}
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("the peer did not take its leave");
        }
    }
}

/// What a read from the stream means.
pub(super) fn received(role: Role, read: Result<Option<Frame>, Status>) -> Result<Frame, Ending> {
    match (read, role) {
        (Ok(Some(frame)), _) => Ok(frame),
        (Ok(None), _) => Err(Ending::Interrupted("the peer closed the stream without an End".to_owned())),
        (Err(status), Role::KnownHost) => Err(status::ending_of_hub(&status)),
        (Err(status), Role::AuthorizedClient) => Err(status::ending_of_dialer(&status)),
    }
}

pub(super) fn interrupted() -> Ending {
    Ending::Interrupted("the stream is gone".to_owned())
}
