//! Changes to the own log, as its author hands them in and hears of them.

use std::fmt;

use opmesh_core::model::{FlowId, Modno, OpId, Record};

/// One change; several of them are one atomic transaction.
#[derive(Debug)]
pub enum OwnChange {
    /// A new operation.
    Create {
        /// The run that it belongs to.
        flow: Flow,
        /// Its bytes, encoded once.
        record: Record,
    },
    /// New bytes for an operation of this instance. `repo_id`, `plan_id` and kind must stay.
    Update {
        /// Which.
        id: OpId,
        /// Refuse unless it is at this modno.
        expect_modno: Option<Modno>,
        /// From the stored record to the new one, run inside the transaction.
        edit: Edit,
    },
    /// Removes an operation of this instance; its tombstone travels to the hubs.
    Delete {
        /// Which.
        id: OpId,
        /// Refuse unless it is at this modno.
        expect_modno: Option<Modno>,
    },
}

/// The run that a new operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A new one.
    New,
    /// One of this instance's.
    Join(FlowId),
}

/// Makes the new record from the stored one, or says why it cannot.
pub struct Edit(Box<EditFn>);

type EditFn = dyn FnOnce(&Record) -> Result<Record, String> + Send;

impl Edit {
    /// Wraps the function.
    pub fn new(edit: impl FnOnce(&Record) -> Result<Record, String> + Send + 'static) -> Self {
        Self(Box::new(edit))
    }

    /// Runs it.
    pub fn apply(self, record: &Record) -> Result<Record, String> {
        (self.0)(record)
    }
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Edit(..)")
    }
}

/// What became of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The operation.
    pub id: OpId,
    /// Its run.
    pub flow_id: FlowId,
    /// The change's number.
    pub modno: Modno,
}

/// Makes an append happen once, however often it is asked for: the random name of a spooled result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnceKey(pub [u8; 16]);
