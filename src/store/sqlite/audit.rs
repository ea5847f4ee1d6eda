//! The audit log: one record for each security event, in the transaction of its effect, each chained to the last.
//!
//! Where the log ends stands in a row of its own, changed with it, and in a file beside the database
//! (`audit_files.rs`): what was cut off at the end leaves no gap behind, so that only these two can tell.

use opmesh_core::model::{KeyId, UnixMs};
use rusqlite::{Connection, Row, params};

use super::audit_files::Head;
use super::refusals::{Note, Refused};
use super::tx::Tx;
use super::value::{count, counted};
use crate::store::{AuditEvent, AuditFault, AuditKind, AuditRecord, AuditVerdict, MAX_PAGE_ROWS, StoreError};

/// What schema 2 adds: where the log ends, how many refusals wait to be written as one number, and whether a daemon
/// said that it started and has not said that it stopped.
pub(super) const AUDIT_HEAD: &str = "
CREATE TABLE audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    records INTEGER NOT NULL,
    hash BLOB NOT NULL,
    counted INTEGER NOT NULL,
    running INTEGER NOT NULL
) STRICT;
INSERT INTO audit_head (one, records, hash, counted, running)
SELECT 1, (SELECT count(*) FROM audit),
    coalesce((SELECT hash FROM audit ORDER BY number DESC LIMIT 1), zeroblob(32)), 0, 0;
";

/// Separates these hashes from every other use of BLAKE3.
const CONTEXT: &str = "opmesh audit 1";

const COLUMNS: &str = "SELECT number, at_unix_ms, event, peer, detail, hash FROM audit";

/// Writes a record. What cannot be written does not happen: the caller's savepoint goes with it.
pub(in crate::store) fn write(tx: &Tx<'_>, event: &AuditEvent) -> Result<(), StoreError> {
    let last = head(tx.connection)?;
    let peer = event.peer.as_ref().map(KeyId::as_bytes);
    let row = Chained {
        number: count(last.records.saturating_add(1)),
        at: tx.now.0,
        event: event.event.name().as_bytes(),
        peer: peer.map(<[u8; 32]>::as_slice),
        detail: event.detail.as_bytes(),
    };
    let hash = row.hash(&last.hash);
    tx.connection
        .prepare_cached(
            "INSERT INTO audit (number, at_unix_ms, event, peer, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![row.number, row.at, event.event.name(), peer, event.detail, hash])?;
    tx.connection
        .prepare_cached("UPDATE audit_head SET records = ?1, hash = ?2 WHERE one = 1")?
        .execute(params![row.number, hash])?;
    Ok(())
}

/// Writes that somebody was refused, unless many were of late: then it is counted. Whether there is a record.
pub(in crate::store) fn refuse(tx: &mut Tx<'_>, who: Refused, event: &AuditEvent) -> Result<(), StoreError> {
    write_counted(tx)?;
    match tx.memory.refusals.refused(who, tx.now) {
        Note::Record => write(tx, event),
        Note::Count => Ok(()),
        Note::Keep(counted) => keep_count(tx, counted),
    }
}

/// Writes one record for the refusals that were only counted, once their minute is over.
pub(in crate::store) fn write_counted(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let due = tx.memory.refusals.due(tx.now);
    write_sums(tx, due)
}

/// As [`write_counted`], whether their minute is over or not.
pub(in crate::store) fn write_last_counted(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let all = tx.memory.refusals.all();
    write_sums(tx, all)
}

fn write_sums(tx: &Tx<'_>, sums: Vec<(Option<Refused>, u64)>) -> Result<(), StoreError> {
    if sums.is_empty() {
        return Ok(());
    }
    for (who, counted) in sums {
        let within = format!("{counted} more within a minute");
        let (event, peer, detail) = match who {
            Some(Refused::Stranger) => (AuditKind::StrangersRefused, None, within),
            Some(Refused::Listed(key)) => (AuditKind::RefusalsRepeated, Some(key), within),
            Some(Refused::Caller) => (AuditKind::AdminRefusalsRepeated, None, within),
            None => {
                let detail = format!("at least {counted} more before the process ended without a word");
                (AuditKind::StrangersRefused, None, detail)
            }
        };
        write(tx, &AuditEvent { event, peer, detail })?;
    }
    keep_count(tx, tx.memory.refusals.waiting())
}

fn keep_count(tx: &Tx<'_>, counted: u64) -> Result<(), StoreError> {
    tx.connection
        .prepare_cached("UPDATE audit_head SET counted = ?1 WHERE one = 1")?
        .execute([count(counted)])?;
    Ok(())
}

/// How many refusals an earlier process counted and did not write.
pub(super) fn lost_count(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare("SELECT counted FROM audit_head WHERE one = 1")?;
    Ok(counted(statement.query_row([], |row| row.get(0))?))
}

/// A daemon starts.
pub(in crate::store) fn started(tx: &Tx<'_>, version: &str) -> Result<(), StoreError> {
    let was_running: bool = tx
        .connection
        .prepare_cached("SELECT running FROM audit_head WHERE one = 1")?
        .query_row([], |row| row.get(0))?;
    let before = if was_running { "; the one before it ended without a word" } else { "" };
    run(tx, true)?;
    let detail = format!("version {version}{before}");
    write(tx, &AuditEvent { event: AuditKind::Started, peer: None, detail })
}

/// A daemon has ended everything and closes the store.
pub(in crate::store) fn stopped(tx: &Tx<'_>) -> Result<(), StoreError> {
    run(tx, false)?;
    write(tx, &AuditEvent { event: AuditKind::Stopped, peer: None, detail: String::new() })
}

fn run(tx: &Tx<'_>, running: bool) -> Result<(), StoreError> {
    tx.connection.prepare_cached("UPDATE audit_head SET running = ?1 WHERE one = 1")?.execute([running])?;
    Ok(())
}

/// Where the log ends, by its own word.
pub(super) fn head(connection: &Connection) -> Result<Head, StoreError> {
    let mut statement = connection.prepare_cached("SELECT records, hash FROM audit_head WHERE one = 1")?;
    let (records, hash) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Head { records: counted(records), hash })
}

/// Whether the log has reached this point on its way.
pub(super) fn passes(connection: &Connection, head: &Head) -> Result<bool, StoreError> {
    if head.records == 0 {
        return Ok(true);
    }
    let mut statement = connection.prepare("SELECT 1 FROM audit WHERE number = ?1 AND hash = ?2")?;
    Ok(statement.exists(params![count(head.records), head.hash])?)
}

/// A page of records, oldest first.
pub(in crate::store) fn list(
    connection: &Connection,
    since: Option<UnixMs>,
    after: u64,
) -> Result<Vec<AuditRecord>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, at_unix_ms, event, peer, detail, hash FROM audit
         WHERE number > ?1 AND (?2 IS NULL OR at_unix_ms >= ?2) ORDER BY number LIMIT ?3",
    )?;
    let limit = i64::try_from(MAX_PAGE_ROWS).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![count(after), since.map(|at| at.0), limit])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

/// Recomputes the whole chain, and looks whether it ends where the store and `beside` say.
pub(in crate::store) fn verify(
    connection: &Connection,
    beside: Option<&Head>,
) -> Result<AuditVerdict, StoreError> {
    let mut statement = connection.prepare(&format!("{COLUMNS} ORDER BY number"))?;
    let mut rows = statement.query([])?;
    let (mut records, mut last) = (0_u64, [0; 32]);
    let broken = |number, fault| Ok(AuditVerdict::Broken { number, fault });
    let mut passed = beside.is_none_or(|beside| beside.records == 0);
    while let Some(row) = rows.next()? {
        let next = records.saturating_add(1);
        let chained = Chained::read(row).ok().filter(|chained| chained.number == count(next));
        let Some(hash) = chained.map(|chained| chained.hash(&last)).filter(|hash| holds(row, hash)) else {
            return broken(next, AuditFault::Chain);
        };
        (records, last) = (next, hash);
        passed |= beside.is_some_and(|beside| beside.records == records && beside.hash == last);
    }
    drop(rows);
    match head(connection) {
        Ok(head) if head.records == records && head.hash == last => {}
        Ok(head) => return broken(head.records.min(records).saturating_add(1), AuditFault::End),
        Err(stopped @ StoreError::Stopped { .. }) => return Err(stopped),
        Err(_) => return broken(records.saturating_add(1), AuditFault::End),
    }
    if !passed {
        let known = beside.map_or(0, |beside| beside.records);
        return broken(known.min(records.saturating_add(1)), AuditFault::Beside);
    }
    Ok(AuditVerdict::Whole { records, last })
}

/// Whether the row's own hash is this one.
fn holds(row: &Row<'_>, hash: &[u8; 32]) -> bool {
    row.get_ref(5).is_ok_and(|stored| stored.as_blob().is_ok_and(|stored| stored == hash))
}

/// What was tampered with is shown as well as it can be; that it does not hold is for [`verify`] to say.
fn record(row: &Row<'_>) -> Result<AuditRecord, StoreError> {
    let text = |at: usize| {
        Ok::<_, rusqlite::Error>(String::from_utf8_lossy(row.get_ref(at)?.as_bytes()?).into_owned())
    };
    let bytes = |at: usize| {
        let value = row.get_ref(at)?.as_blob_or_null()?;
        Ok::<Option<[u8; 32]>, rusqlite::Error>(value.and_then(|value| value.try_into().ok()))
    };
    Ok(AuditRecord {
        number: counted(row.get(0)?),
        at: UnixMs(row.get(1)?),
        event: text(2)?,
        peer: bytes(3)?.map(KeyId::from_bytes),
        detail: text(4)?,
        hash: bytes(5)?.unwrap_or_default(),
    })
}

/// What a record's hash covers: all of it, as it is stored, and the hash before it.
struct Chained<'r> {
    number: i64,
    at: i64,
    event: &'r [u8],
    peer: Option<&'r [u8]>,
    detail: &'r [u8],
}

impl<'r> Chained<'r> {
    fn read(row: &'r Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            at: row.get(1)?,
            event: row.get_ref(2)?.as_bytes()?,
            peer: row.get_ref(3)?.as_blob_or_null()?,
            detail: row.get_ref(4)?.as_bytes()?,
        })
    }

    /// BLAKE3 over the previous hash and every column, texts and keys with their length.
    fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(previous).update(&self.number.to_le_bytes()).update(&self.at.to_le_bytes());
        match self.peer {
            Some(peer) => hasher.update(&[1]).update(peer),
            None => hasher.update(&[0]),
        };
        for text in [self.event, self.detail] {
            hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(text);
        }
        hasher.finalize().into()
    }
}
