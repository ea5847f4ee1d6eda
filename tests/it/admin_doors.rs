//! Who is refused what, for every call of the admin service by its descriptor, over the real sockets.

use std::future::ready;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opmesh::admin::{AdminListener, Client, DESCRIPTORS, Reason, Role, SERVICE, pb, role_of};
use opmesh::clock::Clock;
use opmesh::config::{AdminCertificate, Config};
use opmesh::daemon::{Daemon, ServeOptions};
use opmesh::node;
use opmesh::places::Places;
use prost::Message as _;
use rustix::process::{Gid, Uid};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

/// Long enough for a loaded machine, and never waited for in full.
const DEADLINE: Duration = Duration::from_secs(30);
/// Of no user and no group that a system has.
const STRANGER: u32 = 54_322;
/// The group that the tests configure.
const GROUP: u32 = 54_321;
/// What members of the group may call: design §7 by name.
const RECORDING: [&str; 3] = ["Status", "BeginRun", "FinishRun"];

/// Health and reflection.
const LOOKING: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A daemon whose admin socket lies where other users can see it.
struct Doors {
    daemon: Daemon,
    socket: PathBuf,
    _folder: TempDir,
}

impl Doors {
    async fn open(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let places = Places::within(&folder.path().join("data"));
        node::init(&places, Some("hub".parse().unwrap()), node::Sources::default(), Clock::system())
            .await
            .unwrap();
        let socket = folder.path().join("admin.sock");
        let options = ServeOptions { places, config, listen: Vec::new(), admin_socket: Some(socket.clone()) };
        let daemon = Daemon::start(options, Clock::system()).await.unwrap();
        Self { daemon, socket, _folder: folder }
    }
}

/// Every call of the service, as its descriptor names it.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let service = set.file.iter().flat_map(|file| &file.service).next().unwrap();
    let methods: Vec<_> = service.method.iter().map(|method| method.name().to_owned()).collect();
    assert!(methods.len() > 30, "{methods:?}");
    methods
}

/// How a call without a message ends: a refusal, or whatever a call says that got past the guard.
async fn call(channel: &Channel, path: &str) -> Code {
    call_with(channel, path, None).await
}

pub(crate) async fn call_with(channel: &Channel, path: &str, authorization: Option<&str>) -> Code {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::empty());
    let mut request = request.unwrap();
    if let Some(authorization) = authorization {
        request.headers_mut().insert("authorization", authorization.parse().unwrap());
    }
    let mut channel = channel.clone();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let code = response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    code.unwrap_or(Code::Ok)
}

fn path_of(method: &str) -> String {
    format!("/{SERVICE}/{method}")
}

fn is_refusal(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated)
}

/// Connects as this user; what the kernel tells the daemon is the user of this moment. Only this thread changes.
fn connect_as(user: u32, group: u32, socket: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let socket = socket.to_owned();
    let connecting = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        rustix::thread::set_thread_groups(&[group])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        std::os::unix::net::UnixStream::connect(socket)
    });
    connecting.join().unwrap()
}

async fn over(stream: std::os::unix::net::UnixStream) -> Channel {
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        ready(stream.take().ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    Endpoint::from_static("http://socket.invalid").connect_with_connector(connector).await.unwrap()
}

/// Only root can be somebody else; what the guard decides is tested without that in `admin::guard`.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not root: users cannot be told apart here");
    }
    root
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_cannot_open_the_socket_and_a_member_of_the_group_may_only_record() {
    if !is_root() {
        return;
    }
    let config = Config { admin_group: Some(GROUP.to_string()), ..Config::default() };
    let doors = Doors::open(config).await;
    let refused = connect_as(STRANGER, STRANGER, &doors.socket).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    let member = over(connect_as(STRANGER, GROUP, &doors.socket).unwrap()).await;
    for method in methods() {
        let code = call(&member, &path_of(&method)).await;
        if RECORDING.contains(&method.as_str()) {
            assert!(!is_refusal(code), "{method}: {code:?}");
        } else {
            assert_eq!(code, Code::PermissionDenied, "{method}");
        }
    }
    for looking in
        ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
    {
        assert!(!is_refusal(call(&member, looking).await), "{looking}: whoever may open the socket may look");
    }
    assert_eq!(call(&member, &path_of("NoSuchCall")).await, Code::PermissionDenied);
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_group_nobody_else_can_open_the_socket() {
    if !is_root() {
        return;
    }
    let doors = Doors::open(Config::default()).await;
    for group in [STRANGER, GROUP] {
        let refused = connect_as(STRANGER, group, &doors.socket).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemons_own_user_may_call_everything() {
    let doors = Doors::open(Config::default()).await;
    let own = over(std::os::unix::net::UnixStream::connect(&doors.socket).unwrap()).await;
    for method in methods() {
        let code = call(&own, &path_of(&method)).await;
        assert!(!is_refusal(code) && code != Code::Unimplemented, "{method}: {code:?}");
    }
    assert_eq!(call(&own, &path_of("NoSuchCall")).await, Code::Unimplemented);
    doors.daemon.stop().await;
}

/// A listener on a free loopback port, and a client of the unix socket that makes its tokens.
async fn listening(certificate: Option<AdminCertificate>) -> (Doors, SocketAddr, Client) {
    let config = Config {
        admin_listen: Some("127.0.0.1:0".parse().unwrap()),
        admin_certificate: certificate,
        ..Config::default()
    };
    let doors = Doors::open(config).await;
    let address = doors.daemon.serving().admin_listen.as_ref().unwrap().parse().unwrap();
    let client = Client::connect(&doors.socket).await.unwrap();
    (doors, address, client)
}

async fn token(client: &Client, role: Role, ttl_ms: Option<i64>) -> pb::CreatedAdminToken {
    let request =
        pb::CreateAdminTokenRequest { role: role.name().to_owned(), ttl_ms, label: "test".to_owned() };
    client.create_admin_token(request).await.unwrap()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A connection from this address of this machine that trusts one certificate and asks for a name.
pub(crate) async fn connect_from(
    source: [u8; 4],
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    name: &'static str,
) -> std::io::Result<Channel> {
    let stream = tls_from(source, address, trusted, name).await?;
    let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
    let once = tower::service_fn(move |_| {
        ready(stream.take().ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    let endpoint = Endpoint::from_static("https://opmesh");
    endpoint.connect_with_connector(once).await.map_err(std::io::Error::other)
}

async fn tls_from(
    source: [u8; 4],
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    name: &'static str,
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let stream = socket.connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name.try_into().unwrap(), stream).await
}

/// The certificate as `opmesh key certificate` prints it.
fn own_certificate(doors: &Doors) -> CertificateDer<'static> {
    let pem = opmesh::transport::certificate_pem(&doors.daemon.node().identity()).unwrap();
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A loopback address of its own for each number, so that failures are not counted together.
fn source(number: usize) -> [u8; 4] {
    [127, 0, 1, u8::try_from(number + 1).unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_every_call_needs_a_valid_token_of_a_role_that_is_high_enough() {
    let (doors, address, client) = listening(None).await;
    let certificate = own_certificate(&doors);
    let expired = token(&client, Role::Security, Some(1)).await;
    let revoked = token(&client, Role::Security, None).await;
    client.revoke_admin_token(pb::RevokeAdminTokenRequest { id: revoked.id }).await.unwrap();
    let mut good = Vec::new();
    for (role, _) in Role::ALL {
        good.push((role, bearer(&token(&client, role, None).await.token)));
    }
    let read = good[0].1.clone();
    let wrong = bearer(&format!("opmesh_admin_{}", "A".repeat(43)));
    let bad = [
        None,
        Some(String::new()),
        Some(read.replace("Bearer ", "Basic ")),
        Some(wrong),
        Some(bearer(&expired.token)),
        Some(bearer(&revoked.token)),
    ];
    let (mut calls, mut refused, mut passed) = (0, 0, 0);
    for (number, method) in methods().into_iter().enumerate() {
        let channel = connect_from(source(number), address, &certificate, "opmesh").await.unwrap();
        let path = path_of(&method);
        for authorization in &bad {
            let code = call_with(&channel, &path, authorization.as_deref()).await;
            assert_eq!(code, Code::Unauthenticated, "{method} with {authorization:?}");
            refused += 1;
        }
        let needed = role_of(&method).unwrap();
        for (role, authorization) in &good {
            let code = call_with(&channel, &path, Some(authorization)).await;
            if *role < needed {
                assert_eq!(code, Code::PermissionDenied, "{method} as {role:?}");
                refused += 1;
            } else {
                assert!(!is_refusal(code) && code != Code::Unimplemented, "{method} as {role:?}: {code:?}");
                passed += 1;
            }
        }
        calls += 1;
    }
    println!("{calls} calls: {refused} refused, {passed} let through");
    let channel = connect_from(source(250), address, &certificate, "opmesh").await.unwrap();
    for looking in LOOKING {
        assert_eq!(call_with(&channel, looking, None).await, Code::Unauthenticated, "{looking}");
        assert!(!is_refusal(call_with(&channel, looking, Some(&read)).await), "{looking}");
    }
    assert_eq!(call_with(&channel, &path_of("NoSuchCall"), Some(&read)).await, Code::PermissionDenied);
    assert_eq!(call_with(&channel, &path_of("NoSuchCall"), Some(&good[2].1)).await, Code::Unimplemented);
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_failures_end_the_records_of_an_address_for_the_minute_and_keep_no_valid_token_out() {
    let (doors, address, client) = listening(None).await;
    let certificate = own_certificate(&doors);
    let good = bearer(&token(&client, Role::Security, None).await.token);
    let channel = connect_from(source(0), address, &certificate, "opmesh").await.unwrap();
    let status = path_of("Status");
    for failure in 0..10 {
        assert_eq!(call_with(&channel, &status, None).await, Code::Unauthenticated, "{failure}");
    }
    assert_eq!(call_with(&channel, &status, None).await, Code::ResourceExhausted);
    assert!(!is_refusal(call_with(&channel, &status, Some(&good)).await));
    let other = connect_from(source(1), address, &certificate, "opmesh").await.unwrap();
    assert!(!is_refusal(call_with(&other, &status, Some(&good)).await));
    assert!(!is_refusal(call(&over_socket(&doors).await, &status).await), "the socket asks for no token");
    for failure in 0..5 {
        assert_eq!(call_with(&other, &status, None).await, Code::Unauthenticated, "{failure}");
    }
    let records = client.list_audit(pb::ListAuditRequest::default()).await.unwrap().collect().await.unwrap();
    let written = records.iter().filter(|record| record.event == "admin_refused").count();
    assert_eq!(written, 10, "fifteen failures, ten records a minute");
    assert!(client.verify_audit(pb::VerifyAuditRequest {}).await.unwrap().equal);
    doors.daemon.stop().await;
}

async fn over_socket(doors: &Doors) -> Channel {
    over(std::os::unix::net::UnixStream::connect(&doors.socket).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_kept_as_a_hash_listed_without_it_and_useless_once_revoked() {
    let (doors, address, client) = listening(None).await;
    let certificate = own_certificate(&doors);
    let made = token(&client, Role::Read, None).await;
    assert!(made.token.starts_with("opmesh_admin_") && made.role == "read");
    let channel = connect_from(source(0), address, &certificate, "opmesh").await.unwrap();
    assert!(!is_refusal(call_with(&channel, &path_of("Status"), Some(&bearer(&made.token))).await));
    let list = async || {
        client.list_admin_tokens(pb::ListAdminTokensRequest {}).await.unwrap().collect().await.unwrap()
    };
    let listed = list().await;
    assert_eq!((listed.len(), listed[0].role.as_str(), listed[0].label.as_str()), (1, "read", "test"));
    assert!(listed[0].last_used_unix_ms.is_some());
    let hours = (made.expires_unix_ms - listed[0].created_unix_ms + 60_000) / (60 * 60 * 1000);
    assert_eq!(hours, 30 * 24);
    let folder = doors.daemon.node().places().data_dir().to_owned();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let secret = made.token.trim_start_matches("opmesh_admin_").as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
    }
    client.revoke_admin_token(pb::RevokeAdminTokenRequest { id: made.id.clone() }).await.unwrap();
    // The old connection goes with its token.
    let channel = connect_from(source(1), address, &certificate, "opmesh").await.unwrap();
    let code = call_with(&channel, &path_of("Status"), Some(&bearer(&made.token))).await;
    assert_eq!(code, Code::Unauthenticated);
    assert_eq!(list().await, []);
    let again = client.revoke_admin_token(pb::RevokeAdminTokenRequest { id: made.id }).await.unwrap_err();
    assert_eq!(again.reason, Reason::UnknownToken);
    let events: Vec<_> = client
        .list_audit(pb::ListAuditRequest::default())
        .await
        .unwrap()
        .collect()
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.event)
        .collect();
    assert_eq!(events[..2], ["initialized", "started"]);
    assert_eq!(events[2..], ["admin_token_made", "admin_token_revoked", "admin_refused"]);
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_ends_with_its_token() {
    let (doors, address, client) = listening(None).await;
    let certificate = own_certificate(&doors);
    for ends_by in ["revoked", "expired"] {
        // Long enough to be used before it expires, also on a loaded machine.
        let made = token(&client, Role::Read, Some(5_000)).await;
        let channel = connect_from(source(0), address, &certificate, "opmesh").await.unwrap();
        let mut request = tonic::Request::new(pb::WatchPeersRequest {});
        request.metadata_mut().insert("authorization", bearer(&made.token).parse().unwrap());
        let mut admin = pb::admin_client::AdminClient::new(channel);
        let mut events = admin.watch_peers(request).await.unwrap().into_inner();
        assert_eq!(events.message().await.unwrap().unwrap().event, "synced");
        if ends_by == "revoked" {
            client.revoke_admin_token(pb::RevokeAdminTokenRequest { id: made.id }).await.unwrap();
        }
        let ended = tokio::time::timeout(DEADLINE, events.message()).await.unwrap();
        assert!(ended.is_err(), "{ends_by}: {ended:?}");
    }
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_or_a_span_that_means_nothing_makes_no_token() {
    let doors = Doors::open(Config::default()).await;
    let client = Client::connect(&doors.socket).await.unwrap();
    let year = 365 * 24 * 60 * 60 * 1000;
    for (role, ttl_ms) in [("", None), ("root", None), ("read", Some(0)), ("read", Some(year + 1))] {
        let request = pb::CreateAdminTokenRequest { role: role.into(), ttl_ms, label: String::new() };
        let refused = client.create_admin_token(request).await.unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{role} {ttl_ms:?}");
    }
    token(&client, Role::Read, Some(year)).await;
    assert_eq!(doors.daemon.serving().admin_listen, None, "off unless configured");
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_can_be_shown_and_a_key_that_everybody_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).unwrap();
    let pem = |kind: &str, der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    };
    let files =
        AdminCertificate { certificate: folder.path().join("hub.pem"), key: folder.path().join("hub.key") };
    std::fs::write(&files.certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&files.key, pem("PRIVATE KEY", made.signing_key.serialized_der())).unwrap();
    let allow = |bits| std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(bits)).unwrap();
    allow(0o640);
    let (doors, address, client) = listening(Some(files.clone())).await;
    let good = bearer(&token(&client, Role::Read, None).await.token);
    let trusted = made.cert.der().clone();
    let channel = connect_from(source(0), address, &trusted, "hub.example").await.unwrap();
    assert!(!is_refusal(call_with(&channel, &path_of("Status"), Some(&good)).await));
    assert!(connect_from(source(0), address, &own_certificate(&doors), "opmesh").await.is_err());
    allow(0o644);
    let refused = AdminListener::bind(doors.daemon.node(), address, Some(&files)).await.unwrap_err();
    assert!(refused.to_string().contains("chmod o="), "{refused}");
    doors.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_nobody_shows_a_token_is_closed() {
    let (doors, address, _) = listening(None).await;
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut protected = tls_from(source(0), address, &own_certificate(&doors), "opmesh").await.unwrap();
    let (mut nothing, mut greeting) = (Vec::new(), Vec::new());
    let closed =
        async { tokio::join!(silent.read_to_end(&mut nothing), protected.read_to_end(&mut greeting)) };
    // How a connection ends that TLS protects (cut off or in good order) is the server's affair; that it ends counts.
    let (silent, _) = tokio::time::timeout(DEADLINE, closed).await.unwrap();
    assert_eq!(silent.unwrap(), 0);
    doors.daemon.stop().await;
}
