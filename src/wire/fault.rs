//! One variant for each way in which bytes are not a message. Always the peer's fault.

use opmesh_core::diff::EntriesFault;
use opmesh_core::model::{NameFault, NumberFault, RecordFault};
use opmesh_core::succession::SuccessionFault;

use super::decode::MESSAGE_BYTES;
use crate::config_doc::DocumentFault;

/// Why a frame was refused. The text names the rule; `transport/status.rs` maps it to a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// Not protobuf.
    #[error("frame cannot be decoded: {0}")]
    Undecodable(String),
    /// Longer than the decoder takes; it was not read.
    #[error("message exceeds the limit of {MESSAGE_BYTES} bytes")]
    MessageTooLarge,
    /// No body, or one that this version does not know.
    #[error("frame has no known body")]
    UnknownBody,
    /// A message of the wrong phase: sync before the handshake is done, handshake after it, or out of order.
    #[error("{message} came where {expected} was expected")]
    OutOfPlace {
        /// What came.
        message: &'static str,
        /// What belongs here.
        expected: &'static str,
    },
    /// A field that must be set is not.
    #[error("{field} is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field is set that the rest of the message rules out.
    #[error("{field} does not belong here")]
    Surplus {
        /// Its name.
        field: &'static str,
    },
    /// A number outside its range.
    #[error(transparent)]
    Number(#[from] NumberFault),
    /// Bytes of a fixed length have another one.
    #[error("{field} has {bytes} bytes instead of {expected}")]
    Length {
        /// Its name.
        field: &'static str,
        /// What came.
        bytes: usize,
        /// What belongs there.
        expected: usize,
    },
    /// More elements than the limit.
    #[error("{count} {what} exceed the limit of {limit}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many came.
        count: usize,
        /// How many may.
        limit: usize,
    },
    /// More bytes than the limit.
    #[error("{what} of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What is measured.
        what: &'static str,
        /// How much came.
        bytes: usize,
        /// How much may.
        limit: usize,
    },
    /// An operation whose record is none.
    #[error("operation {id}: {fault}")]
    Record {
        /// The operation.
        id: u64,
        /// What is wrong with its bytes.
        fault: RecordFault,
    },
    /// Manifest entries or id lists that are not ascending or not inside their range.
    #[error("{message}: {fault}")]
    Entries {
        /// Where they stand.
        message: &'static str,
        /// Where they break.
        fault: EntriesFault,
    },
    /// Elements out of order, or outside the range that the message announces.
    #[error("{what} {value} is out of order or outside {range}")]
    Order {
        /// What is ordered.
        what: &'static str,
        /// The first that is wrong.
        value: u64,
        /// The announced range, in words.
        range: &'static str,
    },
    /// A position at change 0 with a chain; nothing happened before the first change.
    #[error("a position at 0 has a chain")]
    ChainBeforeFirstChange,
    /// An enumeration's value that this version does not know.
    #[error("{field} {value} is unknown")]
    Unknown {
        /// Its name.
        field: &'static str,
        /// What came.
        value: i32,
    },
    /// A tombstone without a repository or a plan.
    #[error("tombstone of operation {id} has no {field}")]
    TombstoneScope {
        /// The operation.
        id: u64,
        /// Which one is empty.
        field: &'static str,
    },
    /// A configuration, a change or a list of names that cannot be read, or is not valid.
    #[error("{message}: {fault}")]
    Document {
        /// Where it stands.
        message: &'static str,
        /// What is wrong with it.
        fault: DocumentFault,
    },
    /// A scope list that cannot be read.
    #[error("{field} {text:?}: {reason}")]
    Scopes {
        /// Its name.
        field: &'static str,
        /// What came, shortened.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A succession that does not hold.
    #[error(transparent)]
    Succession(#[from] SuccessionFault),
    /// An instance id that is none.
    #[error(transparent)]
    Name(#[from] NameFault),
}
