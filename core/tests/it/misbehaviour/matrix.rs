//! Every message in every state of both roles: expected, or out of state by its name.

use opmesh_core::protocol::Violation;
use opmesh_core::session::Finish;

use crate::bench::{HubBench, OwnerBench, messages, synced};

/// Its name, the messages that are expected in it, and how to get there.
type State<Bench> = (&'static str, &'static [&'static str], fn() -> Bench);

const ALWAYS: [&str; 2] = ["Heartbeat", "End"];

fn check(state: &str, name: &str, expected: &[&str], finished: &[Finish]) {
    let refused = match finished {
        [Finish::Violation(Violation::OutOfState { message, .. })] => {
            assert_eq!(*message, name);
            true
        }
        [] | [_] => false,
        many => panic!("ended more than once: {many:?}"),
    };
    let welcome = expected.contains(&name) || ALWAYS.contains(&name);
    assert_eq!(refused, !welcome, "{name} while {state}: {finished:?}");
}

#[test]
fn a_hub_expects_a_message_or_refuses_it_by_its_name() {
    let fresh = || HubBench::new(synced().hub);
    let judging = || {
        let mut bench = HubBench::new(synced().hub);
        bench.held = true;
        bench.hear(crate::bench::state(crate::bench::LABEL));
        bench
    };
    let states: [State<HubBench>; 8] = [
        ("waiting for State", &["State"], fresh),
        ("judging", &[], judging),
        ("proposed to resume", &["Matchpoint", "Ops", "Mark"], HubBench::proposed),
        ("proposed a diff", &["Matchpoint", "Manifest", "Answer"], HubBench::proposed_diff),
        ("streaming", &["Ops", "Mark"], HubBench::streaming),
        ("repairing by a diff", &["Ops", "Mark", "Manifest"], HubBench::repairing),
        ("repairing by a re-stream", &["Ops", "Mark"], HubBench::restreaming),
        ("in a diff", &["Manifest", "Answer"], HubBench::diffing),
    ];
    for (state, expected, bench) in states {
        for (name, message) in messages() {
            let mut bench = bench();
            assert_eq!(bench.finished, [], "{state}");
            bench.hear(message);
            check(state, name, expected, &bench.finished);
        }
    }
}

#[test]
fn an_owner_expects_a_message_or_refuses_it_by_its_name() {
    let states: [State<OwnerBench>; 8] = [
        ("new", &[], OwnerBench::new),
        ("reading where it stands", &[], OwnerBench::greeting),
        ("waiting for the verdict", &["Verdict"], OwnerBench::judged),
        ("looking up positions", &[], OwnerBench::choosing),
        ("taking a new label", &[], OwnerBench::branching),
        ("streaming", &["Ack"], OwnerBench::streaming),
        ("streaming after a difference", &["Ack", "Verdict"], OwnerBench::differed),
        ("in a diff", &["Ack", "Need"], OwnerBench::diffing),
    ];
    for (state, expected, bench) in states {
        for (name, message) in messages() {
            let mut bench = bench();
            assert_eq!(bench.finished, [], "{state}");
            bench.hear(message);
            check(state, name, expected, &bench.finished);
        }
    }
}
