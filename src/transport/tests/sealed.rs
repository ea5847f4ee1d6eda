//! Sealed streams, and what stands between their ends: lines that change frames, and proxies that mix hosts.

use opmesh_core::handshake::Hello;
use opmesh_core::model::{Chain, Incarnation, Modno, Operation, Position, SetDigest};
use opmesh_core::protocol::{Message, Ops, State};
use tonic::Code;

use super::super::connection::BYTES_BEFORE_AUTHENTICATION;
use super::super::{client, http2, seal};
use super::raw::{NONCE, Raw};
use super::relay::Relay;
use super::*;
use crate::limits::UNAUTHENTICATED;
use crate::wire::{self, Frame, Sealed};

const LISTEN: &str = "sealed://127.0.0.1:0";

/// Enough to see that a stream has ended, or has not.
const A_MOMENT: Duration = Duration::from_millis(50);

fn me() -> Identity {
    Identity::from_seed(&[2; 32])
}

/// A hub with a sealed listener that lets [`me`] in.
async fn hub() -> Instance {
    let hub = Instance::hub(1, LISTEN).await;
    hub.authorize(&me()).await;
    hub
}

async fn open(hub: &Instance) -> Raw {
    Raw::open(hub.url(), hub.key()).await
}

#[tokio::test]
async fn operations_arrive_over_a_sealed_channel() {
    let hub = Instance::hub(1, LISTEN).await;
    let mut host = Instance::new(2);
    host.record("plan", "before").await;
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), hub.url(), ALL).await;
    hub.has(|rows| rows.len() == 1).await;
    host.record("plan", "while").await;
    host.hears_proof_of(hub.key(), 2).await;
    assert!(hub.local.store.verify_host(&host.key()).await.unwrap().equal());
    host.shut_down().await;
    hub.shut_down().await;
}

#[tokio::test]
async fn the_line_carries_no_name_key_or_text_of_a_sealed_session() {
    let hub = Instance::hub(1, LISTEN).await;
    let relay = Relay::new(hub.url(), usize::MAX).await;
    let mut host = Instance::new(2);
    host.record("plan-of-mine", "a text that nobody else shall see").await;
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), &relay.url, ALL).await;
    host.hears_proof_of(hub.key(), 1).await;
    let line = relay.carried();
    assert!(line.len() > 2 * wire::ENCAPSULATION_BYTES);
    let (host_key, hub_key) = (host.local.me().identity.public_key(), hub.local.me().identity.public_key());
    let secrets: [&[u8]; 6] =
        [b"plan-of-mine", b"a text that", b"host-2", b"READ_OPERATIONS", &host_key.0, &hub_key.0];
    for secret in secrets {
        assert!(!line.windows(secret.len()).any(|window| window == secret), "{}", secret.escape_ascii());
    }
}

/// Sealed frames that carry one operation each, after a State: what the hub would apply if nobody interfered.
async fn prepared(hub: &Instance) -> (Raw, Vec<Frame>) {
    let mut raw = open(hub).await;
    raw.shake_hands(&me(), None).await.unwrap();
    let position = |n: u64| match n {
        0 => Position::ZERO,
        n => Position { modno: Modno::new(n).unwrap(), chain: Chain([1; 16]) },
    };
    let state = State {
        incarnation: Incarnation::new(7).unwrap(),
        process: ProcessNonce::new(1).unwrap(),
        head: position(2),
        granted: everything(),
        set: SetDigest::from_parts([1; 16], 2),
    };
    raw.say(Message::State(state)).await;
    raw.receive().await.unwrap();
    let operation = |n: u64| Operation {
        id: OpId::new(n).unwrap(),
        flow_id: flow(n),
        modno: Modno::new(n).unwrap(),
        record: Record::parse(Record::for_tests("repo", "plan", "x").into_bytes()).unwrap(),
    };
    let frames = [1, 2].map(|n| {
        let ops = Ops {
            base: position(n - 1),
            end: position(n),
            as_of: position(2),
            operations: vec![operation(n)],
            tombstones: Vec::new(),
        };
        raw.sealed(wire::encode(Message::Ops(ops)))
    });
    (raw, frames.to_vec())
}

fn cut(frame: &Frame) -> Frame {
    let Sealed(mut bytes) = wire::sealed(frame.clone()).unwrap();
    bytes.pop();
    Sealed(bytes).into()
}

#[tokio::test]
async fn what_was_sealed_in_order_is_applied() {
    let hub = hub().await;
    let (raw, frames) = prepared(&hub).await;
    for frame in frames {
        raw.send_as_is(frame).await;
    }
    hub.has(|rows| rows.len() == 2).await;
}

#[tokio::test]
async fn attacker_15_changes_what_is_sealed_and_ends_the_session_with_nothing_applied() {
    type Line = fn(Vec<Frame>) -> Vec<Frame>;
    let lines: [(&str, Line); 5] = [
        ("reordered", |mut frames| {
            frames.reverse();
            frames
        }),
        ("the first is left out", |mut frames| frames.split_off(1)),
        ("cut short", |frames| vec![cut(&frames[0])]),
        ("a bit is turned over", |frames| {
            let Sealed(mut bytes) = wire::sealed(frames[0].clone()).unwrap();
            bytes[9] ^= 4;
            vec![Sealed(bytes).into()]
        }),
        ("not sealed at all", |_| vec![wire::encode(Message::Heartbeat)]),
    ];
    for (what, line) in lines {
        let mut hub = hub().await;
        let (raw, frames) = prepared(&hub).await;
        for frame in line(frames) {
            raw.send_as_is(frame).await;
        }
        let refused = raw.end().await.unwrap_err();
        assert!(matches!(refused.code(), Code::DataLoss | Code::InvalidArgument), "{what}: {refused}");
        let ending = hub.hears_ending(me().key_id()).await;
        assert!(matches!(ending, Ending::Seal(_) | Ending::Wire(_)), "{what}: {ending}");
        assert_eq!(hub.rows().await, [], "{what}");
    }
}

#[tokio::test]
async fn a_frame_that_comes_twice_ends_the_session_and_counts_once() {
    let hub = hub().await;
    let (raw, frames) = prepared(&hub).await;
    for frame in [&frames[0], &frames[0], &frames[1]] {
        raw.send_as_is(frame.clone()).await;
    }
    assert_eq!(raw.end().await.unwrap_err().code(), Code::DataLoss);
    assert!(hub.rows().await.len() <= 1);
}

#[tokio::test]
async fn a_frame_of_another_stream_opens_nowhere_else() {
    let hub = hub().await;
    let (_first, frames) = prepared(&hub).await;
    let (second, _) = prepared(&hub).await;
    second.send_as_is(frames[0].clone()).await;
    assert_eq!(second.end().await.unwrap_err().code(), Code::DataLoss);
    assert_eq!(hub.rows().await, []);
}

#[tokio::test]
async fn an_offer_that_the_line_changes_leads_to_no_session() {
    let hub = hub().await;
    let mut refused = 0;
    for at in (0..wire::ENCAPSULATION_BYTES).step_by(41) {
        let mut raw = Raw::unsealed(hub.url(), hub.key()).await;
        let (offered, mut offer) = seal::offer();
        offer.0[at] ^= 1 << (at % 8);
        raw.send(offer).await;
        // What is no key is refused; with another key the hub says something that this dialer cannot open.
        if let Ok(answer) = raw.receive().await {
            let agreed = offered.answered(&wire::seal_answer(answer).unwrap()).unwrap();
            raw.agreed(agreed);
            let (_, hello) = opmesh_core::handshake::Dialer::start(raw.config(&me(), None), NONCE);
            raw.send(hello).await;
            assert_eq!(raw.receive().await.unwrap_err().code(), Code::DataLoss);
        }
        refused += 1;
    }
    assert!(refused > 40);
    assert_eq!(hub.local.sessions.live(), []);
}

#[tokio::test]
async fn two_sides_with_different_channels_are_told_so() {
    let mut sealed = Instance::hub(1, LISTEN).await;
    let plain = Instance::hub(3, "plain://127.0.0.1:0").await;
    let tls = Instance::hub(4, "127.0.0.1:0").await;
    let as_if = |hub: &Instance, channel, scheme| HubUrl { channel, scheme, ..hub.url().clone() };
    let cases = [
        (&sealed, as_if(&sealed, Channel::Plain, Scheme::Http), "channel of this listener is sealed"),
        (&sealed, as_if(&sealed, Channel::Tls, Scheme::Https), "without the certificate of an opmesh hub"),
        (&sealed, as_if(&sealed, Channel::Sealed, Scheme::Https), "no sealed channel can pass there"),
        (&plain, as_if(&plain, Channel::Sealed, Scheme::Http), "channel of this listener is plain"),
        (&tls, as_if(&tls, Channel::Sealed, Scheme::Https), "channel of this listener is tls"),
    ];
    for (number, (hub, url, named)) in (20..).zip(cases) {
        let mut host = Instance::new(number);
        hub.authorize(&host.local.me().identity).await;
        host.dial(hub.key(), &url, ALL).await;
        let ending = host.hears_ending(hub.key()).await.to_string();
        assert!(ending.contains(named), "{ending}");
        assert!(ending.contains("channel"), "what to do stands there: {ending}");
    }
    assert!(sealed.events.try_recv().is_err(), "no session came about");
}

/// One connection as a proxy has it, over which it brings the streams of its clients.
async fn proxied(hub: &Instance) -> client::Dialled {
    let dialled = client::connect(hub.url(), hub.key()).await.unwrap();
    // What comes back is for many, too.
    dialled.info.gate.authenticated();
    dialled
}

#[tokio::test]
async fn hosts_share_a_proxys_connection_and_do_not_end_with_each_other() {
    let hub = Instance::hub(1, LISTEN).await;
    let proxy = proxied(&hub).await;
    let mut hosts = Vec::new();
    for seed in 30..40 {
        let identity = Identity::from_seed(&[seed; 32]);
        hub.authorize(&identity).await;
        let mut raw = Raw::over(&proxy, hub.key()).await;
        raw.instance = format!("raw-{seed}");
        raw.shake_hands(&identity, None).await.unwrap();
        hosts.push(raw);
    }
    hosts[0].send_as_is(wire::encode(Message::Heartbeat)).await;
    assert_eq!(hosts.remove(0).end().await.unwrap_err().code(), Code::InvalidArgument);
    let mut greedy = Raw::over(&proxy, hub.key()).await;
    let versions = vec![1; 2 * BYTES_BEFORE_AUTHENTICATION];
    greedy.send(Hello { versions, nonce: NONCE, target_tag: [0; 16] }).await;
    let refused = greedy.receive().await.unwrap_err();
    assert!(refused.message().contains("more than 65536 bytes before"), "{refused}");
    for mut raw in hosts {
        raw.say(Message::State(State {
            incarnation: Incarnation::new(7).unwrap(),
            process: ProcessNonce::new(1).unwrap(),
            head: Position::ZERO,
            granted: everything(),
            set: SetDigest::EMPTY,
        }))
        .await;
        assert!(matches!(wire::decode(raw.receive().await.unwrap()), Ok(Message::Verdict(_))));
    }
}

#[tokio::test]
async fn strangers_behind_proxies_are_counted_by_stream_and_make_room_for_others() {
    let hub = hub().await;
    let mut held = Vec::new();
    let mut proxy = proxied(&hub).await;
    let mut known = Raw::over(&proxy, hub.key()).await;
    known.shake_hands(&me(), None).await.unwrap();
    let strangers = usize::try_from(UNAUTHENTICATED).unwrap();
    let there = usize::try_from(http2::SEALED_STREAMS).unwrap() - 1;
    for at in 0..=strangers {
        if at == there {
            proxy = proxied(&hub).await;
        }
        held.push(Raw::over(&proxy, hub.key()).await);
    }
    let ended = held.into_iter().map(|raw| tokio::time::timeout(A_MOMENT, raw.end()));
    let mut refused = Vec::new();
    for ended in ended {
        refused.extend(ended.await.ok().map(Result::unwrap_err));
    }
    assert_eq!(refused.len(), 1, "one of the strangers made room for the last: {refused:?}");
    assert!(refused[0].message().contains("had to make room"), "{}", refused[0].message());
    known.say(Message::Heartbeat).await;
    assert_eq!(hub.local.sessions.live().len(), 1);
}
