//! HTTP/2 by hand: frames as bytes, one Sync stream, and the handshake in it.

use std::io;
use std::net::IpAddr;

use opmesh::identity::Identity;
use opmesh::wire::{self, Frame};
use opmesh_core::handshake::{ChannelKeys, Dialer, DialerConfig, DialerSigning, SignRequest};
use opmesh_core::model::{Incarnation, Position, ProcessNonce, SetDigest};
use opmesh_core::permission::Scopes;
use opmesh_core::protocol::{Message, State};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Io, Target};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// RFC 9113, 3.4.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The stream that carries Sync.
pub(super) const SYNC: u32 = 1;
/// Always the same, so that two attempts differ in nothing that we choose.
const NONCE: [u8; 32] = [7; 32];

/// One frame's bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The headers of a Sync request, without Huffman coding or a dynamic table (RFC 7541, 6.2.2).
pub(super) fn request_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let text = |block: &mut Vec<u8>, text: &str| {
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    };
    block.push(0x04);
    text(&mut block, "/opmesh.sync.v1.PeerSync/Sync");
    block.push(0x01);
    text(&mut block, "hub");
    block.push(0x00);
    text(&mut block, "content-type");
    text(&mut block, "application/grpc");
    block.push(0x00);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

/// A gRPC message as DATA of the Sync stream.
pub(super) fn grpc(message: &Frame) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut payload = vec![0];
    payload.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    payload.extend(bytes);
    frame(DATA, 0, SYNC, &payload)
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A connection after the preface.
pub(super) struct Http2 {
    pub(super) io: Box<dyn Io>,
    pub(super) keys: ChannelKeys,
    hub: opmesh_core::model::KeyId,
    /// DATA of the Sync stream that was not taken yet.
    data: Vec<u8>,
    /// Frames of the Sync stream other than DATA, and what ends the connection.
    pub(super) others: Vec<Received>,
}

impl Http2 {
    /// Connects, and announces nothing but the defaults.
    pub(super) async fn open(target: Target, from: IpAddr) -> io::Result<Self> {
        Self::open_with(target, from, &[]).await
    }

    /// Connects, and announces these settings.
    pub(super) async fn open_with(target: Target, from: IpAddr, settings: &[u8]) -> io::Result<Self> {
        let (mut io, keys) = target.connect(from).await?;
        io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await?;
        io.flush().await?;
        Ok(Self { io, keys, hub: target.hub, data: Vec::new(), others: Vec::new() })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Opens the Sync stream.
    pub(super) async fn request(&mut self) -> io::Result<()> {
        self.send(&frame(HEADERS, END_HEADERS, SYNC, &request_headers())).await
    }

    /// The next frame; pings and settings are answered.
    pub(super) async fn receive(&mut self) -> io::Result<Received> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.io.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let received = Received { kind: head[3], flags: head[4], stream, payload };
        if matches!(received.kind, SETTINGS | PING) && received.flags & ACK == 0 {
            let payload = if received.kind == PING { received.payload.as_slice() } else { &[] };
            self.send(&frame(received.kind, ACK, 0, payload)).await?;
        }
        Ok(received)
    }

    /// The next message of the hub's; an error when the stream or the connection ends instead.
    pub(super) async fn message(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(length) = self.data.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap());
                let end = 5 + usize::try_from(length).unwrap();
                if self.data.len() >= end {
                    let message: Vec<u8> = self.data.drain(..end).skip(5).collect();
                    return Frame::decode(message.as_slice()).map_err(io::Error::other);
                }
            }
            let received = self.receive().await?;
            match (received.kind, received.stream) {
                (DATA, SYNC) => self.data.extend(&received.payload),
                (GOAWAY, _) => return Err(io::Error::other("the hub said goodbye")),
                (_, SYNC) => {
                    let ends = received.kind == RST_STREAM || received.flags & END_STREAM != 0;
                    self.others.push(received);
                    if ends {
                        return Err(io::Error::other("the stream ended"));
                    }
                }
                _ => {}
            }
        }
    }

    /// Hello and Challenge: what is to be signed.
    pub(super) async fn greet(
        &mut self,
        me: &Identity,
        token: Option<&Identity>,
    ) -> io::Result<(DialerSigning, SignRequest)> {
        let config = DialerConfig {
            me: me.public_key(),
            capabilities: Vec::new(),
            instance: format!("attacker-{}", &me.key_id().to_string()[8..16]).parse().unwrap(),
            hub: self.hub,
            grants: Vec::new(),
            pairing_token: token.map(Identity::public_key),
            keys: self.keys.clone(),
            tls_peer: None,
        };
        let (waiting, hello) = Dialer::start(config, NONCE);
        self.request().await?;
        self.send(&grpc(&hello.into())).await?;
        let challenge = wire::challenge(self.message().await?).map_err(io::Error::other)?;
        waiting.challenge(challenge).map_err(io::Error::other)
    }

    /// The handshake up to Accepted; what is left to say is the Confirm.
    pub(super) async fn prove(&mut self, me: &Identity, token: Option<&Identity>) -> io::Result<Frame> {
        let (signing, request) = self.greet(me, token).await?;
        let token = token.zip(request.token).map(|(token, bytes)| token.sign(&bytes));
        let (waiting, proof) = signing.signed(me.sign(&request.identity), token);
        self.send(&grpc(&proof.into())).await?;
        let accepted = wire::accepted(self.message().await?).map_err(io::Error::other)?;
        let (_, confirm) = waiting.accepted(accepted).map_err(io::Error::other)?;
        Ok(confirm.into())
    }

    /// The whole handshake, and State.
    pub(super) async fn begin_session(&mut self, me: &Identity) -> io::Result<()> {
        let confirm = self.prove(me, None).await?;
        self.confirm(&confirm).await
    }

    /// Confirm, and the State of an owner that has nothing.
    pub(super) async fn confirm(&mut self, confirm: &Frame) -> io::Result<()> {
        let state = Message::State(State {
            incarnation: Incarnation::new(7).unwrap(),
            process: ProcessNonce::new(7).unwrap(),
            head: Position::ZERO,
            granted: Scopes::everything(),
            set: SetDigest::EMPTY,
        });
        self.send(&[grpc(confirm), grpc(&wire::encode(state))].concat()).await
    }
}
