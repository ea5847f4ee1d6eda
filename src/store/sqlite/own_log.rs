//! The own log: changes in, each with its modno, chain, checkpoint, digest and, for a delete, tombstone.

use opmesh_core::model::{
    ChainEntry, FlowId, Incarnation, Modno, OpId, Operation, OwnerHasher, Position, Record, RowHash,
};
use rusqlite::params;

use super::audit;
use super::schema::OWN;
use super::tx::{NewRow, Tx, missing};
use super::value::{Columnar as _, stored};
use crate::store::{
    AppendError, Appended, AuditEvent, AuditKind, Change, Edit, Flow, OnceKey, OwnChange, Refused, StoreError,
};

/// Performs the changes in order; the job around it makes them one. The error names the first that cannot be.
pub(in crate::store) fn append(
    tx: &mut Tx<'_>,
    changes: Vec<OwnChange>,
) -> Result<Vec<Appended>, AppendError> {
    let hasher = tx.memory.hasher(OWN, tx.connection)?;
    let mut log = OwnLog { tx, hasher };
    let mut appended = Vec::with_capacity(changes.len());
    for (index, change) in changes.into_iter().enumerate() {
        appended.push(log.perform(change).map_err(|reason| AppendError { index, reason })?);
    }
    if !appended.is_empty() {
        log.save_head()?;
    }
    Ok(appended)
}

/// As [`append`], unless the key was used before.
pub(in crate::store) fn append_once(
    tx: &mut Tx<'_>,
    key: OnceKey,
    changes: Vec<OwnChange>,
) -> Result<Option<Vec<Appended>>, AppendError> {
    let take = || {
        let mut insert =
            tx.connection.prepare_cached("INSERT OR IGNORE INTO taken (once_key) VALUES (?1)")?;
        Ok::<_, StoreError>(insert.execute([key.0])?)
    };
    if take()? == 0 { Ok(None) } else { append(tx, changes).map(Some) }
}

/// Begins a new life of the log under a label that was drawn at random.
pub(in crate::store) fn take_incarnation(
    tx: &mut Tx<'_>,
    label: Incarnation,
) -> Result<Incarnation, StoreError> {
    tx.connection
        .prepare_cached("UPDATE meta SET incarnation = ?1 WHERE one = 1")?
        .execute([label.to_i64()])?;
    let detail = format!("{} is now {label}", tx.memory.incarnation);
    audit::write(tx, &AuditEvent { event: AuditKind::OwnRollback, peer: None, detail })?;
    tx.memory.incarnation = label;
    Ok(label)
}

struct OwnLog<'t, 'w> {
    tx: &'t mut Tx<'w>,
    hasher: OwnerHasher,
}

/// A live own operation.
struct Live {
    operation: Operation,
    group: i64,
    hash: RowHash,
}

impl OwnLog<'_, '_> {
    fn perform(&mut self, change: OwnChange) -> Result<Appended, Refused> {
        match change {
            OwnChange::Create { flow, record } => self.create(flow, record),
            OwnChange::Update { id, expect_modno, edit } => self.update(id, expect_modno, edit),
            OwnChange::Delete { id, expect_modno } => self.delete(id, expect_modno),
        }
    }

    fn create(&mut self, flow: Flow, record: Record) -> Result<Appended, Refused> {
        let id = self.tx.next_op_id()?;
        let flow_id = match flow {
            Flow::New => self.tx.insert_flow(OWN, None)?,
            Flow::Join(flow_id) => self.known_flow(flow_id)?,
        };
        let group = self.tx.group(OWN, record.scope())?;
        let operation = Operation { id, flow_id, modno: self.next_modno()?, record };
        let hash = self.hasher.row(&operation);
        let row = own_row(&operation, group, hash);
        self.tx.insert_id(&row)?;
        self.tx.insert_row(&row)?;
        self.step(operation.modno, id, ChainEntry::Stored(hash))?;
        self.tx.tell(Change::Created, id)?;
        Ok(Appended { id, flow_id, modno: operation.modno })
    }

    fn update(&mut self, id: OpId, expect: Option<Modno>, edit: Edit) -> Result<Appended, Refused> {
        let old = self.live(id, expect)?;
        let record = edit.apply(&old.operation.record).map_err(Refused::Edit)?;
        require_same(id, &old.operation.record, &record)?;
        let operation = Operation { id, flow_id: old.operation.flow_id, modno: self.next_modno()?, record };
        let hash = self.hasher.row(&operation);
        if !self.tx.replace_row(&own_row(&operation, old.group, hash), old.group, old.hash)? {
            return Err(missing("operation", id.to_i64()).into());
        }
        self.set_id_modno(&operation)?;
        self.step(operation.modno, id, ChainEntry::Stored(hash))?;
        self.tx.tell(Change::Updated, id)?;
        Ok(Appended { id, flow_id: operation.flow_id, modno: operation.modno })
    }

    fn delete(&mut self, id: OpId, expect: Option<Modno>) -> Result<Appended, Refused> {
        let old = self.live(id, expect)?;
        let modno = self.next_modno()?;
        self.tx.tell(Change::Deleted, id)?;
        if !self.tx.delete_row(OWN, id, old.group, old.hash)? {
            return Err(missing("operation", id.to_i64()).into());
        }
        self.bury(id, modno, old.group)?;
        self.step(modno, id, ChainEntry::Deleted)?;
        Ok(Appended { id, flow_id: old.operation.flow_id, modno })
    }

    fn live(&self, id: OpId, expect: Option<Modno>) -> Result<Live, Refused> {
        let live = self.look_up(id)?.ok_or(Refused::NoSuchOperation(id))??;
        match expect {
            Some(expected) if expected != live.operation.modno => {
                Err(Refused::Stale { id, expected, found: live.operation.modno })
            }
            _ => Ok(live),
        }
    }

    fn look_up(&self, id: OpId) -> Result<Option<Result<Live, Refused>>, StoreError> {
        let mut statement = self.tx.connection.prepare_cached(
            "SELECT flow_id, modno, group_id, row_hash, record FROM operations NOT INDEXED
             WHERE local_id = ?1 AND owner = ?2",
        )?;
        let mut rows = statement.query(params![id.to_i64(), OWN])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let record = match Record::parse(row.get(4)?) {
            Ok(record) => record,
            Err(fault) => return Ok(Some(Err(Refused::Damaged { id, fault }))),
        };
        let operation = Operation { id, flow_id: row.flow_id(0)?, modno: row.modno(1)?, record };
        Ok(Some(Ok(Live { operation, group: row.get(2)?, hash: row.row_hash(3)? })))
    }

    fn known_flow(&self, flow: FlowId) -> Result<FlowId, Refused> {
        let known = || {
            let sql = "SELECT 1 FROM flows WHERE owner = ?1 AND original_flow_id = ?2";
            let mut statement = self.tx.connection.prepare_cached(sql)?;
            Ok::<_, StoreError>(statement.exists(params![OWN, flow.to_i64()])?)
        };
        if known()? { Ok(flow) } else { Err(Refused::NoSuchFlow(flow)) }
    }

    fn next_modno(&self) -> Result<Modno, StoreError> {
        Ok(self.tx.memory.head.modno.next()?)
    }

    /// The change becomes part of the history.
    fn step(&mut self, modno: Modno, id: OpId, entry: ChainEntry) -> Result<(), StoreError> {
        let memory = &mut *self.tx.memory;
        memory.head = memory.head.advance(memory.incarnation, modno, id, entry);
        self.tx
            .connection
            .prepare_cached("INSERT INTO checkpoints (modno, chain) VALUES (?1, ?2)")?
            .execute(params![modno.to_i64(), memory.head.chain.0])?;
        Ok(())
    }

    fn save_head(&mut self) -> Result<(), StoreError> {
        let head: Position = self.tx.memory.head;
        self.tx
            .connection
            .prepare_cached("UPDATE meta SET head_modno = ?1, head_chain = ?2 WHERE one = 1")?
            .execute(params![head.modno.to_i64(), head.chain.0])?;
        self.tx.effects.head = Some(head);
        Ok(())
    }

    fn set_id_modno(&self, operation: &Operation) -> Result<(), StoreError> {
        let updated = self
            .tx
            .connection
            .prepare_cached("UPDATE ids SET modno = ?3 WHERE owner = ?1 AND original_id = ?2")?
            .execute(params![OWN, operation.id.to_i64(), operation.modno.to_i64()])?;
        if updated == 1 { Ok(()) } else { Err(missing("id", operation.id.to_i64())) }
    }

    fn bury(&self, id: OpId, modno: Modno, group: i64) -> Result<(), StoreError> {
        self.tx
            .connection
            .prepare_cached("DELETE FROM ids WHERE owner = ?1 AND original_id = ?2")?
            .execute(params![OWN, id.to_i64()])?;
        self.tx
            .connection
            .prepare_cached("INSERT INTO tombstones (modno, id, group_id) VALUES (?1, ?2, ?3)")?
            .execute(params![modno.to_i64(), id.to_i64(), group])?;
        Ok(())
    }
}

fn own_row(operation: &Operation, group: i64, hash: RowHash) -> NewRow<'_> {
    NewRow {
        owner: OWN,
        local_id: operation.id,
        original_id: operation.id,
        modno: operation.modno.to_i64(),
        original_flow_id: operation.flow_id,
        flow_id: operation.flow_id,
        group,
        hash,
        record: &operation.record,
    }
}

/// A move is a delete and a create; here only the rest may change.
fn require_same(id: OpId, old: &Record, new: &Record) -> Result<(), Refused> {
    let what = if old.scope().repo != new.scope().repo {
        "repo_id"
    } else if old.scope().plan != new.scope().plan {
        "plan_id"
    } else if old.columns().kind != new.columns().kind {
        "kind"
    } else {
        return Ok(());
    };
    Err(Refused::Fixed { id, what })
}

/// A label for a new life of the log.
pub(in crate::store) fn draw_incarnation() -> Result<Incarnation, StoreError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Engine { reason: error.to_string() })?;
    stored("incarnation", Incarnation::new(u64::from_le_bytes(bytes) >> 1))
}
