//! Connections that come from a proxy to a sealed listener: they carry the streams of several peers, so that whatever
//! is counted of a connection elsewhere is counted of each stream here.
//!
//! Nothing that a proxy says about its clients is looked at: host names, forwarded addresses and certificates prove
//! nothing. A stranger's stream may bring little before its peer has proved who it is, and few strangers have streams
//! at a time; the time for that is the session's. Called by the server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Frame as BodyFrame;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};

use super::Local;
use super::admission::Admitted;
use super::connection::{Below, Closed, ConnectionInfo, Gate, HANDSHAKE_TIMEOUT, Protection};
use super::noise::Noise;

/// How long a proxy's connection may stay without a stream. Proxies keep some for later and open others when they are
/// gone.
const UNUSED: Duration = Duration::from_secs(10);

/// A proxy's connection.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    streams: watch::Sender<usize>,
    admitted: Admitted,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr, admitted: Admitted) -> Arc<Self> {
        Arc::new(Self { address, streams: watch::Sender::new(0), admitted })
    }

    /// Returns when the connection must go: when no stream has used it for [`UNUSED`], or when it only ever carried
    /// strangers and must make room for others.
    pub(super) async fn closing(self: Arc<Self>) -> Closed {
        let leave = self.admitted.leave();
        match leave.run_until_cancelled(self.unused()).await {
            Some(()) => Closed::Unused,
            None => Closed::MadeRoom,
        }
    }

    async fn unused(&self) {
        let mut streams = self.streams.subscribe();
        loop {
            // The sender lives as long as `self`.
            drop(streams.wait_for(|open| *open == 0).await);
            let used = async { drop(streams.wait_for(|open| *open > 0).await) };
            if tokio::time::timeout(UNUSED, used).await.is_err() {
                return;
            }
        }
    }

    fn carry(self: Arc<Self>) -> Carried {
        self.streams.send_modify(|open| *open += 1);
        Carried { upstream: self }
    }
}

/// One stream of a proxy's connection; dropped when the stream is over.
#[derive(Debug)]
pub(super) struct Carried {
    upstream: Arc<Upstream>,
}

impl Carried {
    /// A stream of a peer that has proved who it is: the proxy brings others than strangers.
    pub(super) fn known(&self) {
        self.upstream.admitted.known();
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.upstream.streams.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// The Sync service where a gate watches each stream.
#[derive(Debug, Clone)]
pub(super) struct PerStream<S> {
    sync: S,
    local: Arc<Local>,
}

impl<S> PerStream<S> {
    pub(super) fn new(sync: S, local: Arc<Local>) -> Self {
        Self { sync, local }
    }

    fn admit(&self, upstream: Arc<Upstream>) -> Option<Arc<Gate>> {
        let (doorman, address) = (&self.local.doorman, upstream.address);
        match doorman.streams.admit_behind_proxy(self.local.clock.monotonic()) {
            Ok(admitted) => {
                if admitted.made_room && doorman.noise.may_log(Noise::MadeRoom) {
                    tracing::warn!(%address, "a stream took the place of another stranger's");
                }
                Some(Gate::of_stream(admitted, upstream.carry()))
            }
            Err(turned) => {
                if doorman.noise.may_log(Noise::TurnedAway) {
                    tracing::warn!(%address, reason = %turned, "a stream was turned away");
                }
                None
            }
        }
    }
}

impl<S: NamedService> NamedService for PerStream<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for PerStream<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    /// Ready at once: what the service needs is awaited with its request.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(Below::Proxy(upstream)) = request.extensions().get::<Below>().cloned() else {
            return answer(Status::internal("the connection is unknown"));
        };
        let address = upstream.address;
        let Some(gate) = self.admit(upstream) else {
            return answer(Status::unavailable("too many connections; try again later"));
        };
        let info = ConnectionInfo { gate: gate.clone(), protection: Protection::Sealed, address };
        request.extensions_mut().insert(Below::Peer(Arc::new(info)));
        let request = request.map(|body| Body::new(Metered::new(body, gate)));
        Box::pin(self.sync.clone().oneshot(request))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

fn answer(status: Status) -> Answer {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// What a stream brings, behind its gate: counted until its peer is known, and over when the gate says so.
struct Metered {
    body: Body,
    gate: Arc<Gate>,
    closing: Pin<Box<dyn Future<Output = Closed> + Send>>,
    closed: Option<Closed>,
    read: usize,
}

impl Metered {
    /// The handshake's time starts now.
    fn new(body: Body, gate: Arc<Gate>) -> Self {
        let closing = Box::pin(gate.clone().closing(HANDSHAKE_TIMEOUT));
        Self { body, gate, closing, closed: None, read: 0 }
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.closed.is_none()
            && let Poll::Ready(closed) = this.closing.as_mut().poll(cx)
        {
            this.closed = Some(closed);
        }
        if let Some(closed) = this.closed {
            return Poll::Ready(Some(Err(Status::resource_exhausted(closed.to_string()))));
        }
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        match this.gate.received(bytes, &mut this.read) {
            Ok(()) => Poll::Ready(frame),
            Err(closed) => Poll::Ready(Some(Err(Status::resource_exhausted(closed.to_string())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::transport::admission::Admission;
    use tokio::task::JoinSet;

    fn upstream() -> Arc<Upstream> {
        let limits = Arc::new(Limits::default());
        let admitted = Admission::new(limits).admit_behind_proxy(Duration::ZERO).unwrap();
        Upstream::new("127.0.0.1:1".parse().unwrap(), admitted)
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxys_connection_stays_while_a_stream_uses_it_and_a_while_longer() {
        let upstream = upstream();
        let stream = upstream.clone().carry();
        let mut tasks = JoinSet::new();
        let unused = tasks.spawn(upstream.clone().closing());
        tokio::time::sleep(10 * UNUSED).await;
        assert!(!unused.is_finished());
        drop(stream);
        tokio::time::sleep(UNUSED / 2).await;
        let stream = upstream.clone().carry();
        tokio::time::sleep(10 * UNUSED).await;
        assert!(!unused.is_finished(), "another stream came in time");
        drop(stream);
        tokio::time::sleep(UNUSED + Duration::from_millis(1)).await;
        assert!(unused.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_no_stream_is_opened_goes() {
        let unused = upstream().closing();
        assert!(tokio::time::timeout(2 * UNUSED, unused).await.is_ok());
    }
}
