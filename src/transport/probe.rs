//! A look at a hub's URL, step by step, that leaves everything there as it is: no session begins and none is displaced.
//!
//! Takes the same ways as the dialer: the same connector, the same stream, the same handshake. Only its last word is
//! an inquiry instead of a confirmation, and each step can be told apart when it fails. What the failures mean is
//! `doctor`'s business, who is the only caller.

mod look;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opmesh_core::model::{InstanceId, KeyId, PublicKey, UnixMs};
use opmesh_core::permission::{Grants, Scopes};
use opmesh_core::protocol::{Capability, Findings, Inquiry};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::store::Role;
use crate::wire::peer_sync_client::PeerSyncClient;
use crate::wire::{self, MESSAGE_BYTES};

use super::address::HubUrl;
use super::client::{self, CONNECT_TIMEOUT, DialError, Dialled};
use super::ending::Ending;
use super::handshake::Opening;
use super::link::{Link, OUTBOUND_FRAMES};
use super::session::Target;
use super::{Local, PROGRAM, handshake};

pub use look::{Answer, Shown, look};

/// How long one answer may take. A hub answers at once; this is for far lines and busy machines.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses behind the URL's host, or the system's words.
pub async fn resolve(url: &HubUrl) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, lookup_host((url.host.as_str(), url.port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// A TCP connection to the first address that takes one.
pub async fn connect(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses)).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// A connection over which a Sync stream can be opened.
#[derive(Debug)]
pub struct Line {
    dialled: Dialled,
}

impl Line {
    /// The key in the certificate, in a channel that has one.
    pub fn shown(&self) -> Option<KeyId> {
        self.dialled.tls_peer.as_ref().map(PublicKey::key_id)
    }
}

/// Makes the channel, as the dialer does.
pub async fn secure(url: &HubUrl, hub: KeyId, socket: TcpStream) -> Result<Line, DialError> {
    Ok(Line { dialled: client::connect_over(url, hub, socket).await? })
}

/// How far an inquiry came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The stream was asked for.
    Stream,
    /// Hello was sent: the hub shows who it is, or that it shares no version with us.
    Challenge,
    /// Proof was sent: the hub lets us in, or not.
    Admission,
    /// Inquiry was sent.
    Findings,
}

/// An inquiry that came to its end.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What the hub calls itself.
    pub instance: InstanceId,
    /// What it lets us do with its things.
    pub grants_received: Vec<String>,
    /// Which operations it takes from us.
    pub accepted: Scopes,
    /// What it says about us; `None` when its program is too old to be asked.
    pub findings: Option<Told>,
}

/// The hub's findings, and when they were heard.
#[derive(Debug, Clone)]
pub struct Told {
    /// What it says.
    pub findings: Findings,
    /// Our clock when the question was sent.
    pub asked: UnixMs,
    /// How long the answer took.
    pub round_trip: Duration,
}

/// Opens the stream, lets both sides prove who they are, and asks. `grants` is what we let the hub do; no pairing
/// token is used up.
pub async fn ask(local: &Arc<Local>, way: Line, hub: KeyId, url: HubUrl) -> Result<Asked, (Stage, Ending)> {
    let target = Target { hub, url, grants: Grants::default(), token: None };
    let info = way.dialled.info.clone();
    let (outbound, frames) = mpsc::channel(OUTBOUND_FRAMES);
    let mut client = PeerSyncClient::new(way.dialled.http)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let frames = ReceiverStream::new(frames).map_while(Result::ok);
    let opening = async {
        let channel = Opening::begin(&info, &outbound).await?;
        let stream = client.sync(Request::new(frames)).await.map_err(|refused| channel.refused(&refused))?;
        Ok((channel, stream.into_inner()))
    };
    let (channel, inbound) = within(Stage::Stream, opening).await?;
    let mut link = Link::new(Role::KnownHost, inbound, outbound);

    let me = local.me();
    let greeting = handshake::greet(&me, &mut link, &info, channel, way.dialled.tls_peer, &target);
    let (signing, request) = within(Stage::Challenge, greeting).await?;
    let proving = handshake::prove(&me, &mut link, &target, signing, request);
    let (established, _) = within(Stage::Admission, proving).await?;
    let findings = if established.can(Capability::Inquiry) {
        Some(within(Stage::Findings, inquire(local, &mut link)).await?)
    } else {
        None
    };
    info.gate.session_over();
    Ok(Asked {
        instance: established.instance,
        grants_received: established.grants_received,
        accepted: established.accepted,
        findings,
    })
}

async fn inquire(local: &Local, link: &mut Link) -> Result<Told, Ending> {
    let (asked, begun) = (local.clock.wall(), local.clock.monotonic());
    link.send(Inquiry { at: asked, version: PROGRAM.to_owned() }.into()).await?;
    let findings = wire::findings(link.receive().await?)?;
    Ok(Told { findings, asked, round_trip: local.clock.monotonic().saturating_sub(begun) })
}

async fn within<T>(
    stage: Stage,
    step: impl Future<Output = Result<T, Ending>>,
) -> Result<T, (Stage, Ending)> {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(done) => done.map_err(|ending| (stage, ending)),
        Err(_) => Err((stage, Ending::HandshakeTimeout)),
    }
}
