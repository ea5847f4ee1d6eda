//! Strangers and peers that do what they must not.

use opmesh_core::handshake::{Confirm, Dialer, Hello};
use opmesh_core::model::{Chain, Incarnation, Modno, Operation, Position, SetDigest, UnixMs};
use opmesh_core::protocol::limits::CREDIT_WINDOW;
use opmesh_core::protocol::{Ack, Message, Ops, State};
use prost::Message as _;
use tonic::{Code, Status};

use super::super::{IDENTITY_CONFLICT, STRANGER};
use super::raw::{NONCE, Raw};
use super::*;
use crate::store::NewToken;
use crate::wire::{self, Frame, MESSAGE_BYTES_BEFORE_AUTHENTICATION};

fn me() -> Identity {
    Identity::from_seed(&[2; 32])
}

/// A hub that lets [`me`] in.
async fn hub() -> Instance {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    hub.authorize(&me()).await;
    hub
}

async fn open(hub: &Instance) -> Raw {
    Raw::open(hub.url(), hub.key()).await
}

fn state(process: u64) -> Message {
    Message::State(State {
        incarnation: Incarnation::new(7).unwrap(),
        process: ProcessNonce::new(process).unwrap(),
        head: Position::ZERO,
        granted: everything(),
        set: SetDigest::EMPTY,
    })
}

fn said(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

async fn token(hub: &Instance, seed: u8, expires: UnixMs) -> Identity {
    let token = Identity::from_seed(&[seed; 32]);
    let new_token = NewToken {
        public_key: token.public_key(),
        grants: Grants::default(),
        label: String::new(),
        expires,
        uses: 1,
    };
    hub.local.store.add_token(new_token).await.unwrap();
    token
}

#[tokio::test]
async fn every_stranger_hears_the_same_in_every_channel() {
    for listen in ["127.0.0.1:0", "sealed://127.0.0.1:0", "plain://127.0.0.1:0"] {
        strangers_hear_the_same(listen).await;
    }
}

async fn strangers_hear_the_same(listen: &str) {
    let hub = Instance::hub(1, listen).await;
    hub.authorize(&me()).await;
    let unverified = Identity::from_seed(&[3; 32]);
    hub.local.store.add_peer(NewPeer { verified: false, ..peer(unverified.key_id()) }).await.unwrap();
    let blocked = Identity::from_seed(&[4; 32]);
    hub.authorize(&blocked).await;
    hub.edit(blocked.key_id(), PeerEdit::Block { reason: "lost".to_owned() }).await;
    let expired = token(&hub, 90, UnixMs(1)).await;
    let spent = token(&hub, 91, UnixMs(i64::MAX)).await;
    open(&hub).await.shake_hands(&Identity::from_seed(&[5; 32]), Some(&spent)).await.unwrap();
    let unknown = Identity::from_seed(&[6; 32]);
    let never = Identity::from_seed(&[92; 32]);
    let cases = [
        (&unknown, None),
        (&unverified, None),
        (&blocked, None),
        (&blocked, Some(&spent)),
        (&unknown, Some(&expired)),
        (&unknown, Some(&spent)),
        (&unknown, Some(&never)),
    ];
    let mut first = None;
    let mut check = |refused: Status| {
        assert_eq!(said(&refused), (Code::Unauthenticated, STRANGER));
        assert_eq!(refused.details(), b"");
        let trailers = refused.metadata().clone().into_headers();
        assert_eq!(&trailers, first.get_or_insert_with(|| trailers.clone()));
    };
    for (who, token) in cases {
        check(open(&hub).await.shake_hands(who, token).await.unwrap_err());
    }
    let mut forger = open(&hub).await;
    let (_, _, signing, request) = forger.greet(&me(), None).await;
    let (_, proof) = signing.signed(unknown.sign(&request.identity), None);
    forger.send(proof).await;
    check(forger.receive().await.unwrap_err());
}

/// Each byte of the frame with one of its bits turned over.
fn flipped(frame: &Frame) -> Vec<Vec<u8>> {
    let bytes = frame.encode_to_vec();
    let one = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    };
    (0..bytes.len()).map(one).collect()
}

/// What of these still is a frame. What is not is refused before we see it.
fn frames(bytes: Vec<Vec<u8>>) -> impl Iterator<Item = Frame> {
    bytes.into_iter().filter_map(|bytes| Frame::decode(bytes.as_slice()).ok())
}

#[tokio::test]
async fn a_flipped_bit_in_hello_or_proof_is_refused_by_the_hub() {
    let hub = hub().await;
    let (waiting, hello) = Dialer::start(open(&hub).await.config(&me(), None), NONCE);
    drop(waiting);
    for frame in frames(flipped(&hello.into())) {
        let mut raw = open(&hub).await;
        raw.send(frame).await;
        match raw.receive().await {
            Err(status) => assert!(matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument)),
            // The nonce is only echoed in what the hub signs: it is the dialer that must notice.
            Ok(frame) => {
                let (waiting, _) = Dialer::start(raw.config(&me(), None), NONCE);
                assert!(waiting.challenge(wire::challenge(frame).unwrap()).is_err());
            }
        }
    }
    let mut at = 0;
    loop {
        let mut raw = open(&hub).await;
        let (_, _, signing, request) = raw.greet(&me(), None).await;
        let (_, proof) = signing.signed(me().sign(&request.identity), None);
        let Some(bytes) = flipped(&proof.into()).into_iter().nth(at) else { break };
        at += 1;
        let Ok(frame) = Frame::decode(bytes.as_slice()) else { continue };
        raw.send(frame).await;
        let refused = raw.receive().await.unwrap_err();
        assert!(matches!(refused.code(), Code::Unauthenticated | Code::InvalidArgument), "byte {at}");
    }
    assert!(at > 100);
    assert_eq!(hub.local.sessions.live(), []);
}

#[tokio::test]
async fn a_flipped_bit_in_confirm_displaces_nobody() {
    let hub = hub().await;
    let mut at = 0;
    loop {
        let mut raw = open(&hub).await;
        let (_, _, signing, request) = raw.greet(&me(), None).await;
        let (waiting, proof) = signing.signed(me().sign(&request.identity), None);
        raw.send(proof).await;
        let accepted = wire::accepted(raw.receive().await.unwrap()).unwrap();
        let (_, confirm) = waiting.accepted(accepted).unwrap();
        let Some(bytes) = flipped(&confirm.into()).into_iter().nth(at) else { break };
        at += 1;
        let Ok(frame) = Frame::decode(bytes.as_slice()) else { continue };
        raw.send(frame).await;
        let refused = raw.receive().await.unwrap_err();
        assert!(matches!(refused.code(), Code::Unauthenticated | Code::InvalidArgument), "byte {at}");
    }
    assert!(at > 30);
    assert_eq!(hub.local.sessions.live(), []);
}

#[tokio::test]
async fn a_flipped_bit_in_what_the_hub_says_is_refused_by_the_dialer() {
    let hub = hub().await;
    let mut raw = open(&hub).await;
    let (_, challenge, signing, request) = raw.greet(&me(), None).await;
    for frame in frames(flipped(&challenge.into())) {
        let Ok(challenge) = wire::challenge(frame) else { continue };
        let (waiting, _) = Dialer::start(raw.config(&me(), None), NONCE);
        assert!(waiting.challenge(challenge).is_err());
    }
    let (_, proof) = signing.signed(me().sign(&request.identity), None);
    raw.send(proof).await;
    let accepted = raw.receive().await.unwrap();
    for frame in frames(flipped(&accepted)) {
        let Ok(accepted) = wire::accepted(frame) else { continue };
        let (_, _, signing, request) = again(&hub).await;
        let (waiting, _) = signing.signed(me().sign(&request), None);
        assert!(waiting.accepted(accepted).is_err());
    }
}

/// Another handshake up to the proof.
async fn again(hub: &Instance) -> (Raw, Hello, opmesh_core::handshake::DialerSigning, Vec<u8>) {
    let mut raw = open(hub).await;
    let (hello, _, signing, request) = raw.greet(&me(), None).await;
    (raw, hello, signing, request.identity)
}

#[tokio::test]
async fn a_handshake_takes_two_exchanges_and_less_than_a_kib() {
    let hub = hub().await;
    let mut raw = open(&hub).await;
    let (hello, challenge, signing, request) = raw.greet(&me(), None).await;
    let (waiting, proof) = signing.signed(me().sign(&request.identity), None);
    raw.send(proof.clone()).await;
    let accepted = raw.receive().await.unwrap();
    let (_, confirm) = waiting.accepted(wire::accepted(accepted.clone()).unwrap()).unwrap();
    let frames: [Frame; 5] = [hello.into(), challenge.into(), proof.into(), accepted, confirm.into()];
    let bytes: usize = frames.iter().map(Frame::encoded_len).sum();
    assert!(bytes < 1024, "{bytes}");
}

#[tokio::test]
async fn a_proof_that_was_made_for_another_connection_is_refused() {
    let hub = hub().await;
    let (_first, hello, signing, request) = again(&hub).await;
    let (_, proof) = signing.signed(me().sign(&request), None);
    let mut second = open(&hub).await;
    second.send(hello).await;
    second.receive().await.unwrap();
    second.send(proof).await;
    assert_eq!(said(&second.receive().await.unwrap_err()), (Code::Unauthenticated, STRANGER));
}

#[tokio::test]
async fn a_hello_for_another_hub_is_refused() {
    let hub = hub().await;
    let mut raw = open(&hub).await;
    let elsewhere = Identity::from_seed(&[9; 32]).key_id();
    let config = opmesh_core::handshake::DialerConfig { hub: elsewhere, ..raw.config(&me(), None) };
    let (_, hello) = Dialer::start(config, NONCE);
    raw.send(hello).await;
    assert_eq!(said(&raw.receive().await.unwrap_err()), (Code::Unauthenticated, STRANGER));
}

#[tokio::test]
async fn a_stranger_must_be_brief() {
    let hub = hub().await;
    let mut raw = open(&hub).await;
    let versions = vec![1; MESSAGE_BYTES_BEFORE_AUTHENTICATION];
    raw.send(Hello { versions, nonce: NONCE, target_tag: [0; 16] }).await;
    let refused = raw.receive().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("limit of 16384"), "{}", refused.message());

    let mut raw = open(&hub).await;
    let versions = vec![1; 2 * super::super::BYTES_BEFORE_AUTHENTICATION];
    raw.send(Hello { versions, nonce: NONCE, target_tag: [0; 16] }).await;
    assert!(raw.receive().await.is_err(), "the connection is cut while it is still being read");
}

#[tokio::test]
async fn a_superseded_incarnation_is_a_conflict_that_an_operator_must_decide() {
    let hub = hub().await;
    for (incarnation, fine) in [(7, true), (8, true), (7, false)] {
        let Message::State(state) = state(1) else { panic!("a State was made") };
        let incarnation = Incarnation::new(incarnation).unwrap();
        let mut raw = open(&hub).await;
        raw.shake_hands(&me(), None).await.unwrap();
        raw.say(Message::State(State { incarnation, ..state })).await;
        match raw.receive().await {
            Ok(frame) => assert!(fine && matches!(wire::decode(frame), Ok(Message::Verdict(_)))),
            Err(status) => {
                assert!(!fine && status.code() == Code::FailedPrecondition);
                assert!(status.message().starts_with(IDENTITY_CONFLICT), "{}", status.message());
            }
        }
    }
    assert!(hub.local.store.hosts().await.unwrap().iter().any(|host| host.conflict.is_some()));
}

#[tokio::test]
async fn an_operation_outside_the_view_is_refused_with_its_whole_frame() {
    let hub = hub().await;
    let mut raw = open(&hub).await;
    raw.shake_hands(&me(), None).await.unwrap();
    let end = Position { modno: Modno::new(2).unwrap(), chain: Chain([1; 16]) };
    let granted = "plan:open".parse().unwrap();
    let Message::State(state) = state(1) else { panic!("a State was made") };
    let set = SetDigest::from_parts([1; 16], 2);
    raw.say(Message::State(State { head: end, granted, set, ..state })).await;
    raw.receive().await.unwrap();
    let operation = |n: u64, plan: &str| Operation {
        id: OpId::new(n).unwrap(),
        flow_id: flow(n),
        modno: Modno::new(n).unwrap(),
        record: Record::parse(Record::for_tests("repo", plan, "x").into_bytes()).unwrap(),
    };
    let operations = vec![operation(1, "open"), operation(2, "secret")];
    let ops = Ops { base: Position::ZERO, end, as_of: end, operations, tombstones: Vec::new() };
    raw.say(Message::Ops(ops)).await;
    let refused = raw.end().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("outside the view"), "{}", refused.message());
    assert_eq!(hub.rows().await, []);
}

#[tokio::test]
async fn the_session_begins_with_the_handshake_and_nothing_else() {
    let hub = hub().await;
    let mut raw = open(&hub).await;
    raw.say(state(1)).await;
    let refused = raw.receive().await.unwrap_err();
    assert_eq!(said(&refused), (Code::InvalidArgument, "State came where Hello was expected"));

    let mut raw = open(&hub).await;
    raw.send(Frame::default()).await;
    assert_eq!(raw.receive().await.unwrap_err().message(), "frame has no known body");
}

#[tokio::test]
async fn a_connection_carries_one_sync_stream_and_no_other_method() {
    use tonic::client::Grpc;
    let hub = hub().await;
    let raw = open(&hub).await;
    let mut client = wire::peer_sync_client::PeerSyncClient::new(raw.dialled.http.clone());
    let frames = tokio_stream::empty::<Frame>();
    let refused = client.sync(tonic::Request::new(frames)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);

    for path in ["/opmesh.sync.v1.PeerSync/Other", "/grpc.reflection.v1.ServerReflection/X", "/x"] {
        let mut grpc = Grpc::new(raw.dialled.http.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Frame, Frame>::default();
        let request = tonic::Request::new(Frame::default());
        let refused = grpc.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn a_broken_rule_ends_one_session_by_name_and_no_other() {
    let hub = hub().await;
    let mut host = Instance::new(8);
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), hub.url(), "READ_OPERATIONS:*").await;
    host.hears_connected(hub.key()).await;

    let ack = Ack { cursor: Position::ZERO, credit: 0, settled: 0, mark: None };
    let ops = Ops {
        base: Position::ZERO,
        end: Position { modno: Modno::new(5).unwrap(), chain: Chain([1; 16]) },
        as_of: Position { modno: Modno::new(5).unwrap(), chain: Chain([1; 16]) },
        operations: Vec::new(),
        tombstones: Vec::new(),
    };
    let cases = [
        (vec![Message::Ack(ack)], "Ack is not expected while"),
        (vec![Message::Ops(ops)], "Ops is not expected while"),
        (vec![state(1), state(1)], "State is not expected while"),
    ];
    for (messages, text) in cases {
        let mut raw = open(&hub).await;
        raw.shake_hands(&me(), None).await.unwrap();
        for message in messages {
            raw.say(message).await;
        }
        let refused = raw.end().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(text), "{}", refused.message());
    }
    host.record("plan", "still here").await;
    hub.has(|rows| rows.len() == 1).await;
    assert_eq!(flow(1), hub.rows().await[0].original_flow_id);
}

/// Sends bytes as they are.
#[derive(Debug, Default)]
struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Frame;
    type Encoder = Self;
    type Decoder = tonic_prost::ProstDecoder<Frame>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        tonic_prost::ProstCodec::<Frame, Frame>::default().decoder()
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, out: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(out, &bytes);
        Ok(())
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_are_refused_by_name() {
    let hub = hub().await;
    let whole = wire::encode(state(1)).encode_to_vec();
    let cut = whole[..whole.len() - 1].to_vec();
    for bytes in [cut, vec![0xff; 9]] {
        let dialled = super::super::client::connect(hub.url(), hub.key()).await.unwrap();
        let mut grpc = tonic::client::Grpc::new(dialled.http);
        grpc.ready().await.unwrap();
        let path = "/opmesh.sync.v1.PeerSync/Sync".parse().unwrap();
        let request = tonic::Request::new(tokio_stream::once(bytes));
        let answer = grpc.streaming(request, path, Bytes).await.unwrap();
        let refused = answer.into_inner().message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("frame cannot be decoded"), "{}", refused.message());
    }
    let mut raw = open(&hub).await;
    raw.shake_hands(&me(), None).await.unwrap();
    let grants = vec!["x".repeat(wire::MESSAGE_BYTES)];
    raw.send(Confirm { grants, confirmation: [0; 32] }).await;
    let refused = raw.end().await.unwrap_err();
    assert_eq!(said(&refused), (Code::ResourceExhausted, "message exceeds the limit of 1048576 bytes"));
}

#[tokio::test]
async fn a_stream_without_an_end_was_interrupted() {
    let mut hub = hub().await;
    let mut raw = open(&hub).await;
    raw.shake_hands(&me(), None).await.unwrap();
    hub.hears_connected(me().key_id()).await;
    drop(raw);
    assert!(matches!(hub.hears_ending(me().key_id()).await, Ending::Interrupted(_)));
}

#[tokio::test]
async fn copies_of_an_identity_that_displace_each_other_are_a_conflict() {
    let hub = hub().await;
    let mut held = Vec::new();
    for process in [1, 2, 1, 2] {
        let mut raw = open(&hub).await;
        raw.shake_hands(&me(), None).await.unwrap();
        raw.say(state(process)).await;
        let verdict = wire::decode(raw.receive().await.unwrap()).unwrap();
        let Message::Verdict(verdict) = verdict else { panic!("{verdict:?}") };
        assert_eq!(verdict.credit, CREDIT_WINDOW);
        held.push(raw);
    }
    let mut raw = open(&hub).await;
    raw.shake_hands(&me(), None).await.unwrap();
    raw.say(state(1)).await;
    let refused = raw.end().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with(IDENTITY_CONFLICT));
}
