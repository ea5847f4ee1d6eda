//! The two directions of one Sync stream, the same on both sides.
//!
//! What is sent goes into a short queue that gRPC empties as the peer reads; that is the writer, a task of its own. On
//! a sealed channel each frame is sealed as it enters the queue, and opened as it is read.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::store::Role;
use crate::wire::{self, Frame};

use super::ending::Ending;
use super::seal::Seal;
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
    seal: Option<Box<Seal>>,
}

impl Link {
    /// A stream on which nothing was said.
    pub(super) fn new(
        role: Role,
        inbound: Streaming<Frame>,
        outbound: mpsc::Sender<Result<Frame, Status>>,
    ) -> Self {
        Self { role, inbound, outbound, seal: None }
    }

    /// From now on every frame is sealed, in both directions.
    pub(super) fn sealed_with(&mut self, seal: Box<Seal>) {
        self.seal = Some(seal);
    }

    /// The next frame, where the end of the stream is not expected.
    pub(super) async fn receive(&mut self) -> Result<Frame, Ending> {
        let read = self.inbound.message().await;
        self.opened(read)
    }

    /// What was read, as the other side meant it.
    pub(super) fn opened(&mut self, read: Result<Option<Frame>, Status>) -> Result<Frame, Ending> {
        let frame = received(self.role, read)?;
        match &mut self.seal {
            None => Ok(frame),
            Some(seal) => Ok(wire::from_sealed(&seal.open(&wire::sealed(frame)?)?)?),
        }
    }

    /// A frame as it goes into the queue, in the order of the queue. Instead of one frame too many for a sealed stream
    /// comes the status that ends it.
    pub(super) fn outgoing(&mut self, frame: Frame) -> Result<Frame, Status> {
        match &mut self.seal {
            None => Ok(frame),
            Some(seal) => match seal.seal(&wire::to_be_sealed(&frame)) {
                Ok(sealed) => Ok(sealed.into()),
                Err(fault) => Err(Status::unavailable(fault.to_string())),
            },
        }
    }

    /// Waits for room; only for the handshake, where nothing else happens meanwhile.
    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), Ending> {
        let frame = self.outgoing(frame);
        self.outbound.send(frame).await.map_err(|_| interrupted())
    }

    /// Sends what is left and the final status, then lets the peer finish, all within [`FAREWELL`].
    pub(super) async fn close(mut self, rest: impl IntoIterator<Item = Frame>, ending: &Ending) {
        let farewell = async {
            for last in rest {
                if self.send(last).await.is_err() {
                    return;
                }
            }
            if let Some(status) = status::status(ending)
                && self.outbound.send(Err(status)).await.is_err()
            {
                return;
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
fn received(role: Role, read: Result<Option<Frame>, Status>) -> Result<Frame, Ending> {
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
