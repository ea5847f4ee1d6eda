//! What a session asks of the own log, and what a hub compares: each one short reading transaction.

use opmesh_core::diff::{Page, PageState, needs};
use opmesh_core::model::{
    Chain, Incarnation, Modno, OpId, Operation, Position, Record, Scope, SetDigest, Tombstone,
};
use opmesh_core::permission::View;
use opmesh_core::protocol::limits::{FRAME_OPERATIONS, FRAME_SCAN};
use opmesh_core::session::{Changes, Compare, Found, Here, ManifestPage, OperationsPage, Read};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::reader::Visible;
use super::schema::OWN;
use super::tx::missing;
use super::value::{Columnar as _, count, stored};
use crate::store::StoreError;

/// Ids that are looked at for one manifest, inside the view or not, so that its transaction stays short.
const MANIFEST_SCAN: usize = 262_144;

/// Answers a read; call it inside a transaction.
pub(in crate::store) fn read(connection: &Connection, read: &Read) -> Result<Found, StoreError> {
    Ok(match read {
        Read::Here { view } => Found::Here(here(connection, view)?),
        Read::Checkpoints { modnos } => Found::Checkpoints(checkpoints(connection, modnos)?),
        Read::Changes { after, view, frame_bytes } => {
            Found::Changes(changes(connection, *after, view, *frame_bytes)?)
        }
        Read::Manifest { lo, view } => Found::Manifest(manifest(connection, *lo, view)?),
        Read::Operations { ids, view, frame_bytes } => {
            Found::Operations(operations(connection, ids, view, *frame_bytes)?)
        }
    })
}

/// Which of the listed ids the hub lacks, or holds at another modno.
pub(in crate::store) fn compare(
    connection: &Connection,
    owner: i64,
    compare: &Compare,
) -> Result<Vec<OpId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT original_id, modno FROM ids
         WHERE owner = ?1 AND original_id >= ?2 AND original_id < ?3 AND modno IS NOT NULL ORDER BY original_id",
    )?;
    let mut rows = statement.query(params![owner, count(compare.lo), count(compare.hi)])?;
    let held = std::iter::from_fn(|| match rows.next() {
        Ok(Some(row)) => Some(row.op_id(0).and_then(|id| Ok((id, row.modno(1)?)))),
        Ok(None) => None,
        Err(error) => Some(Err(error.into())),
    });
    needs(&compare.entries, held)
}

fn here(connection: &Connection, view: &View) -> Result<Here, StoreError> {
    let incarnation = connection
        .prepare_cached("SELECT incarnation FROM meta WHERE one = 1")?
        .query_row([], |row| row.get(0))?;
    Ok(Here {
        incarnation: stored("incarnation", Incarnation::from_i64(incarnation))?,
        head: head(connection)?,
        set: set(connection, &mut Visible::through(view))?,
    })
}

/// The own log's last change, as this transaction sees it.
pub(in crate::store) fn head(connection: &Connection) -> Result<Position, StoreError> {
    let mut statement = connection.prepare_cached("SELECT head_modno, head_chain FROM meta WHERE one = 1")?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or(StoreError::BadValue { what: "meta", reason: "no row".to_owned() })?;
    row.position(0)
}

fn set(connection: &Connection, visible: &mut Visible<'_>) -> Result<SetDigest, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT group_id, sum, count FROM groups WHERE owner = ?1")?;
    let mut rows = statement.query([OWN])?;
    let mut set = SetDigest::EMPTY;
    while let Some(row) = rows.next()? {
        if visible.shows(connection, row.get(0)?)? {
            set = set.union(row.digest(1)?);
        }
    }
    Ok(set)
}

fn checkpoints(connection: &Connection, modnos: &[Modno]) -> Result<Vec<Position>, StoreError> {
    let mut found = Vec::with_capacity(modnos.len());
    for modno in modnos {
        if let Some(chain) = chain_at(connection, *modno)? {
            found.push(Position { modno: *modno, chain });
        }
    }
    Ok(found)
}

fn chain_at(connection: &Connection, modno: Modno) -> Result<Option<Chain>, StoreError> {
    let chain: Option<[u8; 16]> = connection
        .prepare_cached("SELECT chain FROM checkpoints WHERE modno = ?1")?
        .query_row([modno.to_i64()], |row| row.get(0))
        .optional()?;
    Ok(chain.map(Chain))
}

/// The change log after a position; the statement that the query-plan test looks at, too.
pub(in crate::store) const CHANGES: &str = "
    SELECT modno, group_id, local_id, 0 FROM operations WHERE owner = 1 AND modno > ?1
    UNION ALL
    SELECT modno, group_id, id, 1 FROM tombstones WHERE modno > ?1
    ORDER BY modno";

/// Live rows and tombstones by modno. A record is read only when it is sent.
fn changes(
    connection: &Connection,
    after: Modno,
    view: &View,
    frame_bytes: usize,
) -> Result<Changes, StoreError> {
    let mut visible = Visible::through(view);
    let mut statement = connection.prepare_cached(CHANGES)?;
    let mut log = statement.query([after.to_i64()])?;
    let mut frame = Frame { limit_bytes: frame_bytes, ..Frame::default() };
    let mut last = after;
    let mut looked_at = 0;
    let complete = loop {
        let Some(row) = log.next()? else { break true };
        if looked_at == FRAME_SCAN {
            break false;
        }
        if visible.shows(connection, row.get(1)?)? && !frame.take(connection, row)? {
            break false;
        }
        last = row.modno(0)?;
        looked_at += 1;
    };
    let end = match chain_at(connection, last)? {
        Some(chain) => Position { modno: last, chain },
        None if last == Modno::ZERO => Position::ZERO,
        None => return Err(StoreError::UnknownPosition(last)),
    };
    let consistent = if complete { Some(set(connection, &mut visible)?) } else { None };
    let Frame { operations, tombstones, .. } = frame;
    Ok(Changes { operations, tombstones, end, as_of: head(connection)?, consistent })
}

/// What is sent together.
#[derive(Default)]
struct Frame {
    operations: Vec<Operation>,
    tombstones: Vec<Tombstone>,
    bytes: usize,
    limit_bytes: usize,
}

impl Frame {
    /// Takes a change, or says that it belongs to the next frame.
    fn take(&mut self, connection: &Connection, row: &Row<'_>) -> Result<bool, StoreError> {
        let rows = self.operations.len() + self.tombstones.len();
        if rows == FRAME_OPERATIONS {
            return Ok(false);
        }
        let (modno, id) = (row.modno(0)?, row.op_id(2)?);
        if row.get(3)? {
            let scope = scope(connection, row.get(1)?)?;
            self.bytes += scope.repo.len() + scope.plan.len();
            self.tombstones.push(Tombstone { id, modno, scope });
            return Ok(true);
        }
        let operation = own_operation(connection, id)?.ok_or_else(|| missing("operation", id.to_i64()))?;
        let bytes = self.bytes + operation.record.as_bytes().len();
        if rows > 0 && bytes > self.limit_bytes {
            return Ok(false);
        }
        self.bytes = bytes;
        self.operations.push(operation);
        Ok(true)
    }
}

fn scope(connection: &Connection, group: i64) -> Result<Scope, StoreError> {
    Ok(connection
        .prepare_cached("SELECT repo_id, plan_id FROM groups WHERE group_id = ?1")?
        .query_row([group], |row| Ok(Scope { repo: row.get(0)?, plan: row.get(1)? }))?)
}

/// A live own operation with its bytes.
fn own_operation(connection: &Connection, id: OpId) -> Result<Option<Operation>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT modno, flow_id, record FROM operations WHERE local_id = ?1 AND owner = 1")?;
    let mut rows = statement.query([id.to_i64()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let record = stored("record", Record::parse(row.get(2)?))?;
    Ok(Some(Operation { id, modno: row.modno(0)?, flow_id: row.flow_id(1)?, record }))
}

fn manifest(connection: &Connection, lo: u64, view: &View) -> Result<ManifestPage, StoreError> {
    let mut visible = Visible::through(view);
    let mut statement = connection.prepare_cached(
        "SELECT original_id, modno, group_id FROM ids
         WHERE owner = ?1 AND original_id >= ?2 AND modno IS NOT NULL ORDER BY original_id",
    )?;
    let mut rows = statement.query(params![OWN, count(lo)])?;
    let mut page = Page::new(lo);
    let mut hi = OpId::END;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        let (id, modno) = (row.op_id(0)?, row.modno(1)?);
        let full = looked_at == MANIFEST_SCAN
            || (visible.shows(connection, row.get(2)?)? && page.push(id, modno) == PageState::Full);
        if full {
            hi = id.get();
            break;
        }
        looked_at += 1;
    }
    Ok(ManifestPage { hi, as_of: head(connection)?, entries: page.into_entries() })
}

fn operations(
    connection: &Connection,
    ids: &[OpId],
    view: &View,
    frame_bytes: usize,
) -> Result<OperationsPage, StoreError> {
    let mut page =
        OperationsPage { as_of: head(connection)?, operations: Vec::new(), gone: Vec::new(), settled: 0 };
    let mut bytes = 0;
    for id in ids.iter().take(FRAME_SCAN) {
        let found = own_operation(connection, *id)?;
        match found.filter(|operation| view.includes(operation.record.scope())) {
            None => page.gone.push(*id),
            Some(operation) => {
                bytes += operation.record.as_bytes().len();
                let first = page.operations.is_empty();
                if !first && (bytes > frame_bytes || page.operations.len() == FRAME_OPERATIONS) {
                    break;
                }
                page.operations.push(operation);
            }
        }
        page.settled += 1;
    }
    Ok(page)
}
