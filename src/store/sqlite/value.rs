//! From columns to the model's types and from engine errors to ours.

use opmesh_core::model::{
    Chain, Columns, FlowId, KeyId, Kind, Modno, OpId, Position, RowHash, SetDigest, Status,
};
use rusqlite::{ErrorCode, Row};

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    /// After a failure of the disk or of the file's structure the outcome is unknown: the store stops.
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase,
            ) => Self::Stopped { reason },
            _ => Self::Engine { reason },
        }
    }
}

/// Reports a stored value that its type refuses.
pub(super) fn stored<T, E: ToString>(what: &'static str, value: Result<T, E>) -> Result<T, StoreError> {
    value.map_err(|error| StoreError::BadValue { what, reason: error.to_string() })
}

/// Reads typed values from a row by column number.
pub(super) trait Columnar {
    /// An operation id.
    fn op_id(&self, at: usize) -> Result<OpId, StoreError>;
    /// A flow id.
    fn flow_id(&self, at: usize) -> Result<FlowId, StoreError>;
    /// A modno.
    fn modno(&self, at: usize) -> Result<Modno, StoreError>;
    /// A chain.
    fn chain(&self, at: usize) -> Result<Chain, StoreError>;
    /// A modno and the chain in the next column.
    fn position(&self, at: usize) -> Result<Position, StoreError>;
    /// A row hash.
    fn row_hash(&self, at: usize) -> Result<RowHash, StoreError>;
    /// A sum and the count in the next column.
    fn digest(&self, at: usize) -> Result<SetDigest, StoreError>;
    /// A key ID.
    fn key_id(&self, at: usize) -> Result<KeyId, StoreError>;
    /// Kind, status, start and end in four columns.
    fn columns(&self, at: usize) -> Result<Columns, StoreError>;
}

impl Columnar for Row<'_> {
    fn op_id(&self, at: usize) -> Result<OpId, StoreError> {
        stored("operation id", OpId::from_i64(self.get(at)?))
    }

    fn flow_id(&self, at: usize) -> Result<FlowId, StoreError> {
        stored("flow id", FlowId::from_i64(self.get(at)?))
    }

    fn modno(&self, at: usize) -> Result<Modno, StoreError> {
        stored("modno", Modno::from_i64(self.get(at)?))
    }

    fn chain(&self, at: usize) -> Result<Chain, StoreError> {
        Ok(Chain(self.get(at)?))
    }

    fn position(&self, at: usize) -> Result<Position, StoreError> {
        Ok(Position { modno: self.modno(at)?, chain: self.chain(at + 1)? })
    }

    fn row_hash(&self, at: usize) -> Result<RowHash, StoreError> {
        Ok(RowHash(self.get(at)?))
    }

    fn digest(&self, at: usize) -> Result<SetDigest, StoreError> {
        Ok(SetDigest::from_parts(self.get(at)?, stored("count", u64::try_from(self.get::<_, i64>(at + 1)?))?))
    }

    fn key_id(&self, at: usize) -> Result<KeyId, StoreError> {
        Ok(KeyId::from_bytes(self.get(at)?))
    }

    fn columns(&self, at: usize) -> Result<Columns, StoreError> {
        let number = |at: usize| Ok::<_, StoreError>(u32::try_from(self.get::<_, i64>(at)?).unwrap_or(0));
        Ok(Columns {
            kind: Kind::from_field(number(at)?),
            status: Status::from_number(number(at + 1)?),
            start_unix_ms: self.get(at + 2)?,
            end_unix_ms: self.get(at + 3)?,
        })
    }
}

/// A count as a column holds it; no set that a disk can hold comes near the limit.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count from a column.
pub(super) fn counted(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
