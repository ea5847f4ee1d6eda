//! Tokens that open the administration over TCP: what is kept of them, which is never the token itself.
//!
//! Found by their hash, so that no secret is compared byte by byte. Made and revoked with an audit record in the same
//! transaction.

use opmesh_core::model::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::audit;
use super::tx::Tx;
use super::value::{count, counted};
use crate::store::{AdminToken, AuditEvent, AuditKind, NewAdminToken, StoreError};

/// A part of schema 2.
pub(super) const TABLE: &str = "
-- Bearer tokens of the admin listener; hash is BLAKE3 of the token.
CREATE TABLE admin_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    label TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    expires_unix_ms INTEGER NOT NULL,
    used_unix_ms INTEGER
) STRICT;
";

/// How long an expired token stays in the list, so that its user can be told which one it was.
const REMEMBER_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Remembers a token; forgets those that expired long ago.
pub(in crate::store) fn add(tx: &mut Tx<'_>, new: NewAdminToken) -> Result<AdminToken, StoreError> {
    let forget = tx.now.0.saturating_sub(REMEMBER_MS);
    tx.connection.prepare_cached("DELETE FROM admin_tokens WHERE expires_unix_ms < ?1")?.execute([forget])?;
    let id = tx
        .connection
        .prepare_cached(
            "INSERT INTO admin_tokens (hash, role, label, created_unix_ms, expires_unix_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .insert(params![new.hash, new.role, new.label, tx.now.0, new.expires.0])?;
    let detail = format!("admin token {id} {:?}, role {}", new.label, new.role);
    audit::write(tx, &AuditEvent { event: AuditKind::AdminTokenMade, peer: None, detail })?;
    Ok(AdminToken {
        id: counted(id),
        role: new.role.to_owned(),
        label: new.label,
        created: tx.now,
        expires: new.expires,
        used: None,
    })
}

/// All tokens that are remembered, expired ones included, oldest first.
pub(in crate::store) fn list(connection: &Connection) -> Result<Vec<AdminToken>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, role, label, created_unix_ms, expires_unix_ms, used_unix_ms FROM admin_tokens ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(token(row)?);
    }
    Ok(tokens)
}

/// The token with this hash, whether it has expired or not.
pub(in crate::store) fn find(
    connection: &Connection,
    hash: &[u8; 32],
) -> Result<Option<AdminToken>, StoreError> {
    connection
        .prepare_cached(
            "SELECT id, role, label, created_unix_ms, expires_unix_ms, used_unix_ms FROM admin_tokens
             WHERE hash = ?1",
        )?
        .query_row([hash], |row| Ok(token(row)))
        .optional()?
        .transpose()
}

/// Notes that a token was used.
pub(in crate::store) fn note_used(tx: &mut Tx<'_>, id: u64) -> Result<(), StoreError> {
    tx.connection
        .prepare_cached("UPDATE admin_tokens SET used_unix_ms = ?2 WHERE id = ?1")?
        .execute([count(id), tx.now.0])?;
    Ok(())
}

/// Forgets a token: whoever holds it is a stranger now. Answers with what it was, if it was there.
pub(in crate::store) fn revoke(tx: &mut Tx<'_>, id: u64) -> Result<Option<AdminToken>, StoreError> {
    let revoked = tx
        .connection
        .prepare_cached(
            "DELETE FROM admin_tokens WHERE id = ?1
             RETURNING id, role, label, created_unix_ms, expires_unix_ms, used_unix_ms",
        )?
        .query_row([count(id)], |row| Ok(token(row)))
        .optional()?
        .transpose()?;
    let Some(revoked) = revoked else { return Ok(None) };
    let detail = format!("admin token {id} {:?}, role {}", revoked.label, revoked.role);
    audit::write(tx, &AuditEvent { event: AuditKind::AdminTokenRevoked, peer: None, detail })?;
    Ok(Some(revoked))
}

fn token(row: &Row<'_>) -> Result<AdminToken, StoreError> {
    Ok(AdminToken {
        id: counted(row.get(0)?),
        role: row.get(1)?,
        label: row.get(2)?,
        created: UnixMs(row.get(3)?),
        expires: UnixMs(row.get(4)?),
        used: row.get::<_, Option<i64>>(5)?.map(UnixMs),
    })
}
