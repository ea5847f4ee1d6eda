//! The admin service on TCP: off unless configured, always TLS 1.3, and for holders of a token only.
//!
//! Which certificate is shown, how many connections there may be and how long a stranger may stay is decided here;
//! who may call what is the guard's. Called by the daemon.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::bearer::{Bearers, Shown};
use super::guard::Door;
use super::socket;
use crate::config::AdminCertificate;
use crate::node::Node;
use crate::transport::{TlsError, identity_certificate};

/// Connections at once: administrators and their monitors, not hosts.
const CONNECTIONS: usize = 64;
/// The same, from one address.
const CONNECTIONS_PER_ADDRESS: usize = 16;
/// Connections that wait for gRPC to take them up. It does so at once; a few slots smooth bursts.
const READY_CONNECTIONS: usize = 16;
/// How long TLS and the first call with a valid token may take together.
const STRANGER: Duration = Duration::from_secs(10);
/// How long accepting pauses when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often a silent connection is asked whether it is still there, and for how long its answer is waited for.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Calls at once on a connection.
const STREAMS: u32 = 64;
/// All headers of a call: the token and a few that gRPC needs.
const HEADER_LIST_BYTES: u32 = 8 * 1024;
/// The key of the certificate is for its owner and its group.
const OTHERS: u32 = 0o007;
/// The only protocol above TLS.
const ALPN: &[u8] = b"h2";

/// The admin service does not listen on TCP.
#[derive(Debug, thiserror::Error)]
pub enum AdminListenError {
    /// The address cannot be bound.
    #[error(
        "the admin service cannot listen on {address}: {source}; choose another address for admin.listen"
    )]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// A file of the certificate cannot be used.
    #[error("{} cannot be used for the admin listener: {text}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A bound admin listener.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
    tls: ServerConfig,
}

impl AdminListener {
    /// Binds the address and reads the certificate: the named one, or the identity's own.
    pub async fn bind(
        node: &Node,
        address: SocketAddr,
        named: Option<&AdminCertificate>,
    ) -> Result<Self, AdminListenError> {
        let (certificates, key) = if let Some(named) = named {
            read(named)?
        } else {
            let (certificate, key) = identity_certificate(&node.identity())?;
            (vec![certificate], key)
        };
        let tls = tls(certificates, key).map_err(TlsError::from)?;
        let failed = |source| AdminListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls })
    }

    /// As bound, never port 0.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers calls until the node closes.
    pub fn serve(self, node: &Node) {
        let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
        let reception = Reception {
            tls: Arc::new(self.tls).into(),
            node: node.clone(),
            guests: Guests::default(),
            ready,
        };
        node.run(reception.accept(self.listener));
        node.run(serve(node.clone(), connections));
    }
}

fn read(
    named: &AdminCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AdminListenError> {
    let wrong = |path: &Path, text: &dyn std::fmt::Display| AdminListenError::File {
        path: path.to_owned(),
        text: text.to_string(),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&named.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(&named.certificate, &error));
    let certificates = certificates?;
    if certificates.is_empty() {
        return Err(wrong(&named.certificate, &"it holds no certificate"));
    }
    let mode = fs::metadata(&named.key).map_err(|error| wrong(&named.key, &error))?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(wrong(&named.key, &"everybody may open it; take that away with `chmod o=`"));
    }
    let key = PrivateKeyDer::from_pem_file(&named.key).map_err(|error| wrong(&named.key, &error))?;
    Ok((certificates, key))
}

/// TLS 1.3 only. X25519 alone is allowed beside the hybrid group, for the tools that lack it.
fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// Lets connections in, protects them and hands them on.
#[derive(Clone)]
struct Reception {
    tls: TlsAcceptor,
    node: Node,
    guests: Guests,
    ready: mpsc::Sender<Connection>,
}

impl Reception {
    async fn accept(self, listener: TcpListener) {
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, address)) => match self.guests.admit(address.ip()) {
                        Some(guest) => self.node.run(self.clone().open(stream, address, guest)),
                        None => {
                            tracing::warn!(%address, "an admin connection was turned away: too many are open");
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%error, "an admin connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        self.node.stopping().run_until_cancelled(accepting).await;
    }

    async fn open(self, stream: TcpStream, address: SocketAddr, guest: Guest) {
        let shown = Shown::default();
        let leaving = Box::pin(shown.clone().over(self.node.clone(), STRANGER));
        let accepting = tokio::time::timeout(STRANGER, self.tls.accept(stream));
        match self.node.stopping().run_until_cancelled(accepting).await {
            Some(Ok(Ok(io))) => {
                let caller = Caller { address: address.ip(), shown };
                // An error means that this instance is stopping.
                drop(
                    self.ready.send(Connection { io, caller, leaving, is_gone: false, _guest: guest }).await,
                );
            }
            Some(Ok(Err(error))) => {
                tracing::info!(%address, %error, "no TLS came about on the admin listener");
            }
            Some(Err(_)) => tracing::info!(%address, "no TLS came about in time on the admin listener"),
            None => {}
        }
    }
}

async fn serve(node: Node, connections: mpsc::Receiver<Connection>) {
    let door = Door::Listener(Arc::new(Bearers::new(node.clone())));
    let routes = socket::routes(&node, &door).await;
    let stop = node.stopping().clone().cancelled_owned();
    let incoming = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(routes, incoming, stop);
    if let Err(error) = server.await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// Who is on a connection, for the guard.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Where it calls from.
    pub(super) address: IpAddr,
    /// By which tokens it may stay.
    pub(super) shown: Shown,
}

/// A connection that is ready for HTTP/2.
struct Connection {
    io: TlsStream<TcpStream>,
    caller: Caller,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_gone: bool,
    _guest: Guest,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A future that is over must not be asked again.
        if self.is_gone || self.leaving.as_mut().poll(cx).is_ready() {
            self.is_gone = true;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// How many connections are open, by address.
#[derive(Debug, Clone, Default)]
struct Guests {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place on the listener, given back when dropped.
#[derive(Debug)]
struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guests {
    fn admit(&self, address: IpAddr) -> Option<Guest> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let here = open.get(&address).copied().unwrap_or(0);
        if all >= CONNECTIONS || here >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        open.insert(address, here + 1);
        Some(Guest { guests: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.guests.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = open.get_mut(&self.address) {
            *here = here.saturating_sub(1);
        }
        open.retain(|_, here| *here > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_for_each_address_and_for_all_and_given_back() {
        let guests = Guests::default();
        let address = |last: usize| IpAddr::from([192, 0, 2, u8::try_from(last).unwrap()]);
        let mut open: Vec<_> = (0..CONNECTIONS)
            .filter_map(|number| guests.admit(address(number / CONNECTIONS_PER_ADDRESS)))
            .collect();
        assert_eq!(open.len(), CONNECTIONS);
        assert!(guests.admit(address(99)).is_none());
        open.pop();
        assert!(guests.admit(address(0)).is_none(), "this address has all that it may");
        assert!(guests.admit(address(99)).is_some());
        drop(open);
        assert!(guests.open.lock().unwrap().is_empty());
    }
}
