//! The audit log: one record for each security event, in the transaction of its effect, each chained to the last.

use opmesh_core::model::{KeyId, UnixMs};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::tx::Tx;
use super::value::{count, counted};
use crate::store::{AuditEvent, AuditRecord, AuditVerdict, MAX_PAGE_ROWS, StoreError};

/// Separates these hashes from every other use of BLAKE3.
const CONTEXT: &str = "opmesh audit 1";

/// Writes a record.
pub(in crate::store) fn write(tx: &Tx<'_>, event: &AuditEvent) -> Result<(), StoreError> {
    let last: Option<(i64, [u8; 32])> = tx
        .connection
        .prepare_cached("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (number, previous) = last.unwrap_or_default();
    let mut record = AuditRecord {
        number: counted(number).saturating_add(1),
        at: tx.now,
        event: event.event.name().to_owned(),
        peer: event.peer,
        detail: event.detail.clone(),
        hash: [0; 32],
    };
    record.hash = chained(&previous, &record);
    tx.connection
        .prepare_cached(
            "INSERT INTO audit (number, at_unix_ms, event, peer, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            count(record.number),
            record.at.0,
            record.event,
            record.peer.as_ref().map(KeyId::as_bytes),
            record.detail,
            record.hash
        ])?;
    Ok(())
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

/// Recomputes the whole chain.
pub(in crate::store) fn verify(connection: &Connection) -> Result<AuditVerdict, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT number, at_unix_ms, event, peer, detail, hash FROM audit ORDER BY number")?;
    let mut rows = statement.query([])?;
    let (mut records, mut last) = (0, [0; 32]);
    while let Some(row) = rows.next()? {
        let record = record(row)?;
        records += 1;
        if record.number != records || record.hash != chained(&last, &record) {
            return Ok(AuditVerdict::Broken { number: records });
        }
        last = record.hash;
    }
    Ok(AuditVerdict::Whole { records, last })
}

fn record(row: &Row<'_>) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        number: counted(row.get(0)?),
        at: UnixMs(row.get(1)?),
        event: row.get(2)?,
        peer: row.get::<_, Option<[u8; 32]>>(3)?.map(KeyId::from_bytes),
        detail: row.get(4)?,
        hash: row.get(5)?,
    })
}

/// BLAKE3 over the previous hash and every field of the record, texts with their length.
fn chained(previous: &[u8; 32], record: &AuditRecord) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(previous);
    hasher.update(&record.number.to_le_bytes());
    hasher.update(&record.at.0.to_le_bytes());
    match &record.peer {
        Some(peer) => hasher.update(&[1]).update(peer.as_bytes()),
        None => hasher.update(&[0]),
    };
    for text in [&record.event, &record.detail] {
        hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().into()
}
