//! Nothing goes wrong.

use opmesh_core::protocol::Message;

use super::*;

#[test]
fn a_first_sync_sends_everything_once_and_proves_it() {
    let mut world = world();
    let ids = fill(&mut world, "a", 10);
    settle(&mut world);
    assert_eq!(sent(&world), ids);
    assert_eq!((count(&world, "Ops"), count(&world, "Mark"), count(&world, "Manifest")), (4, 1, 0));
    assert_eq!(world.seen.proved, 1);
    assert_eq!(world.hub.replica().cursor, world.owner.head());
}

#[test]
fn updates_and_deletes_arrive_while_the_session_lives() {
    let mut world = world();
    let ids = fill(&mut world, "a", 5);
    settle(&mut world);
    world.update(ids[1], "changed");
    settle(&mut world);
    world.delete(ids[2]);
    settle(&mut world);
    assert_eq!(world.hub.live().len(), 4);
    assert_eq!(world.hub.live()[&ids[1]], world.owner.live()[&ids[1]]);
    assert!(world.hub.parked.is_empty());
    assert_eq!(count(&world, "State"), 1);
}

#[test]
fn a_warm_reconnect_is_state_and_verdict_and_nothing_else() {
    let mut world = world();
    let ids = fill(&mut world, "a", 10);
    world.delete(ids[0]);
    settle(&mut world);
    for _ in 0..3 {
        reconnect(&mut world);
        assert_eq!(names(&world), ["State", "Verdict"]);
        assert_eq!(proposals(&world), [Proposal::InSync]);
        world.tell_changed();
        world.run();
        assert_eq!(names(&world), ["State", "Verdict"], "no mark until something changes");
    }
    world.create("a", "x", "more");
    settle(&mut world);
    assert_eq!(names(&world), ["State", "Verdict", "Ops", "Mark", "Ack", "Ack"]);
}

#[test]
fn what_was_written_offline_is_all_that_a_resumed_session_sends() {
    let mut world = world();
    fill(&mut world, "a", 10);
    settle(&mut world);
    world.cut();
    let more = fill(&mut world, "a", 4);
    reconnect(&mut world);
    assert!(matches!(proposals(&world)[..], [Proposal::Resume { .. }]));
    assert_eq!(sent(&world), more);
}

#[test]
fn changes_outside_the_view_move_the_cursor_without_rows() {
    let mut world = world();
    world.granted = "repo:a".parse().unwrap();
    fill(&mut world, "a", 1);
    settle(&mut world);
    world.trace.clear();
    let hidden = fill(&mut world, "b", 2);
    world.delete(hidden[0]);
    settle(&mut world);
    assert_eq!(world.hub.replica().cursor, world.owner.head());
    let ops = world.trace.iter().filter_map(|frame| match message(frame) {
        Message::Ops(ops) => Some((ops.operations.len(), ops.tombstones.len())),
        _ => None,
    });
    assert_eq!(ops.collect::<Vec<_>>(), [(0, 0)]);
}

#[test]
fn marks_that_come_too_fast_are_skipped_and_the_newest_is_sent_afterwards() {
    let mut world = world();
    fill(&mut world, "a", 1);
    world.connect();
    // The hub answers the verdict, but no mark.
    let unmarked = |world: &World, step| {
        let commits = &world.link.as_ref().unwrap().commits;
        step != crate::world::Step::Commit
            || !matches!(commits.front(), Some(opmesh_core::replica::Transaction::Mark(_)))
    };
    world.run_while(unmarked);
    for _ in 0..5 {
        fill(&mut world, "a", 1);
        world.run_while(unmarked);
    }
    assert_eq!((count(&world, "Ops"), count(&world, "Mark")), (6, 1));
    settle(&mut world);
    assert_eq!((count(&world, "Ops"), count(&world, "Mark")), (6, 2));
    assert_eq!(world.seen.proved, 2);
}
