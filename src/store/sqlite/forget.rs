//! Forgetting an owner: everything that is kept of it goes, in transactions of a bounded size.
//!
//! What is under way stands in a table, so that a forgetting that was cut off goes on, and no session begins before it
//! is over. Numbers that were given out are never given out again: the allocator does not look at rows.

use opmesh_core::model::{KeyId, OpId};
use rusqlite::{Connection, params};

use super::peer_rows;
use super::peers::{fence, find_owner, note};
use super::schema::OWN;
use super::tx::Tx;
use super::value::{Columnar as _, count, counted};
use super::writer::Weight;
use crate::store::{AuditKind, Change, Forgotten, PeerError, StoreError};

/// Schema 2: owners that are being forgotten, with what is gone so far.
pub(super) const FORGETTING: &str = "
CREATE TABLE forgetting (
    owner INTEGER PRIMARY KEY REFERENCES owners,
    operations INTEGER NOT NULL,
    parked INTEGER NOT NULL
) STRICT;
";

/// Rows that one transaction removes: a few milliseconds, so that others hardly wait.
const STEP_ROWS: i64 = 1000;
/// What a step counts in a group commit: it is one by itself.
pub(in crate::store) const STEP: Weight = Weight { operations: 1000, bytes: 0 };

/// What goes with the rows, each bounded by them: every statement removes at most ?2 rows of the owner ?1.
const REST: [&str; 5] = [
    "DELETE FROM ids WHERE owner = ?1 AND original_id IN
         (SELECT original_id FROM ids WHERE owner = ?1 ORDER BY original_id LIMIT ?2)",
    "DELETE FROM flows WHERE owner = ?1 AND original_flow_id IN
         (SELECT original_flow_id FROM flows WHERE owner = ?1 ORDER BY original_flow_id LIMIT ?2)",
    "DELETE FROM staged WHERE owner = ?1 AND original_id IN
         (SELECT original_id FROM staged WHERE owner = ?1 ORDER BY original_id LIMIT ?2)",
    "DELETE FROM superseded WHERE owner = ?1 AND incarnation IN
         (SELECT incarnation FROM superseded WHERE owner = ?1 ORDER BY incarnation LIMIT ?2)",
    "DELETE FROM groups WHERE group_id IN
         (SELECT group_id FROM groups WHERE owner = ?1 ORDER BY repo_id, plan_id LIMIT ?2)",
];

/// Begins, or goes on with one that was begun: from here on no session of this owner commits anything. A host that
/// could come back by itself is refused: it would bring everything back.
pub(in crate::store) fn begin(tx: &mut Tx<'_>, key: KeyId) -> Result<(), PeerError> {
    let owner = find_owner(tx.connection, &key)?.ok_or(StoreError::UnknownOwner(key))?;
    if owner == OWN {
        return Err(PeerError::OwnKey(key));
    }
    let peer = peer_rows::one(tx.connection, &key)?;
    if let Some(peer) = peer.filter(|peer| peer.roles.authorized_client && peer.blocked.is_none()) {
        return Err(PeerError::StillAllowed { name: peer.name });
    }
    let begun = tx
        .connection
        .prepare_cached("INSERT OR IGNORE INTO forgetting (owner, operations, parked) VALUES (?1, 0, 0)")
        .and_then(|mut statement| statement.execute([owner]))
        .map_err(StoreError::from)?;
    if begun == 1 {
        fence(tx, &key)?;
        note(tx, AuditKind::HostForgetBegun, key, name(tx.connection, owner)?)?;
    }
    Ok(())
}

/// Removes a bounded number of rows; what is gone in all, once nothing is left.
pub(in crate::store) fn step(tx: &mut Tx<'_>, key: KeyId) -> Result<Option<Forgotten>, StoreError> {
    let owner = find_owner(tx.connection, &key)?.ok_or(StoreError::UnknownOwner(key))?;
    let operations = remove_operations(tx, owner)?;
    let parked = if operations == 0 { remove_parked(tx.connection, owner)? } else { 0 };
    tx.connection
        .prepare_cached(
            "UPDATE forgetting SET operations = operations + ?2, parked = parked + ?3 WHERE owner = ?1",
        )?
        .execute(params![owner, operations, count(parked)])?;
    if operations > 0 || parked > 0 {
        return Ok(None);
    }
    for statement in REST {
        if tx.connection.prepare_cached(statement)?.execute([owner, STEP_ROWS])? > 0 {
            return Ok(None);
        }
    }
    finish(tx, key, owner).map(Some)
}

/// Owners whose forgetting was cut off.
pub(in crate::store) fn unfinished(connection: &Connection) -> Result<Vec<KeyId>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT w.key_id FROM forgetting AS f JOIN owners AS w ON w.owner = f.owner")?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(row.key_id(0)?);
    }
    Ok(keys)
}

/// Whether this owner is being forgotten.
pub(in crate::store) fn is_under_way(connection: &Connection, owner: i64) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached("SELECT 1 FROM forgetting WHERE owner = ?1")?.exists([owner])?)
}

fn remove_operations(tx: &mut Tx<'_>, owner: i64) -> Result<i64, StoreError> {
    let mut found = Vec::new();
    {
        let mut statement = tx.connection.prepare_cached(
            "SELECT o.local_id, o.group_id, o.row_hash FROM groups AS g
             CROSS JOIN operations AS o ON o.group_id = g.group_id WHERE g.owner = ?1 LIMIT ?2",
        )?;
        let mut rows = statement.query([owner, STEP_ROWS])?;
        while let Some(row) = rows.next()? {
            found.push((row.op_id(0)?, row.get::<_, i64>(1)?, row.row_hash(2)?));
        }
    }
    let mut removed = 0;
    for (local_id, group, hash) in found {
        let local_id: OpId = local_id;
        tx.tell(Change::Deleted, local_id)?;
        removed += i64::from(tx.delete_row(owner, local_id, group, hash)?);
    }
    Ok(removed)
}

fn remove_parked(connection: &Connection, owner: i64) -> Result<u64, StoreError> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM parked WHERE parked_id IN
                 (SELECT parked_id FROM parked WHERE owner = ?1 ORDER BY original_id LIMIT ?2)",
        )?
        .execute([owner, STEP_ROWS])?;
    Ok(u64::try_from(removed).unwrap_or(u64::MAX))
}

fn finish(tx: &mut Tx<'_>, key: KeyId, owner: i64) -> Result<Forgotten, StoreError> {
    let name = name(tx.connection, owner)?;
    let (operations, parked): (i64, i64) = tx
        .connection
        .prepare_cached("DELETE FROM forgetting WHERE owner = ?1 RETURNING operations, parked")?
        .query_row([owner], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for statement in ["DELETE FROM replicas WHERE owner = ?1", "DELETE FROM owners WHERE owner = ?1"] {
        tx.connection.prepare_cached(statement)?.execute([owner])?;
    }
    tx.connection.prepare_cached("DELETE FROM peer_configs WHERE key_id = ?1")?.execute([key.as_bytes()])?;
    // The number may be given to another owner.
    tx.memory.forget(owner);
    let forgotten = Forgotten { name, operations: counted(operations), parked: counted(parked) };
    let detail = format!(
        "{}: {} operations and {} parked ones",
        forgotten.name, forgotten.operations, forgotten.parked
    );
    note(tx, AuditKind::HostForgotten, key, detail)?;
    Ok(forgotten)
}

fn name(connection: &Connection, owner: i64) -> Result<String, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM owners WHERE owner = ?1")?;
    Ok(statement.query_row([owner], |row| row.get(0))?)
}
