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
    let grants = match request.grants.as_slice() {
        [] => Grants::parse([DEFAULT_GRANT])?,
        given => Grants::parse(given)?,
    };
    let known = node.store().peer(&token.hub).await?;
    let known = known.filter(|peer| peer.roles.known_host);
    if let Some(peer) = known.as_ref().filter(|peer| peer.verified && peer.joining.is_none()) {
        return Ok(joined(peer, &token, "already_paired"));
    }
    if token.expires < node.clock().wall() {
        return Err(Failure::new(Reason::Refused, "this pairing token has expired")
            .hint("make a new one with `opmesh pair token` on the hub"));
    }
    // An attempt that failed before says nothing about this one.
    node.live().update(token.hub, Role::KnownHost, |seat| *seat = Seat::default());
    let fresh = known.is_none();
    let peer = remember(node, known, &token, dial, grants).await?;
    if node.serving().is_none() && request.timeout_ms != Some(0) {
        node.dial(token.hub);
    }
    let timeout = timeout(request.timeout_ms)?;
    if timeout.is_zero() {
        return Ok(joined(&peer, &token, "waiting"));
    }
    match tokio::time::timeout(timeout, verdict(node, token.hub)).await {
        Ok(Ok(())) => {
            let peer = node.store().peer(&token.hub).await?.unwrap_or(peer);
            Ok(joined(&peer, &token, "paired"))
        }
        Ok(Err(failure)) => {
            if fresh {
                node.store().remove_peer(&token.hub).await?;
            }
            Err(failure)
        }
        Err(_) => Err(timed_out(node, &token, timeout)),
    }
}

async fn remember(
    node: &Node,
    known: Option<Peer>,
    token: &PairingToken,
    dial: Dial,
    grants: Grants,
) -> Result<Peer, Failure> {
    let joining = Joining { seed: *token.seed(), expires: token.expires };
    let Some(peer) = known else {
        let peer = NewPeer {
            key: token.hub,
            instance: token.instance.clone(),
            roles: Roles { known_host: true, authorized_client: false },
            verified: true,
            dial,
            given: grants,
            joining: Some(joining),
        };
        return Ok(node.store().add_peer(peer).await?);
    };
    let mut edits =
        vec![PeerEdit::SetDial(dial), PeerEdit::Verify(token.hub), PeerEdit::SetJoining(Some(joining))];
    edits.extend(grants.iter().map(PeerEdit::Grant));
    Ok(node.store().edit_peer(&peer.key, edits).await?)
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
