//! Who may call what: one table, applied in one place, before any handler runs.
//!
//! On the unix socket the kernel's word decides: uid 0 and the daemon's own uid may call everything; others reach the
//! socket only as members of `admin.group`, and may record what their backups did and read the status. On the TCP
//! listener the role of the caller's token decides. Reflection and health say nothing that the source does not:
//! whoever may open the socket may look, and any valid token will do on TCP. Knows no handlers; a call without a row
//! here needs the highest role.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::UdsConnectInfo;
use tower::{Service, ServiceExt as _};

use super::SERVICE;
use super::bearer::Bearers;
use super::error::{Failure, Reason};
use super::tcp::Caller;
use crate::node::Node;
use crate::store::{AuditEvent, AuditKind};

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
    ("WatchPeers", Role::Read),
    ("AddPeer", Role::Security),
    ("VerifyPeer", Role::Security),
    ("UnverifyPeer", Role::Security),
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
    // Tokens of the TCP listener.
    ("CreateAdminToken", Role::Security),
    ("ListAdminTokens", Role::Security),
    ("RevokeAdminToken", Role::Security),
    // This instance. A backup holds everything that permissions protect.
    ("RenameKey", Role::Security),
    ("RotateKey", Role::Security),
    ("ReplacePeerKey", Role::Security),
    ("AdoptPeer", Role::Security),
    ("BackupStore", Role::Security),
    // Security events.
    ("ListAudit", Role::Read),
    ("VerifyAudit", Role::Read),
    // It makes this instance dial.
    ("Diagnose", Role::Operate),
    // Repositories and plans: what a config says is run by somebody, and its secrets open backups.
    ("GetConfig", Role::Read),
    ("RevealConfig", Role::Security),
    ("ApplyConfig", Role::Security),
    ("PushConfig", Role::Security),
];

/// What members of the group may call on the unix socket.
const RECORDING: [&str; 3] = ["Status", "BeginRun", "FinishRun"];

/// The role that a call of the admin service needs; none: there is no such call.
pub fn role_of(method: &str) -> Option<Role> {
    ROLES.iter().find(|(name, _)| *name == method).map(|(_, role)| *role)
}

/// Where a caller comes in, and so who vouches for it.
#[derive(Debug, Clone)]
pub(super) enum Door {
    /// The unix socket of a daemon that runs as this user: the kernel says who calls.
    Socket {
        /// The daemon's uid.
        own: u32,
        /// Where refusals are written down.
        node: Node,
    },
    /// The TCP listener: a token says what the caller may do.
    Listener(Arc<Bearers>),
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted<'a> {
    /// A call of the admin service; empty when it names none.
    Call(&'a str),
    /// Reflection or health.
    Look,
}

impl Door {
    /// Fails unless the caller may have what it asks for.
    async fn admit(&self, path: &str, caller: Credentials) -> Result<(), Failure> {
        let wanted = wanted(path);
        match self {
            Self::Socket { own, node } => {
                if may(caller.uid, *own, wanted) {
                    return Ok(());
                }
                let uid = caller.uid.map_or_else(|| "nobody".to_owned(), |uid| format!("uid {uid}"));
                note(node, format!("{uid} on the socket called {path}")).await?;
                Err(Failure::new(Reason::PermissionDenied, "only root and the daemon's own user may do this")
                    .hint("members of admin.group may record runs and read the status"))
            }
            Self::Listener(bearers) => {
                let Some(connection) = caller.connection else {
                    return Err(Failure::new(Reason::Internal, "the connection is unknown"));
                };
                let role = bearers.role(&connection, caller.authorization.as_deref()).await?;
                let needed = needed(wanted);
                if role >= needed {
                    return Ok(());
                }
                let (has, needs) = (role.name(), needed.name());
                let address = connection.address;
                note(bearers.node(), format!("{address} with the role {has} called {path}")).await?;
                let text = format!("this needs the role {needs}; the token has {has}");
                Err(Failure::new(Reason::PermissionDenied, text)
                    .hint(format!("use a token that was made with `--role {needs}`")))
            }
        }
    }
}

/// Writes a refusal to the audit log.
async fn note(node: &Node, detail: String) -> Result<(), Failure> {
    let event = AuditEvent { event: AuditKind::AdminRefused, peer: None, detail };
    node.store().note_refusal(event).await?;
    Ok(())
}

/// What a caller shows, by its connection and its headers.
#[derive(Debug)]
struct Credentials {
    uid: Option<u32>,
    connection: Option<Caller>,
    authorization: Option<String>,
}

impl Credentials {
    fn of(request: &Request<Body>) -> Self {
        let socket = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self {
            uid: socket.map(|caller| caller.uid()),
            connection: request.extensions().get::<Caller>().cloned(),
            authorization: header.map(str::to_owned),
        }
    }
}

fn wanted(path: &str) -> Wanted<'_> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    match rest.split_once('/') {
        Some((SERVICE, method)) => Wanted::Call(method),
        Some((service, _)) if service.starts_with("grpc.") => Wanted::Look,
        _ => Wanted::Call(""),
    }
}

fn needed(wanted: Wanted<'_>) -> Role {
    match wanted {
        Wanted::Call(method) => role_of(method).unwrap_or(Role::Security),
        Wanted::Look => Role::Read,
    }
}

/// A caller that the kernel says nothing about may call nothing.
fn may(caller: Option<u32>, own: u32, wanted: Wanted<'_>) -> bool {
    let anybody = match wanted {
        Wanted::Call(method) => RECORDING.contains(&method),
        Wanted::Look => true,
    };
    caller.is_some_and(|uid| uid == 0 || uid == own || anybody)
}

/// Lets through what the caller may call.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    service: S,
    door: Door,
}

impl<S> Guarded<S> {
    /// Guards a service behind this door.
    pub(super) fn new(service: S, door: &Door) -> Self {
        Self { service, door: door.clone() }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Ready at once: whatever the service needs is awaited with its request.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (service, door) = (self.service.clone(), self.door.clone());
        let credentials = Credentials::of(&request);
        Box::pin(async move {
            match door.admit(request.uri().path(), credentials).await {
                Ok(()) => service.oneshot(request).await,
                Err(failure) => Ok(Status::from(failure).into_http()),
            }
        })
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
            let call = Wanted::Call(name);
            assert!(may(Some(0), 990, call) && may(Some(990), 990, call), "{name}");
            assert!(!may(None, 990, call), "{name}");
            assert_eq!(may(Some(1000), 990, call), RECORDING.contains(name), "{name}");
        }
        assert!(may(Some(1000), 990, Wanted::Look) && !may(None, 990, Wanted::Look));
    }

    #[test]
    fn what_is_no_call_of_the_service_needs_the_highest_role() {
        assert_eq!(wanted("/opmesh.admin.v1.Admin/Status"), Wanted::Call("Status"));
        assert_eq!(wanted("/grpc.health.v1.Health/Check"), Wanted::Look);
        for other in ["/opmesh.admin.v1.Admin", "/opmesh.admin.v1.AdminStatus", "/x/Status", "Status", ""] {
            assert_eq!(needed(wanted(other)), Role::Security, "{other}");
            assert!(!may(Some(1000), 990, wanted(other)), "{other}");
        }
        assert_eq!(needed(Wanted::Call("NoSuchCall")), Role::Security);
        assert_eq!(needed(Wanted::Look), Role::Read);
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
