//! Who is refused what, for every call of the admin service by its descriptor, over the real sockets.

use std::future::ready;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use opmesh::admin::{DESCRIPTORS, SERVICE};
use opmesh::clock::Clock;
use opmesh::config::Config;
use opmesh::daemon::{Daemon, ServeOptions};
use opmesh::node;
use opmesh::places::Places;
use prost::Message as _;
use rustix::process::{Gid, Uid};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

/// Of no user and no group that a system has.
const STRANGER: u32 = 54_322;
/// The group that the tests configure.
const GROUP: u32 = 54_321;
/// What members of the group may call: design §7 by name.
const RECORDING: [&str; 3] = ["Status", "BeginRun", "FinishRun"];

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
        node::init(&places, Some("hub".parse().unwrap()), None, Clock::system()).await.unwrap();
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
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::empty())
        .unwrap();
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
