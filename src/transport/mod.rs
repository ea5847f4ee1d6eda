//! Sessions with other instances: dialing, listening, TLS, the handshake, and the driver that lets a session act.
//!
//! [`Server`] accepts dialers, [`dialer::run`] keeps one known host connected; both end in the same driver, which
//! carries frames between the stream, `core`'s session and the store. Which peers there are and what they may do is
//! the store's business; who starts and stops tasks is the node's.

mod address;
mod admission;
mod attempts;
mod beside;
mod client;
mod connection;
pub mod dialer;
mod doorman;
mod driver;
mod ending;
mod event;
mod handshake;
mod inquiry;
mod link;
mod noise;
pub mod probe;
mod rate;
mod routes;
mod seal;
mod server;
mod session;
mod sessions;
mod status;
mod tls;
mod upstream;
mod wish;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use opmesh_core::config::Allowed;
use opmesh_core::model::{InstanceId, ProcessNonce};
use opmesh_core::succession::Succession;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::identity::Identity;
use crate::store::Store;

pub use address::{AddressFault, Channel, DEFAULT_PORT, HubUrl, Listen, Scheme};
pub use beside::{AskFault, Offered};
pub use client::DialError;
pub use connection::{BYTES_BEFORE_AUTHENTICATION, HANDSHAKE_TIMEOUT};
pub use doorman::Doorman;
pub use ending::Ending;
pub use event::{EVENT_QUEUE, SessionEvent, SessionNews};
pub use routes::Routes;
pub use seal::SealFault;
pub use server::{ListenError, Server, http2};
pub use sessions::{FailedDialer, Sessions};
pub use status::{IDENTITY_CONFLICT, STRANGER};
pub use tls::{
    CERTIFICATE_NAME, OtherKey, TlsError, certificate_pem, connector, identity_certificate, other_key,
};

/// Who this instance is: the operator may rename it. A handshake takes it once, at its beginning.
#[derive(Debug, Clone)]
pub struct Me {
    /// The key.
    pub identity: Arc<Identity>,
    /// The label.
    pub instance: InstanceId,
    /// The key that takes over once every peer knows it.
    pub next: Option<Arc<Identity>>,
}

impl Me {
    /// What peers have to know about the keys, if there was or will be another.
    pub(crate) fn succession(&self) -> Option<&Succession> {
        self.next.as_ref().unwrap_or(&self.identity).past()
    }
}

impl Local {
    /// Who this instance is at this moment.
    pub fn me(&self) -> Me {
        self.me.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This key waits to take over from now on, or none any more.
    pub fn set_next(&self, next: Option<Arc<Identity>>) {
        self.me.write().unwrap_or_else(PoisonError::into_inner).next = next;
    }

    /// This is the key from now on.
    pub fn take_key(&self, key: Arc<Identity>) {
        let mut me = self.me.write().unwrap_or_else(PoisonError::into_inner);
        (me.identity, me.next) = (key, None);
    }

    /// It is called something else from now on.
    pub fn rename(&self, instance: InstanceId) {
        self.me.write().unwrap_or_else(PoisonError::into_inner).instance = instance;
    }
}

/// What this instance brings into every session.
#[derive(Debug)]
pub struct Local {
    /// Who it is now.
    pub me: RwLock<Me>,
    /// This run of the process.
    pub process: ProcessNonce,
    /// Everything that is kept.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// What peers may set although it runs programs: what the operator has named.
    pub allowed: Allowed,
    /// Who is connected.
    pub sessions: Sessions,
    /// Who is not let in.
    pub doorman: Doorman,
    /// Where the node hears what sessions do; made with [`EVENT_QUEUE`].
    pub events: mpsc::Sender<SessionEvent>,
}

/// This program's version, as peers are told that ask.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");
