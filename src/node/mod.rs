//! One instance in one process: its identity, its open store, and every task that it runs.
//!
//! [`Node`] is what the faces work on. A command without a daemon opens one for a moment; a daemon keeps it open and
//! starts the network on it. This is the one place that knows how the parts fit.

mod forget;
mod hear;
mod init;
mod live;
mod lock;
mod network;
mod past;
mod rotation;
mod serve_file;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use opmesh_core::model::{InstanceId, KeyId, ProcessNonce, PublicKey, UnixMs};

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::limits::Limits;
use crate::places::Places;
use crate::store::{
    AuditEvent, AuditKind, DEFAULT_CACHE_ENTRIES, OpenOptions, PeerError, Resolution, Store, StoreError,
};
use crate::transport::{Doorman, EVENT_QUEUE, Local, Me, SessionEvent, Sessions};

pub use init::{InitError, Initialized, Sources, init, is_initialized};
pub use live::{Live, Seat, Standing};
pub use lock::{DataLock, LOCK_WAIT, LockError};
pub use past::{History, PAST_SESSIONS, Past, PastEnd};
pub use rotation::{Confirming, Rotation, RotationError};
pub use serve_file::{Listener, ServeFile, ServeFileError};
pub use watch::{Dirty, MAX_WATCHERS, Watcher};

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
    Store(#[from] StoreError),
    /// The machine's name is no instance id, and the store knows none.
    #[error(transparent)]
    Name(InitError),
}

/// An instance, open. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    places: Places,
    local: Arc<Local>,
    since: UnixMs,
    live: Live,
    tasks: TaskTracker,
    stop: CancellationToken,
    serving: OnceLock<ServeFile>,
    /// One change of the key at a time.
    rotating: tokio::sync::Mutex<()>,
    /// Taken by whoever starts the network.
    events: Mutex<Option<mpsc::Receiver<SessionEvent>>>,
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
        let cache_entries = config.cache_entries.unwrap_or(DEFAULT_CACHE_ENTRIES);
        let options = OpenOptions { own: identity.public_key(), clock, cache_entries };
        let path = places.store();
        let before: Vec<_> = identity.before().collect();
        let opening = tokio::task::spawn_blocking(move || Store::open_after(&path, options, &before));
        let store = opening.await.unwrap_or(Err(StoreError::Closed)).map_err(|fault| match fault {
            StoreError::Missing { .. } => NodeError::NotInitialized { path: places.data_dir().to_owned() },
            other => NodeError::Store(other),
        })?;
        let instance = name(&store).await?;
        let (events, hear) = mpsc::channel(EVENT_QUEUE);
        let process = process_nonce()?;
        let next = waiting_key(&places, &identity)?;
        let doorman = Doorman::new(config.limits.clone());
        let local = Local {
            me: RwLock::new(Me { identity: Arc::new(identity), instance, next }),
            process,
            store,
            clock,
            allowed: config.allowed.clone(),
            sessions: Sessions::default(),
            doorman,
            events,
        };
        let inner = Inner {
            places,
            local: Arc::new(local),
            since: clock.wall(),
            live: Live::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            serving: OnceLock::new(),
            rotating: tokio::sync::Mutex::default(),
            events: Mutex::new(Some(hear)),
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
        // A command's node is no daemon, and says neither that it starts nor that it stops.
        if self.serving().is_some()
            && let Err(error) = self.store().note_stopped().await
        {
            tracing::warn!(%error, "the end of this daemon could not be written to the audit log");
        }
        self.store().close().await;
    }

    /// Where its files are.
    pub fn places(&self) -> &Places {
        &self.inner.places
    }

    /// What it brings into every session.
    pub fn local(&self) -> &Arc<Local> {
        &self.inner.local
    }

    /// Who it is.
    pub fn identity(&self) -> Arc<Identity> {
        self.inner.local.me().identity
    }

    /// What it calls itself.
    pub fn instance(&self) -> InstanceId {
        self.inner.local.me().instance
    }

    /// The operator decides an identity conflict: of two databases of a peer, or of two processes that displace each
    /// other.
    pub async fn resolve(&self, peer: &KeyId, resolution: Resolution) -> Result<(), PeerError> {
        match self.store().resolve(peer, resolution).await {
            Err(PeerError::NothingToResolve(_)) if self.inner.local.sessions.decide(peer, resolution) => {
                let event = match resolution {
                    Resolution::AcceptPresented => AuditKind::ConflictAccepted,
                    Resolution::Refuse => AuditKind::ConflictRefused,
                };
                let detail = "processes that displaced each other".to_owned();
                Ok(self.store().note_audit(AuditEvent { event, peer: Some(*peer), detail }).await?)
            }
            decided => decided,
        }
    }

    /// Calls it something else; its peers learn it in their next session.
    pub async fn rename(&self, instance: InstanceId) -> Result<(), StoreError> {
        self.store().set_instance(instance.clone()).await?;
        self.inner.local.rename(instance);
        Ok(())
    }

    /// The key that waits to take over.
    pub fn next_key(&self) -> Option<PublicKey> {
        self.inner.local.me().next.map(|next| next.public_key())
    }

    /// What it keeps.
    pub fn store(&self) -> &Store {
        &self.inner.local.store
    }

    /// The only reader of time.
    pub fn clock(&self) -> Clock {
        self.inner.local.clock
    }

    /// Since when it is open.
    pub fn since(&self) -> UnixMs {
        self.inner.since
    }

    /// How it stands with its peers right now.
    pub fn live(&self) -> &Live {
        &self.inner.live
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        self.inner.local.doorman.limits()
    }

    /// Who is connected, and the way to ask them for something.
    pub fn sessions(&self) -> &Sessions {
        &self.inner.local.sessions
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

    /// The events of sessions, for the first who asks.
    fn take_events(&self) -> Option<mpsc::Receiver<SessionEvent>> {
        self.inner.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn not_there(places: &Places, fault: IdentityError) -> NodeError {
    match fault {
        IdentityError::Missing { .. } => NodeError::NotInitialized { path: places.data_dir().to_owned() },
        other => NodeError::Identity(other),
    }
}

/// The key that waits to take over; one that was left behind by a rotation that is over is none.
fn waiting_key(places: &Places, identity: &Identity) -> Result<Option<Arc<Identity>>, NodeError> {
    match Identity::load(&places.next_key()) {
        Ok(next) if next.before().last() == Some(identity.public_key()) => Ok(Some(Arc::new(next))),
        Ok(_) => {
            tracing::warn!(path = %places.next_key().display(), "this key does not come after the present one");
            Ok(None)
        }
        Err(IdentityError::Missing { .. }) => Ok(None),
        Err(other) => Err(NodeError::Identity(other)),
    }
}

/// The name that was given at `init`; a store whose `init` was cut off gets the usual one.
async fn name(store: &Store) -> Result<InstanceId, NodeError> {
    if let Some(instance) = store.facts().await?.instance {
        return Ok(instance);
    }
    let instance = init::host_name().map_err(NodeError::Name)?;
    store.set_instance(instance.clone()).await?;
    Ok(instance)
}

fn process_nonce() -> Result<ProcessNonce, NodeError> {
    let random = getrandom::u64().map_err(|_| NodeError::Identity(IdentityError::Randomness))?;
    Ok(ProcessNonce::new(random & ProcessNonce::MAX.get()).unwrap_or(ProcessNonce::MIN))
}
