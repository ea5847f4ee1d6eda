//! The hub's state about one owner as one row of `replicas`.
//!
//! Lists that only the rules read are blobs of fixed-width little-endian entries.

use opmesh_core::guard::{Slot, Window};
use opmesh_core::matchpoint::Trail;
use opmesh_core::model::{Chain, Incarnation, Modno, Position, UnixMs};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::replica::{DiffProgress, Replica, Rung};
use rusqlite::{Connection, Row, params};

use super::value::{Columnar as _, count, counted, stored};
use crate::store::StoreError;

const DIFF: &str = "diff";
const DIFF_CHANGED: &str = "diff_changed";
const RESTREAM: &str = "restream";

/// Reads the row; the default when there is none.
pub(super) fn load(connection: &Connection, owner: i64) -> Result<Replica, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT incarnation, granted, accepted, cursor_modno, cursor_chain, newest_modno, newest_chain, trail,
                diff_done, diff_start_modno, diff_start_chain, diff_changed, rung, unequal_repairs,
                quarantined_unix_ms, guard, conflict
         FROM replicas WHERE owner = ?1",
    )?;
    let mut rows = statement.query([owner])?;
    match rows.next()? {
        Some(row) => parse(row),
        None => Ok(Replica::default()),
    }
}

fn parse(row: &Row<'_>) -> Result<Replica, StoreError> {
    Ok(Replica {
        incarnation: label(row.get(0)?)?,
        view: view(row.get(1)?, row.get(2)?)?,
        cursor: row.position(3)?,
        newest: row.position(5)?,
        trail: Trail::from_positions(positions(&row.get::<_, Vec<u8>>(7)?)?),
        diff: diff(row)?,
        rung: rung(row.get::<_, Option<String>>(12)?.as_deref())?,
        unequal_repairs: numbers(&row.get::<_, Vec<u8>>(13)?).map(UnixMs).collect(),
        quarantined: row.get::<_, Option<i64>>(14)?.map(UnixMs),
        guard: Window::from_slots(slots(&row.get::<_, Vec<u8>>(15)?)),
        conflict: label(row.get(16)?)?,
    })
}

/// Writes the row, which [`super::peers::take_over`] has made.
pub(super) fn save(connection: &Connection, owner: i64, replica: &Replica) -> Result<(), StoreError> {
    let start = replica.diff.and_then(|diff| diff.start);
    connection
        .prepare_cached(
            "UPDATE replicas SET incarnation = ?2, granted = ?3, accepted = ?4, cursor_modno = ?5,
                 cursor_chain = ?6, newest_modno = ?7, newest_chain = ?8, trail = ?9, diff_done = ?10,
                 diff_start_modno = ?11, diff_start_chain = ?12, diff_changed = ?13, rung = ?14,
                 unequal_repairs = ?15, quarantined_unix_ms = ?16, guard = ?17, conflict = ?18
             WHERE owner = ?1",
        )?
        .execute(params![
            owner,
            replica.incarnation.map(Incarnation::to_i64),
            replica.view.as_ref().map(|view| view.granted().to_string()),
            replica.view.as_ref().map(|view| view.accepted().to_string()),
            replica.cursor.modno.to_i64(),
            replica.cursor.chain.0,
            replica.newest.modno.to_i64(),
            replica.newest.chain.0,
            positions_blob(replica.trail.positions()),
            replica.diff.map(|diff| count(diff.done)),
            start.map(|start| start.modno.to_i64()),
            start.map(|start| start.chain.0),
            replica.diff.is_some_and(|diff| diff.changed),
            replica.rung.map(rung_name),
            numbers_blob(replica.unequal_repairs.iter().map(|at| at.0)),
            replica.quarantined.map(|at| at.0),
            slots_blob(replica.guard.slots()),
            replica.conflict.map(Incarnation::to_i64),
        ])?;
    Ok(())
}

fn label(number: Option<i64>) -> Result<Option<Incarnation>, StoreError> {
    number.map(|number| stored("incarnation", Incarnation::from_i64(number))).transpose()
}

fn view(granted: Option<String>, accepted: Option<String>) -> Result<Option<View>, StoreError> {
    let Some((granted, accepted)) = granted.zip(accepted) else { return Ok(None) };
    let scopes = |text: &str| stored("scope list", Scopes::from_wire(text));
    Ok(Some(View::new(scopes(&granted)?, scopes(&accepted)?)))
}

fn diff(row: &Row<'_>) -> Result<Option<DiffProgress>, StoreError> {
    let Some(done) = row.get::<_, Option<i64>>(8)? else { return Ok(None) };
    let start = if row.get::<_, Option<i64>>(9)?.is_some() { Some(row.position(9)?) } else { None };
    Ok(Some(DiffProgress { start, done: counted(done), changed: row.get(11)? }))
}

fn rung(name: Option<&str>) -> Result<Option<Rung>, StoreError> {
    match name {
        None => Ok(None),
        Some(DIFF) => Ok(Some(Rung::Diff { changed: false })),
        Some(DIFF_CHANGED) => Ok(Some(Rung::Diff { changed: true })),
        Some(RESTREAM) => Ok(Some(Rung::Restream)),
        Some(other) => Err(StoreError::BadValue { what: "repair", reason: other.to_owned() }),
    }
}

fn rung_name(rung: Rung) -> &'static str {
    match rung {
        Rung::Diff { changed: false } => DIFF,
        Rung::Diff { changed: true } => DIFF_CHANGED,
        Rung::Restream => RESTREAM,
    }
}

fn numbers(blob: &[u8]) -> impl Iterator<Item = i64> {
    let (numbers, _) = blob.as_chunks::<8>();
    numbers.iter().map(|bytes| i64::from_le_bytes(*bytes))
}

fn numbers_blob(numbers: impl Iterator<Item = i64>) -> Vec<u8> {
    numbers.flat_map(i64::to_le_bytes).collect()
}

/// Three numbers each: hour, deleted, live.
fn slots(blob: &[u8]) -> Vec<Slot> {
    let numbers: Vec<i64> = numbers(blob).collect();
    let (slots, _) = numbers.as_chunks::<3>();
    slots
        .iter()
        .map(|[hour, deleted, live]| Slot { hour: *hour, deleted: counted(*deleted), live: counted(*live) })
        .collect()
}

fn slots_blob(slots: &[Slot]) -> Vec<u8> {
    numbers_blob(slots.iter().flat_map(|slot| [slot.hour, count(slot.deleted), count(slot.live)]))
}

/// 24 bytes each: modno, chain.
fn positions(blob: &[u8]) -> Result<Vec<Position>, StoreError> {
    let (halves, _) = blob.as_chunks::<8>();
    let (positions, _) = halves.as_chunks::<3>();
    positions
        .iter()
        .map(|[modno, left, right]| {
            let mut chain = [0; 16];
            chain.iter_mut().zip(left.iter().chain(right)).for_each(|(to, from)| *to = *from);
            let modno = stored("modno", Modno::from_i64(i64::from_le_bytes(*modno)))?;
            Ok(Position { modno, chain: Chain(chain) })
        })
        .collect()
}

fn positions_blob(positions: &[Position]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(positions.len() * 24);
    for position in positions {
        blob.extend_from_slice(&position.modno.to_i64().to_le_bytes());
        blob.extend_from_slice(&position.chain.0);
    }
    blob
}
