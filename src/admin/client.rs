//! The caller's side: one method for each administrative call, over the unix socket of a daemon or straight into the
//! handlers of this process. Callers cannot tell the two apart.

use std::fmt;
use std::path::{Path, PathBuf};

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_stream::Stream;
use tonic::Streaming;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::error::{Failure, Reason};
use super::pb;
use super::pb::admin_client::AdminClient;

/// The largest reply: a page of operations, each with its log tail and summary.
const MAX_REPLY_BYTES: usize = 256 * 1024 * 1024;

/// Where calls go. The error is a type of its own, without a lifetime: futures of calls stay `Send` everywhere.
pub(super) type Route = BoxCloneSyncService<Request<Body>, Response<Body>, tonic::transport::Error>;

/// A way to the administration of an instance. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    calls: AdminClient<Route>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to a daemon's socket. [`Reason::Unreachable`] when none listens there.
    pub async fn connect(socket: &Path) -> Result<Self, Failure> {
        let unreachable = |error: &dyn fmt::Display| {
            Failure::new(Reason::Unreachable, format!("no daemon answers on {}: {error}", socket.display()))
                .hint("start one with `opmesh serve`")
        };
        let path: PathBuf = socket.to_owned();
        let connector = service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is never used: the connector goes to the socket.
        let endpoint = Endpoint::from_static("http://opmesh.invalid");
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            let source = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
            unreachable(&source)
        })?;
        Ok(Self::over(BoxCloneSyncService::new(channel)))
    }

    /// Over anything that answers admin calls.
    pub(super) fn over(route: Route) -> Self {
        let calls = AdminClient::new(route).max_decoding_message_size(MAX_REPLY_BYTES);
        Self { calls }
    }
}

/// A stream of replies.
#[derive(Debug)]
pub struct Replies<T> {
    stream: Streaming<T>,
}

impl<T> Replies<T> {
    /// The next one; `None` when there are no more.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        Ok(self.stream.message().await?)
    }

    /// All that are left.
    pub async fn collect(mut self) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        while let Some(reply) = self.next().await? {
            all.push(reply);
        }
        Ok(all)
    }
}

/// Operations, unpacked from their pages.
#[derive(Debug)]
pub struct Operations {
    pages: Replies<pb::OperationPage>,
    page: std::vec::IntoIter<pb::Operation>,
}

impl Operations {
    /// The next one; `None` when there are no more.
    pub async fn next(&mut self) -> Result<Option<pb::Operation>, Failure> {
        loop {
            if let Some(operation) = self.page.next() {
                return Ok(Some(operation));
            }
            match self.pages.next().await? {
                Some(page) => self.page = page.operations.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $reply:ident;)*) => {
        impl Client {
            $($(#[$doc])*
            pub async fn $name(&self, request: pb::$request) -> Result<pb::$reply, Failure> {
                Ok(self.calls.clone().$name(request).await?.into_inner())
            })*
        }
    };
}

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $reply:ident;)*) => {
        impl Client {
            $($(#[$doc])*
            pub async fn $name(&self, request: pb::$request) -> Result<Replies<pb::$reply>, Failure> {
                Ok(Replies { stream: self.calls.clone().$name(request).await?.into_inner() })
            })*
        }
    };
}

calls! {
    /// Who this is, what it holds, and how it stands with every peer.
    status(StatusRequest) -> StatusReply;
    /// One operation by its number here.
    get_operation(GetOperationRequest) -> Operation;
    /// Deletes own operations; all or none.
    delete_operations(DeleteOperationsRequest) -> DeleteOperationsReply;
    /// One owner.
    get_host(GetHostRequest) -> Host;
    /// Ends a quarantine.
    release_host(ReleaseHostRequest) -> Host;
    /// One peer.
    get_peer(GetPeerRequest) -> Peer;
    /// Adds a peer, unverified.
    add_peer(AddPeerRequest) -> Peer;
    /// Vouches for a peer's key.
    verify_peer(VerifyPeerRequest) -> Peer;
    /// Vouches for it no longer.
    unverify_peer(UnverifyPeerRequest) -> Peer;
    /// Replaces a grant.
    grant_peer(GrantPeerRequest) -> Peer;
    /// Takes back a grant, or scopes of it.
    revoke_peer(RevokePeerRequest) -> Peer;
    /// Refuses a peer from now on.
    block_peer(BlockPeerRequest) -> Peer;
    /// Refuses it no longer.
    unblock_peer(UnblockPeerRequest) -> Peer;
    /// Calls it something else.
    rename_peer(RenamePeerRequest) -> Peer;
    /// Changes how it is reached.
    set_peer(SetPeerRequest) -> Peer;
    /// Removes it.
    remove_peer(RemovePeerRequest) -> Peer;
    /// Decides about an identity conflict.
    resolve_peer(ResolvePeerRequest) -> Peer;
    /// Makes a pairing token.
    create_token(CreateTokenRequest) -> CreatedToken;
    /// Makes a token useless.
    cancel_token(CancelTokenRequest) -> Token;
    /// Pairs with the hub of a token.
    join_hub(JoinHubRequest) -> Joined;
    /// Creates the operation of a run that begins.
    begin_run(BeginRunRequest) -> BegunRun;
    /// Records the result of a run, once per key.
    finish_run(FinishRunRequest) -> FinishedRun;
    /// Makes a token of the TCP listener.
    create_admin_token(CreateAdminTokenRequest) -> CreatedAdminToken;
    /// Makes it useless.
    revoke_admin_token(RevokeAdminTokenRequest) -> AdminToken;
    /// Calls this instance something else.
    rename_key(RenameKeyRequest) -> Identity;
    /// Gives this instance a new key.
    rotate_key(RotateKeyRequest) -> Rotation;
    /// Files a peer under another key.
    replace_peer_key(ReplacePeerKeyRequest) -> Peer;
    /// Shows a lost key's operations under another host.
    adopt_peer(AdoptPeerRequest) -> Adoption;
    /// Copies the store.
    backup_store(BackupStoreRequest) -> Backup;
    /// Deletes what is kept of a host.
    forget_host(ForgetHostRequest) -> ForgottenHost;
    /// Recomputes the chain of audit records.
    verify_audit(VerifyAuditRequest) -> AuditVerification;
    /// Repositories and plans, of this instance or as a peer shows them.
    get_config(GetConfigRequest) -> ConfigReply;
    /// This instance's, with secrets.
    reveal_config(RevealConfigRequest) -> ConfigReply;
    /// Changes this instance's repositories and plans.
    apply_config(ApplyConfigRequest) -> ConfigVerdict;
    /// Asks a peer to change its own.
    push_config(PushConfigRequest) -> ConfigVerdict;
}

streams! {
    /// What happens to operations from now on.
    watch_operations(WatchOperationsRequest) -> OperationEvent;
    /// Owners whose operations lie here.
    list_hosts(ListHostsRequest) -> Host;
    /// Recomputes hosts from the stored bytes.
    verify_hosts(VerifyHostsRequest) -> HostVerification;
    /// What was set aside of a host.
    list_parked(ListParkedRequest) -> ParkedOperation;
    /// All peers.
    list_peers(ListPeersRequest) -> Peer;
    /// How peers stand, and how that changes.
    watch_peers(WatchPeersRequest) -> PeerEvent;
    /// Tokens that can still be used.
    list_tokens(ListTokensRequest) -> Token;
    /// Tokens of the TCP listener.
    list_admin_tokens(ListAdminTokensRequest) -> AdminToken;
    /// Security events.
    list_audit(ListAuditRequest) -> AuditRecord;
    /// Looks at this instance or at the way to a peer.
    diagnose(DiagnoseRequest) -> Check;
}

impl Client {
    /// Operations, newest first.
    pub async fn list_operations(&self, request: pb::ListOperationsRequest) -> Result<Operations, Failure> {
        let stream = self.calls.clone().list_operations(request).await?.into_inner();
        Ok(Operations { pages: Replies { stream }, page: Vec::new().into_iter() })
    }

    /// Applies transactions as they come; each is answered once it is durable.
    pub async fn apply_operations(
        &self,
        transactions: impl Stream<Item = pb::ApplyTransaction> + Send + 'static,
    ) -> Result<Replies<pb::ApplyReply>, Failure> {
        let stream = self.calls.clone().apply_operations(transactions).await?.into_inner();
        Ok(Replies { stream })
    }
}
