//! Who may call what: decided by the kernel's word about the caller, in one place, before any handler runs.
//!
//! uid 0 and the daemon's own uid may call everything. Others reach the socket only as members of `admin.group`; they
//! may record what their backups did and read the status.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::UdsConnectInfo;
use tower::Service;

use super::error::{Failure, Reason};

/// What members of the group may call.
const RECORDING: [&str; 3] =
    ["/opmesh.admin.v1.Admin/Status", "/opmesh.admin.v1.Admin/BeginRun", "/opmesh.admin.v1.Admin/FinishRun"];

/// Lets through what the caller may call.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    service: S,
    own: u32,
}

impl<S> Guarded<S> {
    /// Guards a service of a daemon that runs as `own`.
    pub(super) const fn new(service: S, own: u32) -> Self {
        Self { service, own }
    }

    fn may_call(&self, request: &Request<Body>) -> bool {
        let caller = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        may(caller.map(|caller| caller.uid()), self.own, request.uri().path())
    }
}

/// A caller that the kernel says nothing about may call nothing.
fn may(caller: Option<u32>, own: u32, path: &str) -> bool {
    caller.is_some_and(|uid| uid == 0 || uid == own || RECORDING.contains(&path))
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.may_call(&request) {
            return Box::pin(self.service.call(request));
        }
        let failure =
            Failure::new(Reason::PermissionDenied, "only root and the daemon's own user may do this")
                .hint("members of admin.group may record runs and read the status");
        Box::pin(std::future::ready(Ok(Status::from(failure).into_http())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_daemons_user_may_call_everything_and_others_may_record() {
        let all = "/opmesh.admin.v1.Admin/BlockPeer";
        for (caller, path, expected) in [
            (Some(0), all, true),
            (Some(990), all, true),
            (Some(1000), all, false),
            (None, all, false),
            (None, RECORDING[0], false),
            (Some(1000), "/opmesh.admin.v1.Admin/Status", true),
            (Some(1000), "/opmesh.admin.v1.Admin/FinishRun", true),
            (Some(1000), "/opmesh.admin.v1.Admin/ApplyOperations", false),
        ] {
            assert_eq!(may(caller, 990, path), expected, "{caller:?} {path}");
        }
    }

    #[test]
    fn what_members_of_the_group_may_call_exists() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(crate::admin::DESCRIPTORS).unwrap();
        let calls: Vec<_> =
            set.file[0].service[0].method.iter().map(prost_types::MethodDescriptorProto::name).collect();
        for path in RECORDING {
            let call = path.strip_prefix("/opmesh.admin.v1.Admin/").unwrap();
            assert!(calls.contains(&call), "{path}");
        }
    }
}
