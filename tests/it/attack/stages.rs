//! Slow-loris: connections that get to a stage of the way into a session, and stay there.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use opmesh::identity::Identity;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http2::{Http2, SETTINGS, frame};
use super::{Channel, Io, Target};

/// How far a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Tcp,
    TlsBegun,
    Preface,
    Headers,
    Hello,
    /// Only a listed key gets so far.
    Accepted,
    /// The whole handshake; then nothing that is sent to it is read.
    StalledReader,
}

impl Stage {
    pub(super) const OF_STRANGERS: [Self; 5] =
        [Self::Tcp, Self::TlsBegun, Self::Preface, Self::Headers, Self::Hello];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "stalled after TCP",
            Self::TlsBegun => "stalled in TLS",
            Self::Preface => "stalled after the HTTP/2 preface",
            Self::Headers => "stalled after the request's headers",
            Self::Hello => "stalled after Hello",
            Self::Accepted => "stalled after Accepted, as a listed peer",
            Self::StalledReader => "stalled reader, as a listed peer",
        }
    }
}

/// The beginning of a TLS handshake record: five bytes of header, and a hello that never ends.
const TLS_BEGUN: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

/// Goes to the stage.
pub(super) async fn reach(
    target: Target,
    from: IpAddr,
    me: &Identity,
    stage: Stage,
) -> io::Result<Box<dyn Io>> {
    if matches!(stage, Stage::Tcp | Stage::TlsBegun) {
        let mut tcp = target.tcp(from).await?;
        if stage == Stage::TlsBegun && target.channel == Channel::Tls {
            tcp.write_all(TLS_BEGUN).await?;
        }
        return Ok(Box::new(tcp));
    }
    let mut http2 = Http2::open(target, from).await?;
    match stage {
        Stage::Tcp | Stage::TlsBegun | Stage::Preface => {}
        Stage::Headers => http2.request().await?,
        Stage::Hello => drop(http2.greet(me, None).await?),
        Stage::Accepted => drop(http2.prove(me, None).await?),
        Stage::StalledReader => {
            let confirm = http2.prove(me, None).await?;
            // No room for a single byte of what the hub wants to say from now on.
            http2.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await?;
            http2.confirm(&confirm).await?;
        }
    }
    Ok(http2.io)
}

/// What became of the connections of one attack.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Turned away ones included: the system accepts before the hub does.
    pub(super) opened: usize,
    pub(super) refused: usize,
    /// The longest that one was held, as the attacker saw it.
    pub(super) longest: Duration,
}

/// Opens connections from so many addresses, one at a time from each, up to this stage, and holds each until the hub
/// closes it.
#[expect(clippy::disallowed_methods, reason = "the attack's end, and how long a connection was held")]
pub(super) async fn hold(target: Target, stage: Stage, addresses: u8, until: Instant) -> Held {
    let mut holders = JoinSet::new();
    for number in 0..addresses {
        let from = IpAddr::from([127, 0, 1, number + 1]);
        holders.spawn(async move {
            let mut held = Held::default();
            let me = Identity::from_seed(&[200; 32]);
            while Instant::now() < until {
                let begun = Instant::now();
                let reached = tokio::time::timeout_at(until, reach(target, from, &me, stage)).await;
                let Ok(Ok(mut io)) = reached else {
                    held.refused += 1;
                    tokio::time::sleep(BREATH).await;
                    continue;
                };
                held.opened += 1;
                let closing = async { while io.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {} };
                // Closed or not: a hub that never closes holds one to the end of the attack.
                tokio::time::timeout_at(until, closing).await.unwrap_or_default();
                held.longest = held.longest.max(begun.elapsed());
            }
            held
        });
    }
    let mut all = Held::default();
    while let Some(held) = holders.join_next().await {
        let held = held.unwrap();
        all.opened += held.opened;
        all.refused += held.refused;
        all.longest = all.longest.max(held.longest);
    }
    all
}

/// As [`hold`], from one address and with a listed key; nothing that comes is read. Returns how often it got there.
#[expect(clippy::disallowed_methods, reason = "the attack's end")]
pub(super) async fn hold_listed(
    target: Target,
    from: IpAddr,
    me: Identity,
    stage: Stage,
    until: Instant,
) -> usize {
    let mut reached = 0;
    while Instant::now() < until {
        let reaching = tokio::time::timeout_at(until, reach(target, from, &me, stage));
        let Ok(Ok(io)) = reaching.await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        reached += 1;
        // Longer than any of the hub's own deadlines would be a connection that stays for ever.
        tokio::time::sleep_until(until.min(Instant::now() + HOLD)).await;
        drop(io);
    }
    reached
}

/// How long a listed attacker holds one connection.
const HOLD: Duration = Duration::from_secs(15);
/// Between two attempts of one address, so that the attacker leaves the machine something to defend itself with.
pub(super) const BREATH: Duration = Duration::from_millis(20);
