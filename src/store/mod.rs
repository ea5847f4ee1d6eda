//! Everything that this instance keeps: its own log, the operations it holds for other owners, peers, pairing tokens
//! and the audit log, in one SQLite file.
//!
//! What a frame from an owner does is decided by `opmesh_core::replica`; what a session asks for is defined by
//! `opmesh_core::session`. This module makes it durable. It knows no network, no config file and no message format.
//! Called by the transport's driver (sessions), the op log's writers, and the faces (lists and edits).

mod audit;
mod config;
mod disk;
mod error;
mod list;
mod own;
mod peer;
mod sqlite;

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use opmesh_core::handshake::Claim;
use opmesh_core::model::{Incarnation, InstanceId, KeyId, OpId, Position, PublicKey, SetDigest, UnixMs};
use opmesh_core::protocol::Violation;
use opmesh_core::replica::{Committed, Transaction};
use opmesh_core::session::{Compare, Found, Read};
use opmesh_core::succession::Succession;
use tokio::sync::{broadcast, oneshot, watch};

use crate::clock::Clock;

use sqlite::{
    Engine, SubmitError, Weight, admin_tokens, audit as audit_rows, events, forget, health, lists, own_log,
    pairing, peer_rows, peers, restore, session_reads, succession, verify,
};

pub use audit::{AuditEvent, AuditFault, AuditKind, AuditRecord, AuditVerdict};
pub use config::PeerConfig;
pub use disk::{DISK_FULL_BYTES, DISK_RESERVE_BYTES, Disk};
pub use error::{AppendError, PeerError, Refused, StoreError};
pub use list::{
    BadOperation, Change, Forgotten, HostCheck, HostRow, MAX_BAD_OPERATIONS, MAX_PAGE_ROWS, OpRow, OpsCursor,
    OpsPage, OpsQuery, ParkedRow, PlanFacts, RowFault, StoreEvent, StoreFacts, StoreHealth,
};
pub use own::{Appended, Edit, Flow, OnceKey, OwnChange};
pub use peer::{
    AdminToken, Authorization, Dial, Epoch, Greeting, HubProgress, Joining, Learnt, NewAdminToken, NewPeer,
    NewToken, Peer, PeerChange, PeerEdit, PeerEvent, PeerKeys, Refusal, ReplicaFacts, Retired, RetiredHow,
    Role, Roles, Takeover, Token,
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

/// The open store. Cheap to clone; all clones are one store. Dropping the last clone ends it at once, as a crash would;
/// [`Store::close`] ends it in good order.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Arc<Engine>,
}

/// A transaction on its way to the disk; resolves once it is durable, or did not happen.
pub struct Pending {
    answer: oneshot::Receiver<Result<Committed, SubmitError>>,
    engine: Arc<Engine>,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending(..)")
    }
}

impl Future for Pending {
    type Output = Result<Result<Committed, Violation>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| match answer {
            Ok(Ok(committed)) => Ok(Ok(committed)),
            Ok(Err(SubmitError::Violation(violation))) => Ok(Err(violation)),
            Ok(Err(SubmitError::Store(error))) => Err(error),
            Err(_) => Err(self.engine.gone()),
        })
    }
}

/// A backup that is checked and waits for its name; dropping it leaves nothing.
#[derive(Debug)]
pub struct Restoring {
    prepared: restore::Prepared,
}

impl Restoring {
    /// The store is there from now on.
    pub fn finish(self) -> Result<(), StoreError> {
        self.prepared.finish()
    }
}

/// Life of the store. Opening blocks; the rest is async and never blocks the caller's thread.
impl Store {
    /// Makes a new store for this identity; an existing file is an error.
    pub fn create(path: &Path, own: PublicKey, clock: Clock) -> Result<Self, StoreError> {
        Self::create_after(path, own, own, clock)
    }

    /// As [`Store::create`], for an identity that began with another key: its rows are hashed with that `first` one.
    pub fn create_after(
        path: &Path,
        own: PublicKey,
        first: PublicKey,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        sqlite::create(path, own, first, clock)?;
        Self::open(path, OpenOptions { own, clock, cache_entries: DEFAULT_CACHE_ENTRIES })
    }

    /// Opens the store of this identity.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        Self::open_after(path, options, &[])
    }

    /// As [`Store::open`]; the store may still be filed under a key that the identity had `before`.
    pub fn open_after(path: &Path, options: OpenOptions, before: &[PublicKey]) -> Result<Self, StoreError> {
        Ok(Self { engine: Arc::new(sqlite::open(path, &options, before)?) })
    }

    /// Checks a backup and makes it ready to become the store of this identity, which may have had other keys `before`; nothing is there before
    /// [`Restoring::finish`]. Blocks.
    pub fn restore(
        from: &Path,
        to: &Path,
        own: PublicKey,
        before: &[PublicKey],
        clock: Clock,
    ) -> Result<Restoring, StoreError> {
        Ok(Restoring { prepared: restore::prepare(from, to, own, before, clock)? })
    }

    /// Performs what was handed in, then closes; later calls get [`StoreError::Closed`].
    pub async fn close(&self) {
        self.engine.close().await;
    }

    /// Writes a copy of everything, as it is at one moment, to a file that does not exist yet. Writers do not wait
    /// for it. The record of it stands in the audit log afterwards, and so not in the copy.
    pub async fn backup(&self, to: PathBuf) -> Result<(), StoreError> {
        self.engine.backup(to.clone()).await?;
        let detail = to.display().to_string();
        self.note_audit(AuditEvent { event: AuditKind::StoreBackedUp, peer: None, detail }).await
    }

    /// The store itself.
    pub async fn facts(&self) -> Result<StoreFacts, StoreError> {
        self.engine.facts().await
    }

    /// Whether the file is whole, as far as a look can tell.
    pub async fn health(&self) -> Result<StoreHealth, StoreError> {
        self.engine.read(health::health).await
    }

    /// The room under the store; asked on a thread that may wait.
    pub async fn disk(&self) -> Result<Disk, StoreError> {
        let path = self.engine.path().to_owned();
        let ask =
            move |_: &_| Disk::of(&path).map_err(|error| StoreError::Engine { reason: error.to_string() });
        self.engine.read(ask).await
    }

    /// What this instance calls itself, for lists.
    pub async fn set_instance(&self, instance: InstanceId) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| sqlite::set_instance(tx, &instance)).await
    }
}

/// The own log.
impl Store {
    /// Performs the changes in one transaction: all or none.
    pub async fn append(&self, changes: Vec<OwnChange>) -> Result<Vec<Appended>, AppendError> {
        self.engine.write(weigh(&changes), move |tx| own_log::append(tx, changes)).await
    }

    /// As [`Store::append`], unless this key was used before: then nothing happens and there is no answer.
    pub async fn append_once(
        &self,
        key: OnceKey,
        changes: Vec<OwnChange>,
    ) -> Result<Option<Vec<Appended>>, AppendError> {
        self.engine.write(weigh(&changes), move |tx| own_log::append_once(tx, key, changes)).await
    }

    /// Follows the last durable change.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.engine.head()
    }

    /// Waits until the store has stopped for good; why.
    pub async fn stopped(&self) -> StoreError {
        let mut head = self.engine.head();
        loop {
            if let Some(stopped) = self.engine.stopped() {
                return stopped;
            }
            if head.changed().await.is_err() {
                return self.engine.gone();
            }
        }
    }

    /// Own operations whose status is in progress, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<OpRow>, StoreError> {
        self.engine.read(lists::unfinished).await
    }
}

/// Sessions: the owner's side reads, the hub's side commits.
impl Store {
    /// One short reading transaction on the own log.
    pub async fn read(&self, read: Read) -> Result<Found, StoreError> {
        self.engine.read(move |connection| session_reads::read(connection, &read)).await
    }

    /// Begins a new life of the own log.
    pub async fn take_incarnation(&self) -> Result<Incarnation, StoreError> {
        let label = own_log::draw_incarnation()?;
        self.engine.write(Weight::ONE, move |tx| own_log::take_incarnation(tx, label)).await
    }

    /// Which of the listed ids the hub lacks or holds at another modno; ascending.
    pub async fn compare(&self, owner: &KeyId, compare: Compare) -> Result<Vec<OpId>, StoreError> {
        let key = *owner;
        let read = move |connection: &_| {
            let owner = peers::find_owner(connection, &key)?.ok_or(StoreError::UnknownOwner(key))?;
            session_reads::compare(connection, owner, &compare)
        };
        self.engine.read(read).await
    }

    /// Makes the caller the one session that may commit for this owner. [`StoreError::Fenced`] when the peer is not
    /// let in (any more).
    pub async fn take_over(&self, owner: &KeyId) -> Result<Takeover, StoreError> {
        let key = *owner;
        let (takeover, hasher) = self.engine.write(Weight::ONE, move |tx| peers::take_over(tx, key)).await?;
        self.engine.keep_hasher(key, hasher);
        Ok(takeover)
    }

    /// Hands in a transaction; waits only for room in the queue. One caller's transactions are performed in the order
    /// handed in. The answer is [`StoreError::Fenced`] when the epoch has moved on, and a [`Violation`] when the peer
    /// broke a rule; in both cases nothing of it happened.
    pub async fn submit(&self, owner: &KeyId, epoch: Epoch, transaction: Transaction) -> Pending {
        let key = *owner;
        let weight = weigh_transaction(&transaction);
        let hashed = self.engine.hash_rows(owner, &transaction);
        let answer =
            self.engine.submit(weight, move |tx| peers::submit(tx, &key, epoch, transaction, hashed)).await;
        Pending { answer, engine: Arc::clone(&self.engine) }
    }

    /// Remembers what a hub has made durable. Written with the next transaction, or a few seconds later.
    pub fn note_acked(&self, hub: &KeyId, acked: Position) {
        let seen = self.engine.clock().wall();
        self.engine.with_notes(|notes| {
            notes.note(hub, |note| (note.acked, note.seen) = (Some(acked), Some(seen)));
        });
    }

    /// Remembers where a hub proved to hold the same set. Written as lazily as [`Store::note_acked`].
    pub fn note_proved(&self, hub: &KeyId, position: Position, set: SetDigest) {
        let seen = self.engine.clock().wall();
        self.engine.with_notes(|notes| {
            notes.note(hub, |note| (note.proved, note.seen) = (Some((position, set)), Some(seen)));
        });
    }

    /// Remembers that the peer was heard from. Written as lazily as [`Store::note_acked`].
    pub fn note_seen(&self, peer: &KeyId) {
        let seen = self.engine.clock().wall();
        self.engine.with_notes(|notes| notes.note(peer, |note| note.seen = Some(seen)));
    }
}

/// Peers, tokens, audit.
impl Store {
    /// Decides whether a dialer is let in. A token is used up, the peer added and the audit record written in one
    /// transaction; a refusal is audited, too.
    pub async fn authorize(&self, claim: Claim) -> Result<Authorization, StoreError> {
        self.engine.write(Weight::ONE, move |tx| pairing::authorize(tx, &claim)).await
    }

    /// Stores what a completed handshake has shown: key, label, grants received. Ends a pairing that was waiting.
    pub async fn greet(&self, greeting: Greeting) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| peers::greet(tx, greeting)).await
    }

    /// Stores what a peer says about its keys, told under the key of its session.
    pub async fn learn_succession(
        &self,
        teller: &KeyId,
        said: Box<Succession>,
    ) -> Result<Learnt, StoreError> {
        let key = *teller;
        let learn = self.engine.write(Weight::ONE, move |tx| succession::learn(tx, key, &said));
        let (learnt, hasher) = learn.await?;
        if let Some(hasher) = hasher {
            self.engine.keep_hasher(key, hasher);
        }
        Ok(learnt)
    }

    /// A peer has confirmed this key of ours.
    pub async fn confirm_succession(&self, peer: &KeyId, key: PublicKey) -> Result<(), StoreError> {
        let peer = *peer;
        self.engine.write(Weight::ONE, move |tx| succession::confirm(tx, peer, key)).await
    }

    /// A hub presented the key that it announced: its entry is filed under that one from now on.
    pub async fn take_announced(&self, hub: &KeyId) -> Result<Option<Peer>, StoreError> {
        let old = *hub;
        self.engine.write(Weight::ONE, move |tx| succession::take_announced(tx, old)).await
    }

    /// The operator learnt by hand that a peer has another key.
    pub async fn replace_key(&self, peer: &KeyId, new: KeyId) -> Result<Peer, PeerError> {
        let old = *peer;
        self.engine.write(Weight::ONE, move |tx| succession::replace_by_hand(tx, old, new)).await
    }

    /// This instance's key is another one from now on; `why` stands in the audit record.
    pub async fn take_own_key(&self, key: PublicKey, why: String) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| succession::take_own_key(tx, key, &why)).await
    }

    /// A lost key's operations are shown as another host's, and the lost key is let in no more.
    pub async fn adopt(&self, old: &KeyId, by: &KeyId) -> Result<(), PeerError> {
        let (old, by) = (*old, *by);
        self.engine.write(Weight::ONE, move |tx| succession::adopt(tx, old, by)).await
    }

    /// Takes an adoption back.
    pub async fn undo_adoption(&self, old: &KeyId) -> Result<(), PeerError> {
        let old = *old;
        self.engine.write(Weight::ONE, move |tx| succession::release_adopted(tx, old)).await
    }

    /// Keys that another one stands for.
    pub async fn retired(&self) -> Result<Vec<Retired>, StoreError> {
        self.engine.read(succession::retired).await
    }

    /// Whether a dialer with this key is listed, or announced itself under an older key that is.
    pub async fn is_welcome(&self, key: PublicKey) -> Result<bool, StoreError> {
        let find = move |connection: &_| match peer_rows::one(connection, &key.key_id())? {
            Some(peer) => Ok(Some(peer)),
            None => succession::announcer(connection, &key),
        };
        Ok(self.engine.read(find).await?.is_some_and(|peer| peer.may_deliver()))
    }

    /// A hub turned us away, or cannot be what it should be; shown in `status` until a session succeeds.
    pub async fn note_refused(&self, peer: &KeyId, refusal: Refusal) -> Result<(), StoreError> {
        let key = *peer;
        self.engine.write(Weight::ONE, move |tx| peers::note_refused(tx, key, refusal)).await
    }

    /// Why a key was refused last, when and under which name, if the audit log has it; of keys that are no peers, too.
    pub async fn last_refusal(&self, key: &KeyId) -> Result<Option<(Refusal, UnixMs, String)>, StoreError> {
        let key = *key;
        self.engine.read(move |connection| health::last_refusal(connection, &key)).await
    }

    /// All peers, by name.
    pub async fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        let mut peers = self.engine.read(peer_rows::all).await?;
        self.engine.with_notes(|notes| peers.iter_mut().for_each(|peer| notes.show(peer)));
        Ok(peers)
    }

    /// One peer.
    pub async fn peer(&self, key: &KeyId) -> Result<Option<Peer>, StoreError> {
        let key = *key;
        let mut peer = self.engine.read(move |connection| peer_rows::one(connection, &key)).await?;
        self.engine.with_notes(|notes| peer.iter_mut().for_each(|peer| notes.show(peer)));
        Ok(peer)
    }

    /// Finds a peer by name, instance id, key ID or at least 8 characters of one.
    pub async fn find_peer(&self, text: &str) -> Result<Peer, PeerError> {
        let candidates = self.engine.read(peer_rows::peer_candidates).await?;
        let key = peer_rows::find(text, &candidates)?;
        self.peer(&key).await?.ok_or_else(|| PeerError::Unknown(text.to_owned()))
    }

    /// Finds an owner whose operations lie here in the same way; this instance included.
    pub async fn find_host(&self, text: &str) -> Result<KeyId, PeerError> {
        let candidates = self.engine.read(peer_rows::host_candidates).await?;
        peer_rows::find(text, &candidates)
    }

    /// Adds a peer. When the key is listed already, the new roles, dial and token are added to the entry if
    /// `known_host` is new to it; otherwise that is [`PeerError::Exists`].
    pub async fn add_peer(&self, peer: NewPeer) -> Result<Peer, PeerError> {
        self.engine.write(Weight::ONE, move |tx| peers::add(tx, peer)).await
    }

    /// Performs the edits in one transaction.
    pub async fn edit_peer(&self, key: &KeyId, edits: Vec<PeerEdit>) -> Result<Peer, PeerError> {
        let key = *key;
        self.engine.write(Weight::ONE, move |tx| peers::edit(tx, key, edits)).await
    }

    /// Removes a peer. What lies here for it stays.
    pub async fn remove_peer(&self, key: &KeyId) -> Result<(), PeerError> {
        let key = *key;
        self.engine.write(Weight::ONE, move |tx| peers::remove(tx, key)).await?;
        self.engine.with_notes(|notes| notes.forget(&key));
        Ok(())
    }

    /// Hears of every change to the peers, after it is durable. Who lags reads [`Store::peers`] again.
    pub fn peer_events(&self) -> broadcast::Receiver<PeerEvent> {
        self.engine.peer_events()
    }

    /// Remembers a pairing token.
    pub async fn add_token(&self, token: NewToken) -> Result<Token, StoreError> {
        self.engine.write(Weight::ONE, move |tx| pairing::add_token(tx, token)).await
    }

    /// All tokens that can still be used, oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let now = self.engine.clock().wall();
        self.engine.read(move |connection| pairing::tokens(connection, now)).await
    }

    /// Makes a token useless.
    pub async fn cancel_token(&self, id: u64) -> Result<(), PeerError> {
        self.engine.write(Weight::ONE, move |tx| pairing::cancel_token(tx, id)).await
    }

    /// Remembers a token of the admin listener.
    pub async fn add_admin_token(&self, token: NewAdminToken) -> Result<AdminToken, StoreError> {
        self.engine.write(Weight::ONE, move |tx| admin_tokens::add(tx, token)).await
    }

    /// All tokens of the admin listener, oldest first; expired ones for a while.
    pub async fn admin_tokens(&self) -> Result<Vec<AdminToken>, StoreError> {
        self.engine.read(admin_tokens::list).await
    }

    /// The token of the admin listener with this hash, expired or not.
    pub async fn find_admin_token(&self, hash: [u8; 32]) -> Result<Option<AdminToken>, StoreError> {
        self.engine.read(move |connection| admin_tokens::find(connection, &hash)).await
    }

    /// Remembers that a token of the admin listener was used.
    pub async fn note_admin_token_used(&self, id: u64) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| admin_tokens::note_used(tx, id)).await
    }

    /// Forgets a token of the admin listener; what it was, if it was there.
    pub async fn revoke_admin_token(&self, id: u64) -> Result<Option<AdminToken>, StoreError> {
        self.engine.write(Weight::ONE, move |tx| admin_tokens::revoke(tx, id)).await
    }

    /// Writes an audit record for something that changes no row.
    pub async fn note_audit(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| audit_rows::write(tx, &event)).await
    }

    /// Writes that somebody was refused; when it happens often it is counted instead.
    pub async fn note_refusal(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| events::refused(tx, event)).await
    }

    /// A daemon of this version starts, or has ended everything.
    pub async fn note_started(&self, version: &'static str) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, move |tx| audit_rows::started(tx, version)).await
    }

    /// See [`Store::note_started`].
    pub async fn note_stopped(&self) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, |tx| audit_rows::stopped(tx)).await
    }

    /// Records which tokens have expired since this was called last.
    pub async fn note_expired_tokens(&self) -> Result<(), StoreError> {
        self.engine.write(Weight::ONE, pairing::note_expired_tokens).await
    }

    /// Audit records from `since` on, oldest first, at most [`MAX_PAGE_ROWS`] after number `after`.
    pub async fn audit(&self, since: Option<UnixMs>, after: u64) -> Result<Vec<AuditRecord>, StoreError> {
        self.engine.read(move |connection| audit_rows::list(connection, since, after)).await
    }

    /// Recomputes the chain of audit records.
    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        self.engine.verify_audit().await
    }
}

/// Lists.
impl Store {
    /// A page of live operations, newest first.
    pub async fn operations(&self, query: OpsQuery) -> Result<OpsPage, StoreError> {
        self.engine.read(move |connection| lists::operations(connection, &query)).await
    }

    /// One live operation by its number here.
    pub async fn operation(&self, id: OpId) -> Result<Option<OpRow>, StoreError> {
        self.engine
            .read(move |connection| lists::live_row(connection, &mut lists::Names::default(), id))
            .await
    }

    /// All owners whose operations lie here, this instance first, then by name.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        let mut hosts = self.engine.read(lists::hosts).await?;
        self.engine.with_notes(|notes| {
            for host in &mut hosts {
                host.last_seen_unix_ms = host.last_seen_unix_ms.max(notes.seen(&host.owner));
            }
        });
        Ok(hosts)
    }

    /// What freshness is judged by, for every plan of every owner, or of one.
    pub async fn plans(&self, owner: Option<KeyId>) -> Result<Vec<PlanFacts>, StoreError> {
        self.engine.read(move |connection| lists::plans(connection, owner)).await
    }

    /// Recomputes everything about an owner from the stored bytes; changes nothing.
    pub async fn verify_host(&self, owner: &KeyId) -> Result<HostCheck, StoreError> {
        let key = *owner;
        let read = move |connection: &_| {
            let owner = peers::find_owner(connection, &key)?.ok_or(StoreError::UnknownOwner(key))?;
            verify::verify(connection, owner)
        };
        self.engine.read(read).await
    }

    /// Operations of an owner that were set aside: at most [`MAX_PAGE_ROWS`] with a number above `after`.
    pub async fn parked(&self, owner: &KeyId, after: u64) -> Result<Vec<ParkedRow>, StoreError> {
        let key = *owner;
        let read = move |connection: &_| {
            let owner = peers::find_owner(connection, &key)?.ok_or(StoreError::UnknownOwner(key))?;
            lists::parked(connection, owner, after)
        };
        self.engine.read(read).await
    }

    /// The operator lets a quarantined owner be repaired again.
    pub async fn release(&self, owner: &KeyId) -> Result<(), PeerError> {
        let key = *owner;
        self.engine.write(Weight::ONE, move |tx| peers::release(tx, key)).await
    }

    /// Deletes everything that is kept of an owner that is not let in any more, a bounded number of rows at a time. Cut
    /// off, it goes on when it is called again; until it is over, no session of this owner begins.
    pub async fn forget_host(&self, owner: &KeyId) -> Result<Forgotten, PeerError> {
        let key = *owner;
        self.engine.write(Weight::ONE, move |tx| forget::begin(tx, key)).await?;
        self.engine.drop_hasher(owner);
        loop {
            if let Some(forgotten) = self.engine.write(forget::STEP, move |tx| forget::step(tx, key)).await? {
                return Ok(forgotten);
            }
        }
    }

    /// Owners whose forgetting was begun and is not over.
    pub async fn half_forgotten(&self) -> Result<Vec<KeyId>, StoreError> {
        self.engine.read(forget::unfinished).await
    }

    /// The operator decides about an owner that presented a superseded incarnation.
    pub async fn resolve(&self, owner: &KeyId, resolution: Resolution) -> Result<(), PeerError> {
        let key = *owner;
        self.engine.write(Weight::ONE, move |tx| peers::resolve(tx, key, resolution)).await
    }

    /// Follows changes to the live operations in commit order. Who lags is told so by the channel.
    ///
    /// A read after this shows what was committed before, and the channel has what is committed later: a change can
    /// be in both, never in neither. So this waits for the transaction that is under way.
    pub async fn subscribe(&self) -> Result<broadcast::Receiver<StoreEvent>, StoreError> {
        let events = self.engine.events();
        self.engine.write(Weight::ONE, move |_| Ok(events.subscribe())).await
    }
}

/// How much of a group commit these changes use up.
fn weigh(changes: &[OwnChange]) -> Weight {
    let bytes = |change: &OwnChange| match change {
        OwnChange::Create { record, .. } => record.as_bytes().len(),
        OwnChange::Update { .. } | OwnChange::Delete { .. } => 0,
    };
    Weight { operations: changes.len(), bytes: changes.iter().map(bytes).sum() }
}

/// How much of a group commit a replica's transaction uses up.
fn weigh_transaction(transaction: &Transaction) -> Weight {
    let (operations, tombstones) = match transaction {
        Transaction::Ops { ops, .. } => (ops.operations.as_slice(), ops.tombstones.len()),
        Transaction::Answer { answer, .. } => (answer.operations.as_slice(), 0),
        Transaction::State { .. } | Transaction::Matchpoint(_) | Transaction::Mark(_) => return Weight::ONE,
    };
    Weight {
        operations: operations.len() + tombstones,
        bytes: operations.iter().map(|operation| operation.record.as_bytes().len()).sum(),
    }
}
