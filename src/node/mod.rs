//! One instance in one process: its identity, its open store, and every task that it runs.
//!
//! [`Node`] is what the faces work on. A command without a daemon opens one for a moment; a daemon keeps it open and
//! starts the network on it. This is the one place that knows how the parts fit.

mod init;
mod live;
mod lock;
mod serve_file;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use opmesh_core::model::{InstanceId, UnixMs};

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::places::Places;
use crate::store::{OpenOptions, Store, StoreError};

pub use init::{InitError, Initialized, init, is_initialized};
pub use live::{Live, Seat, Standing};
pub use lock::{DataLock, LOCK_WAIT, LockError};
pub use serve_file::{Listener, ServeFile, ServeFileError};

/// How long a node that closes waits for its tasks.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is nothing at that place.
    #[error("{} is not initialized: run `opmesh init` first", path.display())]
    NotInitialized {
        /// The data directory.
        path: PathBuf,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Identity(IdentityError),
    /// Another process has the data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(StoreError),
}

/// An instance, open. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    places: Places,
    identity: Arc<Identity>,
    instance: Option<InstanceId>,
    store: Store,
    clock: Clock,
    since: UnixMs,
    live: Live,
    tasks: TaskTracker,
    stop: CancellationToken,
    serving: OnceLock<ServeFile>,
    _lock: DataLock,
}

impl Node {
    /// Opens the instance at this place, waiting up to `wait` for another process to let go of it.
    pub async fn open(
        places: Places,
        config: &Config,
        clock: Clock,
        wait: Duration,
    ) -> Result<Self, NodeError> {
        let identity = Identity::load(&places.key()).map_err(|fault| not_there(&places, fault))?;
        let lock = DataLock::take(&places.lock(), clock, wait).await?;
        let own = identity.public_key();
        let options = OpenOptions { own, clock, cache_entries: config.cache_entries };
        let path = places.store();
        let opening = tokio::task::spawn_blocking(move || Store::open(&path, options));
        let store = opening.await.unwrap_or(Err(StoreError::Closed)).map_err(|fault| match fault {
            StoreError::Missing { .. } => NodeError::NotInitialized { path: places.data_dir().to_owned() },
            other => NodeError::Store(other),
        })?;
        let instance = store.facts().await.map_err(NodeError::Store)?.instance;
        let inner = Inner {
            places,
            identity: Arc::new(identity),
            instance,
            store,
            clock,
            since: clock.wall(),
            live: Live::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            serving: OnceLock::new(),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ends every task, waiting up to [`DRAIN`], then closes the store. What was accepted is durable afterwards.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(DRAIN, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.inner.tasks.len(), "tasks were still running when the node closed");
        }
        self.inner.store.close().await;
    }

    /// Where its files are.
    pub fn places(&self) -> &Places {
        &self.inner.places
    }

    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.inner.identity
    }

    /// What it calls itself.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.inner.instance.as_ref()
    }

    /// What it keeps.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The only reader of time.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Since when it is open.
    pub fn since(&self) -> UnixMs {
        self.inner.since
    }

    /// How it stands with its peers right now.
    pub fn live(&self) -> &Live {
        &self.inner.live
    }

    /// Runs until the node closes; the future must end soon after [`Node::stopping`] is cancelled.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    /// Cancelled when the node closes.
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stop
    }

    /// What it says about itself as a daemon; `None` while it is none.
    pub fn serving(&self) -> Option<&ServeFile> {
        self.inner.serving.get()
    }

    /// Notes that this is a daemon now, once everything is bound.
    pub fn set_serving(&self, serving: ServeFile) {
        // A second call would be a second start of the same node; the first one's listeners are the true ones.
        self.inner.serving.get_or_init(|| serving);
    }
}

fn not_there(places: &Places, fault: IdentityError) -> NodeError {
    match fault {
        IdentityError::Missing { .. } => NodeError::NotInitialized { path: places.data_dir().to_owned() },
        other => NodeError::Identity(other),
    }
}
