//! Following the state of peers: a snapshot, then changes; a reader that does not read holds nobody up.

use std::collections::BTreeMap;
use std::time::Duration;

use opmesh::admin::{Client, Reason, Replies, pb};
use opmesh::clock::Clock;
use opmesh::config::Config;
use opmesh::daemon::{Daemon, ServeOptions};
use opmesh::node::{self, MAX_WATCHERS, Standing};
use opmesh::places::Places;
use opmesh::store::{Dial, NewPeer, PeerEdit, Role, Roles};
use opmesh_core::model::{KeyId, PublicKey};
use opmesh_core::permission::Grants;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Long enough for a loaded machine, and never waited for in full.
const DEADLINE: Duration = Duration::from_mins(1);
/// HTTP/2's own default; the library's is larger.
const WINDOW_BYTES: u32 = 65_535;
const ROLE: Role = Role::AuthorizedClient;

struct Hub {
    daemon: Daemon,
    client: Client,
    _folder: TempDir,
}

impl Hub {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::within(&folder.path().join("data"));
        node::init(&places, Some("hub".parse().unwrap()), node::Sources::default(), Clock::system())
            .await
            .unwrap();
        let socket = places.socket();
        let options =
            ServeOptions { places, config: Config::default(), listen: Vec::new(), admin_socket: None };
        let daemon = Daemon::start(options, Clock::system()).await.unwrap();
        let client = Client::connect(&socket).await.unwrap();
        Self { daemon, client, _folder: folder }
    }

    /// Adds so many hosts that are let in; none of them ever connects.
    async fn with_hosts(count: usize) -> (Self, Vec<KeyId>) {
        let hub = Self::new().await;
        let keys: Vec<_> = (0..count).map(key).collect();
        let mut adding = JoinSet::new();
        for key in keys.clone() {
            let store = hub.daemon.node().store().clone();
            adding.spawn(async move { store.add_peer(host(key)).await.unwrap() });
        }
        assert_eq!(adding.join_all().await.len(), count);
        (hub, keys)
    }

    /// As a session would.
    fn change(&self, key: KeyId, reason: &str) {
        self.daemon.node().live().update(key, ROLE, |seat| {
            seat.standing = Standing::CatchingUp;
            reason.clone_into(&mut seat.reason);
        });
    }

    /// A reader whose stream takes in less than a snapshot of 500 peers before somebody reads it.
    async fn watch_without_room(&self) -> Streaming<pb::PeerEvent> {
        let socket = self.daemon.node().places().socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://socket.invalid")
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let mut client = pb::admin_client::AdminClient::new(channel);
        client.watch_peers(pb::WatchPeersRequest {}).await.unwrap().into_inner()
    }

    async fn watch(&self) -> Replies<pb::PeerEvent> {
        self.client.watch_peers(pb::WatchPeersRequest {}).await.unwrap()
    }
}

fn key(number: usize) -> KeyId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    PublicKey(bytes).key_id()
}

fn host(key: KeyId) -> NewPeer {
    NewPeer {
        key,
        instance: None,
        roles: Roles { known_host: false, authorized_client: true },
        verified: true,
        dial: Dial::default(),
        given: Grants::default(),
        joining: None,
    }
}

/// Either kind of stream.
trait Events {
    async fn event(&mut self) -> pb::PeerEvent;
}

impl Events for Replies<pb::PeerEvent> {
    async fn event(&mut self) -> pb::PeerEvent {
        self.next().await.unwrap().unwrap()
    }
}

impl Events for Streaming<pb::PeerEvent> {
    async fn event(&mut self) -> pb::PeerEvent {
        self.message().await.unwrap().unwrap()
    }
}

async fn next(events: &mut impl Events) -> pb::PeerEvent {
    tokio::time::timeout(DEADLINE, events.event()).await.expect("an event in time")
}

/// Reads the snapshot: the states by key ID.
async fn snapshot(events: &mut impl Events) -> BTreeMap<String, pb::PeerStatus> {
    let mut peers = BTreeMap::new();
    loop {
        let event = next(events).await;
        match (event.event.as_str(), event.peer) {
            ("snapshot", Some(peer)) => assert!(peers.insert(peer.key_id.clone(), peer).is_none()),
            ("synced", None) => return peers,
            other => panic!("in a snapshot: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_comes_first_then_what_changes_and_who_goes() {
    let (hub, keys) = Hub::with_hosts(3).await;
    let mut events = hub.watch().await;
    let seen = snapshot(&mut events).await;
    assert_eq!(seen.len(), 3);
    assert!(seen.values().all(|peer| peer.state == "never_connected" && peer.role == "authorized_client"));
    hub.change(keys[1], "a long way to go");
    let changed = next(&mut events).await;
    let peer = changed.peer.unwrap();
    assert_eq!((changed.event.as_str(), peer.state.as_str()), ("changed", "catching_up"));
    assert_eq!((peer.key_id, peer.reason), (keys[1].to_string(), "a long way to go".to_owned()));
    let grant = PeerEdit::Grant("READ_CONFIG:repo:a".parse().unwrap());
    hub.daemon.node().store().edit_peer(&keys[2], vec![grant]).await.unwrap();
    let granted = next(&mut events).await.peer.unwrap();
    assert_eq!(granted.grants.unwrap().given, ["READ_CONFIG:repo:a"]);
    hub.daemon.node().store().add_peer(host(key(77))).await.unwrap();
    let added = next(&mut events).await;
    assert_eq!((added.event.as_str(), added.peer.unwrap().key_id), ("changed", key(77).to_string()));
    let name = seen[&keys[0].to_string()].name.clone();
    hub.daemon.node().store().remove_peer(&keys[0]).await.unwrap();
    let removed = next(&mut events).await;
    assert_eq!(removed.event, "removed");
    let removed = removed.peer.unwrap();
    assert_eq!((removed.name, removed.role.as_str()), (name, "authorized_client"));
    hub.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_says_nothing_new_is_no_event() {
    let (hub, keys) = Hub::with_hosts(2).await;
    let mut events = hub.watch().await;
    snapshot(&mut events).await;
    for _ in 0..50 {
        hub.change(keys[0], "the same");
    }
    assert_eq!(next(&mut events).await.peer.unwrap().reason, "the same");
    hub.change(keys[0], "the same");
    hub.daemon.node().store().note_seen(&keys[0]);
    hub.change(keys[1], "something else");
    let other = loop {
        let peer = next(&mut events).await.peer.unwrap();
        // The first sign of life is news; the repetition alone is not.
        if peer.key_id == keys[1].to_string() {
            break peer;
        }
        assert!(peer.last_seen_unix_ms.is_some(), "{peer:?}");
    };
    assert_eq!(other.reason, "something else");
    hub.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_holds_nobody_up_and_then_sees_the_latest_state() {
    const HOSTS: usize = 500;
    const CHANGES: usize = 10_000;
    let (hub, keys) = Hub::with_hosts(HOSTS).await;
    let mut silent = hub.watch_without_room().await;
    let mut quick = hub.watch().await;
    snapshot(&mut quick).await;
    let last = |number: usize| format!("change {}", CHANGES - HOSTS + number);
    for change in 0..CHANGES {
        hub.change(keys[change % HOSTS], &format!("change {change}"));
        if change % 1000 == 0 {
            hub.client.status(pb::StatusRequest {}).await.unwrap();
        }
    }
    let mut after = 0;
    let mut states = BTreeMap::new();
    while !keys.iter().enumerate().all(|(number, key)| states.get(&key.to_string()) == Some(&last(number))) {
        let peer = next(&mut quick).await.peer.unwrap();
        states.insert(peer.key_id, peer.reason);
    }
    let mut states: BTreeMap<_, _> =
        snapshot(&mut silent).await.into_iter().map(|(key, peer)| (key, peer.reason)).collect();
    assert_eq!(states.len(), HOSTS);
    while !keys.iter().enumerate().all(|(number, key)| states[&key.to_string()] == last(number)) {
        let event = next(&mut silent).await;
        let peer = event.peer.unwrap();
        assert_eq!(event.event, "changed");
        states.insert(peer.key_id, peer.reason);
        after += 1;
    }
    println!("{CHANGES} changes of {HOSTS} peers: {after} events for the reader that did not read");
    // Beside one for each peer, what had left for the reader before it began to read.
    assert!(after <= 2 * HOSTS, "{after} events: what waits is a set of peers, not of changes");
    hub.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_watchers_see_the_same_end_and_there_is_a_limit() {
    let (hub, keys) = Hub::with_hosts(20).await;
    let mut watching = Vec::new();
    for _ in 0..10 {
        let mut events = hub.watch().await;
        assert_eq!(snapshot(&mut events).await.len(), 20);
        watching.push(events);
    }
    for change in 0..1000 {
        hub.change(keys[change % 20], &format!("change {change}"));
    }
    for events in &mut watching {
        let mut states = BTreeMap::new();
        while !(0..20)
            .all(|host| states.get(&keys[host].to_string()) == Some(&format!("change {}", 980 + host)))
        {
            let peer = next(events).await.peer.unwrap();
            states.insert(peer.key_id, peer.reason);
        }
    }
    while watching.len() < MAX_WATCHERS {
        watching.push(hub.watch().await);
    }
    let refused = hub.client.watch_peers(pb::WatchPeersRequest {}).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Limit);
    drop(watching);
    let again = async {
        while hub.client.watch_peers(pb::WatchPeersRequest {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("readers that have gone make room");
    hub.daemon.stop().await;
}
