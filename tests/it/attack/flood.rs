//! Floods: bytes without end on one connection, each kind a known way to hurt an HTTP/2 server.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use opmesh::identity::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::Target;
use super::abuse::{list, traitor};
use super::http2::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, Http2, PING, RST_STREAM, SETTINGS, SYNC, WINDOW_UPDATE, frame,
    request_headers,
};
use super::stages::BREATH;
use crate::fleet::{Instance, PATIENCE};

/// What is sent without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    /// CVE-2023-44487: streams opened and reset at once.
    RapidReset,
    /// CVE-2025-8671: streams that the hub has to reset for the peer's faults.
    MadeYouReset,
    /// Headers that never end (CVE-2024-27316 and others).
    Continuation,
    Settings,
    Ping,
    /// A large header in the dynamic table, named thousands of times in a few bytes.
    HeaderBomb,
    /// A gRPC message of 4 GiB.
    LengthPrefix,
    /// A message in frames of one byte.
    TinyFrames,
    TenThousandStreams,
}

impl Flood {
    pub(super) const ALL: [Self; 9] = [
        Self::RapidReset,
        Self::MadeYouReset,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::HeaderBomb,
        Self::LengthPrefix,
        Self::TinyFrames,
        Self::TenThousandStreams,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid reset",
            Self::MadeYouReset => "MadeYouReset",
            Self::Continuation => "CONTINUATION flood",
            Self::Settings => "SETTINGS flood",
            Self::Ping => "PING flood",
            Self::HeaderBomb => "header bomb",
            Self::LengthPrefix => "oversized length prefix",
            Self::TinyFrames => "frames of one byte",
            Self::TenThousandStreams => "10,000 streams",
        }
    }

    /// Before the flood.
    fn opening(self) -> Vec<u8> {
        let prefix = |length: u32| frame(DATA, 0, SYNC, &[&[0][..], &length.to_be_bytes()].concat());
        match self {
            // The second stream's, so that a session may be under way on the first.
            Self::Continuation => frame(HEADERS, 0, SYNC + 2, &request_headers()),
            Self::LengthPrefix => prefix(u32::MAX),
            Self::TinyFrames => prefix(1024 * 1024),
            Self::RapidReset
            | Self::MadeYouReset
            | Self::Settings
            | Self::Ping
            | Self::HeaderBomb
            | Self::TenThousandStreams => Vec::new(),
        }
    }

    /// A piece of the flood; `stream` is the next number for a stream.
    fn piece(self, stream: &mut u32) -> Vec<u8> {
        let mut piece = Vec::new();
        let mut next = || {
            *stream += 2;
            *stream
        };
        for _ in 0..100 {
            match self {
                Self::RapidReset => {
                    let stream = next();
                    piece.extend(frame(HEADERS, END_HEADERS, stream, &request_headers()));
                    piece.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                }
                Self::MadeYouReset => {
                    let stream = next();
                    piece.extend(frame(HEADERS, END_HEADERS, stream, &request_headers()));
                    piece.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
                }
                Self::Continuation => piece.extend(frame(CONTINUATION, 0, SYNC + 2, b"\x00\x01x\x01y")),
                Self::Settings => piece.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
                Self::Ping => piece.extend(frame(PING, 0, 0, b"pingpong")),
                Self::HeaderBomb => {
                    let mut block = request_headers();
                    block.extend(b"\x40\x01x\x7f\xa1\x1e"); // x: 4000 bytes, into the dynamic table
                    block.extend([b'y'; 4000]);
                    block.resize(16_000, 0xbe); // and 12,000 times the same
                    piece.extend(frame(HEADERS, END_HEADERS, next(), &block));
                }
                Self::LengthPrefix => piece.extend(frame(DATA, 0, SYNC, &[0; 1024])),
                Self::TinyFrames => piece.extend(frame(DATA, 0, SYNC, &[0])),
                Self::TenThousandStreams => {
                    piece.extend(frame(HEADERS, END_HEADERS, next(), &request_headers()));
                }
            }
        }
        piece
    }
}

/// What became of one attacker's connections.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Flooded {
    pub(super) connections: usize,
    pub(super) refused: usize,
    pub(super) bytes: u64,
}

/// Floods until the time is over, on a new connection whenever the hub has closed one. With a key, each connection
/// begins a session first.
#[expect(clippy::disallowed_methods, reason = "the attack's end")]
pub(super) async fn flood(
    target: Target,
    from: IpAddr,
    kind: Flood,
    key: Option<Identity>,
    until: Instant,
) -> Flooded {
    let mut flooded = Flooded::default();
    while Instant::now() < until {
        match tokio::time::timeout_at(until, open(target, from, key.as_ref())).await {
            Ok(Ok(http2)) => {
                flooded.connections += 1;
                let pouring = pour(http2, kind, &mut flooded.bytes);
                // An error means that the hub has closed the connection, which is what it should do.
                drop(tokio::time::timeout_at(until, pouring).await);
            }
            Ok(Err(_)) => flooded.refused += 1,
            Err(_) => {}
        }
        tokio::time::sleep(BREATH).await;
    }
    flooded
}

async fn open(target: Target, from: IpAddr, key: Option<&Identity>) -> io::Result<Http2> {
    let mut http2 = Http2::open(target, from).await?;
    match key {
        Some(key) => http2.begin_session(key).await?,
        None => http2.request().await?,
    }
    Ok(http2)
}

async fn pour(http2: Http2, kind: Flood, bytes: &mut u64) -> io::Result<()> {
    let (mut reading, mut writing) = tokio::io::split(http2.io);
    let mut readers = tokio::task::JoinSet::new();
    // Whatever comes is read, so that nothing stops the flood but the hub.
    readers.spawn(async move { while reading.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} });
    writing.write_all(&kind.opening()).await?;
    let mut stream = SYNC + 2;
    loop {
        let piece = kind.piece(&mut stream);
        let written = tokio::time::timeout(STUCK, writing.write_all(&piece)).await;
        written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        *bytes += u64::try_from(piece.len()).unwrap();
        if readers.try_join_next().is_some() {
            return Ok(());
        }
    }
}

/// A hub that reads nothing more for so long is left for a new connection to it.
const STUCK: Duration = Duration::from_secs(2);

/// Floods that a connection does not survive, also when a listed key has authenticated on it.
const ENDED: [Flood; 6] = [
    Flood::RapidReset,
    Flood::MadeYouReset,
    Flood::Continuation,
    Flood::HeaderBomb,
    Flood::LengthPrefix,
    Flood::TenThousandStreams,
];

#[tokio::test]
async fn a_connection_that_floods_is_closed() {
    let mut hub = Instance::new("hub");
    let ready = hub.serve("127.0.0.1:0");
    let target = Target::of(hub.ok(&["key", "show"]).trim(), &ready["listen"][0]);
    list(&hub, &traitor(0));
    for kind in ENDED {
        let http2 = open(target, Ipv4Addr::LOCALHOST.into(), Some(&traitor(0))).await.unwrap();
        let mut bytes = 0;
        let closed = tokio::time::timeout(PATIENCE, pour(http2, kind, &mut bytes)).await;
        assert!(closed.is_ok(), "{}: {bytes} bytes were taken", kind.name());
        println!("{}: closed after {} KiB, what lay in buffers included", kind.name(), bytes / 1024);
    }
}
