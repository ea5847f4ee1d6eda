//! Everything that this instance keeps: its own log, the operations it holds for other owners, peers, pairing tokens
//! and the audit log, in one SQLite file.
//!
//! What a frame from an owner does is decided by `opmesh_core::replica`; what a session asks for is defined by
//! `opmesh_core::session`. This module makes it durable. It knows no network, no config file and no message format.
//! Called by the transport's driver (sessions), the op log's writers, and the faces (lists and edits).

mod error;
mod list;
mod own;
mod peer;

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use opmesh_core::model::{Incarnation, InstanceId, KeyId, OpId, Position, PublicKey, SetDigest, UnixMs};
use opmesh_core::protocol::Violation;
use opmesh_core::replica::{Committed, Transaction};
use opmesh_core::session::{Compare, Found, Read};
use tokio::sync::{broadcast, oneshot, watch};

use crate::clock::Clock;

pub use error::{AppendError, PeerError, Refused, StoreError};
pub use list::{
    BadOperation, Change, HostCheck, HostRow, MAX_BAD_OPERATIONS, MAX_PAGE_ROWS, OpRow, OpsCursor, OpsPage,
    OpsQuery, ParkedRow, PlanFacts, RowFault, StoreEvent, StoreFacts,
};
pub use own::{Appended, Edit, Flow, OnceKey, OwnChange};
pub use peer::{
    AuditEvent, AuditRecord, AuditVerdict, Authorization, Claim, Dial, Epoch, Greeting, HubProgress, Joining,
    NewPeer, NewToken, Peer, PeerChange, PeerEdit, PeerEvent, Refusal, ReplicaFacts, Role, Roles, Takeover,
    Token,
};

/// Entries of each id cache unless configured otherwise (`cache.entries`).
pub const DEFAULT_CACHE_ENTRIES: usize = 65_536;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Whose store it must be.
    pub own: PublicKey,
    /// Where time comes from.
    pub clock: Clock,
    /// Entries of each id cache; 0 = off.
    pub cache_entries: usize,
}

/// What an operator decides about an owner that presented a superseded incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The database that presented it is the right one.
    AcceptPresented,
    /// It is the wrong one and stays refused.
    Refuse,
}

/// The open store. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Store {}

/// A transaction on its way to the disk; resolves once it is durable, or did not happen.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Result<Committed, Violation>, StoreError>>,
}

impl Future for Pending {
    type Output = Result<Result<Committed, Violation>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

/// Life of the store. Opening blocks; the rest is async and never blocks the caller's thread.
impl Store {
    /// Makes a new store for this identity; an existing file is an error.
    pub fn create(path: &Path, own: PublicKey, clock: Clock) -> Result<Self, StoreError> {
        Err(StoreError::Closed)
    }

    /// Opens the store of this identity.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        Err(StoreError::Closed)
    }

    /// Performs what was handed in, then closes; later calls get [`StoreError::Closed`].
    pub async fn close(&self) {}

    /// The store itself.
    pub async fn facts(&self) -> Result<StoreFacts, StoreError> {
        Err(StoreError::Closed)
    }

    /// What this instance calls itself, for lists.
    pub async fn set_instance(&self, instance: InstanceId) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}

/// The own log.
impl Store {
    /// Performs the changes in one transaction: all or none.
    pub async fn append(&self, changes: Vec<OwnChange>) -> Result<Vec<Appended>, AppendError> {
        Err(AppendError { index: 0, reason: StoreError::Closed.into() })
    }

    /// As [`Store::append`], unless this key was used before: then nothing happens and there is no answer.
    pub async fn append_once(
        &self,
        key: OnceKey,
        changes: Vec<OwnChange>,
    ) -> Result<Option<Vec<Appended>>, AppendError> {
        Err(AppendError { index: 0, reason: StoreError::Closed.into() })
    }

    /// Follows the last durable change.
    pub fn head(&self) -> watch::Receiver<Position> {
        watch::channel(Position::ZERO).1
    }

    /// Own operations whose status is in progress, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<OpRow>, StoreError> {
        Err(StoreError::Closed)
    }
}

/// Sessions: the owner's side reads, the hub's side commits.
impl Store {
    /// One short reading transaction on the own log.
    pub async fn read(&self, read: Read) -> Result<Found, StoreError> {
        Err(StoreError::Closed)
    }

    /// Begins a new life of the own log.
    pub async fn take_incarnation(&self) -> Result<Incarnation, StoreError> {
        Err(StoreError::Closed)
    }

    /// Which of the listed ids the hub lacks or holds at another modno; ascending.
    pub async fn compare(&self, owner: &KeyId, compare: Compare) -> Result<Vec<OpId>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Makes the caller the one session that may commit for this owner. [`StoreError::Fenced`] when the peer is not
    /// let in (any more).
    pub async fn take_over(&self, owner: &KeyId) -> Result<Takeover, StoreError> {
        Err(StoreError::Closed)
    }

    /// Hands in a transaction; waits only for room in the queue. One caller's transactions are performed in the order
    /// handed in. The answer is [`StoreError::Fenced`] when the epoch has moved on, and a [`Violation`] when the peer
    /// broke a rule; in both cases nothing of it happened.
    pub async fn submit(&self, owner: &KeyId, epoch: Epoch, transaction: Transaction) -> Pending {
        let (_, answer) = oneshot::channel();
        Pending { answer }
    }

    /// Remembers what a hub has made durable. Written with the next transaction, or a few seconds later.
    pub fn note_acked(&self, hub: &KeyId, acked: Position) {}

    /// Remembers where a hub proved to hold the same set. Written as lazily as [`Store::note_acked`].
    pub fn note_proved(&self, hub: &KeyId, position: Position, set: SetDigest) {}

    /// Remembers that the peer was heard from. Written as lazily as [`Store::note_acked`].
    pub fn note_seen(&self, peer: &KeyId) {}
}

/// Peers, tokens, audit.
impl Store {
    /// Decides whether a dialer is let in. A token is used up, the peer added and the audit record written in one
    /// transaction; a refusal is audited, too.
    pub async fn authorize(&self, claim: Claim) -> Result<Authorization, StoreError> {
        Err(StoreError::Closed)
    }

    /// Stores what a completed handshake has shown: key, label, grants received. Ends a pairing that was waiting.
    pub async fn greet(&self, greeting: Greeting) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// A hub turned us away, or cannot be what it should be; shown in `status` until a session succeeds.
    pub async fn note_refused(&self, peer: &KeyId, refusal: Refusal) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// All peers, by name.
    pub async fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        Err(StoreError::Closed)
    }

    /// One peer.
    pub async fn peer(&self, key: &KeyId) -> Result<Option<Peer>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Finds a peer by name, instance id, key ID or at least 8 characters of one.
    pub async fn find_peer(&self, text: &str) -> Result<Peer, PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Finds an owner whose operations lie here in the same way; this instance included.
    pub async fn find_host(&self, text: &str) -> Result<KeyId, PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Adds a peer. When the key is listed already, the new roles, dial and token are added to the entry if
    /// `known_host` is new to it; otherwise that is [`PeerError::Exists`].
    pub async fn add_peer(&self, peer: NewPeer) -> Result<Peer, PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Performs the edits in one transaction.
    pub async fn edit_peer(&self, key: &KeyId, edits: Vec<PeerEdit>) -> Result<Peer, PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Removes a peer. What lies here for it stays.
    pub async fn remove_peer(&self, key: &KeyId) -> Result<(), PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Hears of every change to the peers, after it is durable. Who lags reads [`Store::peers`] again.
    pub fn peer_events(&self) -> broadcast::Receiver<PeerEvent> {
        broadcast::channel(1).1
    }

    /// Remembers a pairing token.
    pub async fn add_token(&self, token: NewToken) -> Result<Token, StoreError> {
        Err(StoreError::Closed)
    }

    /// All tokens that can still be used, oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Makes a token useless.
    pub async fn cancel_token(&self, id: u64) -> Result<(), PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Writes an audit record for something that changes no row.
    pub async fn note_audit(&self, event: AuditEvent) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Audit records from `since` on, oldest first, at most [`MAX_PAGE_ROWS`] after number `after`.
    pub async fn audit(&self, since: Option<UnixMs>, after: u64) -> Result<Vec<AuditRecord>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Recomputes the chain of audit records.
    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        Err(StoreError::Closed)
    }
}

/// Lists.
impl Store {
    /// A page of live operations, newest first.
    pub async fn operations(&self, query: OpsQuery) -> Result<OpsPage, StoreError> {
        Err(StoreError::Closed)
    }

    /// One live operation by its number here.
    pub async fn operation(&self, id: OpId) -> Result<Option<OpRow>, StoreError> {
        Err(StoreError::Closed)
    }

    /// All owners whose operations lie here, this instance first, then by name.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        Err(StoreError::Closed)
    }

    /// What freshness is judged by, for every plan of every owner, or of one.
    pub async fn plans(&self, owner: Option<KeyId>) -> Result<Vec<PlanFacts>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Recomputes everything about an owner from the stored bytes; changes nothing.
    pub async fn verify_host(&self, owner: &KeyId) -> Result<HostCheck, StoreError> {
        Err(StoreError::Closed)
    }

    /// Operations of an owner that were set aside: at most [`MAX_PAGE_ROWS`] with a number above `after`.
    pub async fn parked(&self, owner: &KeyId, after: u64) -> Result<Vec<ParkedRow>, StoreError> {
        Err(StoreError::Closed)
    }

    /// The operator lets a quarantined owner be repaired again.
    pub async fn release(&self, owner: &KeyId) -> Result<(), PeerError> {
        Err(StoreError::Closed.into())
    }

    /// The operator decides about an owner that presented a superseded incarnation.
    pub async fn resolve(&self, owner: &KeyId, resolution: Resolution) -> Result<(), PeerError> {
        Err(StoreError::Closed.into())
    }

    /// Follows changes to the live operations in commit order. Who lags is told so by the channel.
    pub fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        broadcast::channel(1).1
    }
}
