//! The words of the protocol as types: numbers, positions, hashes, records, operations.
//!
//! Everything here is plain data with its rule of validity; nothing decides anything. A value that exists is valid:
//! the constructors refuse the rest.

mod hash;
mod identity;
mod number;
mod operation;
mod position;
mod record;

pub use hash::{ChainEntry, OwnerHasher, RowHash, SetDigest};
pub use identity::{InstanceId, KeyId, NameFault, PublicKey};
pub use number::{ConfigModno, FlowId, Incarnation, Modno, NumberFault, OpId, ProcessNonce, UnixMs};
pub use operation::{Operation, Scope, Tombstone};
pub use position::{Chain, Position};
pub use record::{Columns, Kind, MAX_RECORD_BYTES, Record, RecordFault, Status};
