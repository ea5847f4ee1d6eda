//! Every way in which a peer can misbehave, provoked with hand-made messages.

mod fuzz;
mod hostile;
mod matrix;

use opmesh_core::config::Resources;
use opmesh_core::model::{Modno, OpId, Position};
use opmesh_core::protocol::limits::{CREDIT_WINDOW, MANIFESTS_IN_FLIGHT};
use opmesh_core::protocol::{
    Answer, Comparison, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Outcome, Proposal, Share, Verdict,
    Violation,
};
use opmesh_core::replica::Rows;
use opmesh_core::session::Finish;

use crate::sharing;

use crate::bench::{
    HubBench, LABEL, OwnerBench, ack, after, answer, gone, inputs, label, manifest, mark, nowhere, ops, row,
    state, synced, verdict,
};

/// Where each violation is provoked. A new variant does not compile until it has a number here, and
/// `every_violation_is_provoked` fails until a provocation ends in it.
const fn number(violation: &Violation) -> usize {
    match violation {
        Violation::OutOfState { .. } => 0,
        Violation::BaseIsNotCursor { .. } => 1,
        Violation::OutsideView { .. } => 2,
        Violation::CreditExceeded { .. } => 3,
        Violation::ManifestGap { .. } => 4,
        Violation::TooManyManifests { .. } => 5,
        Violation::DoesNotFitManifest { .. } => 6,
        Violation::MarkNotAtEnd { .. } => 7,
        Violation::UnknownMatchpoint(_) => 8,
        Violation::ImpossibleAck => 9,
        Violation::ImpossibleVerdict { .. } => 10,
        Violation::SupersededIncarnation { .. } => 11,
        Violation::TooOften { .. } => 12,
        Violation::SecondWrite => 13,
        Violation::UnaskedAnswer => 14,
    }
}

const VIOLATIONS: usize = 15;

/// One rule broken: who hears what, and the number of the violation that it ends in.
type Provocation = (&'static str, usize, fn() -> Violation);

const PROVOCATIONS: [Provocation; 33] = [
    ("ops before state", 0, || hub_refuses(HubBench::new(synced().hub), ops(nowhere(), nowhere(), vec![]))),
    ("ops in a diff", 0, || hub_refuses(HubBench::diffing(), ops(nowhere(), nowhere(), vec![]))),
    ("an ack before the verdict", 0, || owner_refuses(OwnerBench::judged(), ack(8, 0, None))),
    ("a second verdict without a differing mark", 0, || {
        owner_refuses(OwnerBench::streaming(), verdict(Proposal::Diff { done: 0 }, Position::ZERO))
    }),
    ("ops from elsewhere", 1, || {
        hub_refuses(HubBench::streaming(), ops(nowhere(), after(nowhere(), 1), vec![]))
    }),
    ("ops from elsewhere behind a mark", 1, ops_behind_a_mark),
    ("an operation outside the view after one inside it", 2, || {
        let bench = HubBench::streaming();
        let (base, modno) = (bench.cursor(), bench.cursor().modno.get());
        let rows = vec![row(1, modno + 1, "a"), row(3, modno + 2, "b")];
        hub_refuses(bench, ops(base, after(base, 2), rows))
    }),
    ("a tombstone outside the view", 2, || {
        let bench = HubBench::streaming();
        let (base, modno) = (bench.cursor(), bench.cursor().modno.get());
        let (end, tombstones) = (after(base, 2), vec![gone(1, modno + 1, "a"), gone(3, modno + 2, "b")]);
        hub_refuses(bench, Message::Ops(Ops { base, end, as_of: end, operations: vec![], tombstones }))
    }),
    ("an answer outside the view", 2, || {
        let mut bench = HubBench::diffing();
        let id = OpId::new(30).unwrap();
        bench.hear(manifest(0, OpId::END, nowhere(), vec![(id, Modno::new(40).unwrap())]));
        hub_refuses(bench, answer(OpId::END, nowhere(), vec![row(30, 40, "b")]))
    }),
    ("more ops than the credit", 3, too_many_ops),
    ("a manifest that does not start at the beginning", 4, || {
        hub_refuses(HubBench::diffing(), manifest(5, OpId::END, nowhere(), vec![]))
    }),
    ("a manifest after the last one", 4, || {
        let mut bench = HubBench::diffing();
        bench.held = true;
        bench.hear(manifest(0, OpId::END, nowhere(), vec![]));
        hub_refuses(bench, manifest(0, OpId::END, nowhere(), vec![]))
    }),
    ("too many manifests", 5, || {
        let mut bench = HubBench::diffing();
        bench.held = true;
        let limit = u64::try_from(MANIFESTS_IN_FLIGHT).unwrap();
        (0..limit).for_each(|n| bench.hear(manifest(n, n + 1, nowhere(), vec![])));
        hub_refuses(bench, manifest(limit, limit + 1, nowhere(), vec![]))
    }),
    ("an answer without a manifest", 6, || {
        hub_refuses(HubBench::diffing(), answer(OpId::END, nowhere(), vec![]))
    }),
    ("an answer before the need", 6, || {
        let mut bench = HubBench::diffing();
        bench.held = true;
        bench.hear(manifest(0, OpId::END, nowhere(), vec![]));
        hub_refuses(bench, answer(OpId::END, nowhere(), vec![]))
    }),
    ("an answer that leaves out what was needed", 6, || answers(answer(OpId::END, nowhere(), vec![]))),
    ("an answer that brings what was not needed", 6, || {
        answers(answer(OpId::END, nowhere(), vec![row(30, 40, "a"), row(31, 41, "a")]))
    }),
    ("an answer that settles nothing", 6, || answers(answer(0, nowhere(), vec![]))),
    ("an answer that is not the last and says so", 6, || {
        let last =
            Answer { hi: 31, as_of: nowhere(), operations: vec![row(30, 40, "a")], gone: vec![], last: true };
        answers(Message::Answer(last))
    }),
    ("an answer newer than what it was read from", 6, || {
        answers(answer(OpId::END, nowhere(), vec![row(30, 501, "a")]))
    }),
    ("a need of another range", 6, || {
        owner_refuses(OwnerBench::diffing(), Message::Need(Need { hi: 7, ids: vec![] }))
    }),
    ("a mark elsewhere", 7, || hub_refuses(HubBench::streaming(), mark(nowhere()))),
    ("a second mark before the first is answered", 7, || {
        let mut bench = HubBench::streaming();
        bench.held = true;
        let position = bench.cursor();
        bench.hear(mark(position));
        hub_refuses(bench, mark(position))
    }),
    ("a matchpoint that was not proposed", 8, || {
        let matchpoint = Matchpoint { position: Some(nowhere()), incarnation: label(LABEL + 1) };
        hub_refuses(HubBench::proposed(), Message::Matchpoint(matchpoint))
    }),
    ("acks of what was not sent, twice, and of no mark", 9, impossible_acks),
    ("a repair that is none, and one that takes credit back", 10, impossible_verdicts),
    ("a superseded label in a state", 11, || {
        let mut model = synced().hub;
        let Ok(()) = model.supersede(label(LABEL));
        hub_refuses(HubBench::new(model), state(LABEL))
    }),
    ("a matchpoint without a new label", 11, || {
        let bench = HubBench::proposed();
        let matchpoint = Matchpoint { position: Some(bench.cursor()), incarnation: label(LABEL) };
        hub_refuses(bench, Message::Matchpoint(matchpoint))
    }),
    ("a flood of what is shown", 12, || sharing::flood(Share::Resources(Resources::default()))),
    ("a flood of answered writes", 12, || {
        let answered = sharing::written(1, Outcome::Unchanged);
        sharing::flood_after(Some(answered), Share::Write(sharing::write(1)))
    }),
    ("a write before the last one was answered", 13, sharing::two_writes),
    ("an answer to nothing", 14, sharing::an_answer_to_nothing),
    ("an answer twice", 14, sharing::an_answer_twice),
];

#[test]
fn every_violation_is_provoked() {
    let mut provoked = [false; VIOLATIONS];
    for (story, expected, provoke) in PROVOCATIONS {
        let violation = provoke();
        assert_eq!(number(&violation), expected, "{story}: {violation}");
        provoked[expected] = true;
    }
    assert_eq!(provoked, [true; VIOLATIONS]);
}

/// The hub hears it and ends: one violation, nothing applied, and nothing said afterwards.
fn hub_refuses(mut bench: HubBench, message: Message) -> Violation {
    bench.sent.clear();
    let before = bench.rows();
    bench.hear(message);
    bench.held = false;
    bench.catch_up();
    // What was asked for before may become durable; the refused frame adds nothing.
    assert_eq!(bench.rows(), before);
    assert!(!bench.sent.iter().any(|message| matches!(message, Message::Verdict(_) | Message::Need(_))));
    let said = bench.sent.len();
    for input in inputs() {
        bench.input(input);
    }
    assert_eq!(bench.sent.len(), said);
    only(bench.finished)
}

fn owner_refuses(mut bench: OwnerBench, message: Message) -> Violation {
    bench.sent.clear();
    bench.hear(message);
    for input in inputs() {
        bench.input(input);
    }
    assert_eq!(bench.sent, []);
    only(bench.finished)
}

fn only(finished: Vec<Finish>) -> Violation {
    match &finished[..] {
        [Finish::Violation(violation)] => violation.clone(),
        other => panic!("ended by {other:?}"),
    }
}

/// The hub needs one row and gets this.
fn answers(message: Message) -> Violation {
    let mut bench = HubBench::diffing();
    let listed = vec![(OpId::new(30).unwrap(), Modno::new(40).unwrap())];
    bench.hear(manifest(0, OpId::END, nowhere(), listed));
    hub_refuses(bench, message)
}

/// Ops behind a Mark may be dropped, but only if that Mark differs and a repair begins.
fn ops_behind_a_mark() -> Violation {
    let mut bench = HubBench::streaming();
    let position = bench.cursor();
    let Ok(set) = bench.model.set();
    bench.held = true;
    bench.hear(Message::Mark(Mark { position, set }));
    let elsewhere = ops(nowhere(), after(nowhere(), 1), vec![row(1, 501, "a")]);
    hub_refuses(bench, elsewhere)
}

fn too_many_ops() -> Violation {
    let mut bench = HubBench::proposed();
    bench.held = true;
    let base = bench.cursor();
    for n in 0..CREDIT_WINDOW {
        bench.hear(ops(after(base, n), after(base, n + 1), vec![]));
    }
    assert_eq!(bench.finished, []);
    bench.hear(ops(after(base, CREDIT_WINDOW), after(base, CREDIT_WINDOW + 1), vec![row(1, 600, "a")]));
    assert_eq!(bench.sent.len(), 1, "only the verdict was said");
    only(bench.finished)
}

fn impossible_acks() -> Violation {
    let position = nowhere();
    let stray = MarkAnswer { position, outcome: Comparison::Equal };
    for message in [ack(8, 100, None), ack(7, 0, None), ack(8, 0, Some(stray))] {
        assert_eq!(owner_refuses(OwnerBench::streaming(), message), Violation::ImpossibleAck);
    }
    let mut bench = OwnerBench::streaming();
    bench.hear(ack(9, 1, None));
    owner_refuses(bench, ack(9, 0, None))
}

fn impossible_verdicts() -> Violation {
    for proposal in [Proposal::InSync, Proposal::Resume { cursor: Position::ZERO }] {
        let violation = owner_refuses(OwnerBench::differed(), verdict(proposal, Position::ZERO));
        assert!(matches!(violation, Violation::ImpossibleVerdict { .. }), "{violation}");
    }
    let proposal = Proposal::Diff { done: 0 };
    let less = Verdict { proposal, newest: Position::ZERO, candidates: vec![], credit: 7 };
    owner_refuses(OwnerBench::differed(), Message::Verdict(less))
}
