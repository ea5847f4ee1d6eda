//! One connection, with TLS or without, and the gate that watches it.
//!
//! The gate lies below TLS, so that every byte counts: a peer that has not proved who it is may send little and stay
//! briefly, and a connection whose session is over goes after a moment. What comes from a proxy carries the streams of
//! several peers: there each stream has a gate of its own, see `upstream.rs`. Nothing here knows frames.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use opmesh_core::handshake::ChannelKeys;

use super::address::Channel;
use super::admission::Admitted;
use super::upstream::{Carried, Upstream};

/// TLS and the whole handshake together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read from a connection before its peer has proved who it is.
pub const BYTES_BEFORE_AUTHENTICATION: usize = 64 * 1024;
/// How long a connection may stay once its session is over, so that the final status still gets out.
const LINGER: Duration = Duration::from_secs(5);
/// How much more is read from it meanwhile: what an honest peer had sent before it heard of the end fits.
const LATE_BYTES: usize = 1024 * 1024;

const _: () = assert!(
    BYTES_BEFORE_AUTHENTICATION >= 3 * crate::wire::MESSAGE_BYTES_BEFORE_AUTHENTICATION,
    "a handshake of the largest messages fits"
);

/// How long what we sent may stay unacknowledged by the peer's system, or its window closed, before the connection is
/// given up.
pub(super) const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A socket as every connection needs it: small frames go at once, and a peer that is gone is noticed.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let millis = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(socket, millis)?)
}

/// What a connection has come to; shared by the connection and the session that runs over it.
#[derive(Debug)]
pub(super) struct Gate {
    /// The handshake is over, one way or the other.
    settled: CancellationToken,
    over: CancellationToken,
    known: AtomicBool,
    taken: AtomicBool,
    admitted: Mutex<Option<Admitted>>,
    /// The connection that carries this one stream of several.
    carried: Option<Carried>,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Gate {
    pub(super) fn new(admitted: Option<Admitted>) -> Arc<Self> {
        Self::with(admitted, None)
    }

    /// For one stream of a connection that carries several.
    pub(super) fn of_stream(admitted: Admitted, carried: Carried) -> Arc<Self> {
        Self::with(Some(admitted), Some(carried))
    }

    fn with(admitted: Option<Admitted>, carried: Option<Carried>) -> Arc<Self> {
        Arc::new(Self {
            settled: CancellationToken::new(),
            over: CancellationToken::new(),
            known: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            admitted: Mutex::new(admitted),
            carried,
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        })
    }

    /// Whether this is the connection's first Sync stream; there is only one.
    pub(super) fn take(&self) -> Stream {
        if self.taken.swap(true, Ordering::Relaxed) { Stream::Another } else { Stream::First }
    }

    /// The peer has proved who it is.
    pub(super) fn authenticated(&self) {
        self.known.store(true, Ordering::Relaxed);
        if let Some(admitted) = self.admitted.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            admitted.known();
        }
        if let Some(carried) = &self.carried {
            carried.known();
        }
    }

    /// The handshake is complete: time does not matter any more.
    pub(super) fn established(&self) {
        self.settled.cancel();
    }

    /// Counts what came in; `read` is what was sent by a stranger, or after the session was over.
    pub(super) fn received(&self, bytes: usize, read: &mut usize) -> Result<(), Closed> {
        self.received_bytes.fetch_add(wide(bytes), Ordering::Relaxed);
        let (limit, too_much) = match self.known.load(Ordering::Relaxed) {
            false => (BYTES_BEFORE_AUTHENTICATION, Closed::TooMuch),
            true if self.over.is_cancelled() => (LATE_BYTES, Closed::SessionOver),
            true => return Ok(()),
        };
        *read = read.saturating_add(bytes);
        if *read > limit { Err(too_much) } else { Ok(()) }
    }

    /// What went over the connection so far, below TLS: sent, received.
    pub(super) fn carried_bytes(&self) -> (u64, u64) {
        (self.sent_bytes.load(Ordering::Relaxed), self.received_bytes.load(Ordering::Relaxed))
    }

    /// The session has ended; so does the connection, soon.
    pub(super) fn session_over(&self) {
        self.settled.cancel();
        self.over.cancel();
    }

    /// Returns when the connection must go.
    pub(super) async fn closing(self: Arc<Self>, handshake: Duration) -> Closed {
        let leave =
            self.admitted.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Admitted::leave);
        let leave = leave.unwrap_or_default();
        match leave.run_until_cancelled(tokio::time::timeout(handshake, self.settled.cancelled())).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return Closed::TooSlow,
            None => return Closed::MadeRoom,
        }
        self.over.cancelled().await;
        tokio::time::sleep(LINGER).await;
        Closed::SessionOver
    }
}

/// See [`Gate::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    First,
    Another,
}

/// Why the gate closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closed {
    #[error("the handshake was not finished in time")]
    TooSlow,
    #[error("too many connections have not proved who they are, and this one had to make room")]
    MadeRoom,
    #[error("the peer sent more than {BYTES_BEFORE_AUTHENTICATION} bytes before it had proved who it is")]
    TooMuch,
    #[error("the session is over")]
    SessionOver,
    #[error("no stream has used the connection for a while")]
    Unused,
}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, closed)
    }
}

/// A socket behind its gate.
pub(super) struct Gated<IO> {
    io: IO,
    /// Counts; none where each stream counts for itself.
    gate: Option<Arc<Gate>>,
    closing: Pin<Box<dyn Future<Output = Closed> + Send>>,
    closed: Option<Closed>,
    read: usize,
}

impl<IO> Gated<IO> {
    /// The handshake's time starts now.
    pub(super) fn new(io: IO, gate: Arc<Gate>, handshake: Duration) -> Self {
        let closing = Box::pin(gate.clone().closing(handshake));
        Self { io, gate: Some(gate), closing, closed: None, read: 0 }
    }

    /// A connection that carries the streams of several peers.
    pub(super) fn upstream(io: IO, upstream: Arc<Upstream>) -> Self {
        Self { io, gate: None, closing: Box::pin(upstream.closing()), closed: None, read: 0 }
    }

    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.closed.is_none()
            && let Poll::Ready(closed) = self.closing.as_mut().poll(cx)
        {
            self.closed = Some(closed);
        }
        self.closed.map_or(Ok(()), |closed| Err(closed.into()))
    }

    fn count(&mut self, bytes: usize) -> io::Result<()> {
        let counted = self.gate.as_ref().map_or(Ok(()), |gate| gate.received(bytes, &mut self.read));
        if let Err(closed) = counted {
            self.closed = Some(closed);
        }
        Ok(counted?)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gated<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.open(cx)?;
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(self.count(buf.filled().len().saturating_sub(before)))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gated<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.open(cx)?;
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        if let Some(gate) = &self.gate {
            gate.sent_bytes.fetch_add(wide(written), Ordering::Relaxed);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A connection that is ready for HTTP/2.
pub(super) struct Connection {
    io: Transport,
    below: Below,
}

/// What a request finds out about the connection that it came over.
#[derive(Debug, Clone)]
pub(super) enum Below {
    /// It is one peer's, or this one stream of it is.
    Peer(Arc<ConnectionInfo>),
    /// It is a proxy's.
    Proxy(Arc<Upstream>),
}

enum Transport {
    /// Ours, or a proxy's.
    Tls(Box<TlsStream<Gated<TcpStream>>>),
    Bare(Box<Gated<TcpStream>>),
}

/// What a session has to know about the connection below it.
pub(super) struct ConnectionInfo {
    pub(super) gate: Arc<Gate>,
    pub(super) protection: Protection,
    /// Of the other end of the connection, be it the peer or a proxy.
    pub(super) address: SocketAddr,
}

/// What the connection does for a handshake in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protection {
    /// It is bound to the handshake by these.
    Bound(ChannelKeys),
    /// Nothing: keys are agreed inside the stream.
    Sealed,
}

impl ConnectionInfo {
    /// What limits for one address count by; none where a proxy stands in between.
    pub(super) fn own_address(&self) -> Option<IpAddr> {
        match self.protection {
            Protection::Bound(_) => Some(self.address.ip()),
            Protection::Sealed => None,
        }
    }
}

impl Protection {
    pub(super) fn channel(&self) -> Channel {
        match self {
            Self::Bound(ChannelKeys::Tls { .. }) => Channel::Tls,
            Self::Bound(ChannelKeys::Plain) => Channel::Plain,
            Self::Bound(ChannelKeys::Sealed { .. }) | Self::Sealed => Channel::Sealed,
        }
    }
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Below {
    pub(super) fn peer(&self) -> Option<Arc<ConnectionInfo>> {
        match self {
            Self::Peer(info) => Some(info.clone()),
            Self::Proxy(_) => None,
        }
    }
}

impl From<ConnectionInfo> for Below {
    fn from(info: ConnectionInfo) -> Self {
        Self::Peer(Arc::new(info))
    }
}

impl Connection {
    pub(super) fn tls(stream: TlsStream<Gated<TcpStream>>, below: Below) -> Self {
        Self { io: Transport::Tls(Box::new(stream)), below }
    }

    /// Without TLS of our own.
    pub(super) fn bare(stream: Gated<TcpStream>, below: Below) -> Self {
        Self { io: Transport::Bare(Box::new(stream)), below }
    }
}

impl Connected for Connection {
    type ConnectInfo = Below;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.below.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Transport::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Bare(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Transport::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Transport::Bare(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Transport::Tls(io) => Pin::new(io).poll_flush(cx),
            Transport::Bare(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Transport::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Bare(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_stranger_that_says_nothing_is_cut_off() {
        let (near, _far) = tokio::io::duplex(64);
        let mut gated = Gated::new(near, Gate::new(None), SOON);
        let error = gated.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), Closed::TooSlow.to_string());
        assert!(gated.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn a_stranger_may_send_64_kib_and_not_a_byte_more() {
        let (near, mut far) = tokio::io::duplex(2 * BYTES_BEFORE_AUTHENTICATION);
        far.write_all(&vec![0; BYTES_BEFORE_AUTHENTICATION + 1]).await.unwrap();
        let mut gated = Gated::new(near, Gate::new(None), HANDSHAKE_TIMEOUT);
        let mut read = vec![0; BYTES_BEFORE_AUTHENTICATION];
        gated.read_exact(&mut read).await.unwrap();
        let error = gated.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), Closed::TooMuch.to_string());
    }

    #[tokio::test]
    async fn a_known_peer_may_send_as_much_and_stay_as_long_as_it_likes() {
        let (near, mut far) = tokio::io::duplex(4 * BYTES_BEFORE_AUTHENTICATION);
        let gate = Gate::new(None);
        gate.authenticated();
        gate.established();
        let mut gated = Gated::new(near, gate, Duration::ZERO);
        far.write_all(&vec![0; 3 * BYTES_BEFORE_AUTHENTICATION]).await.unwrap();
        gated.read_exact(&mut vec![0; 3 * BYTES_BEFORE_AUTHENTICATION]).await.unwrap();
    }

    #[test]
    fn a_peer_whose_session_is_over_may_send_what_was_under_way_and_no_more() {
        let gate = Gate::new(None);
        gate.authenticated();
        let mut read = 0;
        assert_eq!(gate.received(10 * LATE_BYTES, &mut read), Ok(()));
        gate.session_over();
        assert_eq!(gate.received(LATE_BYTES, &mut read), Ok(()));
        assert_eq!(gate.received(1, &mut read), Err(Closed::SessionOver));
    }

    #[test]
    fn a_connection_carries_one_sync_stream() {
        let gate = Gate::new(None);
        assert_eq!((gate.take(), gate.take()), (Stream::First, Stream::Another));
    }
}
