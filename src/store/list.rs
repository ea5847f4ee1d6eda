//! What lists ask of the store and what they are shown.

use std::sync::Arc;

use opmesh_core::model::{
    Columns, FlowId, Incarnation, InstanceId, KeyId, Kind, Modno, OpId, Position, Record, Scope, SetDigest,
    Status, UnixMs,
};
use opmesh_core::replica::ParkReason;

/// Which operations; all conditions must hold, an empty list is no condition, one of several entries must fit.
#[derive(Debug, Clone, Default)]
pub struct OpsQuery {
    /// Their owners.
    pub hosts: Vec<KeyId>,
    /// Their repositories.
    pub repos: Vec<String>,
    /// Their plans.
    pub plans: Vec<String>,
    /// Their kinds.
    pub kinds: Vec<Kind>,
    /// Their statuses.
    pub statuses: Vec<Status>,
    /// Their runs, by the number here.
    pub flows: Vec<FlowId>,
    /// Begun at or after.
    pub since: Option<UnixMs>,
    /// Begun before.
    pub until: Option<UnixMs>,
    /// Go on after this place.
    pub after: Option<OpsCursor>,
    /// Most rows; [`MAX_PAGE_ROWS`] when it is larger or 0.
    pub limit: usize,
}

/// Most rows of one page of a list, so that a reading transaction stays short and a page small.
pub const MAX_PAGE_ROWS: usize = 512;

/// A place in the list of operations: the last row that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpsCursor {
    /// When that operation began.
    pub start_unix_ms: i64,
    /// Its number here.
    pub id: OpId,
}

/// A page of operations, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpsPage {
    /// By start, then id, both descending.
    pub rows: Vec<OpRow>,
    /// Where the next page goes on; none when this was the last one.
    pub next: Option<OpsCursor>,
}

/// A stored operation, own or another owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRow {
    /// Its number here; for own operations also the original one.
    pub id: OpId,
    /// Who wrote it.
    pub owner: KeyId,
    /// What that owner is called here.
    pub host: String,
    /// The owner's number.
    pub original_id: OpId,
    /// The run's number here.
    pub flow_id: FlowId,
    /// The owner's number for the run.
    pub original_flow_id: FlowId,
    /// The owner's change that last touched it.
    pub modno: Modno,
    /// Where it belongs.
    pub scope: Scope,
    /// Kind, status and times.
    pub columns: Columns,
    /// When it was stored here.
    pub received_unix_ms: UnixMs,
    /// The owner's bytes; none when they have rotted, which `hosts verify` names.
    pub record: Option<Record>,
}

/// An operation that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// The copy's own number; also the place after which a list goes on.
    pub parked_id: u64,
    /// Why.
    pub reason: ParkReason,
    /// When.
    pub parked_unix_ms: UnixMs,
    /// What.
    pub operation: OpRow,
}

/// An owner whose operations lie here, this instance included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// Who.
    pub owner: KeyId,
    /// What it is called here.
    pub name: String,
    /// The label that it gave itself, when one is known.
    pub instance: Option<InstanceId>,
    /// This instance.
    pub is_self: bool,
    /// Live operations.
    pub set: SetDigest,
    /// Own log: the head. Others: the cursor, up to which everything is here.
    pub position: Position,
    /// Rows set aside.
    pub parked: u64,
    /// Of these, rows that the mass-delete guard set aside: an operator must look.
    pub guarded: u64,
    /// Start of the newest operation.
    pub last_run_unix_ms: Option<UnixMs>,
    /// End of the newest backup that went well.
    pub last_success_unix_ms: Option<UnixMs>,
    /// When its last session was seen.
    pub last_seen_unix_ms: Option<UnixMs>,
    /// Since when repairs are given up.
    pub quarantined: Option<UnixMs>,
    /// A superseded label that it presented: an operator must decide.
    pub conflict: Option<Incarnation>,
    /// A diff is owed or under way.
    pub catching_up: bool,
}

/// What freshness is judged by: the backups of one plan of one owner in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFacts {
    /// Whose.
    pub owner: KeyId,
    /// Which.
    pub scope: Scope,
    /// When its oldest operation was stored here.
    pub first_seen_unix_ms: UnixMs,
    /// Start of the newest backup.
    pub last_start_unix_ms: Option<UnixMs>,
    /// How the newest finished backup went.
    pub last_finished: Option<Status>,
    /// End of the newest backup that went well (success or warning), its start where no end was noted, never later
    /// than its receipt.
    pub last_success_unix_ms: Option<UnixMs>,
    /// The newest backup has not finished.
    pub running: bool,
}

/// The result of recomputing everything about one owner from the stored bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCheck {
    /// Who.
    pub owner: KeyId,
    /// From the stored bytes.
    pub computed: SetDigest,
    /// What the store says.
    pub stored: SetDigest,
    /// What is wrong, by the number here; at most [`MAX_BAD_OPERATIONS`].
    pub bad_operations: Vec<BadOperation>,
}

/// Most bad operations that one check names; a store with more is beyond naming them.
pub const MAX_BAD_OPERATIONS: usize = 10_000;

impl HostCheck {
    /// The stored bytes prove what the store says.
    pub fn equal(&self) -> bool {
        self.bad_operations.is_empty() && self.computed == self.stored
    }
}

/// One row that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadOperation {
    /// Its number here.
    pub id: OpId,
    /// What is wrong.
    pub fault: RowFault,
}

/// What is wrong with a stored row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    /// The bytes do not hash to the stored row hash.
    RecordHash,
    /// The bytes are no record.
    Record,
    /// The row is filed under another repository or plan than its bytes say.
    Scope,
    /// Kind, status or times beside the bytes differ from them.
    Columns,
    /// The id index has another modno.
    Modno,
    /// The id index names a row that is not there.
    Missing,
    /// The row is not in the id index.
    Unindexed,
}

impl RowFault {
    /// The name in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordHash => "record_hash",
            Self::Record => "record",
            Self::Scope => "scope",
            Self::Columns => "columns",
            Self::Modno => "modno",
            Self::Missing => "missing",
            Self::Unindexed => "unindexed",
        }
    }
}

/// A change to the live operations, own and others', in commit order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEvent {
    /// What happened.
    pub change: Change,
    /// The operation after it; for a delete, as it was.
    pub operation: Arc<OpRow>,
}

/// What happened to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new here.
    Created,
    /// It has other bytes.
    Updated,
    /// It is gone, or was set aside.
    Deleted,
}

/// What a look at the file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// The database's size, without its log.
    pub bytes: u64,
    /// What SQLite's quick check found, at most a few; none when the file is too large for a look.
    pub faults: Option<Vec<String>>,
    /// The latest moment that this instance's own clock has written here.
    pub newest: UnixMs,
}

/// What was deleted with an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// What it was called.
    pub name: String,
    /// Live operations.
    pub operations: u64,
    /// Parked ones.
    pub parked: u64,
}

/// The store itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFacts {
    /// `sqlite`.
    pub engine: &'static str,
    /// The schema's number.
    pub schema: u32,
    /// The file.
    pub path: std::path::PathBuf,
    /// Whose it is.
    pub own: KeyId,
    /// The name that the owner gave itself, once it is known.
    pub instance: Option<InstanceId>,
    /// This life of the own log.
    pub incarnation: Incarnation,
    /// The own log's last change.
    pub head: Position,
    /// The own live operations.
    pub set: SetDigest,
}
