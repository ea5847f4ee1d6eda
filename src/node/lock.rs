//! One process at a time has the data directory: an advisory lock on the file `lock`.
//!
//! The kernel lets go of it when the process ends, however it ends; nothing is ever cleaned up by guessing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::clock::Clock;

/// How long a process waits for another one to end.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often it looks.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by another opmesh process{}", path.display(), holder.map_or(String::new(), |pid| format!(" (pid {pid})")))]
    Held {
        /// The data directory.
        path: PathBuf,
        /// Who, if it said so.
        holder: Option<u32>,
    },
    /// The file cannot be used.
    #[error("the lock {} cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock if it is free.
    pub fn try_take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                io::Read::by_ref(&mut file).take(20).read_to_string(&mut holder).map_err(failed)?;
                let directory = path.parent().unwrap_or(path).to_owned();
                return Err(LockError::Held { path: directory, holder: holder.trim().parse().ok() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // For people and for the error above; the lock itself is the kernel's.
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Takes the lock, waiting for it up to `wait`.
    pub async fn take(path: &Path, clock: Clock, wait: Duration) -> Result<Self, LockError> {
        let until = clock.monotonic() + wait;
        loop {
            match Self::try_take(path) {
                Err(LockError::Held { .. }) if clock.monotonic() < until => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = DataLock::try_take(&path).unwrap();
        let Err(LockError::Held { holder, path: held }) = DataLock::try_take(&path) else {
            panic!("the lock was given twice")
        };
        assert_eq!((holder, held.as_path()), (Some(std::process::id()), folder.path()));
        drop(first);
        DataLock::try_take(&path).unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_lock_when_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let clock = Clock::system();
        let first = DataLock::try_take(&path).unwrap();
        let short = DataLock::take(&path, clock, Duration::from_millis(1)).await;
        assert!(matches!(short, Err(LockError::Held { .. })));
        let (waited, ()) = tokio::join!(DataLock::take(&path, clock, LOCK_WAIT), async { drop(first) });
        waited.unwrap();
    }
}
