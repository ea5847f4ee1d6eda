//! Several gRPC services on one listener, told apart by the first part of the path.
//!
//! Used by the plain listener for reflection and health, and by the admin socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

type Inner = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The services of a listener.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    services: Arc<Vec<(&'static str, Inner)>>,
}

impl Routes {
    /// The same with one more service.
    #[must_use]
    pub fn with<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let mut services = Arc::unwrap_or_clone(self.services);
        services.push((S::NAME, BoxCloneSyncService::new(service)));
        Self { services: Arc::new(services) }
    }

    fn find(&self, path: &str) -> Option<Inner> {
        let name = path.strip_prefix('/')?.split('/').next()?;
        self.services.iter().find(|(known, _)| *known == name).map(|(_, service)| service.clone())
    }
}

impl Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// Ready at once: whatever a service needs is awaited with its request.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.find(request.uri().path()) {
            Some(service) => Box::pin(service.oneshot(request)),
            None => Box::pin(std::future::ready(Ok(
                tonic::Status::unimplemented("no such service here").into_http()
            ))),
        }
    }
}
