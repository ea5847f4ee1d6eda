//! A hub that may see one repository and asks for everything else, in every way in which it can ask.

use std::collections::BTreeSet;

use opmesh_core::model::{OpId, Position, Scope};
use opmesh_core::protocol::{Manifest, Message, Need, Proposal, Verdict};

use crate::bench::{OwnerBench, ack, after, messages, nowhere};
use crate::random::Random;

const SEQUENCES: u64 = 20_000;

/// What an owner shares in these tests; see `bench::GRANTED`.
fn is_shared(scope: &Scope) -> bool {
    scope.repo == "a"
}

/// Ids of rows that the hub must not learn of, live or deleted.
fn hidden(bench: &OwnerBench) -> BTreeSet<OpId> {
    let live = bench.model.live();
    live.iter().filter(|(_, operation)| !is_shared(operation.record.scope())).map(|(id, _)| *id).collect()
}

/// Whether a message says anything about a hidden row beyond "nothing here", which is said of any unused id, too.
fn tells(message: &Message, hidden: &BTreeSet<OpId>) -> bool {
    match message {
        Message::Ops(ops) => {
            ops.operations.iter().any(|operation| !is_shared(operation.record.scope()))
                || ops.tombstones.iter().any(|tombstone| !is_shared(&tombstone.scope))
        }
        Message::Answer(answer) => {
            answer.operations.iter().any(|operation| !is_shared(operation.record.scope()))
        }
        Message::Manifest(manifest) => manifest.entries.iter().any(|(id, _)| hidden.contains(id)),
        _ => false,
    }
}

/// Something that a hub could say now, sensible or not.
fn demand(random: &mut Random, bench: &OwnerBench, needs: &mut usize) -> Message {
    let head = bench.model.head();
    let place = |random: &mut Random| match random.below(4) {
        0 => Position::ZERO,
        1 => head,
        2 => after(Position::ZERO, random.below(12)),
        _ => nowhere(),
    };
    match random.below(10) {
        0..=2 => {
            let proposal = match random.below(4) {
                0 => Proposal::InSync,
                1 => Proposal::Resume { cursor: place(random) },
                2 => Proposal::Diff { done: random.below(12) },
                _ => Proposal::Restream,
            };
            let candidates = (0..random.below(3)).map(|_| place(random)).collect();
            Message::Verdict(Verdict {
                proposal,
                newest: place(random),
                candidates,
                credit: 8 + random.below(99),
            })
        }
        3..=7 => {
            let mut manifests = bench.sent.iter().filter_map(|message| match message {
                Message::Manifest(Manifest { lo, hi, .. }) => Some((*lo, *hi)),
                _ => None,
            });
            // Mostly the one whose turn it is, with ids of its range, listed there or not.
            let (lo, hi) = manifests.nth(*needs).unwrap_or((0, OpId::END));
            *needs += 1;
            let (lo, hi) = if random.chance(5) { (0, random.below(14)) } else { (lo, hi) };
            let range = lo.max(1)..hi.min(14);
            let ids = range.filter(|_| random.chance(70)).map(|id| OpId::new(id).unwrap()).collect();
            Message::Need(Need { hi, ids })
        }
        8 => ack(8 + random.below(99), random.below(8), None),
        _ => {
            let all = messages();
            all[random.index(all.len())].1.clone()
        }
    }
}

#[test]
fn whatever_a_hub_asks_for_it_hears_of_nothing_outside_its_view() {
    let (mut answered, mut asked_outside) = (0, 0);
    for seed in 0..SEQUENCES {
        let mut random = Random::new(seed);
        let mut bench =
            [OwnerBench::judged, OwnerBench::streaming, OwnerBench::differed, OwnerBench::diffing]
                [random.index(4)]();
        let mut hidden = hidden(&bench);
        // One of them is deleted, so that there is a tombstone outside the view.
        if let Some(gone) = hidden.iter().next().copied().filter(|_| random.chance(50)) {
            bench.model.delete(gone);
            bench.input(opmesh_core::session::Input::Changed);
            hidden.insert(gone);
        }
        let mut needs = 0;
        for _ in 0..12 {
            let message = demand(&mut random, &bench, &mut needs);
            if let Message::Need(need) = &message {
                asked_outside += usize::from(need.ids.iter().any(|id| hidden.contains(id)));
            }
            bench.hear(message);
        }
        for message in &bench.sent {
            assert!(!tells(message, &hidden), "seed {seed}: {message:?}");
            answered += usize::from(matches!(message, Message::Answer(_)));
        }
    }
    println!("{SEQUENCES} hostile hubs: {asked_outside} needs named hidden rows, {answered} answers");
    assert!(asked_outside > 10_000 && answered > 1_000, "{asked_outside} {answered}");
}

/// Of a hidden row a hub hears exactly what it hears of an id that was never given out.
#[test]
fn a_hidden_row_is_as_gone_as_one_that_never_was() {
    let mut bench = OwnerBench::diffing();
    let hidden = hidden(&bench);
    let (lo, hi) = bench
        .sent
        .iter()
        .find_map(|message| match message {
            Message::Manifest(manifest) => Some((manifest.lo, manifest.hi)),
            _ => None,
        })
        .unwrap();
    let ids: Vec<OpId> = (lo.max(1)..hi.min(20)).map(|id| OpId::new(id).unwrap()).collect();
    bench.sent.clear();
    bench.hear(Message::Need(Need { hi, ids: ids.clone() }));
    let gone: BTreeSet<OpId> = bench
        .sent
        .iter()
        .filter_map(|message| match message {
            Message::Answer(answer) => Some(answer.gone.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let outside: BTreeSet<OpId> = ids.iter().copied().filter(|id| hidden.contains(id)).collect();
    assert!(outside.is_subset(&gone), "{outside:?} {gone:?}");
}
