//! The handlers: one method for each call, over a node. They run in the daemon behind its socket, and in a command's
//! own process when there is no daemon; they cannot tell the two apart.

mod admin_tokens;
mod apply;
mod audit;
mod backup;
mod config;
mod diagnose;
mod freshness;
mod hosts;
mod identity;
mod join;
mod operations;
mod peer_watch;
mod peers;
mod reply;
mod runs;
mod show;
mod status;
mod tokens;

use tonic::{Request, Response, Status, Streaming};

use super::error::Failure;
use super::pb;
use super::pb::admin_server::Admin;
use crate::node::Node;
use reply::{Lines, stream};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Handlers {
    node: Node,
}

impl Handlers {
    /// Over an open node.
    pub(super) const fn new(node: Node) -> Self {
        Self { node }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Handlers {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusReply> {
        Ok(Response::new(status::status(&self.node).await?))
    }

    type ListOperationsStream = Lines<pb::OperationPage>;
    async fn list_operations(
        &self,
        request: Request<pb::ListOperationsRequest>,
    ) -> Answer<Self::ListOperationsStream> {
        let request = request.into_inner();
        Ok(stream(&self.node, |node, out| operations::list(node, request, out)))
    }

    async fn get_operation(&self, request: Request<pb::GetOperationRequest>) -> Answer<pb::Operation> {
        Ok(Response::new(operations::one(&self.node, request.into_inner().id).await?))
    }

    type WatchOperationsStream = Lines<pb::OperationEvent>;
    async fn watch_operations(
        &self,
        request: Request<pb::WatchOperationsRequest>,
    ) -> Answer<Self::WatchOperationsStream> {
        let request = request.into_inner();
        // Before the answer begins: what happens after it is in it.
        let events = self.node.store().subscribe().await.map_err(Failure::from)?;
        Ok(stream(&self.node, |node, out| operations::watch(node, events, request, out)))
    }

    type ApplyOperationsStream = Lines<pb::ApplyReply>;
    async fn apply_operations(
        &self,
        request: Request<Streaming<pb::ApplyTransaction>>,
    ) -> Answer<Self::ApplyOperationsStream> {
        let transactions = request.into_inner();
        Ok(stream(&self.node, |node, out| apply::apply(node, transactions, out)))
    }

    async fn delete_operations(
        &self,
        request: Request<pb::DeleteOperationsRequest>,
    ) -> Answer<pb::DeleteOperationsReply> {
        Ok(Response::new(operations::delete(&self.node, request.into_inner().ids).await?))
    }

    type ListHostsStream = Lines<pb::Host>;
    async fn list_hosts(&self, _: Request<pb::ListHostsRequest>) -> Answer<Self::ListHostsStream> {
        Ok(stream(&self.node, hosts::list))
    }

    async fn get_host(&self, request: Request<pb::GetHostRequest>) -> Answer<pb::Host> {
        Ok(Response::new(hosts::one(&self.node, &request.into_inner().host).await?))
    }

    type VerifyHostsStream = Lines<pb::HostVerification>;
    async fn verify_hosts(
        &self,
        request: Request<pb::VerifyHostsRequest>,
    ) -> Answer<Self::VerifyHostsStream> {
        let names = request.into_inner().hosts;
        Ok(stream(&self.node, |node, out| hosts::verify(node, names, out)))
    }

    type ListParkedStream = Lines<pb::ParkedOperation>;
    async fn list_parked(&self, request: Request<pb::ListParkedRequest>) -> Answer<Self::ListParkedStream> {
        let host = request.into_inner().host;
        Ok(stream(&self.node, |node, out| hosts::parked(node, host, out)))
    }

    async fn release_host(&self, request: Request<pb::ReleaseHostRequest>) -> Answer<pb::Host> {
        Ok(Response::new(hosts::release(&self.node, &request.into_inner().host).await?))
    }

    type ListPeersStream = Lines<pb::Peer>;
    async fn list_peers(&self, _: Request<pb::ListPeersRequest>) -> Answer<Self::ListPeersStream> {
        Ok(stream(&self.node, peers::list))
    }

    async fn get_peer(&self, request: Request<pb::GetPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::one(&self.node, &request.into_inner().peer).await?))
    }

    async fn add_peer(&self, request: Request<pb::AddPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::add(&self.node, request.into_inner()).await?))
    }

    async fn verify_peer(&self, request: Request<pb::VerifyPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::verify(&self.node, request.into_inner()).await?))
    }

    async fn unverify_peer(&self, request: Request<pb::UnverifyPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::unverify(&self.node, request.into_inner()).await?))
    }

    async fn grant_peer(&self, request: Request<pb::GrantPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::grant(&self.node, request.into_inner()).await?))
    }

    async fn revoke_peer(&self, request: Request<pb::RevokePeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::revoke(&self.node, request.into_inner()).await?))
    }

    async fn block_peer(&self, request: Request<pb::BlockPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::block(&self.node, request.into_inner()).await?))
    }

    async fn unblock_peer(&self, request: Request<pb::UnblockPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::unblock(&self.node, request.into_inner()).await?))
    }

    async fn rename_peer(&self, request: Request<pb::RenamePeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::rename(&self.node, request.into_inner()).await?))
    }

    async fn set_peer(&self, request: Request<pb::SetPeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::set(&self.node, request.into_inner()).await?))
    }

    async fn remove_peer(&self, request: Request<pb::RemovePeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::remove(&self.node, &request.into_inner().peer).await?))
    }

    async fn resolve_peer(&self, request: Request<pb::ResolvePeerRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::resolve(&self.node, request.into_inner()).await?))
    }

    async fn create_token(&self, request: Request<pb::CreateTokenRequest>) -> Answer<pb::CreatedToken> {
        Ok(Response::new(tokens::create(&self.node, request.into_inner()).await?))
    }

    type ListTokensStream = Lines<pb::Token>;
    async fn list_tokens(&self, _: Request<pb::ListTokensRequest>) -> Answer<Self::ListTokensStream> {
        Ok(stream(&self.node, tokens::list))
    }

    async fn cancel_token(&self, request: Request<pb::CancelTokenRequest>) -> Answer<pb::Token> {
        Ok(Response::new(tokens::cancel(&self.node, &request.into_inner().id).await?))
    }

    async fn join_hub(&self, request: Request<pb::JoinHubRequest>) -> Answer<pb::Joined> {
        Ok(Response::new(join::join(&self.node, request.into_inner()).await?))
    }

    async fn begin_run(&self, request: Request<pb::BeginRunRequest>) -> Answer<pb::BegunRun> {
        Ok(Response::new(runs::begin(&self.node, request.into_inner()).await?))
    }

    async fn finish_run(&self, request: Request<pb::FinishRunRequest>) -> Answer<pb::FinishedRun> {
        Ok(Response::new(runs::finish(&self.node, request.into_inner()).await?))
    }

    type ListAuditStream = Lines<pb::AuditRecord>;
    async fn list_audit(&self, request: Request<pb::ListAuditRequest>) -> Answer<Self::ListAuditStream> {
        let since = request.into_inner().since_unix_ms;
        Ok(stream(&self.node, |node, out| audit::list(node, since, out)))
    }

    async fn rename_key(&self, request: Request<pb::RenameKeyRequest>) -> Answer<pb::Identity> {
        Ok(Response::new(identity::rename(&self.node, &request.into_inner().instance_id).await?))
    }

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Answer<pb::Rotation> {
        Ok(Response::new(identity::rotate(&self.node, &request.into_inner().step).await?))
    }

    async fn replace_peer_key(&self, request: Request<pb::ReplacePeerKeyRequest>) -> Answer<pb::Peer> {
        Ok(Response::new(peers::replace_key(&self.node, request.into_inner()).await?))
    }

    async fn adopt_peer(&self, request: Request<pb::AdoptPeerRequest>) -> Answer<pb::Adoption> {
        Ok(Response::new(hosts::adopt(&self.node, request.into_inner()).await?))
    }

    async fn backup_store(&self, request: Request<pb::BackupStoreRequest>) -> Answer<pb::Backup> {
        Ok(Response::new(backup::backup(&self.node, request.into_inner().path).await?))
    }

    async fn forget_host(&self, request: Request<pb::ForgetHostRequest>) -> Answer<pb::ForgottenHost> {
        Ok(Response::new(hosts::forget(&self.node, &request.into_inner().host).await?))
    }

    async fn verify_audit(&self, _: Request<pb::VerifyAuditRequest>) -> Answer<pb::AuditVerification> {
        Ok(Response::new(audit::verify(&self.node).await?))
    }

    async fn create_admin_token(
        &self,
        request: Request<pb::CreateAdminTokenRequest>,
    ) -> Answer<pb::CreatedAdminToken> {
        Ok(Response::new(admin_tokens::create(&self.node, request.into_inner()).await?))
    }

    type ListAdminTokensStream = Lines<pb::AdminToken>;
    async fn list_admin_tokens(
        &self,
        _: Request<pb::ListAdminTokensRequest>,
    ) -> Answer<Self::ListAdminTokensStream> {
        Ok(stream(&self.node, admin_tokens::list))
    }

    async fn revoke_admin_token(
        &self,
        request: Request<pb::RevokeAdminTokenRequest>,
    ) -> Answer<pb::AdminToken> {
        Ok(Response::new(admin_tokens::revoke(&self.node, &request.into_inner().id).await?))
    }

    type DiagnoseStream = Lines<pb::Check>;
    async fn diagnose(&self, request: Request<pb::DiagnoseRequest>) -> Answer<Self::DiagnoseStream> {
        let patient = diagnose::patient(&self.node, &request.into_inner().peer).await?;
        Ok(stream(&self.node, |node, out| diagnose::diagnose(node, patient, out)))
    }

    type WatchPeersStream = Lines<pb::PeerEvent>;
    async fn watch_peers(&self, _: Request<pb::WatchPeersRequest>) -> Answer<Self::WatchPeersStream> {
        let watcher = peer_watch::follow(&self.node)?;
        Ok(stream(&self.node, |node, out| peer_watch::watch(node, watcher, out)))
    }

    async fn get_config(&self, request: Request<pb::GetConfigRequest>) -> Answer<pb::ConfigReply> {
        Ok(Response::new(config::get(&self.node, request.into_inner().host).await?))
    }

    async fn reveal_config(&self, _: Request<pb::RevealConfigRequest>) -> Answer<pb::ConfigReply> {
        Ok(Response::new(config::reveal(&self.node).await?))
    }

    async fn apply_config(&self, request: Request<pb::ApplyConfigRequest>) -> Answer<pb::ConfigVerdict> {
        Ok(Response::new(config::apply(&self.node, request.into_inner()).await?))
    }

    async fn push_config(&self, request: Request<pb::PushConfigRequest>) -> Answer<pb::ConfigVerdict> {
        Ok(Response::new(config::push(&self.node, request.into_inner()).await?))
    }
}
