//! The unix socket of a daemon: bound with its mode and group, then served until the node closes.
//!
//! A socket file that a killed daemon left behind is replaced; the data directory's lock says that nobody listens on
//! it any more. Reflection and health are served beside the admin calls.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;

use super::guard::{Door, Guarded};
use super::pb::admin_server::AdminServer;
use super::server::Handlers;
use super::visitors::Visitors;
use super::{DESCRIPTORS, SERVICE};
use crate::node::Node;
use crate::transport::Routes;

/// The longest path of a unix socket on Linux, without the zero byte at its end.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// The largest request: a transaction of `ops apply`, with room for its framing.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// For the owner and the group.
const SOCKET_MODE: u32 = 0o660;
/// Names and numbers of groups.
const GROUP_FILE: &str = "/etc/group";

/// There is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel has a limit.
    #[error(
        "the socket path {} has {bytes} bytes, the system allows {MAX_SOCKET_PATH_BYTES}: choose a shorter one with --admin-socket",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something else is there.
    #[error("{} exists and is no socket: move it away, or choose another path with --admin-socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Somebody answers there.
    #[error("another daemon answers on {}: choose another path with --admin-socket", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// No such group.
    #[error("there is no group {name:?} in {GROUP_FILE}: correct admin.group in the configuration file")]
    NoGroup {
        /// What was configured.
        name: String,
    },
    /// The operating system refused.
    #[error("the socket {} cannot be {what}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// A bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "the admin socket was gone already");
        }
    }
}

impl Socket {
    /// Binds the path, for the daemon's user and the members of `group`.
    pub async fn bind(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_SOCKET_PATH_BYTES {
            return Err(SocketError::TooLong { path: path.to_owned(), bytes });
        }
        let group = group.map(|name| group_id(name, path)).transpose()?;
        make_room(path).await?;
        let failed = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(failed("bound"))?;
        let file = SocketFile(path.to_owned());
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group)).map_err(failed("given to its group"))?;
        }
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed("given its mode"))?;
        Ok(Self { listener, file })
    }

    /// Answers calls until the node closes.
    pub fn serve(self, node: &Node) {
        let serving = serve(self, node.clone());
        node.run(serving);
    }
}

/// Takes away what a killed daemon left.
async fn make_room(path: &Path) -> Result<(), SocketError> {
    let failed = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("inspected"))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("replaced"))
        }
        Err(source) => Err(failed("replaced")(source)),
    }
}

fn group_id(name: &str, path: &Path) -> Result<u32, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string(GROUP_FILE).map_err(|source| SocketError::Io {
        what: "given to its group",
        path: path.to_owned(),
        source,
    })?;
    find_group(&groups, name).ok_or_else(|| SocketError::NoGroup { name: name.to_owned() })
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        fields.nth(1).filter(|_| found)?.parse().ok()
    })
}

async fn serve(socket: Socket, node: Node) {
    let Socket { listener, file } = socket;
    let own = rustix::process::geteuid().as_raw();
    let routes = routes(&node, &Door::Socket { own, node: node.clone() }).await;
    let stop = node.stopping().clone().cancelled_owned();
    let visitors = Visitors::new(own);
    let incoming = UnixListenerStream::new(listener).filter_map(move |accepted| match accepted {
        Ok(stream) => visitors.take_in(stream).map(Ok),
        Err(error) => Some(Err(error)),
    });
    let serving = tonic::transport::Server::builder().serve_with_incoming_shutdown(routes, incoming, stop);
    if let Err(error) = serving.await {
        tracing::error!(%error, "the admin socket failed");
    }
    drop(file);
}

/// The admin service behind a door, with reflection and health, so that any gRPC tool finds its way.
pub(super) async fn routes(node: &Node, door: &Door) -> Routes {
    let admin = AdminServer::new(Handlers::new(node.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
    let routes = Routes::default().with(Guarded::new(admin, door));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(SERVICE, tonic_health::ServingStatus::Serving).await;
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes.with(Guarded::new(health, door));
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.with(Guarded::new(v1, door)).with(Guarded::new(v1alpha, door)),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "reflection is not available");
            routes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nbackup:x:34:alice,bob\nbad\n";
        assert_eq!(find_group(groups, "backup"), Some(34));
        assert_eq!(find_group(groups, "bad"), None);
        assert_eq!(find_group(groups, "34"), None);
    }

    #[tokio::test]
    async fn a_path_that_the_kernel_would_refuse_is_refused_with_both_lengths() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let Err(error) = Socket::bind(&path, None).await else { panic!("bound") };
        let text = error.to_string();
        assert!(
            text.contains("125 bytes") && text.contains("107") && text.contains("--admin-socket"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Socket::bind(&path, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert!(matches!(Socket::bind(&path, None).await, Err(SocketError::InUse { .. })));
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(matches!(Socket::bind(&path, None).await, Err(SocketError::NotASocket { .. })));
        fs::remove_file(&path).unwrap();
        let unknown = Socket::bind(&path, Some("no such group")).await;
        assert!(matches!(unknown, Err(SocketError::NoGroup { .. })));
    }
}
