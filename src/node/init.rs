//! Making a new instance: a key and an empty store in a folder of their own.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use opmesh_core::model::{InstanceId, KeyId};

use super::lock::{DataLock, LOCK_WAIT, LockError};
use crate::clock::Clock;
use crate::identity::{Identity, IdentityError};
use crate::places::Places;
use crate::store::{AuditEvent, AuditKind, DEFAULT_CACHE_ENTRIES, OpenOptions, Store, StoreError};

/// What may lie in a folder that becomes a data directory.
const HARMLESS: [&str; 3] = ["opmesh.toml", "lock", "spool"];

/// No instance was made. What stands in the folder was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Somebody else's things lie there.
    #[error("{} is not empty ({found} lies there) and is no opmesh data directory: choose a new folder", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// An instance is there already.
    #[error("{} is initialized already", path.display())]
    Initialized {
        /// The folder.
        path: PathBuf,
    },
    /// The machine's name is no instance id, and none was given.
    #[error("the host name {0:?} cannot be an instance id: give one with --instance-id")]
    NoName(String),
    /// The folder cannot be used.
    #[error("the folder {} cannot be used: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A backup holds no key.
    #[error("{} holds no private key: put the key file of the same instance into {}, or name it with --import-key", backup.display(), path.display())]
    NoKey {
        /// The backup.
        backup: PathBuf,
        /// The folder.
        path: PathBuf,
    },
    /// The key could not be made or read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another process has the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A new instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialized {
    /// Its key.
    pub key_id: KeyId,
    /// Its label.
    pub instance: InstanceId,
}

/// Whether an instance is there: both its key and its store.
pub fn is_initialized(places: &Places) -> bool {
    places.key().exists() && places.store().exists()
}

/// What an instance is made from, where it is not made from nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// A key file to be copied instead of drawing a key.
    pub key: Option<&'a Path>,
    /// A backup of a store of the same key.
    pub backup: Option<&'a Path>,
}

/// Makes an instance. A key that is there without a store is kept: so an interrupted call is completed, and a host
/// that lost its store begins anew under its old key. Without a name it takes the backup's, else the machine's.
pub async fn init(
    places: &Places,
    instance: Option<InstanceId>,
    sources: Sources<'_>,
    clock: Clock,
) -> Result<Initialized, InitError> {
    let instance = match instance {
        None if sources.backup.is_none() => Some(host_name()?),
        given => given,
    };
    let initialized = || InitError::Initialized { path: places.data_dir().to_owned() };
    // Looked at before the lock, too: a running daemon has it.
    if is_initialized(places) {
        return Err(initialized());
    }
    adopt(places)?;
    let _lock = DataLock::take(&places.lock(), clock, LOCK_WAIT).await?;
    if is_initialized(places) {
        return Err(initialized());
    }
    let (identity, origin) = match sources.key {
        Some(from) => (Identity::import(from)?, "the key was imported"),
        None if places.key().exists() => (Identity::load(&places.key())?, "the key was there already"),
        None => match sources.backup {
            Some(backup) => {
                let (backup, path) = (backup.to_owned(), places.data_dir().to_owned());
                return Err(InitError::NoKey { backup, path });
            }
            None => (Identity::generate()?, "the key is new"),
        },
    };
    let store = fill(places, &identity, sources.backup, clock).await?;
    let instance = match instance.or(store.facts().await?.instance) {
        Some(instance) => instance,
        None => host_name()?,
    };
    store.set_instance(instance.clone()).await?;
    let detail = format!("{instance}, {}; {origin}", identity.key_id());
    store.note_audit(AuditEvent { event: AuditKind::Initialized, peer: None, detail }).await?;
    store.close().await;
    Ok(Initialized { key_id: identity.key_id(), instance })
}

/// The key first, then the store: only both together are an instance. A backup that is not fit leaves neither.
async fn fill(
    places: &Places,
    identity: &Identity,
    backup: Option<&Path>,
    clock: Clock,
) -> Result<Store, InitError> {
    let (path, own, first) = (places.store(), identity.public_key(), identity.first());
    let before: Vec<_> = identity.before().collect();
    let Some(backup) = backup else {
        keep(identity, places)?;
        let creating = tokio::task::spawn_blocking(move || Store::create_after(&path, own, first, clock));
        return Ok(creating.await.unwrap_or(Err(StoreError::Closed))?);
    };
    let (backup, to) = (backup.to_owned(), path.clone());
    let restoring = tokio::task::spawn_blocking(move || Store::restore(&backup, &to, own, &before, clock));
    let restored = restoring.await.unwrap_or(Err(StoreError::Closed))?;
    keep(identity, places)?;
    let opening = tokio::task::spawn_blocking(move || {
        restored.finish()?;
        Store::open(&path, OpenOptions { own, clock, cache_entries: DEFAULT_CACHE_ENTRIES })
    });
    Ok(opening.await.unwrap_or(Err(StoreError::Closed))?)
}

/// Writes the key file, unless it is there already: then it must hold this key.
fn keep(identity: &Identity, places: &Places) -> Result<(), IdentityError> {
    let path = places.key();
    match identity.store(&path) {
        Err(IdentityError::Exists { .. }) if Identity::load(&path)?.key_id() == identity.key_id() => Ok(()),
        stored => stored,
    }
}

/// The machine's name up to its first dot.
pub(super) fn host_name() -> Result<InstanceId, InitError> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let short = name.split('.').next().unwrap_or_default();
    short.parse().map_err(|_| InitError::NoName(name.clone().into_owned()))
}

/// Makes the folder, or takes an empty one of ours and shuts others out.
fn adopt(places: &Places) -> Result<(), InitError> {
    let path = places.data_dir();
    let failed = |source| InitError::Io { path: path.to_owned(), source };
    if !path.exists() {
        return DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed);
    }
    if places.key().exists() || places.store().exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            let found = name.to_string_lossy().into_owned();
            return Err(InitError::Foreign { path: path.to_owned(), found });
        }
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}
