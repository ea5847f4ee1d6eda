//! What is slow, silent or cut off.

use std::time::Duration;

use opmesh_core::model::Position;
use opmesh_core::protocol::EndReason;
use opmesh_core::protocol::limits::{CREDIT_WINDOW, MANIFESTS_IN_FLIGHT};
use opmesh_core::replica::{DiffProgress, Transaction};
use opmesh_core::session::{Finish, Input, Pace};

use crate::bench::{OwnerBench, ack, verdict};
use crate::world::Step;

use super::*;

const TEN_MINUTES: Duration = Duration::from_mins(10);

/// The hub judges State, and then its disk commits nothing.
fn commits_nothing(world: &World, step: Step) -> bool {
    let link = world.link.as_ref().unwrap();
    step != Step::Commit || matches!(link.commits.front(), Some(Transaction::State { .. }))
}

#[test]
fn credit_stops_an_owner_whose_hub_does_not_commit_and_nobody_hangs_up() {
    let mut world = world();
    fill(&mut world, "a", 200);
    world.connect();
    world.run_while(commits_nothing);
    assert_eq!(count(&world, "Ops"), usize::try_from(CREDIT_WINDOW).unwrap());
    world.trace.clear();
    world.pass(TEN_MINUTES, commits_nothing);
    assert!(world.link.is_some(), "{:?}", world.endings);
    assert_eq!(count(&world, "Ops"), 0);
    let beats = |owner: bool| {
        let from = |frame: &&Frame| matches!(frame, Frame::Owner(Message::Heartbeat)) == owner;
        world.trace.iter().filter(from).count()
    };
    assert_eq!((beats(true), beats(false)), (30, 30), "every 20 s, both ways");
    settle(&mut world);
}

#[test]
fn credit_stops_the_answers_of_a_diff_as_well() {
    let mut world = world_with(FrameSize { rows: 1, entries: 40 });
    fill(&mut world, "a", 1);
    fill(&mut world, "b", 100);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    world.close(EndReason::GrantsChanged);
    world.granted = "*".parse().unwrap();
    world.trace.clear();
    world.connect();
    world.run_while(commits_nothing);
    assert_eq!(count(&world, "Answer"), usize::try_from(CREDIT_WINDOW).unwrap());
    assert!(count(&world, "Manifest") <= MANIFESTS_IN_FLIGHT);
    world.pass(TEN_MINUTES, commits_nothing);
    assert!(world.link.is_some());
    settle(&mut world);
}

#[test]
fn a_local_write_costs_nothing_when_the_hub_has_stopped_reading() {
    let mut world = world();
    fill(&mut world, "a", 200);
    world.connect();
    let stopped =
        |world: &World, step| step != Step::DeliverToHub || world.seen.proved + 1 > world.seen.frames;
    world.run_while(stopped);
    let frames = world.seen.frames;
    for n in 0..1_000 {
        world.create("a", "x", &format!("{n}"));
        world.run_while(stopped);
    }
    let link = world.link.as_ref().unwrap();
    assert!(link.reads.is_empty(), "no read is begun that could not be sent");
    assert_eq!(world.seen.frames, frames, "the owner holds positions, not operations");
    settle(&mut world);
}

#[test]
fn a_silent_hub_is_given_up_after_60_seconds() {
    let mut world = world();
    fill(&mut world, "a", 3);
    settle(&mut world);
    let silent = |_: &World, step| step != Step::DeliverToOwner;
    world.pass(Duration::from_secs(59), silent);
    assert!(world.link.is_some());
    world.pass(Duration::from_secs(1), silent);
    assert_eq!((world.link.is_none(), world.endings), (true, vec![Finish::Silent]));
}

#[test]
fn a_silent_owner_is_given_up_after_60_seconds() {
    let mut world = world();
    fill(&mut world, "a", 3);
    settle(&mut world);
    let silent = |_: &World, step| step != Step::DeliverToHub;
    world.pass(Duration::from_secs(59), silent);
    assert!(world.link.is_some());
    world.pass(Duration::from_secs(1), silent);
    assert_eq!((world.link.is_none(), world.endings), (true, vec![Finish::Silent]));
}

#[test]
fn an_idle_session_lives_on_heartbeats() {
    let mut world = world();
    settle(&mut world);
    world.trace.clear();
    world.pass(TEN_MINUTES, |_, _| true);
    assert!(world.link.is_some());
    assert_eq!(count(&world, "Heartbeat"), 60);
    assert_eq!(names(&world).len(), 60);
}

#[test]
fn an_end_closes_both_sides_and_is_the_last_that_is_said() {
    for from_owner in [true, false] {
        let mut world = world();
        fill(&mut world, "a", 3);
        settle(&mut world);
        let close = Input::Close(EndReason::Shutdown);
        if from_owner {
            world.owner_input(close);
        } else {
            world.hub_input(close);
        }
        let link = world.link.as_mut().unwrap();
        let (here, there) = (Finish::Closed(EndReason::Shutdown), Finish::PeerEnded(EndReason::Shutdown));
        assert_eq!(link.finished, [here]);
        let mut out = Vec::new();
        if from_owner {
            let message = link.to_hub.pop_front().unwrap();
            link.hub.handle(world.now, Input::Received(message), &mut out);
        } else {
            let message = link.to_owner.pop_front().unwrap();
            link.owner.handle(world.now, Input::Received(message), &mut out);
        }
        assert!(matches!(&out[..], [opmesh_core::session::Output::Finish(finish)] if *finish == there));
        assert_eq!((link.owner.deadline(), link.hub.deadline()), (Duration::MAX, Duration::MAX));
    }
}

/// Rows of two repositories, of which the hub has one; a diff of everything is owed.
fn owed_diff() -> World {
    let mut world = world();
    fill(&mut world, "a", 10);
    fill(&mut world, "b", 60);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    world.close(EndReason::GrantsChanged);
    world.granted = "*".parse().unwrap();
    world.trace.clear();
    world
}

#[test]
fn a_diff_that_is_cut_off_goes_on_where_it_was_while_writes_go_on() {
    let mut world = owed_diff();
    let ids: Vec<OpId> = world.owner.live().keys().copied().collect();
    let mut done = 0;
    for round in 1.. {
        world.connect();
        let before = done;
        let stands = |diff: DiffProgress| diff.done == before;
        world.run_while(|world, _| world.hub.replica().diff.map_or(round == 1, stands));
        let Some(diff) = world.hub.replica().diff else { break };
        let proposal = Proposal::Diff { done };
        assert_eq!(proposals(&world), [proposal], "round {round}");
        assert!(diff.done > done);
        done = diff.done;
        world.cut();
        world.trace.clear();
        world.create("b", "x", "meanwhile");
        world.update(ids[round], "meanwhile");
        world.delete(ids[70 - round]);
    }
    settle(&mut world);
    assert!(world.seen.diffs_resumed > 5 && world.seen.split_answers > 5, "{:?}", world.seen);
    assert_eq!((world.seen.differs, world.hub.parked.len()), (0, 0));
}

#[test]
fn a_diff_starts_its_changes_where_it_began_not_where_it_ended() {
    let mut world = owed_diff();
    world.connect();
    world.run_while(|world, _| world.hub.replica().diff.is_none_or(|diff| diff.start.is_none()));
    let start = world.hub.replica().diff.unwrap().start.unwrap();
    fill(&mut world, "b", 5);
    let mut cursors = Vec::new();
    while let Some(step) = world.steps().first().copied() {
        world.step(step);
        if world.hub.replica().diff.is_none() {
            cursors.push(world.hub.replica().cursor);
        }
    }
    assert_eq!(cursors[0], start);
    settle(&mut world);
}

#[test]
fn an_owner_whose_streams_are_cut_keeps_few_frames_on_their_way() {
    let ops = |bench: &OwnerBench| bench.sent.iter().filter(|sent| matches!(sent, Message::Ops(_))).count();
    let mut bench = OwnerBench::with(Pace::Careful);
    bench.input(Input::Tick);
    bench.hear(verdict(Proposal::Resume { cursor: Position::ZERO }, Position::ZERO));
    assert_eq!(ops(&bench), 4, "the hub's credit is 8");
    bench.hear(ack(9, 1, None));
    assert_eq!(ops(&bench), 5);
    assert!(ops(&OwnerBench::streaming()) >= 5, "otherwise the credit decides");
}
