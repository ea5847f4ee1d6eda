//! Any messages in any order: no panic, and never a row outside the view.

use opmesh_core::model::{OpId, Operation, Position};
use opmesh_core::permission::View;
use opmesh_core::protocol::{
    Answer, Comparison, EndReason, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal, Verdict,
};
use opmesh_core::session::Input;
use proptest::prelude::*;

use crate::bench::{
    GRANTED, HubBench, LABEL, OwnerBench, ack, after, answer, gone, label, manifest, mark, nowhere, ops, row,
    state, synced, verdict,
};

/// A message from four small numbers, made of things that the other side may know.
fn message(numbers: (u8, u8, u8, u8), places: &[Position]) -> Message {
    let (kind, a, b, c) = numbers;
    let place = |n: u8| places[usize::from(n) % places.len()];
    let bound = |n: u8| if n.is_multiple_of(3) { OpId::END } else { u64::from(n % 12) };
    let repo = |n: u8| if n.is_multiple_of(5) { "b" } else { "a" };
    let rows = || -> Vec<Operation> {
        (0..u64::from(b % 3))
            .map(|n| row(1 + n + u64::from(c % 9), 1 + n + u64::from(a % 20), repo(c)))
            .collect()
    };
    let entries = || rows().iter().map(|row| (row.id, row.modno)).collect();
    match kind % 16 {
        0 => state(LABEL + u64::from(a % 3)),
        1 => verdict(proposal(a, place(b)), place(c)),
        2 => Message::Matchpoint(Matchpoint {
            position: (a % 3 > 0).then(|| place(b)),
            incarnation: label(LABEL + u64::from(c % 5)),
        }),
        3 | 4 => manifest(if a % 2 == 0 { 0 } else { bound(a) }, bound(b), place(c), entries()),
        5 => Message::Need(Need {
            hi: bound(a),
            ids: (0..b % 4).map(|n| OpId::new(u64::from(n + c % 9) + 1).unwrap()).collect(),
        }),
        6 | 7 => answer(bound(a), place(c), rows()),
        8 => Message::Answer(Answer {
            hi: bound(a),
            as_of: nowhere(),
            operations: vec![],
            gone: rows().iter().map(|row| row.id).collect(),
            last: b % 2 == 0,
        }),
        9 | 10 => ops(place(a), after(place(a), u64::from(b % 4)), rows()),
        11 => Message::Ops(Ops {
            base: place(a),
            end: place(b),
            as_of: place(c),
            operations: vec![],
            tombstones: vec![gone(1 + u64::from(c % 9), 1 + u64::from(b), repo(a))],
        }),
        12 => mark(place(a)),
        13 => ack(8 + u64::from(a % 4), u64::from(b % 6), (c % 2 == 0).then(|| judged(a, place(c)))),
        14 if a % 8 == 0 => Message::End(EndReason::Shutdown),
        14 => Message::Verdict(Verdict {
            proposal: proposal(b, place(a)),
            newest: place(b),
            candidates: places.to_vec(),
            credit: u64::from(c),
        }),
        _ => Message::Heartbeat,
    }
}

fn proposal(n: u8, cursor: Position) -> Proposal {
    match n % 4 {
        0 => Proposal::InSync,
        1 => Proposal::Resume { cursor },
        2 => Proposal::Diff { done: u64::from(n % 12) },
        _ => Proposal::Restream,
    }
}

fn judged(n: u8, position: Position) -> MarkAnswer {
    let outcome = if n.is_multiple_of(2) { Comparison::Equal } else { Comparison::Differs };
    MarkAnswer { position, outcome }
}

fn start(n: u8) -> HubBench {
    match n % 7 {
        0 => HubBench::new(synced().hub),
        1 => HubBench::proposed(),
        2 => HubBench::streaming(),
        3 => HubBench::diffing(),
        4 => HubBench::proposed_diff(),
        5 => HubBench::repairing(),
        _ => HubBench::restreaming(),
    }
}

fn owner_start(n: u8) -> OwnerBench {
    match n % 6 {
        0 => OwnerBench::new(),
        1 => OwnerBench::judged(),
        2 => OwnerBench::streaming(),
        3 => OwnerBench::differed(),
        4 => OwnerBench::branching(),
        _ => OwnerBench::diffing(),
    }
}

fn forbidden(bench: &HubBench) -> Vec<Operation> {
    let parked = bench.model.parked.iter().map(|copy| &copy.operation);
    let rows = bench.model.live().values().chain(parked);
    rows.filter(|row| row.record.scope().repo == "b").cloned().collect()
}

type Numbers = Vec<(u8, u8, u8, u8)>;

fn numbers() -> impl Strategy<Value = Numbers> {
    proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_messages_make_a_hub_panic_or_touch_what_the_view_forbids(first in any::<u8>(), numbers in numbers()) {
        let mut bench = start(first);
        let before = forbidden(&bench);
        for step in numbers {
            let cursor = bench.cursor();
            let places = [Position::ZERO, cursor, cursor, cursor, after(cursor, 1), nowhere()];
            bench.held = step.3 % 4 == 0;
            bench.hear(message(step, &places));
            prop_assert!(bench.finished.len() <= 1);
        }
        bench.held = false;
        bench.catch_up();
        prop_assert_eq!(forbidden(&bench), before);
        prop_assert!(bench.model.live().values().all(|row| row.record.scope().repo == "a"));
    }

    #[test]
    fn no_messages_make_an_owner_panic_or_tell_what_the_view_forbids(first in any::<u8>(), numbers in numbers()) {
        let mut bench = owner_start(first);
        let head = bench.model.head();
        let view = View::new(GRANTED.parse().unwrap(), "*".parse().unwrap());
        for step in numbers {
            bench.held = step.3 % 4 == 0;
            let places = [Position::ZERO, head, head, after(head, 1), nowhere()];
            bench.hear(message(step, &places));
            if step.1 % 7 == 0 {
                bench.input(Input::Changed);
            }
            prop_assert!(bench.finished.len() <= 1);
        }
        for sent in &bench.sent {
            let shown = match sent {
                Message::Ops(ops) => ops.operations.iter().all(|row| view.includes(row.record.scope()))
                    && ops.tombstones.iter().all(|gone| view.includes(&gone.scope)),
                Message::Answer(answer) => {
                    answer.operations.iter().all(|row| view.includes(row.record.scope()))
                }
                _ => true,
            };
            prop_assert!(shown, "{:?}", sent);
        }
    }
}
