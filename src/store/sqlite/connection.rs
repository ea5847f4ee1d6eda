//! Opening the file: is it ours, and every setting that durability and safety rest on.
//!
//! The header is read before SQLite touches anything, so that a foreign or newer file stays exactly as it is.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema::{APPLICATION_ID, OLDEST, SCHEMA};
use crate::store::StoreError;

/// The first SQLite without the WAL-reset bug of 3.7.0 to 3.51.2, which several connections can meet.
const OLDEST_ENGINE: i32 = 3_051_003;
const OLDEST_ENGINE_TEXT: &str = "3.51.3";

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page caches: one writer with a large working set, a few readers with small ones; in all 64 MiB, half of what a
/// host may take with a million operations.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
const READER_CACHE_KIB: i64 = 8 * 1024;
/// Pages of 4 KiB that the log may hold before the writer copies them into the database.
const CHECKPOINT_PAGES: i64 = 4000;
/// What the log file shrinks to after it was large.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 64 * 1024 * 1024;
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 128;

/// What opening takes: the index of the log, in one piece.
const OPENING_BYTES: u64 = 32 * 1024;

/// Owner may read and write, nobody else anything: the file holds what permissions protect.
pub(super) const FILE_MODE: u32 = 0o600;

/// Makes an empty file with the right mode; an existing one is an error.
pub(super) fn create_file(path: &Path) -> Result<(), StoreError> {
    match FileOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => sync_folder(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(StoreError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(unusable(path, error)),
    }
}

/// Makes the file's name as durable as what will be in it.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unusable(path, error))
}

/// Whether the file is a store that this program may open. Reads the first 100 bytes and nothing else.
pub(super) fn check_file(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(unusable(path, error)),
        _ => {}
    }
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, |bytes| i64::from(u32::from_be_bytes(bytes)))
    };
    // Offsets of the SQLite file format: user version at 60, application id at 68.
    if !header.starts_with(b"SQLite format 3\0") || number(68) != APPLICATION_ID {
        return Err(StoreError::NotAStore { path: path.to_owned() });
    }
    check_schema(path, number(60))
}

fn check_schema(path: &Path, found: i64) -> Result<(), StoreError> {
    if found > SCHEMA {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known: SCHEMA });
    }
    if found < OLDEST {
        return Err(StoreError::NotAStore { path: path.to_owned() });
    }
    Ok(())
}

/// The one connection that writes and checkpoints.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < OLDEST_ENGINE {
        return Err(StoreError::OldEngine { found: rusqlite::version(), needed: OLDEST_ENGINE_TEXT });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    configured_writer(path, flags).map_err(|error| not_opened(path, &error))
}

fn configured_writer(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection, WRITER_CACHE_KIB)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

/// A connection that only reads, and never checkpoints.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection, READER_CACHE_KIB)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        Ok::<_, rusqlite::Error>(connection)
    };
    open().map_err(|error| not_opened(path, &error))
}

fn configure(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it every new value of a parameter may prepare a statement again: measured, two thirds of a first sync.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // What a savepoint may have to undo stays in memory; a group is small.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // What is deleted is overwritten where that costs no write of its own: a pairing token's secret, above all.
    connection.pragma_update_and_check(None, "secure_delete", "FAST", |_| Ok(()))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    // Negative: KiB instead of pages.
    connection.pragma_update(None, "cache_size", -cache_kib)
}

/// The schema that SQLite sees, log included: the header may be behind.
pub(super) fn check_contents(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0));
    let found = found.map_err(|error| unusable(path, error))?;
    check_schema(path, found).map(|()| found)
}

/// Why SQLite could not open the file. On a full disk it says no more than that the system refused something.
pub(super) fn not_opened(path: &Path, error: &rusqlite::Error) -> StoreError {
    let full = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => rustix::fs::statvfs(path)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < OPENING_BYTES),
        _ => false,
    };
    if full { StoreError::DiskFull { path: path.to_owned() } } else { unusable(path, error) }
}

/// The path and what happened to it.
pub(super) fn unusable(path: &Path, error: impl ToString) -> StoreError {
    StoreError::Unusable { path: path.to_owned(), reason: error.to_string() }
}
