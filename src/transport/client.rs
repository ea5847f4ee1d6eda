//! One connection to a hub, made ready for a session.
//!
//! TCP and TLS are done here, before gRPC begins, so that a failure is told apart exactly: nobody there, somebody else
//! there, or no TLS. Called by the driver.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opmesh_core::handshake::ChannelKeys;
use opmesh_core::model::{KeyId, PublicKey};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tonic::transport::{Channel as HttpChannel, Endpoint};
use tower::service_fn;

use super::address::{Channel, HubUrl, Scheme};
use super::connection::{
    self, Below, Connection, ConnectionInfo, Gate, Gated, HANDSHAKE_TIMEOUT, Protection,
};
use super::server::http2;
use super::tls::{self, OtherKey, TlsError};

/// Name look-up and TCP, for each URL.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection to a hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answers.
    #[error("{url} cannot be reached: {reason}; is the hub running, and is the port open?")]
    Unreachable {
        /// Where.
        url: String,
        /// The system's words.
        reason: String,
    },
    /// Somebody answers, but not with HTTP/2.
    #[error("{url} answers, but not like a hub: {reason}")]
    NotAHub {
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// Somebody answers, but not with TLS as opmesh speaks it.
    #[error(
        "{url} answers, but without the certificate of an opmesh hub: {reason}; if a proxy ends TLS there, give the \
         hub a sealed listener behind it and dial with `--channel sealed`"
    )]
    OtherTls {
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// A proxy, or whatever ends TLS in front of a sealed listener, does not speak as needed.
    #[error("{url} answers, but no sealed channel can pass there: {reason}")]
    NoWay {
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// Another instance answers.
    #[error("{url}: {other}; compare key IDs with the hub's operator before you trust it")]
    OtherKey {
        /// Where.
        url: String,
        /// Who was expected, and who came.
        other: OtherKey,
    },
    /// Plain, and not this machine.
    #[error("{url} is not on this machine: without TLS only loopback is allowed, use https://")]
    NotLoopback {
        /// Where.
        url: String,
    },
    /// Our own side.
    #[error("no connection could be prepared: {reason}")]
    Setup {
        /// What went wrong.
        reason: String,
    },
}

/// A connection over which one Sync stream can be opened.
#[derive(Debug, Clone)]
pub(super) struct Dialled {
    pub(super) http: HttpChannel,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) tls_peer: Option<PublicKey>,
}

/// Connects to the hub with this key, at this URL.
pub(super) async fn connect(url: &HubUrl, hub: KeyId) -> Result<Dialled, DialError> {
    connect_over(url, hub, reach(url).await?).await
}

/// The same over a connection that is there.
pub(super) async fn connect_over(url: &HubUrl, hub: KeyId, socket: TcpStream) -> Result<Dialled, DialError> {
    let address = socket.peer_addr().map_err(|error| unreachable_at(url, &error))?;
    let gate = Gate::new(None);
    let gated = Gated::new(socket, gate.clone(), HANDSHAKE_TIMEOUT);
    let info = |protection| Arc::new(ConnectionInfo { gate, protection, address });
    let (connection, info, tls_peer) = match (url.channel, url.scheme) {
        (Channel::Plain, _) if !address.ip().to_canonical().is_loopback() => {
            return Err(DialError::NotLoopback { url: url.to_string() });
        }
        (Channel::Plain, _) => {
            let info = info(Protection::Bound(ChannelKeys::Plain));
            (Connection::bare(gated, Below::Peer(info.clone())), info, None)
        }
        (Channel::Tls, _) => {
            let (stream, keys, shown) = secure(url, hub, gated).await?;
            let info = info(Protection::Bound(keys));
            (Connection::tls(stream, Below::Peer(info.clone())), info, Some(shown))
        }
        (Channel::Sealed, Scheme::Http) => {
            let info = info(Protection::Sealed);
            (Connection::bare(gated, Below::Peer(info.clone())), info, None)
        }
        (Channel::Sealed, Scheme::Https) => {
            let info = info(Protection::Sealed);
            (Connection::tls(pass(url, gated).await?, Below::Peer(info.clone())), info, None)
        }
    };
    Ok(Dialled { http: speak_http2(url, connection).await?, info, tls_peer })
}

async fn reach(url: &HubUrl) -> Result<TcpStream, DialError> {
    let connecting = TcpStream::connect((url.host.as_str(), url.port));
    let socket = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| unreachable_at(url, &error))?,
        Err(_) => return Err(unreachable_at(url, &io::ErrorKind::TimedOut.into())),
    };
    connection::prepare(&socket).map_err(|error| unreachable_at(url, &error))?;
    Ok(socket)
}

type TlsIo = tokio_rustls::TlsStream<Gated<TcpStream>>;

async fn secure(
    url: &HubUrl,
    hub: KeyId,
    socket: Gated<TcpStream>,
) -> Result<(TlsIo, ChannelKeys, PublicKey), DialError> {
    let not_a_hub = |reason: &str| DialError::OtherTls { url: url.to_string(), reason: reason.to_owned() };
    let connector = tls::connector(hub).map_err(setup)?;
    let name = ServerName::try_from(url.host.clone()).map_err(|fault| not_a_hub(&fault.to_string()))?;
    let stream = connector.connect(name, socket).await.map_err(|error| match tls::other_key(&error) {
        Some(other) => DialError::OtherKey { url: url.to_string(), other },
        None => not_a_hub(&error.to_string()),
    })?;
    let stream = TlsIo::Client(stream);
    let keys = tls::channel_keys(&stream).ok_or_else(|| not_a_hub("it does not speak HTTP/2"))?;
    let shown = tls::shown_key(&stream).ok_or_else(|| not_a_hub("it shows no key"))?;
    Ok((stream, keys, shown))
}

/// TLS with whatever stands in front of a sealed listener.
async fn pass(url: &HubUrl, socket: Gated<TcpStream>) -> Result<TlsIo, DialError> {
    let no_way = |reason: String| DialError::NoWay { url: url.to_string(), reason };
    let connector = tls::outer_connector().map_err(setup)?;
    let name = ServerName::try_from(url.host.clone()).map_err(|fault| no_way(fault.to_string()))?;
    let stream = connector.connect(name, socket).await.map_err(|error| no_way(error.to_string()))?;
    let stream = TlsIo::Client(stream);
    if tls::speaks_http2(&stream) {
        Ok(stream)
    } else {
        Err(no_way("the proxy does not offer HTTP/2 (ALPN h2)".to_owned()))
    }
}

async fn speak_http2(url: &HubUrl, connection: Connection) -> Result<HttpChannel, DialError> {
    let setup = |error: tonic::transport::Error| DialError::Setup { reason: error.to_string() };
    // The connection is there already; should gRPC ask for a second one, the session is over.
    let once = Arc::new(Mutex::new(Some(connection)));
    let connector = service_fn(move |_| {
        let connection = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        let taken = || io::Error::from(io::ErrorKind::NotConnected);
        std::future::ready(connection.map(TokioIo::new).ok_or_else(taken))
    });
    Endpoint::from_shared(url.to_string())
        .map_err(setup)?
        .initial_stream_window_size(http2::STREAM_WINDOW)
        .initial_connection_window_size(http2::CONNECTION_WINDOW)
        .max_frame_size(http2::FRAME)
        .http2_max_header_list_size(http2::HEADER_LIST)
        .http2_keep_alive_interval(http2::KEEPALIVE)
        .keep_alive_timeout(http2::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| DialError::NotAHub { url: url.to_string(), reason: error.to_string() })
}

fn setup(error: TlsError) -> DialError {
    DialError::Setup { reason: error.to_string() }
}

fn unreachable_at(url: &HubUrl, error: &io::Error) -> DialError {
    DialError::Unreachable { url: url.to_string(), reason: error.to_string() }
}
