//! One owner's rows inside the running job: what the hub's rules ask of a store.
//!
//! Bulk steps walk the rows a page at a time, so that memory does not grow with what they set aside.

use std::collections::{HashMap, VecDeque};

use opmesh_core::model::{
    FlowId, Incarnation, Modno, OpId, Operation, OwnerHasher, RowHash, Scope, SetDigest, UnixMs,
};
use opmesh_core::permission::View;
use opmesh_core::replica::{Held, ParkReason, Replica, Rows, StagedFate, Transaction};
use rusqlite::{OptionalExtension as _, params};

use super::memory::Known;
use super::replica_row;
use super::tx::{NewRow, Tx, missing};
use super::value::{Columnar as _, count, counted, stored};
use crate::store::{Change, StoreError};

/// Rows that a bulk step holds in memory at a time.
const PAGE: i64 = 1024;

/// The hashes of a transaction's operations, in their order: made by the caller's thread, because the writer's is the
/// one that all wait for.
pub(in crate::store) type HashedRows = VecDeque<(OpId, Modno, RowHash)>;

/// Hashes what a transaction brings.
pub(in crate::store) fn hash_rows(hasher: OwnerHasher, transaction: &Transaction) -> HashedRows {
    let operations = match transaction {
        Transaction::Ops { ops, .. } => ops.operations.as_slice(),
        Transaction::Answer { answer, .. } => answer.operations.as_slice(),
        Transaction::State { .. } | Transaction::Matchpoint(_) | Transaction::Mark(_) => &[],
    };
    let hash = |operation: &Operation| (operation.id, operation.modno, hasher.row(operation));
    operations.iter().map(hash).collect()
}

/// One owner's rows in the running job.
pub(super) struct OwnerRows<'t, 'w> {
    tx: &'t mut Tx<'w>,
    owner: i64,
    hasher: OwnerHasher,
    /// Hashes of rows that are about to be put, in that order; some may be passed over.
    hashed: HashedRows,
    /// The last id that was looked up and is not known; spares [`Rows::put`] the same look-up.
    unknown: Option<OpId>,
    /// Whether the owner has parked copies; most have none, and then no row needs to look for its own.
    has_parked: Option<bool>,
    loaded: Option<Replica>,
}

impl<'t, 'w> OwnerRows<'t, 'w> {
    pub(super) fn new(tx: &'t mut Tx<'w>, owner: i64) -> Result<Self, StoreError> {
        let hasher = tx.memory.hasher(owner, tx.connection)?;
        Ok(Self {
            tx,
            owner,
            hasher,
            hashed: HashedRows::default(),
            unknown: None,
            has_parked: None,
            loaded: None,
        })
    }

    /// As [`OwnerRows::new`], for a transaction whose rows were hashed before.
    pub(super) fn with_hashes(
        tx: &'t mut Tx<'w>,
        owner: i64,
        hashed: HashedRows,
    ) -> Result<Self, StoreError> {
        Ok(Self { hashed, ..Self::new(tx, owner)? })
    }

    fn hash(&mut self, operation: &Operation) -> RowHash {
        while let Some((id, modno, hash)) = self.hashed.pop_front() {
            if (id, modno) == (operation.id, operation.modno) {
                return hash;
            }
        }
        self.hasher.row(operation)
    }

    /// What is known about an id: from memory, else from the tables.
    fn known(&mut self, id: OpId) -> Result<Option<Known>, StoreError> {
        let highest = self.tx.memory.highest(self.owner, self.tx.connection)?.id;
        if self.unknown == Some(id) || id.to_i64() > highest {
            return Ok(None);
        }
        if let Some(known) = self.tx.memory.id(self.owner, id) {
            return Ok(Some(known));
        }
        let known = self.look_up(id)?;
        match known {
            Some(known) => self.tx.memory.keep_id(self.owner, id, known),
            None => self.unknown = Some(id),
        }
        Ok(known)
    }

    fn look_up(&self, id: OpId) -> Result<Option<Known>, StoreError> {
        let mut statement = self.tx.connection.prepare_cached(
            "SELECT i.local_id, i.group_id, i.modno, o.row_hash
             FROM ids AS i LEFT JOIN operations AS o NOT INDEXED ON o.local_id = i.local_id
             WHERE i.owner = ?1 AND i.original_id = ?2",
        )?;
        let mut rows = statement.query(params![self.owner, id.to_i64()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let live = match row.get::<_, Option<i64>>(2)? {
            Some(modno) => {
                Some(Held { modno: stored("modno", Modno::from_i64(modno))?, hash: row.row_hash(3)? })
            }
            None => None,
        };
        Ok(Some(Known { local_id: row.op_id(0)?, group: row.get(1)?, live }))
    }

    fn flow(&mut self, flow: FlowId) -> Result<FlowId, StoreError> {
        if flow.to_i64() > self.tx.memory.highest(self.owner, self.tx.connection)?.flow {
            return self.new_flow(flow);
        }
        if let Some(local) = self.tx.memory.flow(self.owner, flow) {
            return Ok(local);
        }
        let Some(local) = self.look_up_flow(flow)? else { return self.new_flow(flow) };
        self.tx.memory.keep_flow(self.owner, flow, local);
        Ok(local)
    }

    fn look_up_flow(&self, flow: FlowId) -> Result<Option<FlowId>, StoreError> {
        let found: Option<i64> = self
            .tx
            .connection
            .prepare_cached("SELECT local_flow_id FROM flows WHERE owner = ?1 AND original_flow_id = ?2")?
            .query_row(params![self.owner, flow.to_i64()], |row| row.get(0))
            .optional()?;
        found.map(|local| stored("flow id", FlowId::from_i64(local))).transpose()
    }

    fn new_flow(&mut self, flow: FlowId) -> Result<FlowId, StoreError> {
        let local = self.tx.insert_flow(self.owner, Some(flow))?;
        let highest = self.tx.memory.highest(self.owner, self.tx.connection)?;
        highest.flow = highest.flow.max(flow.to_i64());
        self.tx.memory.keep_flow(self.owner, flow, local);
        Ok(local)
    }

    fn replace(&mut self, row: &NewRow<'_>, known: Known, held: Held) -> Result<(), StoreError> {
        self.index(row)?;
        if self.tx.replace_row(row, known.group, held.hash)? {
            return self.tx.tell(Change::Updated, row.local_id);
        }
        Err(missing("operation", row.local_id.to_i64()))
    }

    fn revive(&mut self, row: &NewRow<'_>) -> Result<(), StoreError> {
        self.index(row)?;
        self.tx.insert_row(row)?;
        self.tx.tell(Change::Created, row.local_id)
    }

    fn create(&mut self, row: &NewRow<'_>) -> Result<(), StoreError> {
        self.tx.insert_id(row)?;
        let highest = self.tx.memory.highest(self.owner, self.tx.connection)?;
        highest.id = highest.id.max(row.original_id.to_i64());
        self.tx.insert_row(row)?;
        self.tx.tell(Change::Created, row.local_id)
    }

    fn index(&mut self, row: &NewRow<'_>) -> Result<(), StoreError> {
        let updated = self
            .tx
            .connection
            .prepare_cached(
                "UPDATE ids SET modno = ?4, group_id = ?5
                 WHERE owner = ?1 AND original_id = ?2 AND local_id = ?3",
            )?
            .execute(params![
                self.owner,
                row.original_id.to_i64(),
                row.local_id.to_i64(),
                row.modno,
                row.group
            ])?;
        if updated == 1 { Ok(()) } else { Err(missing("id", row.original_id.to_i64())) }
    }

    fn drop_equal_copies(&mut self, id: OpId, modno: Modno, hash: RowHash) -> Result<(), StoreError> {
        if !self.has_parked()? {
            return Ok(());
        }
        self.tx
            .connection
            .prepare_cached(
                "DELETE FROM parked WHERE owner = ?1 AND original_id = ?2 AND modno = ?3 AND row_hash = ?4",
            )?
            .execute(params![self.owner, id.to_i64(), modno.to_i64(), hash.0])?;
        Ok(())
    }

    fn has_parked(&mut self) -> Result<bool, StoreError> {
        if let Some(known) = self.has_parked {
            return Ok(known);
        }
        let has = self
            .tx
            .connection
            .prepare_cached("SELECT 1 FROM parked WHERE owner = ?1 LIMIT 1")?
            .exists([self.owner])?;
        self.has_parked = Some(has);
        Ok(has)
    }

    /// Takes a live row out of the digest and the id index; its row in `operations` goes last.
    fn unlist(&mut self, id: OpId, copy: Option<(ParkReason, UnixMs)>) -> Result<(), StoreError> {
        let Some(known) = self.known(id)? else { return Ok(()) };
        let Some(held) = known.live else { return Ok(()) };
        self.tx.tell(Change::Deleted, known.local_id)?;
        if let Some((reason, now)) = copy {
            self.copy_aside(known.local_id, reason, now)?;
            self.has_parked = Some(true);
        }
        if !self.tx.delete_row(self.owner, known.local_id, known.group, held.hash)? {
            return Err(missing("operation", known.local_id.to_i64()));
        }
        self.tx
            .connection
            .prepare_cached("UPDATE ids SET modno = NULL WHERE owner = ?1 AND original_id = ?2")?
            .execute(params![self.owner, id.to_i64()])?;
        self.tx.memory.drop_id(self.owner, id);
        Ok(())
    }

    fn copy_aside(&self, local_id: OpId, reason: ParkReason, now: UnixMs) -> Result<(), StoreError> {
        self.tx
            .connection
            .prepare_cached(
                "INSERT INTO parked (owner, original_id, modno, original_flow_id, local_id, flow_id, group_id, kind,
                     status, start_unix_ms, end_unix_ms, received_unix_ms, row_hash, record, reason,
                     parked_unix_ms)
                 SELECT owner, original_id, modno, original_flow_id, local_id, flow_id, group_id, kind, status,
                     start_unix_ms, end_unix_ms, received_unix_ms, row_hash, record, ?2, ?3
                 FROM operations WHERE local_id = ?1",
            )?
            .execute(params![local_id.to_i64(), reason.name(), now.0])?;
        Ok(())
    }

    /// Takes away whatever a query lists, a page at a time; how many. Its parameters are the owner, a bound, the id to
    /// go on after, and the size of a page.
    fn unlist_all(
        &mut self,
        sql: &str,
        bound: i64,
        copy: Option<(ParkReason, UnixMs)>,
    ) -> Result<u64, StoreError> {
        let mut taken = 0;
        let mut after = 0;
        loop {
            let ids = self.page(sql, bound, after)?;
            let Some(last) = ids.last() else { return Ok(taken) };
            after = last.to_i64();
            for id in &ids {
                self.unlist(*id, copy)?;
                taken += 1;
            }
        }
    }

    fn page(&self, sql: &str, bound: i64, after: i64) -> Result<Vec<OpId>, StoreError> {
        let mut statement = self.tx.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.owner, bound, after, PAGE])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            ids.push(row.op_id(0)?);
        }
        Ok(ids)
    }

    /// Whether each of the owner's groups is in the view.
    fn groups_in(&self, view: &View) -> Result<HashMap<i64, bool>, StoreError> {
        let mut statement = self
            .tx
            .connection
            .prepare_cached("SELECT group_id, repo_id, plan_id FROM groups WHERE owner = ?1")?;
        let mut rows = statement.query([self.owner])?;
        let mut groups = HashMap::new();
        while let Some(row) = rows.next()? {
            let scope = Scope { repo: row.get(1)?, plan: row.get(2)? };
            groups.insert(row.get(0)?, view.includes(&scope));
        }
        Ok(groups)
    }

    /// A page of the copies that wait for equality, after this (id, number); the groups say which are in the view.
    fn waiting_copies(&self, groups: &HashMap<i64, bool>, after: (i64, i64)) -> Result<CopyPage, StoreError> {
        let mut statement = self.tx.connection.prepare_cached(
            "SELECT p.parked_id, p.original_id, p.group_id, p.reason, i.modno IS NOT NULL
             FROM parked AS p LEFT JOIN ids AS i ON i.owner = p.owner AND i.original_id = p.original_id
             WHERE p.owner = ?1 AND (p.original_id, p.parked_id) > (?2, ?3)
             ORDER BY p.original_id, p.parked_id LIMIT ?4",
        )?;
        let mut rows = statement.query(params![self.owner, after.0, after.1, PAGE])?;
        let mut page = CopyPage { copies: Vec::new(), last: None };
        while let Some(row) = rows.next()? {
            let copy = Copy { number: row.get(0)?, id: row.get(1)?, live: row.get(4)? };
            page.last = Some((copy.id, copy.number));
            let group: i64 = row.get(2)?;
            let waits = match ParkReason::from_name(row.get_ref(3)?.as_str().unwrap_or_default()) {
                Some(ParkReason::Restream | ParkReason::View) => groups.get(&group).copied().unwrap_or(false),
                Some(ParkReason::Fork | ParkReason::Guard) | None => false,
            };
            if waits {
                page.copies.push(copy);
            }
        }
        Ok(page)
    }
}

/// A parked copy that waits for equality.
struct Copy {
    number: i64,
    id: i64,
    live: bool,
}

/// Some of them, and where the next page goes on; none when there was nothing more.
struct CopyPage {
    copies: Vec<Copy>,
    last: Option<(i64, i64)>,
}

/// Before the first copy.
const FIRST_COPY: (i64, i64) = (0, 0);

impl Rows for OwnerRows<'_, '_> {
    type Error = StoreError;

    fn load(&mut self) -> Result<Replica, StoreError> {
        let replica = replica_row::load(self.tx.connection, self.owner)?;
        self.loaded = Some(replica.clone());
        Ok(replica)
    }

    fn save(&mut self, replica: &Replica) -> Result<(), StoreError> {
        if self.loaded.as_ref() == Some(replica) {
            return Ok(());
        }
        replica_row::save(self.tx.connection, self.owner, replica)
    }

    fn is_superseded(&mut self, incarnation: Incarnation) -> Result<bool, StoreError> {
        Ok(self
            .tx
            .connection
            .prepare_cached("SELECT 1 FROM superseded WHERE owner = ?1 AND incarnation = ?2")?
            .exists(params![self.owner, incarnation.to_i64()])?)
    }

    fn supersede(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.tx
            .connection
            .prepare_cached("INSERT OR IGNORE INTO superseded (owner, incarnation) VALUES (?1, ?2)")?
            .execute(params![self.owner, incarnation.to_i64()])?;
        Ok(())
    }

    fn reinstate(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.tx
            .connection
            .prepare_cached("DELETE FROM superseded WHERE owner = ?1 AND incarnation = ?2")?
            .execute(params![self.owner, incarnation.to_i64()])?;
        Ok(())
    }

    fn set(&mut self) -> Result<SetDigest, StoreError> {
        self.tx.total(self.owner)
    }

    fn held(&mut self, id: OpId) -> Result<Option<Held>, StoreError> {
        Ok(self.known(id)?.and_then(|known| known.live))
    }

    fn put(&mut self, operation: &Operation) -> Result<(), StoreError> {
        let hash = self.hash(operation);
        let known = self.known(operation.id)?;
        let row = NewRow {
            owner: self.owner,
            local_id: match known {
                Some(known) => known.local_id,
                None => self.tx.next_op_id()?,
            },
            original_id: operation.id,
            modno: operation.modno.to_i64(),
            original_flow_id: operation.flow_id,
            flow_id: self.flow(operation.flow_id)?,
            group: self.tx.group(self.owner, operation.record.scope())?,
            hash,
            record: &operation.record,
        };
        match known {
            None => self.create(&row)?,
            Some(known) => match known.live {
                Some(held) => self.replace(&row, known, held)?,
                None => self.revive(&row)?,
            },
        }
        self.unknown = None;
        let live = Some(Held { modno: operation.modno, hash });
        let now_known = Known { local_id: row.local_id, group: row.group, live };
        self.tx.memory.keep_id(self.owner, operation.id, now_known);
        self.drop_equal_copies(operation.id, operation.modno, hash)
    }

    fn remove(&mut self, id: OpId) -> Result<(), StoreError> {
        self.unlist(id, None)
    }

    fn park(&mut self, id: OpId, reason: ParkReason, now: UnixMs) -> Result<(), StoreError> {
        self.unlist(id, Some((reason, now)))
    }

    fn park_above(&mut self, modno: Modno, reason: ParkReason, now: UnixMs) -> Result<u64, StoreError> {
        let sql = "SELECT original_id FROM ids WHERE owner = ?1 AND modno > ?2 AND original_id > ?3
                   ORDER BY original_id LIMIT ?4";
        self.unlist_all(sql, modno.to_i64(), Some((reason, now)))
    }

    fn park_outside(&mut self, view: &View, now: UnixMs) -> Result<u64, StoreError> {
        let outside = self.groups_in(view)?.into_iter().filter(|(_, inside)| !inside);
        let sql = "SELECT original_id FROM ids WHERE owner = ?1 AND group_id = ?2 AND modno IS NOT NULL
                       AND original_id > ?3
                   ORDER BY original_id LIMIT ?4";
        let mut parked = 0;
        for (group, _) in outside {
            parked += self.unlist_all(sql, group, Some((ParkReason::View, now)))?;
        }
        Ok(parked)
    }

    fn keep_copies_above(&mut self, modno: Modno) -> Result<(), StoreError> {
        if !self.has_parked()? {
            return Ok(());
        }
        self.tx
            .connection
            .prepare_cached(
                "UPDATE parked SET reason = ?3 WHERE owner = ?1 AND modno > ?2 AND reason IN (?4, ?5)",
            )?
            .execute(params![
                self.owner,
                modno.to_i64(),
                ParkReason::Fork.name(),
                ParkReason::Restream.name(),
                ParkReason::View.name()
            ])?;
        Ok(())
    }

    fn absent_copies(&mut self, view: &View) -> Result<u64, StoreError> {
        if !self.has_parked()? {
            return Ok(0);
        }
        let groups = self.groups_in(view)?;
        let mut absent = 0;
        let mut last_absent = None;
        let mut page = self.waiting_copies(&groups, FIRST_COPY)?;
        while let Some(last) = page.last {
            for copy in page.copies.iter().filter(|copy| !copy.live) {
                if last_absent.replace(copy.id) != Some(copy.id) {
                    absent += 1;
                }
            }
            page = self.waiting_copies(&groups, last)?;
        }
        Ok(absent)
    }

    fn retire_copies(&mut self, view: &View, absent: StagedFate, now: UnixMs) -> Result<(), StoreError> {
        if !self.has_parked()? {
            return Ok(());
        }
        let groups = self.groups_in(view)?;
        let mut page = self.waiting_copies(&groups, FIRST_COPY)?;
        while let Some(last) = page.last {
            for copy in &page.copies {
                if copy.live || absent == StagedFate::Delete {
                    self.tx
                        .connection
                        .prepare_cached("DELETE FROM parked WHERE parked_id = ?1")?
                        .execute([copy.number])?;
                } else {
                    self.tx
                        .connection
                        .prepare_cached(
                            "UPDATE parked SET reason = ?2, parked_unix_ms = ?3 WHERE parked_id = ?1",
                        )?
                        .execute(params![copy.number, ParkReason::Guard.name(), now.0])?;
                }
            }
            page = self.waiting_copies(&groups, last)?;
        }
        Ok(())
    }

    fn stage(&mut self, lo: u64, hi: u64, listed: &[OpId], as_of: Modno) -> Result<(), StoreError> {
        let mut held = self.tx.connection.prepare_cached(
            "SELECT original_id, modno FROM ids
             WHERE owner = ?1 AND original_id >= ?2 AND original_id < ?3 AND modno <= ?4 ORDER BY original_id",
        )?;
        let mut stage = self.tx.connection.prepare_cached(
            "INSERT OR REPLACE INTO staged (owner, original_id, modno) VALUES (?1, ?2, ?3)",
        )?;
        let mut rows = held.query(params![self.owner, count(lo), count(hi), as_of.to_i64()])?;
        let mut listed = listed.iter().map(|id| id.to_i64()).peekable();
        while let Some(row) = rows.next()? {
            let (id, modno): (i64, i64) = (row.get(0)?, row.get(1)?);
            while listed.next_if(|listed| *listed < id).is_some() {}
            if listed.peek() != Some(&id) {
                stage.execute(params![self.owner, id, modno])?;
            }
        }
        Ok(())
    }

    fn staged(&mut self) -> Result<u64, StoreError> {
        let rows: i64 = self
            .tx
            .connection
            .prepare_cached(
                "SELECT count(*) FROM staged AS s
                 JOIN ids AS i ON i.owner = s.owner AND i.original_id = s.original_id AND i.modno = s.modno
                 WHERE s.owner = ?1",
            )?
            .query_row([self.owner], |row| row.get(0))?;
        Ok(counted(rows))
    }

    fn settle_staged(&mut self, fate: StagedFate, now: UnixMs) -> Result<(), StoreError> {
        let sql = "SELECT s.original_id FROM staged AS s
                   JOIN ids AS i ON i.owner = s.owner AND i.original_id = s.original_id AND i.modno = s.modno
                   WHERE s.owner = ?1 AND s.original_id >= ?2 AND s.original_id > ?3
                   ORDER BY s.original_id LIMIT ?4";
        let copy = match fate {
            StagedFate::Delete => None,
            StagedFate::Park => Some((ParkReason::Guard, now)),
        };
        self.unlist_all(sql, OpId::MIN.to_i64(), copy)?;
        self.clear_staged()
    }

    fn clear_staged(&mut self) -> Result<(), StoreError> {
        self.tx.connection.prepare_cached("DELETE FROM staged WHERE owner = ?1")?.execute([self.owner])?;
        Ok(())
    }
}
