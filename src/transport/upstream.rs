//! Connections that come from a proxy to a sealed listener: they carry the streams of several peers, so that whatever
//! is counted of a connection elsewhere is counted of each stream here.
//!
//! Nothing that a proxy says about its clients is looked at: host names, forwarded addresses and certificates prove
//! nothing. A stranger's stream may bring little before its peer has proved who it is, and few strangers have streams
//! at a time; the time for that is the session's. Called by the server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Frame as BodyFrame;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};

use super::admission::{Admission, Admitted};
use super::connection::{BYTES_BEFORE_AUTHENTICATION, Below, ConnectionInfo, Gate, Protection};

/// How long a proxy's connection may stay without a stream. Proxies keep some for later and open others when they are
/// gone.
const UNUSED: Duration = Duration::from_secs(10);

/// A proxy's connection.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    streams: watch::Sender<usize>,
    admitted: Mutex<Admitted>,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr, admitted: Admitted) -> Arc<Self> {
        Arc::new(Self { address, streams: watch::Sender::new(0), admitted: Mutex::new(admitted) })
    }

    /// Returns when no stream has used the connection for [`UNUSED`].
    pub(super) async fn unused(self: Arc<Self>) {
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
        self.upstream.admitted.lock().unwrap_or_else(PoisonError::into_inner).known();
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
    strangers: Admission,
}

impl<S> PerStream<S> {
    pub(super) fn new(sync: S, strangers: Admission) -> Self {
        Self { sync, strangers }
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
        let admitted = match self.strangers.admit_behind_proxy() {
            Ok(admitted) => admitted,
            Err(turned) => {
                tracing::warn!(%address, reason = %turned, "a stream was turned away");
                return answer(Status::unavailable("too many connections; try again later"));
            }
        };
        let gate = Gate::of_stream(admitted, upstream.carry());
        let info = ConnectionInfo { gate: gate.clone(), protection: Protection::Sealed, address };
        request.extensions_mut().insert(Below::Peer(Arc::new(info)));
        let request = request.map(|body| Body::new(Metered { body, gate, read: 0 }));
        Box::pin(self.sync.clone().oneshot(request))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

fn answer(status: Status) -> Answer {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// What a stream brings, counted until its peer is known.
struct Metered {
    body: Body,
    gate: Arc<Gate>,
    read: usize,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && !self.gate.is_known()
        {
            self.read = self.read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if self.read > BYTES_BEFORE_AUTHENTICATION {
                let text = format!("more than {BYTES_BEFORE_AUTHENTICATION} bytes before authentication");
                return Poll::Ready(Some(Err(Status::resource_exhausted(text))));
            }
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Arc<Upstream> {
        let admitted = Admission::default().admit_behind_proxy().unwrap();
        Upstream::new("127.0.0.1:1".parse().unwrap(), admitted)
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxys_connection_stays_while_a_stream_uses_it_and_a_while_longer() {
        let upstream = upstream();
        let stream = upstream.clone().carry();
        let unused = tokio::task::spawn(upstream.clone().unused());
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
        let unused = upstream().unused();
        assert!(tokio::time::timeout(2 * UNUSED, unused).await.is_ok());
    }
}
