//! What survives the wire, and what is refused on it.

use opmesh_core::config::{Change, ListedPlan, Resources, Shown};
use opmesh_core::model::{
    Chain, ConfigModno, FlowId, Incarnation, Modno, OpId, Operation, Position, ProcessNonce, Record, Scope,
    SetDigest, Tombstone,
};
use opmesh_core::permission::Scopes;
use opmesh_core::protocol::limits::{CANDIDATES, FRAME_BYTES, FRAME_OPERATIONS};
use opmesh_core::protocol::{
    Ack, Answer, Comparison, EndReason, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Outcome,
    Proposal, Refused, Request, Share, State, Verdict, Write, WriteKey, Written,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use prost::Message as _;

use super::pb::{self, frame::Body};
use super::*;

const MAX: u64 = OpId::END;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200_u64, Just(MAX), 0..=MAX]
}

fn position() -> impl Strategy<Value = Position> {
    prop_oneof![
        Just(Position::ZERO),
        (1..=MAX, any::<[u8; 16]>())
            .prop_map(|(n, chain)| Position { modno: Modno::new(n).unwrap(), chain: Chain(chain) }),
    ]
}

fn set() -> impl Strategy<Value = SetDigest> {
    (any::<[u8; 16]>(), number()).prop_map(|(sum, count)| SetDigest::from_parts(sum, count))
}

fn scopes() -> impl Strategy<Value = Scopes> {
    prop::sample::select(vec!["", "*", "repo:a", "*,!plan:secret", "repo:a%2Cb,plan:c,!repo:x"])
        .prop_map(|text| Scopes::from_wire(text).unwrap())
}

fn record(text: String) -> Record {
    Record::parse(Record::for_tests("repo", "plan", &text).into_bytes()).unwrap()
}

fn operations(ids: impl Strategy<Value = u64>) -> impl Strategy<Value = Vec<Operation>> {
    btree_map(ids, (1..=MAX, ".{0,20}"), 0..12).prop_map(|rows| {
        rows.into_iter()
            .map(|(id, (flow, text))| Operation {
                id: OpId::new(id).unwrap(),
                flow_id: FlowId::new(flow).unwrap(),
                modno: Modno::new(id).unwrap(),
                record: record(text),
            })
            .collect()
    })
}

fn refusal() -> impl Strategy<Value = Refused> {
    let text = || ".{0,20}";
    (text(), text(), text()).prop_map(|(rule, object, reason)| Refused { rule, object, reason })
}

fn modno() -> impl Strategy<Value = ConfigModno> {
    number().prop_map(|modno| ConfigModno::new(modno).unwrap())
}

fn share() -> impl Strategy<Value = Share> {
    let key = || any::<[u8; 16]>().prop_map(WriteKey);
    let plans = || btree_set("[a-z]{1,9}", 0..4);
    let request = prop_oneof![
        (modno(), plans()).prop_map(|(base, plans)| {
            Request::Config(Change { base, delete_plans: plans.into_iter().collect(), ..Change::default() })
        }),
        Just(Request::Shared(Vec::new())),
    ];
    let outcome = prop_oneof![
        modno().prop_map(|modno| Outcome::Applied { modno }),
        Just(Outcome::Unchanged),
        modno().prop_map(|modno| Outcome::Stale { modno }),
        refusal().prop_map(Outcome::Refused),
        (any::<u32>(), vec(refusal(), 0..4)).prop_map(|(taken, refused)| Outcome::Taken { taken, refused }),
    ];
    prop_oneof![
        modno().prop_map(|modno| Share::Config(Shown::new(modno, Vec::new(), Vec::new()).unwrap())),
        plans().prop_map(|plans| {
            let plans = plans.into_iter().map(|id| ListedPlan { id, repo: "r".to_owned() }).collect();
            Share::Resources(Resources { repos: Vec::new(), plans })
        }),
        (key(), request).prop_map(|(key, request)| Share::Write(Write { key, request })),
        (key(), outcome).prop_map(|(key, outcome)| Share::Written(Written { key, outcome })),
    ]
}

fn ops() -> impl Strategy<Value = Message> {
    (position(), 0..1000_u64, any::<[u8; 16]>(), operations(1..1000_u64), btree_set(1..1000_u64, 0..5))
        .prop_map(|(base, span, chain, mut operations, gone)| {
            let first = base.modno.get().min(MAX - 3000);
            let base = if first == 0 { base } else { Position { modno: Modno::new(first).unwrap(), ..base } };
            let end = Position { modno: Modno::new(first + 1000 + span).unwrap(), chain: Chain(chain) };
            let later = Position { modno: Modno::new(first + 2500).unwrap(), ..end };
            let as_of = if span % 2 == 0 { end } else { later };
            let shift = |n: u64| Modno::new(first + n).unwrap();
            for operation in &mut operations {
                operation.modno = shift(operation.modno.get());
            }
            let scope = Scope { repo: "r".to_owned(), plan: "p".to_owned() };
            let tombstones = gone
                .into_iter()
                .map(|n| Tombstone { id: OpId::new(n).unwrap(), modno: shift(n), scope: scope.clone() })
                .collect();
            Message::Ops(Ops { base, end, as_of, operations, tombstones })
        })
}

fn ids() -> impl Strategy<Value = Vec<OpId>> {
    btree_set(1..1_000_000_u64, 0..40)
        .prop_map(|ids| ids.into_iter().map(|id| OpId::new(id).unwrap()).collect())
}

fn proposal() -> impl Strategy<Value = Proposal> {
    prop_oneof![
        Just(Proposal::InSync),
        position().prop_map(|cursor| Proposal::Resume { cursor }),
        number().prop_map(|done| Proposal::Diff { done }),
        Just(Proposal::Restream),
    ]
}

fn manifest() -> impl Strategy<Value = Message> {
    (btree_map(100..MAX, number(), 0..50), position()).prop_map(|(entries, as_of)| {
        let entries = entries
            .into_iter()
            .map(|(id, modno)| (OpId::new(id).unwrap(), Modno::new(modno).unwrap()))
            .collect();
        Message::Manifest(Manifest { lo: 100, hi: OpId::END, as_of, entries })
    })
}

fn comparison() -> impl Strategy<Value = Comparison> {
    prop::sample::select(vec![Comparison::Equal, Comparison::Differs])
}

fn message() -> impl Strategy<Value = Message> {
    let hi = Just(OpId::END);
    let mark_answer =
        (position(), comparison()).prop_map(|(position, outcome)| MarkAnswer { position, outcome });
    prop_oneof![
        (number(), number(), position(), scopes(), set()).prop_map(
            |(incarnation, process, head, granted, set)| Message::State(State {
                incarnation: Incarnation::new(incarnation).unwrap(),
                process: ProcessNonce::new(process).unwrap(),
                head,
                granted,
                set,
            })
        ),
        (proposal(), position(), vec(position(), 0..=CANDIDATES), number()).prop_map(
            |(proposal, newest, candidates, credit)| Message::Verdict(Verdict {
                proposal,
                newest,
                candidates,
                credit
            })
        ),
        (proptest::option::of(position()), number()).prop_map(|(position, incarnation)| {
            Message::Matchpoint(Matchpoint { position, incarnation: Incarnation::new(incarnation).unwrap() })
        }),
        manifest(),
        (hi, ids()).prop_map(|(hi, ids)| Message::Need(Need { hi, ids })),
        (position(), operations(1..MAX), ids(), any::<bool>()).prop_map(|(as_of, operations, gone, last)| {
            Message::Answer(Answer { hi: OpId::END, as_of, operations, gone, last })
        }),
        ops(),
        (position(), set()).prop_map(|(position, set)| Message::Mark(Mark { position, set })),
        (position(), number(), number(), proptest::option::of(mark_answer))
            .prop_map(|(cursor, credit, settled, mark)| Message::Ack(Ack { cursor, credit, settled, mark })),
        share().prop_map(Message::Share),
        Just(Message::Heartbeat),
        prop::sample::select(vec![
            EndReason::Shutdown,
            EndReason::GrantsChanged,
            EndReason::Revoked,
            EndReason::Displaced,
            EndReason::Aged
        ])
        .prop_map(Message::End),
    ]
}

fn through_bytes(message: Message) -> Result<Message, WireFault> {
    decode(Frame::decode(encode(message).encode_to_vec().as_slice()).unwrap())
}

proptest! {
    #[test]
    fn a_message_survives_the_wire(message in message()) {
        prop_assert_eq!(through_bytes(message.clone()), Ok(message));
    }

    #[test]
    fn damaged_bytes_are_a_message_or_a_fault_and_never_a_panic(
        message in message(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut bytes = encode(message).encode_to_vec();
        let at = flip.index(bytes.len());
        bytes[at] ^= 1 << bit;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(frame) = Frame::decode(bytes.as_slice()) {
            for step in [hello(frame.clone()).err(), challenge(frame.clone()).err(), proof(frame.clone()).err()] {
                prop_assert!(step.is_some(), "no handshake message looks like one of the session's");
            }
            prop_assert!(accepted(frame.clone()).is_err() && confirm(frame.clone()).is_err());
            drop(decode(frame));
        }
    }
}

fn refused(body: Body) -> WireFault {
    decode(Frame { body: Some(body) }).unwrap_err()
}

fn here(modno: u64) -> pb::Position {
    pb::Position { modno, chain: if modno == 0 { Vec::new() } else { [1; 16].to_vec() } }
}

#[expect(clippy::unnecessary_wraps, reason = "fields of generated messages are optional")]
fn at(modno: u64) -> Option<pb::Position> {
    Some(here(modno))
}

fn operation(id: u64, modno: u64, bytes: usize) -> pb::Operation {
    let mut record = Record::for_tests("r", "p", "").into_bytes();
    if bytes > 0 {
        // Field 1023, length-delimited: what this version does not know is kept.
        record.extend([0xfa, 0x3f]);
        let mut length = bytes;
        while length > 0x7f {
            record.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        record.push(u8::try_from(length).unwrap());
        record.extend(std::iter::repeat_n(0, bytes));
    }
    pb::Operation { id, flow_id: 1, modno, record }
}

fn frame_of(operations: Vec<pb::Operation>, tombstones: usize) -> Body {
    let tombstone = |n: usize| pb::Tombstone {
        id: 1,
        modno: u64::try_from(n).unwrap() + 1,
        repo_id: "r".to_owned(),
        plan_id: "p".to_owned(),
    };
    let tombstones = (0..tombstones).map(tombstone).collect();
    Body::Ops(pb::Ops { base: at(0), end: at(1000), as_of: None, operations, tombstones })
}

/// The largest numbers that a long-lived owner of ten million operations has.
fn far_on() -> Position {
    Position { modno: Modno::new(10_000_000).unwrap(), chain: Chain([0xff; 16]) }
}

#[test]
fn a_warm_reconnect_takes_one_exchange_of_less_than_256_bytes() {
    let state = State {
        incarnation: Incarnation::MAX,
        process: ProcessNonce::MAX,
        head: far_on(),
        granted: Scopes::everything(),
        set: SetDigest::from_parts([0xff; 16], 10_000_000),
    };
    let proposal = Proposal::InSync;
    let verdict = Verdict { proposal, newest: far_on(), candidates: Vec::new(), credit: 8 };
    let bytes = encode(Message::State(state)).encoded_len() + encode(Message::Verdict(verdict)).encoded_len();
    assert!(bytes <= 256, "{bytes}");
}

#[test]
fn a_fork_takes_less_than_1200_bytes() {
    let proposal = Proposal::Resume { cursor: far_on() };
    let verdict = Verdict { proposal, newest: far_on(), candidates: vec![far_on(); CANDIDATES], credit: 8 };
    let matchpoint = Matchpoint { position: Some(far_on()), incarnation: Incarnation::MAX };
    let bytes = encode(Message::Verdict(verdict)).encoded_len()
        + encode(Message::Matchpoint(matchpoint)).encoded_len();
    assert!(bytes <= 1200, "{bytes}");
}

#[test]
fn a_frame_without_a_known_body_is_refused() {
    assert_eq!(decode(Frame { body: None }), Err(WireFault::UnknownBody));
    let unknown = Frame::decode([0xa2, 0x06, 0x00].as_slice()).unwrap(); // field 100: a later version's
    assert_eq!(decode(unknown), Err(WireFault::UnknownBody));
}

#[test]
fn a_frame_holds_256_rows_and_not_one_more() {
    let rows = |n: u64| (1..=n).map(|n| operation(n, n, 0)).collect::<Vec<_>>();
    assert!(decode(Frame { body: Some(frame_of(rows(200), 56)) }).is_ok());
    let what = "operations and tombstones";
    assert_eq!(
        refused(frame_of(rows(200), 57)),
        WireFault::TooMany { what, count: 257, limit: FRAME_OPERATIONS }
    );
    let answer =
        pb::Answer { hi: 300, as_of: at(1000), operations: rows(257), gone: Vec::new(), last: false };
    assert!(matches!(refused(Body::Answer(answer)), WireFault::TooMany { .. }));
}

#[test]
fn a_frame_holds_256_kib_of_records_but_always_one_operation() {
    let half = FRAME_BYTES / 2;
    let pair = |bytes| frame_of(vec![operation(1, 1, bytes), operation(2, 2, bytes)], 0);
    assert!(decode(Frame { body: Some(pair(half - 64)) }).is_ok());
    assert!(matches!(refused(pair(half)), WireFault::TooLarge { limit: FRAME_BYTES, .. }));
    let largest = opmesh_core::model::MAX_RECORD_BYTES - 64;
    assert!(decode(Frame { body: Some(frame_of(vec![operation(1, 1, largest)], 0)) }).is_ok());
    assert!(matches!(
        refused(frame_of(vec![operation(1, 1, largest + 64)], 0)),
        WireFault::Record { id: 1, .. }
    ));
}

#[test]
fn modnos_of_ops_ascend_inside_their_frame() {
    let ops = |modnos: &[u64]| {
        let operations = modnos.iter().map(|n| operation(*n, *n, 0)).collect();
        Body::Ops(pb::Ops { base: at(10), end: at(20), operations, ..Default::default() })
    };
    assert!(decode(Frame { body: Some(ops(&[11, 15, 20])) }).is_ok());
    for bad in [&[10][..], &[21], &[12, 12], &[13, 12]] {
        assert!(matches!(refused(ops(bad)), WireFault::Order { what: "modno", .. }), "{bad:?}");
    }
    let backwards = pb::Ops { base: at(20), end: at(10), ..Default::default() };
    assert!(matches!(refused(Body::Ops(backwards)), WireFault::Order { what: "ops.end", .. }));
    let earlier = pb::Ops { base: at(10), end: at(20), as_of: at(19), ..Default::default() };
    assert!(matches!(refused(Body::Ops(earlier)), WireFault::Order { what: "ops.as_of", .. }));
}

#[test]
fn a_position_has_a_whole_chain_and_nothing_happened_before_the_first_change() {
    let mark = |modno, chain: usize| {
        let position = Some(pb::Position { modno, chain: vec![1; chain] });
        Body::Mark(pb::Mark { position, digest: vec![0; 16], count: 0 })
    };
    assert!(decode(Frame { body: Some(mark(1, 16)) }).is_ok());
    assert!(decode(Frame { body: Some(mark(0, 0)) }).is_ok());
    for chain in [0, 15, 17] {
        assert!(matches!(refused(mark(1, chain)), WireFault::Length { expected: 16, .. }));
    }
    assert_eq!(refused(mark(0, 16)), WireFault::ChainBeforeFirstChange);
    assert!(matches!(refused(mark(MAX + 1, 16)), WireFault::Number(_)));
    assert_eq!(refused(Body::Mark(pb::Mark::default())), WireFault::Missing { field: "mark.position" });
}

#[test]
fn a_verdict_says_one_thing() {
    use pb::verdict::Proposal as Word;
    let verdict = |word: i32, cursor, done, candidates: usize| {
        let candidates = vec![here(1); candidates];
        Body::Verdict(pb::Verdict { proposal: word, cursor, done, newest: at(1), candidates, credit: 8 })
    };
    assert!(decode(Frame { body: Some(verdict(Word::Resume.into(), at(1), 0, CANDIDATES)) }).is_ok());
    let too_many = refused(verdict(Word::Resume.into(), at(1), 0, CANDIDATES + 1));
    assert_eq!(too_many, WireFault::TooMany { what: "candidates", count: 33, limit: 32 });
    assert!(matches!(refused(verdict(Word::Resume.into(), None, 0, 0)), WireFault::Missing { .. }));
    assert!(matches!(refused(verdict(Word::InSync.into(), at(1), 0, 0)), WireFault::Surplus { .. }));
    assert!(matches!(refused(verdict(Word::Restream.into(), None, 1, 0)), WireFault::Surplus { .. }));
    assert!(matches!(refused(verdict(0, None, 0, 0)), WireFault::Unknown { value: 0, .. }));
    assert!(matches!(refused(verdict(99, None, 0, 0)), WireFault::Unknown { value: 99, .. }));
}

#[test]
fn answers_and_needs_stay_below_their_hi() {
    let answer =
        |id| pb::Answer { hi: 10, as_of: at(5), operations: vec![operation(id, 1, 0)], ..Default::default() };
    assert!(decode(Frame { body: Some(Body::Answer(answer(9))) }).is_ok());
    assert!(matches!(refused(Body::Answer(answer(10))), WireFault::Order { .. }));
    let need = |ids: &[u8]| Body::Need(pb::Need { hi: 10, ids: ids.to_vec() });
    assert!(decode(Frame { body: Some(need(&[3, 6])) }).is_ok());
    assert!(matches!(refused(need(&[3, 7])), WireFault::Order { .. }));
    assert!(matches!(refused(need(&[3, 0])), WireFault::Entries { message: "Need", .. }));
}

#[test]
fn a_manifest_lists_ascending_ids_inside_its_range() {
    let manifest = |lo, hi, entries: &[u8]| {
        Body::Manifest(pb::Manifest { lo, hi, as_of: at(5), entries: entries.to_vec() })
    };
    assert!(decode(Frame { body: Some(manifest(5, 10, &[0, 2, 1, 2])) }).is_ok());
    assert!(decode(Frame { body: Some(manifest(OpId::END, OpId::END, &[])) }).is_ok());
    for (lo, hi, entries) in [(5, 10, &[5, 2][..]), (5, 10, &[0, 2, 0, 2]), (0, 10, &[0, 2]), (5, 10, &[0])] {
        assert!(matches!(refused(manifest(lo, hi, entries)), WireFault::Entries { .. }), "{entries:?}");
    }
    assert!(matches!(refused(manifest(10, 5, &[])), WireFault::Order { .. }));
    let long = vec![0; FRAME_BYTES + 1];
    assert!(matches!(refused(manifest(5, 10, &long)), WireFault::TooLarge { .. }));
}

#[test]
fn texts_that_are_no_scope_list_no_reason_and_no_scope_are_refused() {
    let state = pb::State {
        head: at(0),
        granted_scopes: "!repo:a".to_owned(),
        digest: vec![0; 16],
        ..Default::default()
    };
    assert!(matches!(refused(Body::State(state)), WireFault::Scopes { .. }));
    assert!(matches!(refused(Body::End(pb::End { reason: 0 })), WireFault::Unknown { .. }));
    let nowhere = pb::Tombstone { id: 1, modno: 1, repo_id: "r".to_owned(), plan_id: String::new() };
    let ops = pb::Ops { base: at(0), end: at(1), tombstones: vec![nowhere], ..Default::default() };
    assert_eq!(refused(Body::Ops(ops)), WireFault::TombstoneScope { id: 1, field: "plan_id" });
}

#[test]
fn messages_of_another_phase_are_refused_by_name() {
    let heartbeat = Frame { body: Some(Body::Heartbeat(pb::Heartbeat {})) };
    let fault = hello(heartbeat.clone()).unwrap_err();
    assert_eq!(fault, WireFault::OutOfPlace { message: "Heartbeat", expected: "Hello" });
    assert!(confirm(heartbeat).is_err());
    let early = Frame { body: Some(Body::Hello(pb::Hello::default())) };
    assert!(matches!(decode(early), Err(WireFault::OutOfPlace { message: "Hello", .. })));
}

#[test]
fn a_stranger_may_send_16_kib_in_a_message_and_not_a_byte_more() {
    let hello_of = |versions: usize| {
        let body = pb::Hello { versions: vec![1; versions], nonce: vec![0; 32], target_tag: vec![0; 16] };
        Frame { body: Some(Body::Hello(body)) }
    };
    let fits = (0..MESSAGE_BYTES)
        .map(hello_of)
        .find(|frame| frame.encoded_len() == MESSAGE_BYTES_BEFORE_AUTHENTICATION);
    let fits = fits.unwrap();
    let Some(Body::Hello(body)) = &fits.body else { panic!("a Hello was made") };
    let versions = body.versions.len();
    assert!(hello(fits).is_ok());
    assert!(matches!(hello(hello_of(versions + 1)), Err(WireFault::TooLarge { .. })));
}

#[test]
fn requests_and_documents_that_are_none_are_refused() {
    use pb::written::Result as Word;
    let written = |result| Body::Written(pb::Written { key: vec![1; 16], result });
    let write = |request| Body::Write(pb::Write { key: vec![1; 16], request: Some(request) });
    let many = vec![pb::Refused::default(); share::REFUSALS + 1];
    let long = pb::Refused { reason: "x".repeat(share::TEXT_BYTES + 1), ..pb::Refused::default() };
    let junk = || b"junk".to_vec();
    let change = |base, document| pb::write::Request::Config(pb::ConfigChange { base, document });
    for (body, said) in [
        (Body::Write(pb::Write { key: vec![1; 15], request: None }), "write.key has 15 bytes"),
        (Body::Write(pb::Write { key: vec![1; 16], request: None }), "write.request is missing"),
        (write(change(u64::MAX, Vec::new())), "is outside"),
        (write(change(1, junk())), "Write: the config document cannot be decoded"),
        (write(pb::write::Request::Shared(pb::SharedRepos { document: junk() })), "Write: the config"),
        (Body::Written(pb::Written { key: vec![1; 17], result: None }), "written.key has 17 bytes"),
        (written(None), "written.result is missing"),
        (written(Some(Word::Stale(pb::Stale { modno: u64::MAX }))), "is outside"),
        (written(Some(Word::Refused(long))), "refused.reason of 4097 bytes"),
        (written(Some(Word::Taken(pb::Taken { taken: 0, refused: many }))), "exceed the limit of 1000"),
        (Body::Config(pb::Config { document: junk() }), "Config: the config document"),
        (Body::Resources(pb::Resources { document: junk() }), "Resources: the config document"),
    ] {
        let fault = refused(body).to_string();
        assert!(fault.contains(said), "{fault}: {said}");
    }
}

#[test]
fn a_refusal_is_shortened_to_what_the_peer_takes() {
    let reason = "é".repeat(share::TEXT_BYTES);
    let refused = Refused { rule: "r".to_owned(), object: String::new(), reason };
    let written = Written { key: WriteKey([1; 16]), outcome: Outcome::Refused(refused) };
    let Message::Share(Share::Written(read)) =
        through_bytes(Message::Share(Share::Written(written))).unwrap()
    else {
        panic!("a Written was sent")
    };
    let Outcome::Refused(refused) = read.outcome else { panic!("it refused") };
    assert_eq!(refused.reason.len(), share::TEXT_BYTES);
}
