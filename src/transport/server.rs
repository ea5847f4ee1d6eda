//! Listeners: accept, count, protect, and hand every Sync stream to the driver.
//!
//! TLS of our own is done here, before gRPC sees the connection, so that the handshake can be bound to it and strangers are
//! limited before anything is read from them. Called by the node.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opmesh_core::handshake::ChannelKeys;
use opmesh_core::model::KeyId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::identity::Identity;
use crate::store::Role;
use crate::wire::peer_sync_server::{PeerSync, PeerSyncServer};
use crate::wire::{Frame, MESSAGE_BYTES};

use super::Local;
use super::address::{Channel, Listen};
use super::admission::Admitted;
use super::connection::{
    self, Below, Connection, ConnectionInfo, Gate, Gated, HANDSHAKE_TIMEOUT, Protection,
};
use super::link::{Link, OUTBOUND_FRAMES};
use super::noise::Noise;
use super::routes::Routes;
use super::session;
use super::tls::{self, TlsError};
use super::upstream::{PerStream, Upstream};

/// HTTP/2 as both sides speak it. All values are set, because the defaults are unsafe in two opposite ways: any number
/// of streams, and windows that let an honest peer die of many small unread frames while our store stalls.
pub mod http2 {
    use std::time::Duration;

    /// What a stream may send ahead of its reader.
    pub const STREAM_WINDOW: u32 = 256 * 1024;
    /// What a connection may; large, because the library counts small unread frames against half of it.
    pub const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
    /// One Sync stream, and room for reflection and health.
    pub const STREAMS: u32 = 4;
    /// The same on a sealed listener, where a proxy may bring many hosts over one connection.
    pub const SEALED_STREAMS: u32 = 64;
    /// All headers of one request together.
    pub const HEADER_LIST: u32 = 8 * 1024;
    /// The largest frame, the protocol's own smallest limit.
    pub const FRAME: u32 = 16 * 1024;
    /// Streams that a peer may have reset before we looked at them, before the connection is closed.
    pub const RESETS: usize = 20;
    /// Streams that a peer's own errors may have reset, before the connection is closed.
    pub const ERROR_RESETS: usize = 64;
    /// A ping when nothing else arrives.
    pub const KEEPALIVE: Duration = Duration::from_secs(20);
    /// And no answer to it.
    pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

    const _: () = assert!(
        SEALED_STREAMS * STREAM_WINDOW <= CONNECTION_WINDOW / 2,
        "hosts whose frames wait here must not stop the others that share their connection"
    );
}

/// Connections that wait for gRPC to take them up. It does so at once; a few slots smooth bursts.
const READY_CONNECTIONS: usize = 16;
/// How long accepting pauses when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why this instance does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {listen}: {source}; choose another address with --listen")]
    Bind {
        /// What was asked for.
        listen: Listen,
        /// The system's words.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The bound listeners. Their tasks end when `stop` is cancelled.
#[derive(Debug)]
pub struct Server {
    bound: Vec<Listen>,
}

impl Server {
    /// Binds every listener, or none; then accepts. All tasks, sessions included, belong to `tasks`.
    pub async fn start(
        listen: &[Listen],
        local: &Arc<Local>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, ListenError> {
        let mut sockets = Vec::new();
        for listen in listen {
            let bind = async {
                let socket = TcpListener::bind(listen.address).await?;
                let address = socket.local_addr()?;
                Ok((socket, Listen { address, ..*listen }))
            };
            sockets.push(bind.await.map_err(|source| ListenError::Bind { listen: *listen, source })?);
        }
        let door = Door {
            tls: Arc::new(Mutex::new(Certified::new(&local.me().identity)?)),
            local: local.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let bound = sockets.iter().map(|(_, listen)| *listen).collect();
        for (socket, listen) in sockets {
            let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
            tasks.spawn(door.clone().accept(socket, listen.channel, ready));
            tasks.spawn(serve(listen, local.clone(), tasks.clone(), stop.clone(), connections));
        }
        let (noise, stop) = (local.doorman.noise.clone(), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled_owned(noise.sum_up()).await });
        Ok(Self { bound })
    }

    /// Where it listens, with the ports that port 0 became.
    pub fn addresses(&self) -> &[Listen] {
        &self.bound
    }
}

/// What all listeners share.
#[derive(Clone)]
struct Door {
    tls: Arc<Mutex<Certified>>,
    local: Arc<Local>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// TLS with a certificate over one key.
struct Certified {
    key: KeyId,
    acceptor: TlsAcceptor,
}

impl Certified {
    fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self { key: identity.key_id(), acceptor: tls::acceptor(identity)? })
    }
}

impl Door {
    /// TLS with the key that this instance has now.
    fn tls(&self) -> Result<TlsAcceptor, TlsError> {
        let identity = self.local.me().identity;
        let mut certified = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if certified.key != identity.key_id() {
            *certified = Certified::new(&identity)?;
        }
        Ok(certified.acceptor.clone())
    }

    async fn accept(self, socket: TcpListener, channel: Channel, ready: mpsc::Sender<Connection>) {
        let accepting = async {
            loop {
                match socket.accept().await {
                    Ok((stream, address)) => self.admit(stream, address, channel, &ready),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        self.stop.run_until_cancelled(accepting).await;
    }

    fn admit(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        channel: Channel,
        ready: &mpsc::Sender<Connection>,
    ) {
        let doorman = &self.local.doorman;
        let now = self.local.clock.monotonic();
        let admitted = match channel {
            Channel::Tls | Channel::Plain => doorman.admission.admit(address.ip(), now),
            Channel::Sealed => doorman.upstreams.admit_behind_proxy(now),
        };
        match admitted {
            Ok(admitted) => {
                if admitted.made_room && doorman.noise.may_log(Noise::MadeRoom) {
                    tracing::warn!(%address, "a connection took the place of another stranger's");
                }
                let opening = self.clone().open(stream, address, channel, admitted, ready.clone());
                self.tasks.spawn(opening);
            }
            Err(turned) if doorman.noise.may_log(Noise::TurnedAway) => {
                tracing::warn!(%address, reason = %turned, "a connection was turned away");
            }
            Err(_) => {}
        }
    }

    async fn open(
        self,
        stream: TcpStream,
        address: SocketAddr,
        channel: Channel,
        admitted: Admitted,
        ready: mpsc::Sender<Connection>,
    ) {
        if let Err(error) = connection::prepare(&stream) {
            tracing::debug!(%address, %error, "a connection was gone at once");
            return;
        }
        let connection = match channel {
            Channel::Sealed => {
                let upstream = Upstream::new(address, admitted);
                Connection::bare(Gated::upstream(stream, upstream.clone()), Below::Proxy(upstream))
            }
            Channel::Plain => {
                let gate = Gate::new(Some(admitted));
                let protection = Protection::Bound(ChannelKeys::Plain);
                let gated = Gated::new(stream, gate.clone(), HANDSHAKE_TIMEOUT);
                Connection::bare(gated, ConnectionInfo { gate, protection, address }.into())
            }
            Channel::Tls => {
                let Some(connection) = self.secure(stream, address, admitted).await else { return };
                connection
            }
        };
        // An error means that this instance is stopping.
        drop(ready.send(connection).await);
    }

    async fn secure(&self, stream: TcpStream, address: SocketAddr, admitted: Admitted) -> Option<Connection> {
        let gate = Gate::new(Some(admitted));
        let acceptor = match self.tls() {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(%error, "no certificate could be made");
                return None;
            }
        };
        let handshake = acceptor.accept(Gated::new(stream, gate.clone(), HANDSHAKE_TIMEOUT));
        let may_log = || self.local.doorman.noise.may_log(Noise::NoChannel);
        let stream = match self.stop.run_until_cancelled(handshake).await? {
            Ok(stream) => TlsStream::Server(stream),
            Err(error) => {
                if may_log() {
                    tracing::info!(%address, %error, "no TLS came about");
                }
                return None;
            }
        };
        let Some(keys) = tls::channel_keys(&stream) else {
            if may_log() {
                tracing::info!(%address, "the dialer does not speak HTTP/2");
            }
            return None;
        };
        let protection = Protection::Bound(keys);
        Some(Connection::tls(stream, ConnectionInfo { gate, protection, address }.into()))
    }
}

async fn serve(
    listen: Listen,
    local: Arc<Local>,
    tasks: TaskTracker,
    stop: CancellationToken,
    connections: mpsc::Receiver<Connection>,
) {
    let streams = match listen.channel {
        Channel::Tls | Channel::Plain => http2::STREAMS,
        Channel::Sealed => http2::SEALED_STREAMS,
    };
    let sync = PeerSyncServer::new(Acceptor { local: local.clone(), tasks, stop: stop.clone() })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(http2::STREAM_WINDOW)
        .initial_connection_window_size(http2::CONNECTION_WINDOW)
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(http2::HEADER_LIST)
        .max_frame_size(http2::FRAME)
        .http2_max_pending_accept_reset_streams(Some(http2::RESETS))
        .http2_max_local_error_reset_streams(Some(http2::ERROR_RESETS))
        .http2_keepalive_interval(Some(http2::KEEPALIVE))
        .http2_keepalive_timeout(Some(http2::KEEPALIVE_TIMEOUT));
    let routes = match listen.channel {
        Channel::Tls => Routes::default().with(sync),
        Channel::Sealed => Routes::default().with(PerStream::new(sync, local)),
        Channel::Plain => debugging(Routes::default().with(sync)).await,
    };
    let incoming = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
    let serving = server.serve_with_incoming_shutdown(routes, incoming, stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%listen, %error, "a listener failed");
    }
}

/// Reflection and health, for looking at a hub with grpcurl: only where nobody else can connect.
async fn debugging(routes: Routes) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(crate::wire::SERVICE_NAME, tonic_health::ServingStatus::Serving).await;
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes.with(health);
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.with(v1).with(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "reflection is not available");
            routes
        }
    }
}

/// The Sync service.
#[derive(Debug)]
struct Acceptor {
    local: Arc<Local>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl PeerSync for Acceptor {
    type SyncStream = ReceiverStream<Result<Frame, Status>>;

    async fn sync(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::SyncStream>, Status> {
        let info = request
            .extensions()
            .get::<Below>()
            .and_then(Below::peer)
            .ok_or_else(|| Status::internal("the connection is unknown"))?;
        if info.gate.take() == connection::Stream::Another {
            return Err(Status::resource_exhausted("one Sync stream a connection: open another connection"));
        }
        let (outbound, replies) = mpsc::channel(OUTBOUND_FRAMES);
        let link = Link::new(Role::AuthorizedClient, request.into_inner(), outbound);
        self.tasks.spawn(session::accept(self.local.clone(), link, info, self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}
