//! What the audit log leaves beside the database: where it ended a minute ago, and why the store last stopped.
//!
//! Somebody who can write the database but not these files cannot cut records off, nor put an older copy of the
//! database in its place, without `opmesh audit --verify` finding it. A head that the log does not pass is never
//! overwritten: it stays until an operator has looked, and removes it. Called by the writer, and by `verify`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::audit;
use crate::store::StoreError;

/// How old the file may be while records are written.
const HEAD_EVERY: Duration = Duration::from_mins(1);

/// More than a head takes.
const MAX_HEAD_BYTES: u64 = 256;

/// Where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Head {
    pub(in crate::store) records: u64,
    pub(in crate::store) hash: [u8; 32],
}

impl Head {
    /// Before the first record.
    const NONE: Self = Self { records: 0, hash: [0; 32] };

    /// What no log passes: a file that cannot be read as a head is not taken for none.
    const IMPOSSIBLE: Self = Self { records: u64::MAX, hash: [0xff; 32] };

    fn to_line(self) -> String {
        let hex = self.hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        format!("{} {hex}\n", self.records)
    }

    fn parse(text: &str) -> Option<Self> {
        let (records, hex) = text.trim_end().split_once(' ')?;
        let mut hash = [0; 32];
        if hex.len() != 2 * hash.len() || !hex.is_ascii() {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self { records: records.parse().ok()?, hash })
    }
}

/// Where the head of this database's audit log stands.
pub(in crate::store) fn head_path(database: &Path) -> PathBuf {
    database.with_extension("audit-head")
}

/// Where it is left why the store stopped.
fn stop_path(database: &Path) -> PathBuf {
    database.with_extension("stopped")
}

/// What the file says; none without a file.
pub(in crate::store) fn read_head(database: &Path) -> Option<Head> {
    let path = head_path(database);
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Ok(file) if file.len() <= MAX_HEAD_BYTES => {
            let text = fs::read_to_string(&path).unwrap_or_default();
            Some(Head::parse(&text).unwrap_or(Head::IMPOSSIBLE))
        }
        _ => Some(Head::IMPOSSIBLE),
    }
}

/// A new database has a new log: what the one before it left goes.
pub(super) fn forget(database: &Path) -> io::Result<()> {
    for path in [head_path(database), stop_path(database)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The files of an open store.
#[derive(Debug)]
pub(super) struct AuditFiles {
    database: PathBuf,
    written: Head,
    written_at: Duration,
    /// The file says what this log never was, and stays as it is.
    held: bool,
}

impl AuditFiles {
    /// Compares the file with the log that was opened.
    pub(super) fn open(database: &Path, connection: &Connection, now: Duration) -> Result<Self, StoreError> {
        let written = read_head(database).unwrap_or(Head::NONE);
        let held = !audit::passes(connection, &written)?;
        if held {
            tracing::error!(
                file = %head_path(database).display(),
                "the audit log does not contain what this file says; see `opmesh audit --verify`"
            );
        }
        Ok(Self { database: database.to_owned(), written, written_at: now, held })
    }

    /// Whether the file is old enough to be looked at.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.written_at) >= HEAD_EVERY
    }

    /// Brings the file to where the log stands.
    pub(super) fn write_head(&mut self, connection: &Connection, now: Duration) {
        self.written_at = now;
        let head = match audit::head(connection) {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(%error, "where the audit log stands could not be read");
                return;
            }
        };
        if self.held || head == self.written {
            return;
        }
        let path = head_path(&self.database);
        match replace(&path, &head.to_line()) {
            Ok(()) => self.written = head,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "where the audit log stands was not written down");
            }
        }
    }

    /// Leaves a word for the next process, since the store itself takes none any more.
    pub(super) fn leave_reason(&self, reason: &str) {
        let path = stop_path(&self.database);
        if let Err(error) = replace(&path, reason) {
            tracing::warn!(file = %path.display(), %error, "why the store stopped was not written down");
        }
    }

    /// What a process before this one left.
    pub(super) fn left_reason(&self) -> Option<String> {
        let bytes = fs::read(stop_path(&self.database)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The reason stands in the log now.
    pub(super) fn clear_reason(&self) {
        let path = stop_path(&self.database);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(file = %path.display(), %error, "a file could not be removed");
        }
    }
}

/// The old content or the new one, whatever happens in between.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_writing_and_reading_and_nothing_else_is_one() {
        let head = Head { records: 42, hash: [0xa7; 32] };
        assert_eq!(Head::parse(&head.to_line()), Some(head));
        for text in
            ["", "42", "42 a7", "x a7", &format!("42 {}", "é".repeat(32)), &format!("42 {}", "a7".repeat(33))]
        {
            assert_eq!(Head::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_head_is_one_that_no_log_passes() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("opmesh.db");
        assert_eq!(read_head(&database), None);
        for content in ["", "nonsense", &"x".repeat(1000)] {
            fs::write(head_path(&database), content).unwrap();
            assert_eq!(read_head(&database), Some(Head::IMPOSSIBLE));
        }
    }
}
