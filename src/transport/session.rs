//! From a stream to a session: the handshake within its time, the place among the live sessions, and the leave.
//!
//! Both roles begin and end here; in between the driver runs. Called by the server for every Sync stream, and by the
//! dialer for every attempt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use opmesh_core::handshake::Established;
use opmesh_core::model::KeyId;
use opmesh_core::permission::{GrantType, Grants};
use opmesh_core::protocol::{Capability, EndReason, Message};
use opmesh_core::session::{Finish, Hub, HubConfig, Input, Owner, OwnerConfig, Pace};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tracing::Instrument as _;

use crate::identity::Identity;
use crate::store::{AuditEvent, AuditKind, Greeting, Role, StoreError};
use crate::wire::peer_sync_client::PeerSyncClient;
use crate::wire::{self, MESSAGE_BYTES};

use super::address::HubUrl;
use super::beside::Beside;
use super::connection::{ConnectionInfo, HANDSHAKE_TIMEOUT};
use super::driver::{Delivered, Driver, Machine};
use super::ending::Ending;
use super::event::SessionNews;
use super::handshake::{Opening, Visit};
use super::link::{Link, OUTBOUND_FRAMES};
use super::noise::Noise;
use super::sessions::FailedDialer;
use super::{Local, client, handshake};

/// Whom to dial, and what to say.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) hub: KeyId,
    pub(super) url: HubUrl,
    /// What we let the hub do with our things.
    pub(super) grants: Grants,
    /// The pairing token, when we pair by one.
    pub(super) token: Option<Identity>,
}

/// How an attempt went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// How long the session ran; none when there was none.
    pub(super) lasted: Option<Duration>,
    /// Whether the hub is further than before.
    pub(super) delivered: Delivered,
}

/// A dialer's stream, on the hub's side. Tells the dialer how it ends.
pub(super) async fn accept(
    local: Arc<Local>,
    mut link: Link,
    info: Arc<ConnectionInfo>,
    stop: CancellationToken,
) {
    let span = tracing::info_span!(
        "session",
        peer = tracing::field::Empty,
        session = tracing::field::Empty,
        address = %info.address
    );
    let gate = info.gate.clone();
    async move {
        let greeting = handshake::accept(&local, &mut link, &info);
        match within_handshake(&stop, greeting).await {
            Ok(Visit::Session(established, given)) => {
                run_hub(&local, link, &info, (*established, given), stop).await;
            }
            Ok(Visit::Inquiry) => link.close([], &stopped()).await,
            Err(ending) => {
                // A refusal was logged with the key, where that was known.
                let is_logged = matches!(ending, Ending::Refused(_) | Ending::TooOften);
                if !is_logged && local.doorman.noise.may_log(Noise::Handshake) {
                    tracing::warn!(address = %info.address, reason = %ending, "a handshake failed");
                }
                if let Ending::Handshake(fault) = &ending {
                    let (at, address) = (local.clock.wall(), info.address.ip());
                    local.sessions.note_failed(FailedDialer { at, address, fault: fault.clone() });
                }
                let detail = format!("{}: {ending}", info.address.ip());
                record(&local, ending.event_at_hub(), None, detail).await;
                link.close([], &ending).await;
            }
        }
    }
    .instrument(span)
    .await;
    gate.session_over();
}

async fn run_hub(
    local: &Arc<Local>,
    link: Link,
    info: &ConnectionInfo,
    (established, given): (Established, Grants),
    stop: CancellationToken,
) {
    let peer = established.peer.key_id();
    let role = Role::AuthorizedClient;
    // A dialer's span had it from the beginning.
    tracing::Span::current().record("peer", tracing::field::display(peer));
    let registration = local.sessions.register(peer, role);
    greet(local, role, &established).await;
    let (ending, rest, link) = match local.store.take_over(&peer).await {
        // Blocked or removed since the handshake.
        Err(StoreError::Fenced) => {
            drop(registration);
            let last = wire::encode(Message::End(EndReason::Revoked));
            (Ending::Finished(Finish::Closed(EndReason::Revoked)), VecDeque::from([last]), link)
        }
        Err(error) => {
            drop(registration);
            (error.into(), VecDeque::new(), link)
        }
        Ok(takeover) => {
            let now = local.clock.monotonic();
            // What was said in the handshake must be what holds now that changes reach this session.
            let first = if takeover.accepted == established.accepted && takeover.given == given {
                Input::Tick
            } else {
                Input::Close(EndReason::GrantsChanged)
            };
            let news = succession(local, &established).await;
            let beside = established.can(Capability::Config).then(Beside::default);
            let hub = Hub::new(HubConfig { accepted: established.accepted }, now);
            let ends = now.saturating_add(local.doorman.limits().session_age);
            let machine = Machine::Hub { hub: Box::new(hub), epoch: takeover.epoch, ends };
            let ran = Driver::new(local, peer, machine, beside, link, registration, stop)
                .saying(news)
                .run(first)
                .await;
            (ran.ending, ran.rest, ran.link)
        }
    };
    record(local, ending.event_in_session(), Some(peer), ending.to_string()).await;
    link.close(rest, &ending).await;
    part(local, peer, role, info, ending).await;
}

/// Connects to a hub and runs one session with it, as the owner of operations.
pub(super) async fn dial(local: &Arc<Local>, target: Target, pace: Pace, stop: CancellationToken) -> Outcome {
    let (hub, role) = (target.hub, Role::KnownHost);
    let span = tracing::info_span!("session", peer = %hub, session = tracing::field::Empty);
    async move {
        match open(local, &target, &stop).await {
            Err(ending) => {
                tracing::warn!(url = %target.url, reason = %ending, "no session came about");
                let detail = format!("{}: {ending}", target.url);
                record(local, ending.event_at_host(), Some(hub), detail).await;
                local.tell(hub, role, SessionNews::Ended(ending.clone())).await;
                Outcome { ending, lasted: None, delivered: Delivered::Nothing }
            }
            Ok(open) => {
                let begun = local.clock.monotonic();
                let info = open.info.clone();
                let (ending, delivered) = run_owner(local, open, target, pace, stop).await;
                part(local, hub, role, &info, ending.clone()).await;
                let lasted = Some(local.clock.monotonic().saturating_sub(begun));
                Outcome { ending, lasted, delivered }
            }
        }
    }
    .instrument(span)
    .await
}

struct Opened {
    link: Link,
    info: Arc<ConnectionInfo>,
    established: Established,
}

async fn open(local: &Arc<Local>, target: &Target, stop: &CancellationToken) -> Result<Opened, Ending> {
    let connecting = client::connect(&target.url, target.hub);
    let Some(dialled) = stop.run_until_cancelled(connecting).await else { return Err(stopped()) };
    let dialled = dialled?;
    let (outbound, frames) = mpsc::channel(OUTBOUND_FRAMES);
    let mut client = PeerSyncClient::new(dialled.http)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let info = dialled.info;
    let opening = async {
        let channel = Opening::begin(&info, &outbound).await?;
        let frames = ReceiverStream::new(frames).map_while(Result::ok);
        let response =
            client.sync(Request::new(frames)).await.map_err(|refused| channel.refused(&refused))?;
        let mut link = Link::new(Role::KnownHost, response.into_inner(), outbound);
        let greeting = handshake::dial(local, &mut link, &info, channel, dialled.tls_peer, target);
        match greeting.await {
            Ok(established) => Ok((link, established)),
            Err(ending) => {
                link.close([], &ending).await;
                Err(ending)
            }
        }
    };
    let (link, established) = within_handshake(stop, opening).await?;
    Ok(Opened { link, info, established })
}

async fn run_owner(
    local: &Arc<Local>,
    open: Opened,
    target: Target,
    pace: Pace,
    stop: CancellationToken,
) -> (Ending, Delivered) {
    let Opened { link, info, established } = open;
    let (hub, role) = (target.hub, Role::KnownHost);
    let registration = local.sessions.register(hub, role);
    greet(local, role, &established).await;
    let first = match still_granted(local, &target).await {
        Ok(first) => first,
        Err(error) => {
            let ending = error.into();
            link.close([], &ending).await;
            return (ending, Delivered::Nothing);
        }
    };
    let beside = established.can(Capability::Config).then(Beside::default);
    let news = succession(local, &established).await;
    let config = OwnerConfig {
        granted: target.grants.scopes_of(GrantType::ReadOperations),
        accepted: established.accepted,
        process: local.process,
        pace,
    };
    let machine = Machine::Owner(Box::new(Owner::new(config, local.clock.monotonic())));
    let ran =
        Driver::new(local, hub, machine, beside, link, registration, stop).saying(news).run(first).await;
    record(local, ran.ending.event_in_session(), Some(hub), ran.ending.to_string()).await;
    ran.link.close(ran.rest, &ran.ending).await;
    info.gate.session_over();
    (ran.ending, ran.delivered)
}

/// Connects to a hub under the key that it announced, and leaves again: it has shown that it uses it.
pub(super) async fn meet(
    local: &Arc<Local>,
    target: &Target,
    stop: &CancellationToken,
) -> Result<(), Ending> {
    let opened = open(local, target, stop).await?;
    let ending = Ending::Finished(Finish::Closed(EndReason::GrantsChanged));
    opened.link.close([wire::encode(Message::End(EndReason::GrantsChanged))], &ending).await;
    opened.info.gate.session_over();
    Ok(())
}

/// What the peer has to know about our keys and has not confirmed yet.
async fn succession(local: &Local, established: &Established) -> Option<Message> {
    let ours = local.me().succession().filter(|_| established.can(Capability::Succession)).cloned()?;
    match local.store.peer(&established.peer.key_id()).await {
        Ok(Some(peer)) if peer.keys.knows == Some(ours.newest()) => None,
        Ok(None) => None,
        Ok(Some(_)) => Some(Message::Succession(Box::new(ours))),
        Err(error) => {
            tracing::warn!(%error, "the peer cannot be told about our keys");
            None
        }
    }
}

/// What was said in the handshake must be what holds now that changes reach this session.
async fn still_granted(local: &Local, target: &Target) -> Result<Input, StoreError> {
    let peer = local.store.peer(&target.hub).await?;
    Ok(match peer {
        Some(peer) if !peer.is_trusted() || !peer.roles.known_host => Input::Close(EndReason::Revoked),
        Some(peer) if peer.given == target.grants => Input::Tick,
        Some(_) => Input::Close(EndReason::GrantsChanged),
        None => Input::Close(EndReason::Revoked),
    })
}

async fn within_handshake<T>(
    stop: &CancellationToken,
    steps: impl Future<Output = Result<T, Ending>>,
) -> Result<T, Ending> {
    let bounded = tokio::time::timeout(HANDSHAKE_TIMEOUT, steps);
    match stop.run_until_cancelled(bounded).await {
        Some(Ok(done)) => done,
        Some(Err(_)) => Err(Ending::HandshakeTimeout),
        None => Err(stopped()),
    }
}

/// This instance stops.
fn stopped() -> Ending {
    Ending::Finished(Finish::Closed(EndReason::Shutdown))
}

/// Makes known what the handshake has shown.
async fn greet(local: &Local, role: Role, established: &Established) {
    let peer = established.peer.key_id();
    let session = format!("{:032x}", u128::from_be_bytes(established.session));
    tracing::Span::current().record("session", session.as_str());
    tracing::info!(instance = %established.instance, "a session begins");
    let greeting = Greeting {
        role,
        public_key: established.peer,
        instance: established.instance.clone(),
        received: established.grants_received.clone(),
    };
    if let Err(error) = local.store.greet(greeting).await {
        tracing::warn!(%error, "what the handshake has shown could not be stored");
    }
    let news = SessionNews::Connected {
        session: established.session,
        instance: established.instance.clone(),
        grants_received: established.grants_received.clone(),
        accepted: established.accepted.clone(),
    };
    local.tell(peer, role, news).await;
}

/// Writes to the audit log how an attempt or a session ended, if that bears on security.
async fn record(local: &Local, event: Option<AuditKind>, peer: Option<KeyId>, detail: String) {
    let Some(event) = event else { return };
    if let Err(error) = local.store.note_refusal(AuditEvent { event, peer, detail }).await {
        tracing::warn!(%error, "an event could not be written to the audit log");
    }
}

/// Makes known how the session ended, unless a newer one has its place already: that one's news count.
async fn part(local: &Local, peer: KeyId, role: Role, info: &ConnectionInfo, ending: Ending) {
    if let Ending::Finished(Finish::Closed(_) | Finish::PeerEnded(_)) = ending {
        tracing::info!(reason = %ending, "a session ended");
    } else {
        tracing::warn!(reason = %ending, "a session broke off");
    }
    if !local.sessions.is_live(&peer, role) {
        let (sent_bytes, received_bytes) = info.gate.carried_bytes();
        local.tell(peer, role, SessionNews::Carried { sent_bytes, received_bytes }).await;
        local.tell(peer, role, SessionNews::Ended(ending)).await;
    }
}
