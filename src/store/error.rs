//! What can go wrong in the store, sorted by who must act: the machine ([`StoreError`]), the author of a change to the
//! own log ([`AppendError`]), the operator who edits peers ([`PeerError`]).

use std::path::PathBuf;

use opmesh_core::model::{FlowId, KeyId, Modno, NumberFault, OpId, RecordFault};

/// The store did not do what was asked, and nothing of it happened unless the text says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store stopped for good in this process. The outcome of the calls that were under way is unknown until it
    /// is opened again.
    #[error("the store stopped: {reason}; check the disk, then start again")]
    Stopped {
        /// What the database engine said.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A newer session, a revocation or a grant change came first; nothing was applied.
    #[error("this session no longer speaks for its peer: a newer session or a change of grants came first")]
    Fenced,
    /// There is a file where a new store was to be made.
    #[error("{} exists already; it was left as it is", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// There is no store.
    #[error("{} does not exist; run `opmesh init` first", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is not a store of this program.
    #[error("{} is not an opmesh store; it was left as it is, restore it from a backup or choose another data folder", path.display())]
    NotAStore {
        /// Where.
        path: PathBuf,
    },
    /// A newer program wrote the store.
    #[error("{} has schema {found}, this program knows schemas up to {known}; use a newer opmesh", path.display())]
    NewerSchema {
        /// Where.
        path: PathBuf,
        /// What it has.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The store belongs to another identity.
    #[error("{} belongs to {stored}, not to {own}; the identity key and the store must come from the same instance", path.display())]
    OtherIdentity {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        stored: KeyId,
        /// Who opened it.
        own: KeyId,
    },
    /// The store cannot be read: damaged, or the operating system refused.
    #[error("{} cannot be used: {reason}; check the disk, or restore the store from a backup", path.display())]
    Unusable {
        /// Where.
        path: PathBuf,
        /// What the database engine or the operating system said.
        reason: String,
    },
    /// There is no room for what opening the store writes.
    #[error("{} cannot be opened: its disk is full; make room, nothing was changed", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// A copy of the store could not be written.
    #[error("the copy {} could not be written: {reason}; make room or choose another place, the store is as it was", path.display())]
    NotCopied {
        /// Where it should be.
        path: PathBuf,
        /// What the database engine or the operating system said.
        reason: String,
    },
    /// What should be restored is a database that was copied without its log.
    #[error("{} lies beside {}, so that what was committed last is missing there; give a file that `opmesh store backup` wrote", log.display(), path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// Its log.
        log: PathBuf,
    },
    /// A stored value breaks a rule of the model: the file was altered from outside or has rotted.
    #[error("a stored {what} is not valid: {reason}; `opmesh hosts verify --all` shows the extent")]
    BadValue {
        /// Which kind of value.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database engine failed in a way that leaves the store usable.
    #[error("the store could not do this: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// The database engine linked into this program is too old to be trusted with several connections.
    #[error("SQLite {found} is older than {needed}; build with the bundled one")]
    OldEngine {
        /// The version linked.
        found: &'static str,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// Nothing is stored about this owner.
    #[error("nothing is stored for {0}")]
    UnknownOwner(KeyId),
    /// The owner's log has no change with this number.
    #[error("this log has no change {0}")]
    UnknownPosition(Modno),
    /// All 2⁶³ numbers of a kind are used up.
    #[error(transparent)]
    Exhausted(#[from] NumberFault),
}

/// A change to the own log was refused; none of the call's changes happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change {index}: {reason}")]
pub struct AppendError {
    /// The position of the first bad change in the call, from 0.
    pub index: usize,
    /// Why.
    pub reason: Refused,
}

/// Why a change to the own log was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such operation of this instance.
    #[error("there is no operation {0} of this instance")]
    NoSuchOperation(OpId),
    /// There is no such flow of this instance.
    #[error("there is no flow {0} of this instance")]
    NoSuchFlow(FlowId),
    /// The operation has changed since the caller looked.
    #[error("operation {id} is at modno {found}, not {expected}; look at it again")]
    Stale {
        /// Which.
        id: OpId,
        /// What the caller expected.
        expected: Modno,
        /// What it is.
        found: Modno,
    },
    /// An update would move the operation or change its kind.
    #[error("operation {id} cannot change its {what}; delete it and create another")]
    Fixed {
        /// Which.
        id: OpId,
        /// `repo_id`, `plan_id` or `kind`.
        what: &'static str,
    },
    /// The caller's edit refused.
    #[error("{0}")]
    Edit(String),
    /// The stored bytes are no record any more.
    #[error("the stored record of operation {id} is damaged: {fault}")]
    Damaged {
        /// Which.
        id: OpId,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change to the peers was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No peer or host has this name, instance id or key ID.
    #[error(
        "no peer or host is called {0:?}; give a name, an instance id, a key ID or at least 8 characters of one"
    )]
    Unknown(String),
    /// Several do.
    #[error("{text:?} could be {}; give more of the key ID", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Their names and key IDs.
        candidates: Vec<String>,
    },
    /// The name is taken by another peer.
    #[error("the name {0:?} is taken by another peer; choose another one")]
    NameTaken(String),
    /// A peer with this key exists already.
    #[error("{name} ({key}) is a peer already; change it with `opmesh peer set {name}`")]
    Exists {
        /// Its name.
        name: String,
        /// Its key.
        key: KeyId,
    },
    /// This is the instance's own key.
    #[error("{0} is this instance itself")]
    OwnKey(KeyId),
    /// The key ID that the operator confirmed is not the peer's.
    #[error("the key ID of {name} is {stored}, not {given}; do not trust this peer before you know why")]
    OtherKey {
        /// The peer.
        name: String,
        /// Its key ID.
        stored: KeyId,
        /// What the operator gave.
        given: KeyId,
    },
    /// The grants cannot be changed in this way.
    #[error("{0}")]
    Grants(String),
    /// There is no such pairing token.
    #[error("there is no pairing token {0}; see `opmesh pair tokens`")]
    NoSuchToken(u64),
    /// Another key stands for this one, or it would stand for itself.
    #[error("{0} cannot: another key stands for it already, or it is the same one")]
    IsRetired(KeyId),
    /// There is no adoption to take back.
    #[error("{0} was not adopted; see `opmesh hosts list`")]
    NotAdopted(KeyId),
    /// The host would come back and bring everything with it.
    #[error(
        "{name} may still connect, and would send everything again; `opmesh peer remove {name}` or `opmesh peer block {name}` first"
    )]
    StillAllowed {
        /// Its name.
        name: String,
    },
    /// The owner has nothing to decide on.
    #[error("{0} is in no identity conflict; there is nothing to resolve")]
    NothingToResolve(KeyId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
