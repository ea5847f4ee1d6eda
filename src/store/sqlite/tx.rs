//! One job inside the writer's transaction: the steps that own operations and replicas share.
//!
//! Statements that find one row of `operations` by its number say NOT INDEXED: while SQLite may weigh the indexes of
//! one owner's rows against an owner that is bound, it plans such a statement anew each time it is run.

use std::collections::HashMap;
use std::sync::Arc;

use opmesh_core::model::{ConfigModno, FlowId, OpId, Position, Record, RowHash, Scope, SetDigest, UnixMs};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::lists::{Names, live_row};
use super::memory::{Block, Memory, stored_total};
use super::value::{Columnar as _, count, stored};
use crate::store::{Change, PeerEvent, StoreError, StoreEvent};

/// Numbers reserved at a time. A crash skips at most so many.
const BLOCK: i64 = 1024;

/// What the world is told once a transaction is durable.
#[derive(Debug, Default)]
pub(in crate::store) struct Effects {
    pub(in crate::store) events: Vec<StoreEvent>,
    pub(in crate::store) peers: Vec<PeerEvent>,
    pub(in crate::store) head: Option<Position>,
    pub(in crate::store) config: Option<ConfigModno>,
}

/// The running job's view of the store.
pub(in crate::store) struct Tx<'w> {
    pub(in crate::store) connection: &'w Connection,
    pub(in crate::store) memory: &'w mut Memory,
    pub(in crate::store) effects: &'w mut Effects,
    pub(in crate::store) now: UnixMs,
    /// Whether anybody listens to changes of operations. Whoever begins to listen does so in a job, so that this
    /// cannot become true between a job and its COMMIT.
    pub(in crate::store) watched: bool,
    /// Changes to the digests of groups, written once at the end of the job.
    deltas: HashMap<i64, SetDigest>,
    inserts: Inserts<'w>,
}

/// The statements of every new row: a job looks each of them up once, not once a row.
#[derive(Default)]
struct Inserts<'w> {
    operation: Option<CachedStatement<'w>>,
    id: Option<CachedStatement<'w>>,
    flow: Option<CachedStatement<'w>>,
}

/// The statement of this place, looked up when it is empty.
fn ready<'s, 'w>(
    place: &'s mut Option<CachedStatement<'w>>,
    connection: &'w Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'w>> {
    match place {
        Some(statement) => Ok(statement),
        empty => Ok(empty.insert(connection.prepare_cached(sql)?)),
    }
}

impl<'w> Tx<'w> {
    pub(in crate::store) fn new(
        connection: &'w Connection,
        memory: &'w mut Memory,
        effects: &'w mut Effects,
        now: UnixMs,
        watched: bool,
    ) -> Self {
        Self {
            connection,
            memory,
            effects,
            now,
            watched,
            deltas: HashMap::new(),
            inserts: Inserts::default(),
        }
    }

    /// Writes what the job has collected; the last step inside its savepoint.
    pub(in crate::store) fn settle(&mut self) -> Result<(), StoreError> {
        for (group, delta) in std::mem::take(&mut self.deltas) {
            if delta == SetDigest::EMPTY {
                continue;
            }
            let mut read =
                self.connection.prepare_cached("SELECT sum, count FROM groups WHERE group_id = ?1")?;
            let mut rows = read.query([group])?;
            let row = rows.next()?.ok_or_else(|| missing("group", group))?;
            let set = row.digest(0)?.union(delta);
            drop(rows);
            self.connection
                .prepare_cached("UPDATE groups SET sum = ?2, count = ?3 WHERE group_id = ?1")?
                .execute(params![group, set.sum_bytes(), count(set.count())])?;
        }
        Ok(())
    }

    /// A number for an operation, never given out before.
    pub(in crate::store) fn next_op_id(&mut self) -> Result<OpId, StoreError> {
        let id = next(&mut self.memory.op_ids, self.connection, "UPDATE meta SET op_ids = ?1 WHERE one = 1")?;
        Ok(OpId::from_i64(id)?)
    }

    /// A number for a flow, never given out before.
    pub(in crate::store) fn next_flow_id(&mut self) -> Result<FlowId, StoreError> {
        let id =
            next(&mut self.memory.flow_ids, self.connection, "UPDATE meta SET flow_ids = ?1 WHERE one = 1")?;
        Ok(FlowId::from_i64(id)?)
    }

    /// The group of an owner's repository and plan, made when it is new.
    pub(in crate::store) fn group(&mut self, owner: i64, scope: &Scope) -> Result<i64, StoreError> {
        if let Some(group) = self.memory.group(owner, scope) {
            return Ok(group);
        }
        let found = self
            .connection
            .prepare_cached("SELECT group_id FROM groups WHERE owner = ?1 AND repo_id = ?2 AND plan_id = ?3")?
            .query_row(params![owner, scope.repo, scope.plan], |row| row.get(0))
            .optional()?;
        let group = match found {
            Some(group) => group,
            None => self
                .connection
                .prepare_cached(
                    "INSERT INTO groups (owner, repo_id, plan_id, sum, count, first_seen_unix_ms)
                     VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                )?
                .insert(params![owner, scope.repo, scope.plan, [0_u8; 16], self.now.0])?,
        };
        self.memory.keep_group(owner, scope.clone(), group);
        Ok(group)
    }

    /// A live row came.
    pub(in crate::store) fn count_in(&mut self, owner: i64, group: i64, hash: RowHash) {
        self.deltas.entry(group).or_default().add(hash);
        self.memory.change_total(owner, |total| total.add(hash));
    }

    /// A live row went.
    pub(in crate::store) fn count_out(&mut self, owner: i64, group: i64, hash: RowHash) {
        self.deltas.entry(group).or_default().remove(hash);
        self.memory.change_total(owner, |total| total.remove(hash));
    }

    /// The digest of an owner's live rows as they are now.
    pub(in crate::store) fn total(&mut self, owner: i64) -> Result<SetDigest, StoreError> {
        if self.deltas.is_empty() {
            return self.memory.total(owner, self.connection);
        }
        // The deltas belong to the one owner whose job this is, and are not in the tables yet; a total that was
        // remembered before has followed them.
        let unwritten = self.deltas.values().fold(SetDigest::EMPTY, |sum, delta| sum.union(*delta));
        match self.memory.remembered_total(owner) {
            Some(total) => Ok(total),
            None => Ok(stored_total(self.connection, owner)?.union(unwritten)),
        }
    }

    /// Stores the live row of an operation that has none.
    pub(in crate::store) fn insert_row(&mut self, row: &NewRow<'_>) -> Result<(), StoreError> {
        let columns = row.record.columns();
        let sql = "INSERT INTO operations (local_id, owner, original_id, modno, original_flow_id, flow_id, group_id,
                       kind, status, start_unix_ms, end_unix_ms, received_unix_ms, row_hash, record)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        ready(&mut self.inserts.operation, self.connection, sql)?.execute(params![
            row.local_id.to_i64(),
            row.owner,
            row.original_id.to_i64(),
            row.modno,
            row.original_flow_id.to_i64(),
            row.flow_id.to_i64(),
            row.group,
            columns.kind.field(),
            columns.status.number(),
            columns.start_unix_ms,
            columns.end_unix_ms,
            self.now.0,
            row.hash.0,
            row.record.as_bytes(),
        ])?;
        self.count_in(row.owner, row.group, row.hash);
        Ok(())
    }

    /// Stores the id of an operation that has none.
    pub(in crate::store) fn insert_id(&mut self, row: &NewRow<'_>) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO ids (owner, original_id, local_id, modno, group_id) VALUES (?1, ?2, ?3, ?4, ?5)";
        ready(&mut self.inserts.id, self.connection, sql)?.execute(params![
            row.owner,
            row.original_id.to_i64(),
            row.local_id.to_i64(),
            row.modno,
            row.group,
        ])?;
        Ok(())
    }

    /// Stores a flow of an owner under a new number, which is the answer.
    pub(in crate::store) fn insert_flow(
        &mut self,
        owner: i64,
        original: Option<FlowId>,
    ) -> Result<FlowId, StoreError> {
        let local = self.next_flow_id()?;
        let sql = "INSERT INTO flows (owner, original_flow_id, local_flow_id) VALUES (?1, ?2, ?3)";
        ready(&mut self.inserts.flow, self.connection, sql)?.execute(params![
            owner,
            original.unwrap_or(local).to_i64(),
            local.to_i64(),
        ])?;
        Ok(local)
    }

    /// Replaces the live row of an operation; false when there is none.
    pub(in crate::store) fn replace_row(
        &mut self,
        row: &NewRow<'_>,
        old_group: i64,
        old_hash: RowHash,
    ) -> Result<bool, StoreError> {
        let columns = row.record.columns();
        let replaced = self
            .connection
            .prepare_cached(
                "UPDATE operations NOT INDEXED
                 SET modno = ?3, original_flow_id = ?4, flow_id = ?5, group_id = ?6, kind = ?7,
                     status = ?8, start_unix_ms = ?9, end_unix_ms = ?10, received_unix_ms = ?11, row_hash = ?12,
                     record = ?13
                 WHERE local_id = ?1 AND owner = ?2 AND row_hash = ?14",
            )?
            .execute(params![
                row.local_id.to_i64(),
                row.owner,
                row.modno,
                row.original_flow_id.to_i64(),
                row.flow_id.to_i64(),
                row.group,
                columns.kind.field(),
                columns.status.number(),
                columns.start_unix_ms,
                columns.end_unix_ms,
                self.now.0,
                row.hash.0,
                row.record.as_bytes(),
                old_hash.0,
            ])?;
        if replaced == 1 {
            self.count_out(row.owner, old_group, old_hash);
            self.count_in(row.owner, row.group, row.hash);
        }
        Ok(replaced == 1)
    }

    /// Deletes a live row; false when there is none.
    pub(in crate::store) fn delete_row(
        &mut self,
        owner: i64,
        local_id: OpId,
        group: i64,
        hash: RowHash,
    ) -> Result<bool, StoreError> {
        let deleted = self
            .connection
            .prepare_cached(
                "DELETE FROM operations NOT INDEXED WHERE local_id = ?1 AND owner = ?2 AND row_hash = ?3",
            )?
            .execute(params![local_id.to_i64(), owner, hash.0])?;
        if deleted == 1 {
            self.count_out(owner, group, hash);
        }
        Ok(deleted == 1)
    }

    /// Notes a change for those who watch, with the row as it is now: call it after a change, before a delete.
    pub(in crate::store) fn tell(&mut self, change: Change, local_id: OpId) -> Result<(), StoreError> {
        if !self.watched {
            return Ok(());
        }
        if let Some(row) = live_row(self.connection, &mut Names::default(), local_id)? {
            self.effects.events.push(StoreEvent { change, operation: Arc::new(row) });
        }
        Ok(())
    }
}

/// A live row to be written.
pub(in crate::store) struct NewRow<'r> {
    pub(in crate::store) owner: i64,
    pub(in crate::store) local_id: OpId,
    pub(in crate::store) original_id: OpId,
    pub(in crate::store) modno: i64,
    pub(in crate::store) original_flow_id: FlowId,
    pub(in crate::store) flow_id: FlowId,
    pub(in crate::store) group: i64,
    pub(in crate::store) hash: RowHash,
    pub(in crate::store) record: &'r Record,
}

/// A row that another row names is not there.
pub(in crate::store) fn missing(what: &'static str, number: i64) -> StoreError {
    StoreError::BadValue { what, reason: format!("number {number} is not there") }
}

/// The next number of a block; reserves another block, in this transaction, when it is used up.
fn next(block: &mut Block, connection: &Connection, reserve: &str) -> Result<i64, StoreError> {
    let number = stored("number", block.used.checked_add(1).ok_or("all numbers are used"))?;
    if number > block.reserved {
        let reserved = number.saturating_add(BLOCK - 1);
        connection.prepare_cached(reserve)?.execute([reserved])?;
        block.reserved = reserved;
    }
    block.used = number;
    Ok(number)
}
