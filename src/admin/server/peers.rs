//! Peers: who they are, how they are reached, and what they may do.

use opmesh_core::model::{InstanceId, KeyId};
use opmesh_core::permission::{Grant, Grants, Scopes};

use super::config;
use super::reply::{Out, Stop};
use super::show;
use super::status::{self, Moment};
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::{Node, Seat};
use crate::store::{Dial, NewPeer, Peer, PeerEdit, Resolution, Role, Roles};
use crate::transport::{Channel, HubUrl};

pub(super) async fn list(node: Node, out: Out<pb::Peer>) -> Result<(), Stop> {
    let moment = moment(&node).await?;
    for peer in node.store().peers().await? {
        out.send(shown(&node, &peer, moment)).await?;
    }
    Ok(())
}

pub(super) async fn one(node: &Node, name: &str) -> Result<pb::Peer, Failure> {
    let peer = node.store().find_peer(name).await?;
    show_one(node, &peer).await
}

pub(super) async fn add(node: &Node, request: pb::AddPeerRequest) -> Result<pb::Peer, Failure> {
    let dial = dial(request.urls, request.channel.as_deref())?;
    let known_host = !dial.urls.is_empty();
    let instance = Some(request.instance_id).filter(|text| !text.is_empty());
    let peer = NewPeer {
        key: key_id(&request.key_id)?,
        instance: instance.map(|text| text.parse::<InstanceId>()).transpose().map_err(invalid)?,
        roles: Roles { known_host, authorized_client: !known_host },
        verified: false,
        dial,
        given: Grants::parse(&request.grants)?,
        joining: None,
    };
    let peer = node.store().add_peer(peer).await?;
    show_one(node, &peer).await
}

pub(super) async fn verify(node: &Node, request: pb::VerifyPeerRequest) -> Result<pb::Peer, Failure> {
    edit(node, &request.peer, PeerEdit::Verify(key_id(&request.key_id)?)).await
}

pub(super) async fn unverify(node: &Node, request: pb::UnverifyPeerRequest) -> Result<pb::Peer, Failure> {
    edit(node, &request.peer, PeerEdit::Unverify).await
}

pub(super) async fn grant(node: &Node, request: pb::GrantPeerRequest) -> Result<pb::Peer, Failure> {
    edit(node, &request.peer, PeerEdit::Grant(request.grant.parse::<Grant>()?)).await
}

pub(super) async fn revoke(node: &Node, request: pb::RevokePeerRequest) -> Result<pb::Peer, Failure> {
    edit(node, &request.peer, PeerEdit::Revoke(vec![request.grant])).await
}

pub(super) async fn block(node: &Node, request: pb::BlockPeerRequest) -> Result<pb::Peer, Failure> {
    edit(node, &request.peer, PeerEdit::Block { reason: request.reason }).await
}

pub(super) async fn unblock(node: &Node, request: pb::UnblockPeerRequest) -> Result<pb::Peer, Failure> {
    edit(node, &request.peer, PeerEdit::Unblock).await
}

pub(super) async fn rename(node: &Node, request: pb::RenamePeerRequest) -> Result<pb::Peer, Failure> {
    // A name follows the rules of the labels that instances give themselves: one word, nothing invisible.
    request.name.parse::<InstanceId>().map_err(|_| {
        let text = format!("{:?} is no name: expected 1 to 64 characters without white space", request.name);
        Failure::new(Reason::InvalidArgument, text)
    })?;
    edit(node, &request.peer, PeerEdit::Rename(request.name)).await
}

pub(super) async fn set(node: &Node, request: pb::SetPeerRequest) -> Result<pb::Peer, Failure> {
    let peer = node.store().find_peer(&request.peer).await?;
    let mut edits = Vec::new();
    if !request.urls.is_empty() || request.channel.is_some() {
        edits.push(PeerEdit::SetDial(redial(&peer, request.urls, request.channel.as_deref())?));
    }
    if let Some(scopes) = request.accepted_scopes {
        edits.push(PeerEdit::SetAccepts(scopes.parse::<Scopes>().map_err(invalid)?));
    }
    if edits.is_empty() {
        let text = format!("nothing was said about {}", peer.name);
        return Err(Failure::new(Reason::InvalidArgument, text).hint("give a URL, a channel or scopes"));
    }
    let peer = node.store().edit_peer(&peer.key, edits).await?;
    show_one(node, &peer).await
}

/// What is not said stays as it is.
fn redial(peer: &Peer, urls: Vec<String>, channel: Option<&str>) -> Result<Dial, Failure> {
    let urls = if urls.is_empty() { peer.dial.urls.clone() } else { urls };
    if urls.is_empty() {
        let text = format!("{} has no URL yet, so that its channel means nothing", peer.name);
        return Err(Failure::new(Reason::InvalidArgument, text).hint("give --url as well"));
    }
    dial(urls, channel)
}

pub(super) async fn remove(node: &Node, name: &str) -> Result<pb::Peer, Failure> {
    let peer = node.store().find_peer(name).await?;
    let shown = show_one(node, &peer).await?;
    node.store().remove_peer(&peer.key).await?;
    Ok(shown)
}

pub(super) async fn resolve(node: &Node, request: pb::ResolvePeerRequest) -> Result<pb::Peer, Failure> {
    let resolution = match request.decision.as_str() {
        "accept_presented" => Resolution::AcceptPresented,
        "refuse" => Resolution::Refuse,
        other => {
            let text = format!("{other:?} is no decision: expected accept_presented or refuse");
            return Err(Failure::new(Reason::InvalidArgument, text));
        }
    };
    let peer = node.store().find_peer(&request.peer).await?;
    node.resolve(&peer.key, resolution).await?;
    node.live().update(peer.key, Role::AuthorizedClient, Seat::decided);
    one(node, &peer.key.to_string()).await
}

pub(super) async fn replace_key(
    node: &Node,
    request: pb::ReplacePeerKeyRequest,
) -> Result<pb::Peer, Failure> {
    let new = key_id(&request.key_id)?;
    let peer = node.store().find_peer(&request.peer).await?;
    if peer.key == new {
        let text = format!("{new} is the key of {} already", peer.name);
        return Err(Failure::new(Reason::NothingToDo, text).hint("`opmesh peer verify` vouches for it"));
    }
    show_one(node, &node.store().replace_key(&peer.key, new).await?).await
}

async fn edit(node: &Node, name: &str, edit: PeerEdit) -> Result<pb::Peer, Failure> {
    let peer = node.store().find_peer(name).await?;
    let peer = node.store().edit_peer(&peer.key, vec![edit]).await?;
    show_one(node, &peer).await
}

/// Checks every URL against the channel; without one, the URLs' scheme says it.
pub(super) fn dial(urls: Vec<String>, channel: Option<&str>) -> Result<Dial, Failure> {
    let channel = channel.map(str::parse::<Channel>).transpose()?;
    let mut checked = Vec::with_capacity(urls.len());
    for url in urls {
        let url = HubUrl::parse(&url, Some(channel.unwrap_or(Channel::Tls)))?;
        checked.push(url.to_string());
    }
    Ok(Dial { urls: checked, channel: channel.map(|channel| channel.name().to_owned()) })
}

fn key_id(text: &str) -> Result<KeyId, Failure> {
    text.parse().map_err(invalid)
}

fn invalid(fault: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::InvalidArgument, fault)
}

pub(super) async fn moment(node: &Node) -> Result<Moment, Failure> {
    Ok(Moment { head: node.store().facts().await?.head, now: node.clock().wall() })
}

async fn show_one(node: &Node, peer: &Peer) -> Result<pb::Peer, Failure> {
    let config = Some(config::in_view(node, peer).await?);
    Ok(pb::Peer { config, ..shown(node, peer, moment(node).await?) })
}

fn shown(node: &Node, peer: &Peer, moment: Moment) -> pb::Peer {
    let roles = status::roles(peer).into_iter().map(|role| status::role_name(role).to_owned());
    let entries = status::of_peer(node, peer, moment);
    pb::Peer {
        key_id: peer.key.to_string(),
        instance_id: peer.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: peer.name.clone(),
        roles: roles.collect(),
        verified: peer.verified,
        blocked: peer.blocked.is_some(),
        blocked_reason: peer.blocked.clone().unwrap_or_default(),
        urls: peer.dial.urls.clone(),
        channel: channel_name(peer),
        grants: Some(status::grants_of(peer, &entries)),
        accepted_scopes: peer.accepts.to_string(),
        last_seen_unix_ms: show::ms(peer.last_seen),
        status: entries,
        config: None,
        succeeds: peer.keys.succeeds.iter().map(ToString::to_string).collect(),
    }
}

fn channel_name(peer: &Peer) -> String {
    if peer.dial.urls.is_empty() {
        return String::new();
    }
    peer.dial.channel.clone().unwrap_or_else(|| Channel::Tls.name().to_owned())
}
