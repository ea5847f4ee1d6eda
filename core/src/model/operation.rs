//! An operation and its tombstone as they travel.

use super::number::{FlowId, Modno, OpId};
use super::record::Record;

/// One thing that a backup tool did, as its owner wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The owner's number for it; never reused.
    pub id: OpId,
    /// The run that it belongs to.
    pub flow_id: FlowId,
    /// The change that last touched it.
    pub modno: Modno,
    /// The owner's bytes, stored verbatim.
    pub record: Record,
}

/// Where an operation belongs: what permissions are written about. It never changes; a move is a delete and a create.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The repository id, exactly as in the record.
    pub repo: String,
    /// The plan id, exactly as in the record.
    pub plan: String,
}

/// What a delete leaves behind, so that it can be told to hubs and filtered like the operation was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The operation that is gone.
    pub id: OpId,
    /// The change that deleted it.
    pub modno: Modno,
    /// Where it belonged.
    pub scope: Scope,
}
