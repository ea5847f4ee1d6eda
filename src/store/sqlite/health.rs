//! What can be said about the store's health without reading every operation, and who was refused last.

use opmesh_core::model::{KeyId, UnixMs};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::value::counted;
use crate::store::{AuditKind, Refusal, StoreError, StoreHealth};

/// Beyond this a check of every page takes too long for a look; what is read in passing is checked anyway.
const CHECKED_BYTES: u64 = 1024 * 1024 * 1024;
/// Faults that are told; the first one already says that the file is damaged.
const FAULTS: u32 = 3;

/// Looks at the file's pages and at the times that stand in it.
pub(in crate::store) fn health(connection: &Connection) -> Result<StoreHealth, StoreError> {
    let number = |pragma: &str| -> rusqlite::Result<u64> {
        Ok(counted(connection.pragma_query_value(None, pragma, |row| row.get(0))?))
    };
    let bytes = number("page_count")?.saturating_mul(number("page_size")?);
    let faults = if bytes > CHECKED_BYTES { None } else { Some(faults(connection)?) };
    Ok(StoreHealth { bytes, faults, newest: newest(connection)? })
}

/// SQLite's own quick check: every page, every index's shape.
fn faults(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({FAULTS})"))?;
    let found: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

/// The latest moment that this instance's own clock has written here.
fn newest(connection: &Connection) -> Result<UnixMs, StoreError> {
    let newest: i64 = connection.query_row(
        "SELECT max(
             (SELECT created_unix_ms FROM meta),
             coalesce((SELECT at_unix_ms FROM audit ORDER BY number DESC LIMIT 1), 0),
             coalesce((SELECT received_unix_ms FROM operations
                       WHERE owner = 1 AND modno = (SELECT head_modno FROM meta)), 0),
             coalesce((SELECT max(last_seen_unix_ms) FROM peers), 0))",
        [],
        |row| row.get(0),
    )?;
    Ok(UnixMs(newest))
}

/// Why a key was refused last, when and under which name, if the audit log has it.
pub(in crate::store) fn last_refusal(
    connection: &Connection,
    key: &KeyId,
) -> Result<Option<(Refusal, UnixMs, String)>, StoreError> {
    let found: Option<(i64, String)> = connection
        .query_row(
            "SELECT at_unix_ms, detail FROM audit WHERE peer = ?1 AND event = ?2 ORDER BY number DESC LIMIT 1",
            params![key.as_bytes(), AuditKind::ClientRefused.name()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(found.and_then(|(at, detail)| {
        let (instance, refusal) = detail.rsplit_once(": ")?;
        Some((Refusal::from_name(refusal)?, UnixMs(at), instance.to_owned()))
    }))
}
