//! Copies of the whole database, taken by SQLite from one moment of it: before an upgrade, and when the operator wants
//! one.
//!
//! A copy has its name only once it is whole and on the disk. Nobody who writes to the store waits for it: the reader
//! that copies sees the moment at which it began.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::connection::{self, FILE_MODE};
use crate::store::StoreError;

/// What a copy is called until it is whole.
pub(super) const UNFINISHED: &str = "unfinished";

/// Pages copied at a time: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// What happens to a file that has the copy's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupied {
    /// It is replaced, and so is what an interrupted copy has left.
    Replace,
    /// It stays, and there is no copy.
    Refuse,
}

/// Writes a copy, readable by its owner alone; durable when it returns.
pub(super) fn write(source: &Connection, to: &Path, occupied: Occupied) -> Result<(), StoreError> {
    let unfinished = beside(to, UNFINISHED);
    let failed =
        |error: &dyn ToString| StoreError::NotCopied { path: to.to_owned(), reason: error.to_string() };
    match occupied {
        Occupied::Replace => remove(&unfinished).map_err(|error| failed(&error))?,
        Occupied::Refuse if to.exists() => return Err(StoreError::Exists { path: to.to_owned() }),
        Occupied::Refuse => {}
    }
    create(&unfinished)?;
    let finish = || {
        fill(source, &unfinished).map_err(|error| failed(&error))?;
        File::open(&unfinished).and_then(|file| file.sync_all()).map_err(|error| failed(&error))?;
        name(&unfinished, to, occupied)?;
        connection::sync_folder(to)
    };
    let finished = finish();
    if finished.is_err()
        && let Err(error) = remove(&unfinished)
    {
        tracing::warn!(path = %unfinished.display(), %error, "an unfinished copy could not be removed");
    }
    finished
}

/// `path.suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn create(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(StoreError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(StoreError::NotCopied { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn fill(source: &Connection, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // The file that was made a moment ago, and not what somebody may have put in its place since.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let folder = to.parent().unwrap_or(Path::new("/")).canonicalize()?;
    let mut target = Connection::open_with_flags(folder.join(to.file_name().unwrap_or_default()), flags)?;
    // Whoever finds the file unfinished throws it away, and the whole of it is synced before it gets its name.
    target.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    target.pragma_update(None, "synchronous", "OFF")?;
    // One moment for all steps; without it every write of somebody else would start the copy again.
    let moment = source.unchecked_transaction()?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let backup = Backup::new(source, &mut target)?;
    loop {
        match backup.step(STEP_PAGES)? {
            StepResult::Done => break,
            StepResult::More => {}
            other => return Err(format!("the database was not free: {other:?}").into()),
        }
    }
    drop(backup);
    Ok(moment.finish()?)
}

/// A link, unlike a rename, never replaces a file that is there.
fn name(unfinished: &Path, to: &Path, occupied: Occupied) -> Result<(), StoreError> {
    let named = match occupied {
        Occupied::Replace => fs::rename(unfinished, to),
        Occupied::Refuse => fs::hard_link(unfinished, to).and_then(|()| fs::remove_file(unfinished)),
    };
    named.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => StoreError::Exists { path: to.to_owned() },
        _ => StoreError::NotCopied { path: to.to_owned(), reason: error.to_string() },
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
