//! Who may call what: one table, applied in one place, before any handler runs.
//!
//! On the unix socket the kernel's word decides: uid 0 and the daemon's own uid may call everything; others reach the
//! socket only as members of `admin.group`, and may record what their backups did and read the status. Knows no
//! handlers; a call without a row here is refused to everybody who may not call everything.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::UdsConnectInfo;
use tower::Service;

use super::SERVICE;
use super::error::{Failure, Reason};

/// What a caller may do. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// See operations, hosts, peers and the audit log.
    Read,
    /// And change what this instance recorded, and look after hosts.
    Operate,
    /// And decide who may speak with this instance, and what each may see and change.
    Security,
}

impl Role {
    /// All roles with their names, the lowest first.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Read, "read"), (Self::Operate, "operate"), (Self::Security, "security")];

    /// The name in JSON, stores and arguments.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text)| *text == name).map(|(role, _)| *role)
    }
}

/// Every call with the role that it needs.
const ROLES: &[(&str, Role)] = &[
    ("Status", Role::Read),
    // Operations.
    ("ListOperations", Role::Read),
    ("GetOperation", Role::Read),
    ("WatchOperations", Role::Read),
    ("ApplyOperations", Role::Operate),
    ("DeleteOperations", Role::Operate),
    ("BeginRun", Role::Operate),
    ("FinishRun", Role::Operate),
    // Hosts.
    ("ListHosts", Role::Read),
    ("GetHost", Role::Read),
    ("VerifyHosts", Role::Read),
    ("ListParked", Role::Read),
    ("ReleaseHost", Role::Operate),
    ("ForgetHost", Role::Security),
    // Peers. A name is what later commands mean by it: who may rename may redirect a grant.
    ("ListPeers", Role::Read),
    ("GetPeer", Role::Read),
    ("AddPeer", Role::Security),
    ("VerifyPeer", Role::Security),
    ("GrantPeer", Role::Security),
    ("RevokePeer", Role::Security),
    ("BlockPeer", Role::Security),
    ("UnblockPeer", Role::Security),
    ("RenamePeer", Role::Security),
    ("SetPeer", Role::Security),
    ("RemovePeer", Role::Security),
    ("ResolvePeer", Role::Security),
    // Pairing.
    ("CreateToken", Role::Security),
    ("ListTokens", Role::Security),
    ("CancelToken", Role::Security),
    ("JoinHub", Role::Security),
    // This instance. A backup holds everything that permissions protect.
    ("RenameKey", Role::Security),
    ("RotateKey", Role::Security),
    ("ReplacePeerKey", Role::Security),
    ("AdoptPeer", Role::Security),
    ("BackupStore", Role::Security),
    // Security events.
    ("ListAudit", Role::Read),
    ("VerifyAudit", Role::Read),
];

/// What members of the group may call on the unix socket.
const RECORDING: [&str; 3] = ["Status", "BeginRun", "FinishRun"];

/// The role that a call of the admin service needs; none: there is no such call.
pub fn role_of(method: &str) -> Option<Role> {
    ROLES.iter().find(|(name, _)| *name == method).map(|(_, role)| *role)
}

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
        may(caller.map(|caller| caller.uid()), self.own, method(request.uri().path()))
    }
}

/// The call that a path names; empty when it is none of the admin service.
fn method(path: &str) -> &str {
    let rest = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(SERVICE));
    rest.and_then(|rest| rest.strip_prefix('/')).unwrap_or_default()
}

/// A caller that the kernel says nothing about may call nothing.
fn may(caller: Option<u32>, own: u32, method: &str) -> bool {
    caller.is_some_and(|uid| uid == 0 || uid == own || RECORDING.contains(&method))
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
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn root_and_the_daemons_user_may_call_everything_and_others_may_record() {
        for (name, _) in ROLES {
            assert!(may(Some(0), 990, name) && may(Some(990), 990, name), "{name}");
            assert!(!may(None, 990, name), "{name}");
            assert_eq!(may(Some(1000), 990, name), RECORDING.contains(name), "{name}");
        }
        assert_eq!(method("/opmesh.admin.v1.Admin/Status"), "Status");
        for other in ["/opmesh.admin.v1.Admin", "/opmesh.admin.v1.AdminStatus", "/x/Status", "Status", ""] {
            assert_eq!(method(other), "", "{other}");
        }
    }

    #[test]
    fn every_call_of_the_service_has_one_role() {
        let set = prost_types::FileDescriptorSet::decode(crate::admin::DESCRIPTORS).unwrap();
        let services: Vec<_> = set.file.iter().flat_map(|file| &file.service).collect();
        assert_eq!(services.len(), 1, "a second service needs a guard of its own");
        let calls: BTreeSet<_> =
            services[0].method.iter().map(prost_types::MethodDescriptorProto::name).collect();
        let rows: BTreeSet<_> = ROLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(rows.len(), ROLES.len(), "a call has two rows in ROLES");
        let missing: Vec<_> = calls.difference(&rows).collect();
        assert!(missing.is_empty(), "without a row in ROLES: {missing:?}");
        let stale: Vec<_> = rows.difference(&calls).collect();
        assert!(stale.is_empty(), "rows in ROLES without a call: {stale:?}");
        assert!(RECORDING.iter().all(|name| rows.contains(name)));
    }
}
