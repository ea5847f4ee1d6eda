//! Results that could not be recorded, and runs that are under way: files that outlive the process.
//!
//! A run that is under way has `<key>.run`, locked by its process as long as it lives; the kernel gives the lock up
//! when the process ends in any way, so a file that can be locked belongs to a run whose process is gone. A result has
//! `<key>.json`. Both are written as tmp → fsync(tmp) → rename → fsync(dir). What cannot be read is renamed to `.bad`
//! and left for the operator.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opmesh_core::model::UnixMs;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ledger::{RunKey, RunResult, RunStart};

/// Files that wait at most. A host that cannot record for so long has another problem; its disk shall not be ours.
const MAX_FILES: usize = 10_000;
/// Bytes of one file that are read: many times what a result with all its snapshots takes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

const RESULT: &str = "json";
const RUNNING: &str = "run";
const BAD: &str = "bad";
const TEMPORARY: &str = "tmp";

/// A temporary file that nobody has completed for so long is of a crash.
const ABANDONED: Duration = Duration::from_hours(24);

/// The folder.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

/// The spool could not keep something.
#[derive(Debug, thiserror::Error)]
pub enum SpoolFault {
    /// The operating system refused.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// What was written.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Too many files wait.
    #[error("{} holds {MAX_FILES} results that were never taken in; start `opmesh serve`", folder.display())]
    Full {
        /// The folder.
        folder: PathBuf,
    },
}

/// The file of a run that is under way; dropping it gives the lock up and leaves the file.
#[derive(Debug)]
pub(super) struct Running {
    /// Holds the lock.
    _file: File,
}

/// Something that waits.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A result.
    Result(RunResult),
    /// A run whose process is gone.
    Gone(RunStart),
}

impl Spool {
    /// The spool in `folder`, which is made when something is first written.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Keeps a result until it is taken in.
    pub fn put(&self, result: &RunResult) -> Result<(), SpoolFault> {
        self.write(result.start.key, RESULT, result).map(drop)
    }

    /// Notes that a run is under way, as long as the answer lives.
    pub(super) fn running(&self, start: &RunStart) -> Result<Running, SpoolFault> {
        self.write(start.key, RUNNING, start).map(|file| Running { _file: file })
    }

    /// Whether the result of this run lies here.
    pub(super) fn has(&self, key: RunKey) -> bool {
        self.path(key, RESULT).exists()
    }

    /// What waits, results first, the oldest first. What cannot be read is passed over; what is damaged is set aside.
    pub(super) fn waiting(&self, now: UnixMs) -> impl Iterator<Item = Waiting> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let changed = entry.metadata().and_then(|about| about.modified()).unwrap_or(UNIX_EPOCH);
            if extension == Some(TEMPORARY) {
                remove_if_old(&path, changed, now);
                continue;
            }
            let key = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let (Some(RESULT | RUNNING), Some(key)) = (extension, key) {
                keys.push((extension == Some(RUNNING), changed, key));
            }
        }
        keys.sort_unstable_by_key(|(running, changed, _)| (*running, *changed));
        keys.into_iter().filter_map(|(running, _, key): (bool, SystemTime, RunKey)| {
            if running {
                self.gone(key).map(Waiting::Gone)
            } else {
                self.read(key, RESULT).map(|(result, _)| Waiting::Result(result))
            }
        })
    }

    /// Forgets all about a run.
    pub(super) fn remove(&self, key: RunKey) {
        for extension in [RUNNING, RESULT] {
            let path = self.path(key, extension);
            if let Err(fault) = fs::remove_file(&path)
                && fault.kind() != io::ErrorKind::NotFound
            {
                // It is taken in once, so a file that stays does no harm.
                tracing::warn!(path = %path.display(), %fault, "a spooled result that was taken in stays");
            }
        }
    }

    /// Keeps what can never be taken in out of the way.
    pub(super) fn set_aside(&self, key: RunKey) {
        for extension in [RUNNING, RESULT] {
            let path = self.path(key, extension);
            if path.exists()
                && let Err(fault) = fs::rename(&path, path.with_extension(BAD))
            {
                tracing::warn!(path = %path.display(), %fault, "a bad file in the spool cannot be set aside");
            }
        }
    }

    fn gone(&self, key: RunKey) -> Option<RunStart> {
        let (start, file) = self.read::<RunStart>(key, RUNNING)?;
        // A result of the same run says more.
        let unresolved = !self.path(key, RESULT).exists();
        (unresolved && file.try_lock().is_ok()).then_some(start)
    }

    fn read<T: DeserializeOwned>(&self, key: RunKey, extension: &str) -> Option<(T, File)> {
        let file = File::open(self.path(key, extension)).ok()?;
        let mut text = String::new();
        let read = (&file).take(MAX_FILE_BYTES).read_to_string(&mut text);
        if read.as_ref().is_err_and(|fault| fault.kind() != io::ErrorKind::InvalidData) {
            return None;
        }
        match serde_json::from_str(&text) {
            Ok(value) => Some((value, file)),
            Err(fault) => {
                tracing::warn!(%key, %fault, "a damaged file in the spool was set aside");
                self.set_aside(key);
                None
            }
        }
    }

    fn write<T: Serialize>(&self, key: RunKey, extension: &str, value: &T) -> Result<File, SpoolFault> {
        let path = self.path(key, extension);
        let fault = |source| SpoolFault::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(fault)?;
        let files = fs::read_dir(&self.folder).map_err(fault)?.take(MAX_FILES).count();
        if files >= MAX_FILES {
            return Err(SpoolFault::Full { folder: self.folder.clone() });
        }
        self.publish(&path, value).map_err(fault)
    }

    fn publish<T: Serialize>(&self, path: &Path, value: &T) -> io::Result<File> {
        let mut temporary = path.to_owned().into_os_string();
        temporary.push(".");
        temporary.push(TEMPORARY);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // Locked before it has its name: nobody may meet it unlocked.
        let published = file
            .lock()
            .and_then(|()| file.write_all(&serde_json::to_vec(value)?))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if published.is_err() && fs::remove_file(&temporary).is_err() {
            tracing::debug!(path = %path.display(), "a temporary file in the spool stays");
        }
        published.map(|()| file)
    }

    fn path(&self, key: RunKey, extension: &str) -> PathBuf {
        self.folder.join(format!("{key}.{extension}"))
    }
}

fn remove_if_old(path: &Path, changed: SystemTime, now: UnixMs) {
    let now = u64::try_from(now.0).map(Duration::from_millis).unwrap_or_default();
    let age = now.saturating_sub(changed.duration_since(UNIX_EPOCH).unwrap_or_default());
    if age > ABANDONED && fs::remove_file(path).is_err() {
        tracing::debug!(path = %path.display(), "a temporary file in the spool stays");
    }
}
