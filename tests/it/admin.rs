//! The administration of an instance, over a real socket and in process: calls, JSON, pairing, and who is refused.

use std::path::Path;
use std::time::Duration;

use opmesh::admin::{Client, Failure, Reached, Reason, pb, reach};
use opmesh::clock::Clock;
use opmesh::config::Config;
use opmesh::daemon::{Daemon, ServeOptions};
use opmesh::node::{self, DataLock, Node, ServeFile, Sources};
use opmesh::places::Places;
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

/// Long enough for a loaded machine, and never waited for in full.
const DEADLINE: Duration = Duration::from_secs(30);

struct Instance {
    folder: TempDir,
    places: Places,
}

impl Instance {
    async fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::within(&folder.path().join("data"));
        let instance = Some(name.parse().unwrap());
        node::init(&places, instance, Sources::default(), Clock::system()).await.unwrap();
        Self { folder, places }
    }

    async fn serve(&self, listen: &[&str]) -> Daemon {
        let options = ServeOptions {
            places: self.places.clone(),
            config: Config::default(),
            listen: listen.iter().map(|listen| listen.parse().unwrap()).collect(),
            admin_socket: None,
        };
        Daemon::start(options, Clock::system()).await.unwrap()
    }

    async fn reach(&self) -> Reached {
        reach(&self.places, Clock::system(), DEADLINE).await.unwrap()
    }
}

fn create(status: &str, start: i64) -> pb::change::Change {
    pb::change::Change::Create(pb::CreateOperation {
        kind: "backup".into(),
        status: status.into(),
        repo_id: "home".into(),
        plan_id: "daily".into(),
        start_unix_ms: Some(start),
        snapshot_id: "4a2b".into(),
        ..pb::CreateOperation::default()
    })
}

async fn apply(client: &Client, changes: Vec<pb::change::Change>) -> Vec<pb::ApplyResult> {
    let numbered = (1..).zip(changes).map(|(line, change)| pb::Change { line, change: Some(change) });
    let transaction = pb::ApplyTransaction { changes: numbered.collect(), more: false };
    let replies = client.apply_operations(tokio_stream::once(transaction)).await.unwrap();
    replies.collect().await.unwrap().into_iter().flat_map(|reply| reply.results).collect()
}

async fn operations(client: &Client) -> Vec<pb::Operation> {
    let mut listed = client.list_operations(pb::ListOperationsRequest::default()).await.unwrap();
    let mut all = Vec::new();
    while let Some(operation) = listed.next().await.unwrap() {
        all.push(operation);
    }
    all
}

async fn until(client: &Client, what: &str, holds: impl Fn(&pb::PeerStatus) -> bool) -> pb::PeerStatus {
    let looking = async {
        loop {
            let status = client.status(pb::StatusRequest {}).await.unwrap();
            if let Some(peer) = status.peers.iter().find(|peer| holds(peer)) {
                return peer.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, looking).await;
    if found.is_err() {
        let status = client.status(pb::StatusRequest {}).await.unwrap();
        assert!(found.is_ok(), "never {what}: {:#?}", status.peers);
    }
    found.unwrap()
}

async fn token(client: &Client) -> String {
    client.create_token(pb::CreateTokenRequest::default()).await.unwrap().token
}

fn join(token: String, daemon: &Daemon) -> pb::JoinHubRequest {
    let url = format!("https://{}", daemon.serving().listen[0].address);
    pb::JoinHubRequest { token, urls: vec![url], ..pb::JoinHubRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_listed_updated_and_deleted_alike_with_and_without_a_daemon() {
    for served in [true, false] {
        let instance = Instance::new("web-1").await;
        let daemon = if served { Some(instance.serve(&[]).await) } else { None };
        let reached = instance.reach().await;
        let client = &reached.client;
        let made = apply(client, vec![create("success", 1000), create("inprogress", 2000)]).await;
        assert_eq!(
            made.iter().map(|result| result.result.as_str()).collect::<Vec<_>>(),
            ["created", "created"]
        );
        let (first, second) = (made[0].id.unwrap(), made[1].id.unwrap());
        let update = pb::UpdateOperation {
            id: second,
            status: Some("error".into()),
            end_unix_ms: Some(2500),
            message: Some("disk full".into()),
            expect_modno: Some(2),
            ..pb::UpdateOperation::default()
        };
        let done = apply(client, vec![pb::change::Change::Update(update)]).await;
        assert_eq!(done[0].modno, Some(3));
        let listed = operations(client).await;
        assert_eq!(listed.iter().map(|operation| operation.id).collect::<Vec<_>>(), [second, first]);
        assert_eq!((listed[0].status.as_str(), listed[0].message.as_str()), ("error", "disk full"));
        let one = client.get_operation(pb::GetOperationRequest { id: second }).await.unwrap();
        assert_eq!(one, listed[0]);
        client.delete_operations(pb::DeleteOperationsRequest { ids: vec![first, second] }).await.unwrap();
        assert_eq!(operations(client).await, []);
        let status = client.status(pb::StatusRequest {}).await.unwrap();
        assert_eq!((status.instance_id.as_str(), status.count), ("web-1", 0));
        assert_eq!(status.daemon.unwrap().running, served);
        reached.close().await;
        if let Some(daemon) = daemon {
            daemon.stop().await;
            assert!(ServeFile::read(&instance.places.serve_file()).is_none());
            assert!(!instance.places.socket().exists());
        }
        drop(instance.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_of_operations_and_results_is_the_documented_contract() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    let details = pb::Details {
        tool: "restic".into(),
        exit_code: Some(3),
        argv: vec!["restic".into(), "backup".into()],
        summary_json: r#"{"files_new":5,"id":9007199254740993}"#.into(),
        errors: vec!["no access".into()],
        error_count: 7,
        ..pb::Details::default()
    };
    let pb::change::Change::Create(mut rich) = create("warning", 1000) else { panic!("another change") };
    rich.details = Some(details);
    let results = apply(&reached.client, vec![pb::change::Change::Create(rich)]).await;
    insta::assert_snapshot!(serde_json::to_string(&results[0]).unwrap(), @r#"{"line":1,"result":"created","id":"1","modno":"1"}"#);
    let refused = apply(&reached.client, vec![create("success", 1), create("great", 1)]).await;
    insta::assert_snapshot!(serde_json::to_string(&refused).unwrap(), @r#"[{"line":2,"result":"error","reason":"\"great\" is not a status: expected one of unknown, pending, inprogress, success, error, system_cancelled, user_cancelled, warning"}]"#);
    let own = reached.client.status(pb::StatusRequest {}).await.unwrap().key_id;
    let stable = |value: String| value.replace(&own, "KEY_ID");
    let listed = operations(&reached.client).await;
    insta::assert_snapshot!(stable(serde_json::to_string_pretty(&listed[0]).unwrap()), @r#"
    {
      "id": "1",
      "host": "web-1",
      "owner_key_id": "KEY_ID",
      "original_id": "1",
      "flow_id": "1",
      "original_flow_id": "1",
      "modno": "1",
      "kind": "backup",
      "status": "warning",
      "repo_id": "home",
      "repo_guid": "",
      "plan_id": "daily",
      "snapshot_id": "4a2b",
      "start_unix_ms": "1000",
      "end_unix_ms": null,
      "message": "",
      "details": {
        "tool": "restic",
        "tool_version": "",
        "exit_code": 3,
        "argv": [
          "restic",
          "backup"
        ],
        "summary": {
          "files_new": 5,
          "id": 9007199254740993
        },
        "errors": [
          "no access"
        ],
        "error_count": "7",
        "log_tail": ""
      }
    }
    "#);
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_of_hosts_is_the_documented_contract() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    apply(&reached.client, vec![create("warning", 1000)]).await;
    let own = reached.client.status(pb::StatusRequest {}).await.unwrap().key_id;
    let stable = |value: String| value.replace(&own, "KEY_ID");
    let hosts = reached.client.list_hosts(pb::ListHostsRequest {}).await.unwrap().collect().await.unwrap();
    let mut host = hosts[0].clone();
    host.last_seen_unix_ms = Some(5);
    host.digest = "DIGEST".into();
    host.position.as_mut().unwrap().chain = "CHAIN".into();
    insta::assert_snapshot!(stable(serde_json::to_string_pretty(&host).unwrap()), @r#"
    {
      "name": "web-1",
      "instance_id": "web-1",
      "key_id": "KEY_ID",
      "is_self": true,
      "connected": true,
      "state": "stale",
      "last_success_unix_ms": "1000",
      "last_run_unix_ms": "1000",
      "last_seen_unix_ms": "5",
      "count": "1",
      "digest": "DIGEST",
      "position": {
        "modno": "1",
        "chain": "CHAIN"
      },
      "version": "0.1.0",
      "parked": "0",
      "adopted": []
    }
    "#);
    reached.close().await;
}

fn hub_by_hand() -> pb::AddPeerRequest {
    let key_id = "ed25519.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
    let (urls, grants) = (vec!["https://hub.example".into()], vec!["READ_OPERATIONS:repo:b,repo:a".into()]);
    pb::AddPeerRequest { key_id, instance_id: "hub".into(), urls, grants, channel: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_of_status_is_the_documented_contract() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    apply(&reached.client, vec![create("warning", 1000)]).await;
    let own = reached.client.status(pb::StatusRequest {}).await.unwrap().key_id;
    let stable = |value: String| value.replace(&own, "KEY_ID");
    reached.client.add_peer(hub_by_hand()).await.unwrap();
    let mut status = reached.client.status(pb::StatusRequest {}).await.unwrap();
    status.version = "VERSION".into();
    status.digest = "DIGEST".into();
    status.position.as_mut().unwrap().chain = "CHAIN".into();
    status.store.as_mut().unwrap().path = "PATH".into();
    insta::assert_snapshot!(stable(serde_json::to_string_pretty(&status).unwrap()), @r#"
    {
      "instance_id": "web-1",
      "key_id": "KEY_ID",
      "version": "VERSION",
      "daemon": {
        "running": false,
        "pid": null,
        "since_unix_ms": null,
        "listen": [],
        "web": null,
        "admin_socket": null,
        "admin_listen": null
      },
      "position": {
        "modno": "1",
        "chain": "CHAIN"
      },
      "digest": "DIGEST",
      "count": "1",
      "store": {
        "engine": "sqlite",
        "schema": 2,
        "path": "PATH"
      },
      "peers": [
        {
          "key_id": "ed25519.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
          "instance_id": "hub",
          "name": "hub",
          "role": "known_host",
          "verified": false,
          "state": "unverified",
          "reason": "compare key IDs, then `opmesh peer verify hub --key-id …`",
          "last_seen_unix_ms": null,
          "grants": {
            "given": [
              "READ_OPERATIONS:repo:a,repo:b"
            ],
            "received": [],
            "unmet": []
          },
          "position": null,
          "digest": null,
          "count": null,
          "lag": null,
          "in_sync": null
        }
      ],
      "next_key_id": null
    }
    "#);
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bad_change_keeps_its_whole_transaction_out_and_ends_the_stream() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    let transaction = |changes: Vec<(u32, pb::change::Change)>| pb::ApplyTransaction {
        changes: changes
            .into_iter()
            .map(|(line, change)| pb::Change { line, change: Some(change) })
            .collect(),
        more: false,
    };
    let stale = pb::DeleteOperation { id: 999, expect_modno: None };
    let sent = [
        transaction(vec![(1, create("success", 1))]),
        transaction(vec![(2, create("success", 2)), (3, pb::change::Change::Delete(stale))]),
        transaction(vec![(4, create("success", 3))]),
    ];
    let replies = reached.client.apply_operations(tokio_stream::iter(sent)).await.unwrap();
    let replies = replies.collect().await.unwrap();
    let lines: Vec<_> = replies.iter().flat_map(|reply| &reply.results).map(|result| result.line).collect();
    assert_eq!(lines, [1, 3]);
    assert_eq!(replies[1].results[0].result, "error");
    assert_eq!(operations(&reached.client).await.len(), 1);
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_in_several_messages_is_all_or_nothing() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    let part = |line, status, more| pb::ApplyTransaction {
        changes: vec![pb::Change { line, change: Some(create(status, 1)) }],
        more,
    };
    let sent = [part(1, "success", true), part(2, "nonsense", false)];
    let replies = reached.client.apply_operations(tokio_stream::iter(sent)).await.unwrap();
    assert_eq!(replies.collect().await.unwrap()[0].results[0].line, 2);
    let unfinished = [part(1, "success", true)];
    let replies = reached.client.apply_operations(tokio_stream::iter(unfinished)).await.unwrap();
    assert_eq!(replies.collect().await.unwrap(), []);
    assert_eq!(operations(&reached.client).await, []);
    let sent = [part(1, "success", true), part(2, "success", false)];
    let replies = reached.client.apply_operations(tokio_stream::iter(sent)).await.unwrap();
    assert_eq!(replies.collect().await.unwrap()[0].results.len(), 2);
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_changes_in_commit_order() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    let filter = pb::OperationFilter { status: vec!["success".into()], ..pb::OperationFilter::default() };
    let request = pb::WatchOperationsRequest { filter: Some(filter) };
    let mut events = reached.client.watch_operations(request).await.unwrap();
    let changes = vec![create("success", 1), create("error", 2), create("success", 3), create("success", 4)];
    apply(&reached.client, changes).await;
    let watched = async {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let event = events.next().await.unwrap().unwrap();
            seen.push((event.event, event.operation.unwrap().start_unix_ms.unwrap()));
        }
        seen
    };
    let seen = tokio::time::timeout(DEADLINE, watched).await;
    let created = |start| ("created".to_owned(), start);
    assert_eq!(seen.unwrap(), [created(1), created(3), created(4)]);
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_carry_their_reason_and_exit() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    let client = &reached.client;
    let failed = |failure: Failure| (failure.reason, failure.exit().code());
    let unknown = client.get_operation(pb::GetOperationRequest { id: 77 }).await.unwrap_err();
    assert_eq!(failed(unknown), (Reason::UnknownOperation, 1));
    let unknown = client.get_peer(pb::GetPeerRequest { peer: "nobody".into() }).await.unwrap_err();
    assert_eq!(failed(unknown), (Reason::UnknownPeer, 1));
    let unknown = client.get_host(pb::GetHostRequest { host: "nobody".into() }).await.unwrap_err();
    assert_eq!(failed(unknown), (Reason::UnknownHost, 1));
    let grants = vec!["READ_OPERATIONS".into()];
    let grant = pb::CreateTokenRequest { grants, ..pb::CreateTokenRequest::default() };
    assert_eq!(failed(client.create_token(grant).await.unwrap_err()), (Reason::Grant, 2));
    let garbage = pb::JoinHubRequest { token: "x".into(), ..pb::JoinHubRequest::default() };
    assert_eq!(failed(client.join_hub(garbage).await.unwrap_err()), (Reason::InvalidArgument, 2));
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_in_use_or_without_an_instance_is_a_typed_error() {
    let instance = Instance::new("web-1").await;
    let lock = DataLock::try_take(&instance.places.lock()).unwrap();
    let held = reach(&instance.places, Clock::system(), Duration::ZERO).await.unwrap_err();
    assert_eq!((held.reason, held.exit().code()), (Reason::Locked, 11));
    drop(lock);
    let empty = Places::within(Path::new("/nonexistent/opmesh"));
    let missing = reach(&empty, Clock::system(), Duration::ZERO).await.unwrap_err();
    assert_eq!((missing.reason, missing.exit().code()), (Reason::NotInitialized, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_keeps_what_is_there_and_refuses_a_folder_with_other_things() {
    let instance = Instance::new("web-1").await;
    let again = node::init(&instance.places, None, Sources::default(), Clock::system()).await;
    assert!(matches!(again, Err(node::InitError::Initialized { .. })));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious.txt"), "x").unwrap();
    let foreign = node::init(&Places::within(folder.path()), None, Sources::default(), Clock::system()).await;
    assert!(matches!(foreign, Err(node::InitError::Foreign { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_in_both_versions_and_health_are_served_on_the_socket() {
    use tonic_reflection::pb::{v1, v1alpha};
    let instance = Instance::new("web-1").await;
    let daemon = instance.serve(&[]).await;
    let socket = instance.places.socket();
    let channel = tonic::transport::Endpoint::from_static("http://socket.invalid")
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await
        .unwrap();
    let ask = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answer = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answer.into_inner().next().await.unwrap().unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(listed)) =
        answer.message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&opmesh::admin::SERVICE) && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            opmesh::admin::SERVICE.into(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answer = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answer.into_inner().next().await.unwrap().unwrap().message_response;
    assert!(matches!(
        answer,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
    ));
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let ask = tonic_health::pb::HealthCheckRequest { service: opmesh::admin::SERVICE.into() };
    assert_eq!(health.check(ask).await.unwrap().into_inner().status, 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_pairs_by_token_and_its_operations_arrive_and_a_block_ends_the_session() {
    let (hub, host) = (Instance::new("hub").await, Instance::new("web-1").await);
    let hub_daemon = hub.serve(&["127.0.0.1:0"]).await;
    let host_daemon = host.serve(&[]).await;
    let (at_hub, at_host) = (hub.reach().await.client, host.reach().await.client);
    apply(&at_host, vec![create("success", 1000), create("error", 2000)]).await;
    let joined = at_host.join_hub(join(token(&at_hub).await, &hub_daemon)).await.unwrap();
    assert_eq!(
        (joined.state.as_str(), joined.grants_given),
        ("paired", vec!["READ_OPERATIONS:*".to_owned()])
    );
    assert_eq!(joined.hub.unwrap().instance_id, "hub");
    let live = |peer: &pb::PeerStatus| peer.state == "live" && peer.in_sync == Some(true);
    let seen = until(&at_host, "live at the host", live).await;
    assert_eq!((seen.role.as_str(), seen.count, seen.lag.unwrap().operations), ("known_host", Some(2), 0));
    let seen = until(&at_hub, "live at the hub", live).await;
    assert_eq!((seen.role.as_str(), seen.name.as_str(), seen.count), ("authorized_client", "web-1", Some(2)));
    let (there, here) = (operations(&at_hub).await, operations(&at_host).await);
    let originals =
        |all: &[pb::Operation]| all.iter().map(|one| (one.original_id, one.modno)).collect::<Vec<_>>();
    assert_eq!(originals(&there), originals(&here));
    apply(&at_host, vec![create("success", 3000)]).await;
    until(&at_hub, "three at the hub", |peer| peer.count == Some(3) && peer.in_sync == Some(true)).await;
    let again = at_host.join_hub(join(token(&at_hub).await, &hub_daemon)).await.unwrap();
    assert_eq!(again.state, "already_paired");
    let block = pb::BlockPeerRequest { peer: "web-1".into(), reason: "lost laptop".into() };
    let blocked = at_hub.block_peer(block).await.unwrap();
    assert_eq!(
        (blocked.status[0].state.as_str(), blocked.status[0].reason.as_str()),
        ("blocked", "lost laptop")
    );
    until(&at_host, "refused at the host", |peer| peer.state == "refused").await;
    host_daemon.stop().await;
    hub_daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_daemon_pairs_by_itself_and_a_spent_token_is_refused() {
    let hub = Instance::new("hub").await;
    let daemon = hub.serve(&["127.0.0.1:0"]).await;
    let at_hub = hub.reach().await.client;
    let token = token(&at_hub).await;
    let first = Instance::new("web-1").await;
    let reached = first.reach().await;
    let joined = reached.client.join_hub(join(token.clone(), &daemon)).await.unwrap();
    assert_eq!(joined.state, "paired");
    reached.close().await;
    let second = Instance::new("web-2").await;
    let reached = second.reach().await;
    let refused = reached.client.join_hub(join(token, &daemon)).await.unwrap_err();
    assert_eq!((refused.reason, refused.exit().code()), (Reason::Refused, 4));
    let left = reached.client.list_peers(pb::ListPeersRequest {}).await.unwrap().collect().await.unwrap();
    assert_eq!(left, [], "a refused hub is not kept");
    reached.close().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_at_the_address_and_nobody_there_are_told_apart() {
    let (hub, other, host) =
        (Instance::new("hub").await, Instance::new("other").await, Instance::new("web-1").await);
    let (hub_daemon, other_daemon) = (hub.serve(&["127.0.0.1:0"]).await, other.serve(&["127.0.0.1:0"]).await);
    let token = token(&hub.reach().await.client).await;
    let reached = host.reach().await;
    let wrong = reached.client.join_hub(join(token.clone(), &other_daemon)).await.unwrap_err();
    assert_eq!((wrong.reason, wrong.exit().code()), (Reason::OtherIdentity, 12));
    let mut nobody = join(token, &hub_daemon);
    hub_daemon.stop().await;
    nobody.timeout_ms = Some(300);
    let late = reached.client.join_hub(nobody).await.unwrap_err();
    assert_eq!((late.reason, late.exit().code()), (Reason::TimedOut, 10));
    let kept = reached.client.list_peers(pb::ListPeersRequest {}).await.unwrap().collect().await.unwrap();
    assert_eq!(kept.len(), 1, "it pairs when the hub is reached, until the token expires");
    assert_eq!(kept[0].status[0].state, "never_connected");
    reached.close().await;
    other_daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_recorded_once_however_often_its_end_is_handed_in() {
    let instance = Instance::new("web-1").await;
    let reached = instance.reach().await;
    let pb::change::Change::Create(begun) = create("inprogress", 1000) else { panic!("another change") };
    let start = pb::RunStart {
        run_key: "00112233445566778899aabbccddeeff".into(),
        flow_id: None,
        operation: Some(begun.clone()),
        pid: 1,
    };
    let run = reached.client.begin_run(pb::BeginRunRequest { start: Some(start.clone()) }).await.unwrap();
    let ended = pb::CreateOperation { status: "success".into(), end_unix_ms: Some(1500), ..begun };
    let finish = pb::FinishRunRequest {
        start: Some(start),
        step: "ended".into(),
        operations: vec![ended],
        begun: Some(run),
    };
    for _ in 0..2 {
        reached.client.finish_run(finish.clone()).await.unwrap();
    }
    let listed = operations(&reached.client).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id, listed[0].status.as_str(), listed[0].end_unix_ms),
        (run.id, "success", Some(1500))
    );
    reached.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lets_go_of_its_directory_when_it_closes() {
    let instance = Instance::new("web-1").await;
    let open = async || {
        Node::open(instance.places.clone(), &Config::default(), Clock::system(), Duration::ZERO).await
    };
    let node = open().await.unwrap();
    assert!(open().await.is_err());
    node.close().await;
    drop(node);
    open().await.unwrap();
}
