//! What the node hears of sessions, for `status`, logs and metrics.

use opmesh_core::model::{InstanceId, KeyId};
use opmesh_core::permission::Scopes;
use opmesh_core::session::Report;
use tokio::sync::mpsc;

use crate::store::Role;

use super::Local;
use super::beside::Offered;
use super::ending::Ending;

/// Room for events that the node has not looked at. It only writes down what it hears, so that this is rarely needed:
/// a thousand sessions may report at once.
pub const EVENT_QUEUE: usize = 1024;

/// Something happened with a peer.
#[derive(Debug, Clone)]
pub struct SessionEvent {
    /// With whom.
    pub peer: KeyId,
    /// What it is to us.
    pub role: Role,
    /// What.
    pub news: SessionNews,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum SessionNews {
    /// It is about to be dialled: the first news of every attempt.
    Dialing,
    /// The handshake is complete.
    Connected {
        /// The session's random name, the same on both sides.
        session: [u8; 16],
        /// What the peer calls itself.
        instance: InstanceId,
        /// What it lets us do with its things.
        grants_received: Vec<String>,
        /// What the hub, whichever of the two that is, takes of the owner's operations.
        accepted: Scopes,
    },
    /// The host has answered which shared repositories it takes.
    Offered(Offered),
    /// The session reports progress.
    Report(Report),
    /// What went over the connection of a session that is over, below TLS; comes before its end.
    Carried {
        /// From us.
        sent_bytes: u64,
        /// To us.
        received_bytes: u64,
    },
    /// The session is over and no newer one has taken its place, or it did not come about.
    Ended(Ending),
}

impl Local {
    /// Beginnings and ends always arrive: waits for room. The node goes on listening, or drops its end, until all
    /// sessions are over.
    pub(super) async fn tell(&self, peer: KeyId, role: Role, news: SessionNews) {
        // Without a receiver the node is gone, and nobody wants to know.
        drop(self.events.send(SessionEvent { peer, role, news }).await);
    }

    /// As [`Local::report`].
    pub(super) fn offered(&self, peer: KeyId, role: Role, offered: Offered) {
        self.hint(SessionEvent { peer, role, news: SessionNews::Offered(offered) });
    }

    /// Progress never makes a session wait: when there is no room, the next report says more anyway.
    pub(super) fn report(&self, peer: KeyId, role: Role, report: Report) {
        self.hint(SessionEvent { peer, role, news: SessionNews::Report(report) });
    }

    fn hint(&self, event: SessionEvent) {
        let peer = event.peer;
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::debug!(peer = %peer, "a progress report was left out");
        }
    }
}
