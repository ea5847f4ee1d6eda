//! What sessions and attempts leave in the audit log.

use opmesh_core::model::{Chain, Incarnation, Modno, Operation, Position, SetDigest};
use opmesh_core::protocol::{Message, Ops, State};

use super::raw::Raw;
use super::*;
use crate::store::AuditKind;

/// The kinds that lie in an instance's log, the latest last, without the ones that a test is not about.
async fn recorded(of: &Instance, about: &[AuditKind]) -> Vec<String> {
    let records = of.local.store.audit(None, 0).await.unwrap();
    let names: Vec<_> = about.iter().map(|kind| kind.name()).collect();
    records.into_iter().map(|record| record.event).filter(|event| names.contains(&event.as_str())).collect()
}

const OF_SESSIONS: [AuditKind; 6] = [
    AuditKind::HandshakeFailed,
    AuditKind::ScopeDenied,
    AuditKind::RefusedByHub,
    AuditKind::OtherKeyAnswered,
    AuditKind::IdentityConflict,
    AuditKind::ClientRefused,
];

fn state(process: u64, granted: Scopes) -> Message {
    Message::State(State {
        incarnation: Incarnation::new(7).unwrap(),
        process: ProcessNonce::new(process).unwrap(),
        head: end(),
        granted,
        set: SetDigest::from_parts([1; 16], 1),
    })
}

fn end() -> Position {
    Position { modno: Modno::new(1).unwrap(), chain: Chain([1; 16]) }
}

fn secret() -> Message {
    let operation = Operation {
        id: OpId::new(1).unwrap(),
        flow_id: flow(1),
        modno: Modno::new(1).unwrap(),
        record: Record::parse(Record::for_tests("repo", "secret", "x").into_bytes()).unwrap(),
    };
    let base = Position::ZERO;
    Message::Ops(Ops { base, end: end(), as_of: end(), operations: vec![operation], tombstones: vec![] })
}

#[tokio::test]
async fn what_sessions_come_to_is_recorded_once_on_the_side_that_sees_it() {
    let me = Identity::from_seed(&[2; 32]);
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    hub.authorize(&me).await;
    let open = async || Raw::open(hub.url(), hub.key()).await;

    // A proof that somebody else signed.
    let mut forger = open().await;
    let (_, _, signing, request) = forger.greet(&me, None).await;
    let (_, proof) = signing.signed(Identity::from_seed(&[6; 32]).sign(&request.identity), None);
    forger.send(proof).await;
    forger.receive().await.unwrap_err();
    assert_eq!(recorded(&hub, &OF_SESSIONS).await, ["handshake_failed"]);

    // A row outside the view.
    let mut raw = open().await;
    raw.shake_hands(&me, None).await.unwrap();
    raw.say(state(1, "plan:open".parse().unwrap())).await;
    raw.receive().await.unwrap();
    raw.say(secret()).await;
    raw.end().await.unwrap_err();
    assert_eq!(recorded(&hub, &OF_SESSIONS).await[1..], ["scope_denied"]);

    // Processes that displace each other.
    let mut held = Vec::new();
    for process in [1, 2, 1, 2, 1] {
        let mut raw = open().await;
        raw.shake_hands(&me, None).await.unwrap();
        raw.say(state(process, everything())).await;
        held.push(raw);
        let last = held.last_mut().unwrap();
        drop(last.receive().await);
    }
    assert_eq!(recorded(&hub, &OF_SESSIONS).await[2..], ["identity_conflict"]);
}

#[tokio::test]
async fn a_host_records_that_it_was_turned_away_and_that_another_key_answered() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = Instance::new(2);
    host.dial(hub.key(), hub.url(), ALL).await;
    host.hears_ending(hub.key()).await;
    assert_eq!(recorded(&host, &OF_SESSIONS).await, ["refused_by_hub"]);
    assert_eq!(recorded(&hub, &OF_SESSIONS).await, ["client_refused"]);

    let mut host = Instance::new(3);
    let elsewhere = Identity::from_seed(&[9; 32]).key_id();
    host.dial(elsewhere, hub.url(), ALL).await;
    host.hears_ending(elsewhere).await;
    assert_eq!(recorded(&host, &OF_SESSIONS).await, ["other_key_answered"]);
}
