//! Recomputing everything about one owner from the stored bytes, a row at a time. Changes nothing.

use opmesh_core::model::{KeyId, Modno, OpId, OwnerHasher, PublicKey, Record, RowHash, Scope, SetDigest};
use rusqlite::{Connection, Row};

use super::memory::stored_total;
use super::value::Columnar as _;
use crate::store::{BadOperation, HostCheck, MAX_BAD_OPERATIONS, RowFault, StoreError};

/// Checks an owner's rows against their bytes, the id index and the digests.
pub(in crate::store) fn verify(connection: &Connection, owner: i64) -> Result<HostCheck, StoreError> {
    let (key_id, log_key): ([u8; 32], [u8; 32]) = connection
        .prepare_cached("SELECT key_id, log_key FROM owners WHERE owner = ?1")?
        .query_row([owner], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut check = Check {
        hasher: OwnerHasher::new(&PublicKey(log_key)),
        result: HostCheck {
            owner: KeyId::from_bytes(key_id),
            computed: SetDigest::EMPTY,
            stored: stored_total(connection, owner)?,
            bad_operations: Vec::new(),
        },
    };
    check.indexed_rows(connection, owner)?;
    check.unindexed_rows(connection, owner)?;
    Ok(check.result)
}

struct Check {
    hasher: OwnerHasher,
    result: HostCheck,
}

impl Check {
    fn indexed_rows(&mut self, connection: &Connection, owner: i64) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT i.original_id, i.local_id, i.modno, o.modno, o.original_flow_id, g.repo_id, g.plan_id, o.kind,
                    o.status, o.start_unix_ms, o.end_unix_ms, o.row_hash, o.record
             FROM ids AS i LEFT JOIN operations AS o ON o.local_id = i.local_id AND o.owner = i.owner
                 AND o.original_id = i.original_id
             LEFT JOIN groups AS g ON g.group_id = o.group_id
             WHERE i.owner = ?1 AND i.modno IS NOT NULL ORDER BY i.original_id",
        )?;
        let mut rows = statement.query([owner])?;
        while let Some(row) = rows.next()? {
            if let Some(fault) = self.row(row)? {
                self.bad(row.op_id(1)?, fault);
            }
        }
        Ok(())
    }

    /// Adds the row, as its bytes are, to the computed digest; the first fault of it.
    fn row(&mut self, row: &Row<'_>) -> Result<Option<RowFault>, StoreError> {
        let Some(modno) = row.get::<_, Option<i64>>(3)? else { return Ok(Some(RowFault::Missing)) };
        let bytes: Vec<u8> = row.get(12)?;
        let Ok(modno) = Modno::from_i64(modno) else { return Ok(Some(RowFault::Modno)) };
        let computed = self.hasher.parts(row.op_id(0)?, modno, row.flow_id(4)?, &bytes);
        self.result.computed.add(computed);
        if row.get::<_, i64>(2)? != modno.to_i64() {
            return Ok(Some(RowFault::Modno));
        }
        if row.get::<_, [u8; 16]>(11).ok().map(RowHash) != Some(computed) {
            return Ok(Some(RowFault::RecordHash));
        }
        let Ok(record) = Record::parse(bytes) else { return Ok(Some(RowFault::Record)) };
        let scope = row.get::<_, Option<String>>(5)?.zip(row.get::<_, Option<String>>(6)?);
        if scope.map(|(repo, plan)| Scope { repo, plan }).as_ref() != Some(record.scope()) {
            return Ok(Some(RowFault::Scope));
        }
        Ok((row.columns(7)? != *record.columns()).then_some(RowFault::Columns))
    }

    /// Rows that the id index does not name: none should be there, so their number is looked at first.
    fn unindexed_rows(&mut self, connection: &Connection, owner: i64) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT o.local_id FROM groups AS g
             JOIN operations AS o INDEXED BY operations_by_group ON o.group_id = g.group_id
             LEFT JOIN ids AS i ON i.owner = o.owner AND i.original_id = o.original_id
                 AND i.local_id = o.local_id AND i.modno IS NOT NULL
             WHERE g.owner = ?1 AND i.owner IS NULL",
        )?;
        let mut rows = statement.query([owner])?;
        while let Some(row) = rows.next()? {
            self.bad(row.op_id(0)?, RowFault::Unindexed);
        }
        Ok(())
    }

    fn bad(&mut self, id: OpId, fault: RowFault) {
        if self.result.bad_operations.len() < MAX_BAD_OPERATIONS {
            self.result.bad_operations.push(BadOperation { id, fault });
        }
    }
}
