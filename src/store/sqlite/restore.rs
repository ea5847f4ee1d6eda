//! A store made from a backup: checked as a whole before it gets its name, and with a life of its own.
//!
//! The copy may be older than what its instance did last. So its own log begins a new incarnation, the numbers that may
//! have been given out since are skipped, and pairing tokens, which may have been used since, are void.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use opmesh_core::model::PublicKey;
use rusqlite::Connection;

use super::connection::{self, FILE_MODE};
use super::copy::{self, UNFINISHED};
use super::memory::Memory;
use super::schema::{self, SCHEMA};
use super::tx::{Effects, Tx};
use super::{audit, own_log, owner_key, succession};
use crate::clock::Clock;
use crate::store::{AuditEvent, AuditKind, StoreError};

/// Numbers skipped, more than any instance gives out between a backup and the day on which it is needed.
const SKIPPED_NUMBERS: i64 = 1_000_000;

/// A restored store without its name.
#[derive(Debug)]
pub(in crate::store) struct Prepared {
    unfinished: PathBuf,
    to: PathBuf,
}

/// Copies the backup beside its future place, checks it, and makes it a store of this identity.
pub(in crate::store) fn prepare(
    from: &Path,
    to: &Path,
    own: PublicKey,
    before: &[PublicKey],
    clock: Clock,
) -> Result<Prepared, StoreError> {
    if to.exists() {
        return Err(StoreError::Exists { path: to.to_owned() });
    }
    connection::check_file(from)?;
    let log = beside_log(from);
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(StoreError::NotABackup { path: from.to_owned(), log });
    }
    let prepared = Prepared { unfinished: copy::beside(to, UNFINISHED), to: to.to_owned() };
    prepared.remove().and_then(|()| copy_file(from, &prepared.unfinished)).map_err(|error| {
        StoreError::NotCopied { path: prepared.unfinished.clone(), reason: error.to_string() }
    })?;
    let connection = connection::writer(&prepared.unfinished).map_err(|error| named(error, from))?;
    check(&connection, from, own, before)?;
    settle(&connection, own, clock).map_err(|error| connection::unusable(from, error))?;
    drop(connection);
    Ok(prepared)
}

impl Prepared {
    /// Gives the store its name; an existing file stays.
    pub(in crate::store) fn finish(self) -> Result<(), StoreError> {
        let failed =
            |error: io::Error| StoreError::NotCopied { path: self.to.clone(), reason: error.to_string() };
        File::open(&self.unfinished).and_then(|file| file.sync_all()).map_err(failed)?;
        match fs::hard_link(&self.unfinished, &self.to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Exists { path: self.to.clone() });
            }
            linked => linked.map_err(failed)?,
        }
        connection::sync_folder(&self.to)
    }

    fn remove(&self) -> io::Result<()> {
        for path in ["", "-wal", "-shm"].map(|suffix| suffixed(&self.unfinished, suffix)) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(path = %self.unfinished.display(), %error, "an unfinished copy could not be removed");
        }
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn beside_log(path: &Path) -> PathBuf {
    suffixed(path, "-wal")
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(to)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// The operator knows the backup, not the copy of it.
fn named(error: StoreError, from: &Path) -> StoreError {
    match error {
        StoreError::Unusable { reason, .. } => StoreError::Unusable { path: from.to_owned(), reason },
        other => other,
    }
}

/// Every page and index is in order, and the store belongs to this key.
fn check(
    connection: &Connection,
    from: &Path,
    own: PublicKey,
    before: &[PublicKey],
) -> Result<(), StoreError> {
    let unusable = |error: &dyn ToString| connection::unusable(from, error.to_string());
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| unusable(&error))?;
    if verdict != "ok" {
        return Err(unusable(&verdict));
    }
    let stored = owner_key(connection).map_err(|error| unusable(&error))?;
    let is_older = before.iter().any(|key| key.key_id() == stored);
    let own = own.key_id();
    if stored == own || is_older {
        Ok(())
    } else {
        Err(StoreError::OtherIdentity { path: from.to_owned(), stored, own })
    }
}

/// Everything that makes the copy a store of its own, in one transaction.
fn settle(connection: &Connection, own: PublicKey, clock: Clock) -> Result<(), StoreError> {
    let transaction = connection.unchecked_transaction()?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found < SCHEMA {
        schema::upgrade(&transaction, found)?;
    }
    succession::rename_own(&transaction, &own)?;
    let label = own_log::draw_incarnation()?;
    let mut memory = Memory::load(&transaction, own, 0)?;
    let mut effects = Effects::default();
    let mut tx = Tx::new(&transaction, &mut memory, &mut effects, clock.wall(), false);
    own_log::take_incarnation(&mut tx, label)?;
    transaction.execute(
        "UPDATE meta SET op_ids = op_ids + ?1, flow_ids = flow_ids + ?1 WHERE one = 1",
        [SKIPPED_NUMBERS],
    )?;
    let tokens = transaction.execute("UPDATE tokens SET uses_left = 0 WHERE uses_left > 0", [])?;
    let detail = format!("{tokens} pairing tokens are void");
    audit::write(&tx, &AuditEvent { event: AuditKind::StoreRestored, peer: None, detail })?;
    drop(tx);
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
