//! Joining a hub by its token: the entry is stored, the hub is dialled, and the answer waits for its word.

use std::time::Duration;

use opmesh_core::model::KeyId;
use opmesh_core::permission::Grants;

use super::peers;
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::{Node, Seat, Standing};
use crate::pairing::PairingToken;
use crate::store::{Dial, Joining, NewPeer, Peer, PeerEdit, Role, Roles};

/// How long the answer waits unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);
/// What the hub may do with our things unless told otherwise.
const DEFAULT_GRANT: &str = "READ_OPERATIONS:*";
/// The hub had let us in before this token.
const ALREADY_PAIRED: &str = "already_paired";

pub(super) async fn join(node: &Node, request: pb::JoinHubRequest) -> Result<pb::Joined, Failure> {
    let token: PairingToken = request.token.parse()?;
    let dial = peers::dial(request.urls, request.channel.as_deref())?;
    if dial.urls.is_empty() {
        return Err(
            Failure::new(Reason::InvalidArgument, "the hub's URL is missing").hint("give it with --url")
        );
    }
    if token.hub == node.identity().key_id() {
        return Err(Failure::new(Reason::OwnKey, "this token was made by this instance itself")
            .hint("run `opmesh pair join` on the host that is to send its operations"));
    }
    let asked = (!request.grants.is_empty()).then(|| Grants::parse(&request.grants)).transpose()?;
    let timeout = timeout(request.timeout_ms)?;
    let known = node.store().peer(&token.hub).await?.filter(|peer| peer.roles.known_host);
    let expired = token.expires < node.clock().wall();
    let seat = node.live().seat(&token.hub, Role::KnownHost);
    let paired = known.as_ref().filter(|peer| peer.verified && peer.joining.is_none());
    // Connected, or nothing to try it with. Else the hub may have forgotten us, and this token is for that.
    let connected = matches!(seat.standing, Standing::CatchingUp | Standing::Live);
    if let Some(peer) = paired.filter(|_| connected || expired) {
        return Ok(joined(peer, &token, ALREADY_PAIRED));
    }
    if expired {
        return Err(Failure::new(Reason::Refused, "this pairing token has expired")
            .hint("make a new one with `opmesh pair token` on the hub"));
    }
    let state =
        if paired.is_some() && seat.standing != Standing::Refused { ALREADY_PAIRED } else { "paired" };
    // An attempt that failed before says nothing about this one.
    node.live().update(token.hub, Role::KnownHost, |seat| *seat = Seat::default());
    let peer = remember(node, known.clone(), &token, dial, asked).await?;
    if node.serving().is_none() && !timeout.is_zero() {
        node.dial(token.hub);
    }
    if timeout.is_zero() {
        return Ok(joined(&peer, &token, "waiting"));
    }
    match tokio::time::timeout(timeout, verdict(node, token.hub)).await {
        Ok(Ok(())) => {
            let peer = node.store().peer(&token.hub).await?.unwrap_or(peer);
            Ok(joined(&peer, &token, state))
        }
        Ok(Err(failure)) => {
            forget(node, &token.hub, known).await?;
            Err(failure)
        }
        Err(_) => Err(timed_out(node, &token, timeout)),
    }
}

/// Stores what is needed to reach the hub and to be let in there. A hub that was paired before keeps its grants.
async fn remember(
    node: &Node,
    known: Option<Peer>,
    token: &PairingToken,
    dial: Dial,
    asked: Option<Grants>,
) -> Result<Peer, Failure> {
    let joining = Joining { seed: *token.seed(), expires: token.expires };
    let Some(peer) = known else {
        let peer = NewPeer {
            key: token.hub,
            instance: token.instance.clone(),
            roles: Roles { known_host: true, authorized_client: false },
            verified: true,
            dial,
            given: asked.map_or_else(|| Grants::parse([DEFAULT_GRANT]), Ok)?,
            joining: Some(joining),
        };
        return Ok(node.store().add_peer(peer).await?);
    };
    let mut edits = vec![PeerEdit::SetDial(dial)];
    if !(peer.verified && peer.joining.is_none()) {
        edits.push(PeerEdit::Verify(token.hub));
        let nothing = peer.given.to_strings().is_empty();
        let grants = match asked {
            None if nothing => Grants::parse([DEFAULT_GRANT])?,
            asked => asked.unwrap_or_default(),
        };
        edits.extend(grants.iter().map(PeerEdit::Grant));
    }
    edits.push(PeerEdit::SetJoining(Some(joining)));
    Ok(node.store().edit_peer(&peer.key, edits).await?)
}

/// After a refusal: a hub that was not known goes again, one that was is as before.
async fn forget(node: &Node, hub: &KeyId, known: Option<Peer>) -> Result<(), Failure> {
    match known {
        None => node.store().remove_peer(hub).await?,
        Some(peer) => {
            let edits = vec![PeerEdit::SetDial(peer.dial), PeerEdit::SetJoining(peer.joining)];
            node.store().edit_peer(hub, edits).await?;
        }
    }
    Ok(())
}

/// Waits until the hub has accepted or refused us. What else fails may mend itself.
async fn verdict(node: &Node, hub: KeyId) -> Result<(), Failure> {
    let mut changes = node.live().changes();
    loop {
        let seat = node.live().seat(&hub, Role::KnownHost);
        match seat.standing {
            Standing::CatchingUp | Standing::Live => return Ok(()),
            _ if seat.met => return Ok(()),
            Standing::Refused => {
                return Err(Failure::new(Reason::Refused, "the hub refused this instance")
                    .hint(format!("{}; a token is good for one use and a few minutes", seat.reason)));
            }
            Standing::OtherKey | Standing::IdentityConflict => {
                return Err(Failure::new(Reason::OtherIdentity, seat.reason));
            }
            Standing::Offline | Standing::Connecting => {}
        }
        if changes.changed().await.is_err() {
            return Err(Failure::new(Reason::Internal, "the node is closing"));
        }
    }
}

fn timeout(asked: Option<i64>) -> Result<Duration, Failure> {
    match asked.map(u64::try_from) {
        None => Ok(DEFAULT_TIMEOUT),
        Some(Ok(ms)) => Ok(Duration::from_millis(ms)),
        Some(Err(_)) => Err(Failure::new(Reason::InvalidArgument, "the timeout is negative")),
    }
}

fn timed_out(node: &Node, token: &PairingToken, timeout: Duration) -> Failure {
    let seat = node.live().seat(&token.hub, Role::KnownHost);
    let why = if seat.reason.is_empty() { "it did not answer".to_owned() } else { seat.reason };
    let text = format!("the hub was not reached within {} s: {why}", timeout.as_secs());
    Failure::new(Reason::TimedOut, text)
        .hint("the hub is remembered: a running `opmesh serve` pairs as soon as it reaches it, until the token expires")
}

fn joined(peer: &Peer, token: &PairingToken, state: &str) -> pb::Joined {
    let instance = peer.instance.as_ref().or(token.instance.as_ref());
    pb::Joined {
        hub: Some(pb::Hub {
            key_id: token.hub.to_string(),
            instance_id: instance.map(ToString::to_string).unwrap_or_default(),
        }),
        state: state.to_owned(),
        grants_given: peer.given.to_strings(),
        grants_received: peer.received.clone(),
    }
}
