//! Whole instances that talk over loopback, and strangers who do what no instance would.

mod audited;
mod hostile;
mod limits;
mod line;
mod racers;
mod raw;
mod relay;
mod sealed;
mod settings;
mod sharing;
mod spans;
mod stalled;
mod together;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use opmesh_core::config::Allowed;
use opmesh_core::model::{FlowId, KeyId, OpId, ProcessNonce, Record};
use opmesh_core::permission::{Grants, Scopes};
use opmesh_core::session::Report;
use tempfile::TempDir;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Channel, Doorman, EVENT_QUEUE, Ending, HubUrl, Listen, Local, Me, Scheme, Server, SessionEvent,
    SessionNews, Sessions, dialer,
};
use crate::clock::Clock;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::store::{
    Dial, Flow, NewPeer, OpRow, OpenOptions, OpsQuery, OwnChange, Peer, PeerEdit, Role, Roles, Store,
};

/// No test waits longer for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// What hosts grant their hub unless a test is about grants.
const ALL: &str = "READ_OPERATIONS:*";

/// One instance in a folder of its own.
struct Instance {
    local: Arc<Local>,
    events: mpsc::Receiver<SessionEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
    redial: Arc<Notify>,
    url: Option<HubUrl>,
    folder: TempDir,
}

impl Instance {
    fn new(seed: u8) -> Self {
        Self::with_clock(seed, Clock::system())
    }

    /// The store's threads go by the system's clock in any case.
    fn with_clock(seed: u8, clock: Clock) -> Self {
        Self::with(seed, clock, Limits::default())
    }

    fn with(seed: u8, clock: Clock, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = Identity::from_seed(&[seed; 32]).public_key();
        let store = Store::create(&folder.path().join("opmesh.db"), own, Clock::system()).unwrap();
        Self::around(seed, store, folder, clock, limits)
    }

    /// The same instance in a new process, once the store of the old one is closed.
    fn reopened(self, seed: u8, limits: Limits) -> Self {
        let own = self.local.me().identity.public_key();
        let options = OpenOptions { own, clock: Clock::system(), cache_entries: 100 };
        let store = Store::open(&self.folder.path().join("opmesh.db"), options).unwrap();
        Self::around(seed, store, self.folder, Clock::system(), limits)
    }

    fn around(seed: u8, store: Store, folder: TempDir, clock: Clock, limits: Limits) -> Self {
        let identity = Identity::from_seed(&[seed; 32]);
        let (events, heard) = mpsc::channel(EVENT_QUEUE);
        let local = Arc::new(Local {
            me: RwLock::new(Me {
                identity: Arc::new(identity),
                instance: format!("host-{seed}").parse().unwrap(),
                next: None,
            }),
            process: ProcessNonce::new(u64::from(seed)).unwrap(),
            store,
            clock,
            allowed: Allowed::default(),
            sessions: Sessions::default(),
            doorman: Doorman::new(limits),
            events,
        });
        Self {
            local,
            events: heard,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            redial: Arc::new(Notify::new()),
            url: None,
            folder,
        }
    }

    /// Listens on loopback.
    async fn hub(seed: u8, listen: &str) -> Self {
        Self::new(seed).listening(listen).await
    }

    async fn listening(mut self, listen: &str) -> Self {
        let listen: Listen = listen.parse().unwrap();
        let server = Server::start(&[listen], &self.local, &self.tasks, &self.stop).await.unwrap();
        let bound = server.addresses()[0];
        self.url = Some(HubUrl {
            channel: bound.channel,
            scheme: if bound.channel == Channel::Tls { Scheme::Https } else { Scheme::Http },
            host: bound.address.ip().to_string(),
            port: bound.address.port(),
        });
        self
    }

    fn key(&self) -> KeyId {
        self.local.me().identity.key_id()
    }

    fn url(&self) -> &HubUrl {
        self.url.as_ref().unwrap()
    }

    /// Lists `other` as one that may dial us.
    async fn authorize(&self, other: &Identity) -> Peer {
        let peer = NewPeer { roles: roles(Role::AuthorizedClient), ..peer(other.key_id()) };
        self.local.store.add_peer(peer).await.unwrap()
    }

    /// Lists `hub` as one that we dial, with these grants, and begins to.
    async fn dial(&self, hub: KeyId, url: &HubUrl, grants: &str) {
        let given = Grants::parse(grants.split_whitespace()).unwrap();
        let dial = Dial { urls: vec![url.to_string()], channel: Some(url.channel.name().to_owned()) };
        let peer = NewPeer { roles: roles(Role::KnownHost), given, dial, ..peer(hub) };
        self.local.store.add_peer(peer).await.unwrap();
        let run = dialer::run(self.local.clone(), hub, self.redial.clone(), self.stop.clone());
        self.tasks.spawn(run);
    }

    /// Waits for an event about `peer` that `wanted` takes.
    async fn hears<T>(&mut self, peer: KeyId, wanted: impl Fn(&SessionNews) -> Option<T>) -> T {
        let hearing = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if event.peer == peer
                    && let Some(found) = wanted(&event.news)
                {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.unwrap()
    }

    async fn hears_ending(&mut self, peer: KeyId) -> Ending {
        self.hears(peer, |news| match news {
            SessionNews::Ended(ending) => Some(ending.clone()),
            _ => None,
        })
        .await
    }

    async fn hears_connected(&mut self, peer: KeyId) {
        self.hears(peer, |news| matches!(news, SessionNews::Connected { .. }).then_some(())).await;
    }

    async fn record(&self, plan: &str, message: &str) -> OpId {
        let record = Record::parse(Record::for_tests("repo", plan, message).into_bytes()).unwrap();
        let appended =
            self.local.store.append(vec![OwnChange::Create { flow: Flow::New, record }]).await.unwrap();
        appended[0].id
    }

    async fn record_many(&self, count: usize) {
        let record = Record::parse(Record::for_tests("repo", "plan", &"x".repeat(120)).into_bytes()).unwrap();
        for _ in 0..count / 100 {
            let create = || OwnChange::Create { flow: Flow::New, record: record.clone() };
            self.local.store.append((0..100).map(|_| create()).collect()).await.unwrap();
        }
    }

    /// Waits until `hub` has proved to hold as many operations as were recorded.
    async fn hears_proof_of(&mut self, hub: KeyId, count: u64) {
        self.hears(hub, |news| match news {
            SessionNews::Report(Report::Proved { set, .. }) => (set.count() == count).then_some(()),
            _ => None,
        })
        .await;
    }

    async fn rows(&self) -> Vec<OpRow> {
        self.local.store.operations(OpsQuery::default()).await.unwrap().rows
    }

    /// Waits until the operations here are what `wanted` says.
    async fn has(&self, wanted: impl Fn(&[OpRow]) -> bool) {
        let mut changes = self.local.store.subscribe().await.unwrap();
        let waiting = async {
            while !wanted(&self.rows().await) {
                match changes.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => panic!("the store closed"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }

    async fn edit(&self, peer: KeyId, edit: PeerEdit) {
        self.local.store.edit_peer(&peer, vec![edit]).await.unwrap();
    }

    async fn shut_down(self) {
        self.stop.cancel();
        self.tasks.close();
        let Self { tasks, events, .. } = self;
        drop(events);
        tokio::time::timeout(PATIENCE, tasks.wait()).await.unwrap();
    }
}

/// A host that the hub lets in, and that dials it.
async fn connected(seed: u8, hub: &Instance, grants: &str) -> Instance {
    let host = Instance::new(seed);
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), hub.url(), grants).await;
    host
}

fn peer(key: KeyId) -> NewPeer {
    NewPeer {
        key,
        instance: None,
        roles: Roles::default(),
        verified: true,
        dial: Dial::default(),
        given: Grants::default(),
        joining: None,
    }
}

fn roles(role: Role) -> Roles {
    Roles { known_host: role == Role::KnownHost, authorized_client: role == Role::AuthorizedClient }
}

fn flow(id: u64) -> FlowId {
    FlowId::new(id).unwrap()
}

fn everything() -> Scopes {
    Scopes::everything()
}
