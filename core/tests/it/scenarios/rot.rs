//! The hub's disk alters or loses rows.

use opmesh_core::model::{Modno, Position, Record};
use opmesh_core::replica::Rung;
use opmesh_core::session::Input;

use crate::bench::{OwnerBench, verdict};

use super::*;

fn synced(count: usize) -> (World, Vec<OpId>) {
    let mut world = world();
    let ids = fill(&mut world, "a", count);
    settle(&mut world);
    world.trace.clear();
    (world, ids)
}

#[test]
fn a_lost_row_is_repaired_by_one_diff() {
    let (mut world, ids) = synced(10);
    world.lose_row(ids[4]);
    let new = world.create("a", "x", "new");
    settle(&mut world);
    assert_eq!(proposals(&world), [Proposal::Diff { done: 0 }]);
    assert_eq!(sent(&world), [new, ids[4]]);
    assert_eq!((world.seen.repairs, world.seen.restreams, world.seen.differs), (1, 0, 1));
}

#[test]
fn a_lost_row_is_found_by_a_reconnect_without_a_change() {
    let (mut world, ids) = synced(10);
    world.lose_row(ids[4]);
    reconnect(&mut world);
    assert!(matches!(proposals(&world)[..], [Proposal::Resume { .. }, Proposal::Diff { done: 0 }]));
    assert_eq!(sent(&world), [ids[4]]);
}

#[test]
fn a_row_with_too_high_a_modno_takes_a_restream() {
    let (mut world, ids) = synced(10);
    world.corrupt_row(ids[4], Modno::new(10_000).unwrap());
    world.create("a", "x", "new");
    settle(&mut world);
    assert_eq!(proposals(&world), [Proposal::Diff { done: 0 }, Proposal::Restream]);
    assert!(world.hub.parked.is_empty(), "an equal mark retires what the re-stream set aside");
    assert_eq!(world.hub.replica().rung, None);
}

#[test]
fn a_repair_that_was_cut_off_is_resumed() {
    let (mut world, ids) = synced(20);
    world.lose_row(ids[1]);
    world.lose_row(ids[18]);
    world.create("a", "x", "new");
    world.run_while(|world, _| world.hub.replica().diff.is_none_or(|diff| diff.done < 8));
    assert!(matches!(world.hub.replica().rung, Some(Rung::Diff { .. })));
    reconnect(&mut world);
    assert!(matches!(proposals(&world)[..], [Proposal::Diff { done }] if done >= 8));
    assert_eq!(world.seen.repairs, 1);
}

#[test]
fn a_restream_that_was_cut_off_goes_on_where_it_was() {
    let (mut world, ids) = synced(20);
    world.corrupt_row(ids[4], Modno::new(10_000).unwrap());
    world.create("a", "x", "new");
    world
        .run_while(|world, _| world.hub.replica().rung != Some(Rung::Restream) || world.hub.live().len() < 9);
    reconnect(&mut world);
    assert!(matches!(proposals(&world)[..], [Proposal::Resume { .. }]));
    assert_eq!(sent(&world).len(), 12);
    assert_eq!(world.seen.restreams, 1);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn a_fork_after_a_restream_that_was_cut_off_loses_nothing() {
    let (mut world, ids) = synced(10);
    let copy = (world.owner.clone(), world.history.clone());
    let dead = fill(&mut world, "a", 10);
    settle(&mut world);
    world.corrupt_row(ids[4], Modno::new(10_000).unwrap());
    let last = world.create("a", "x", "new");
    world
        .run_while(|world, _| world.hub.replica().rung != Some(Rung::Restream) || world.hub.live().len() < 3);
    world.cut();
    (world.owner, world.history) = copy;
    settle(&mut world);
    assert_eq!(world.seen.forks_in_restream, 1);
    let kept = parked(&world, ParkReason::Fork);
    assert!(dead.iter().chain([&last]).all(|id| kept.contains(id)), "{kept:?}");
}

/// A hub whose disk loses a row whenever it was fetched again.
fn quarantined() -> (World, Vec<OpId>) {
    let (mut world, ids) = synced(10);
    world.losing = true;
    world.lose_row(ids[4]);
    world.create("a", "x", "new");
    world.run();
    sound(&world);
    assert!(world.hub.replica().quarantined.is_some());
    assert_eq!(world.seen.quarantines, 1);
    (world, ids)
}

#[test]
fn a_fourth_repair_that_ends_unequal_quarantines() {
    let (world, _) = quarantined();
    assert_eq!(world.seen.repairs, 4);
    assert_eq!(world.hub.replica().unequal_repairs.len(), 4);
}

#[test]
fn a_restream_that_ends_unequal_quarantines() {
    let (mut world, ids) = synced(10);
    world.corrupt_row(ids[4], Modno::new(10_000).unwrap());
    world.create("a", "x", "new");
    world.run_while(|world, _| world.hub.replica().rung != Some(Rung::Restream));
    world.losing = true;
    world.run();
    sound(&world);
    assert!(world.hub.replica().quarantined.is_some());
    assert_eq!((world.seen.repairs, world.seen.restreams), (2, 1));
}

#[test]
fn a_quarantined_hub_applies_and_acknowledges_but_repairs_nothing() {
    let (mut world, ids) = quarantined();
    world.trace.clear();
    world.update(ids[8], "still taken");
    fill(&mut world, "a", 5);
    world.run();
    assert_eq!(world.hub.replica().cursor, world.owner.head());
    assert!(world.hub.live().contains_key(&ids[8]));
    assert_eq!((count(&world, "Verdict"), count(&world, "Manifest")), (0, 0));
    assert!(world.hub.replica().quarantined.is_some());
}

#[test]
fn an_operator_releases_a_quarantine() {
    let (mut world, _) = quarantined();
    world.losing = false;
    world.release();
    reconnect(&mut world);
    assert_eq!(world.hub.replica().quarantined, None);
    assert_eq!(world.unrest(), None);
}

#[test]
fn equality_releases_a_quarantine_at_a_mark_and_in_a_state() {
    let missing = |world: &World| -> Vec<OpId> {
        world.owner.live().keys().filter(|id| !world.hub.live().contains_key(id)).copied().collect()
    };
    let (mut world, _) = quarantined();
    for id in missing(&world) {
        world.update(id, "sent again");
    }
    settle(&mut world);
    assert_eq!((world.hub.replica().quarantined, world.seen.released_by_equality), (None, 1));

    let (mut world, _) = quarantined();
    world.cut();
    for id in missing(&world) {
        world.delete(id);
    }
    reconnect(&mut world);
    assert_eq!(proposals(&world), [Proposal::InSync]);
    assert_eq!((world.hub.replica().quarantined, world.seen.released_by_equality), (None, 1));
}

#[test]
fn a_changed_view_or_a_new_label_releases_a_quarantine() {
    let (mut world, _) = quarantined();
    world.losing = false;
    world.cut();
    world.granted = "*,!repo:z".parse().unwrap();
    settle(&mut world);
    assert_eq!(world.seen.released_by_view, 1);

    let (mut world, _) = quarantined();
    world.losing = false;
    world.wipe_owner(SMALL);
    settle(&mut world);
    assert_eq!(world.seen.released_by_incarnation, 1);
}

#[test]
fn rows_that_rot_again_and_again_end_in_quarantine_although_each_repair_helps_in_the_end() {
    let (mut world, ids) = synced(10);
    for _ in 0..2 {
        world.losing = true;
        world.lose_row(ids[4]);
        world.create("a", "x", "new");
        // Two repairs end unequal, the third one helps.
        world.run_while(|world, _| {
            world.hub.replica().unequal_repairs.len() % 2 == 0 || world.seen.quarantines > 0
        });
        world.run_while(|world, _| world.hub.replica().unequal_repairs.len() % 2 == 1);
        world.losing = false;
        world.run();
        sound(&world);
    }
    assert!(world.hub.replica().quarantined.is_some());
    assert_eq!(world.seen.repairs, 5);
}

#[test]
fn repairs_of_two_days_do_not_add_up() {
    let (mut world, ids) = synced(10);
    for _ in 0..4 {
        world.losing = true;
        world.lose_row(ids[4]);
        world.create("a", "x", "new");
        world.run_while(|world, _| world.hub.replica().unequal_repairs.is_empty());
        world.losing = false;
        settle(&mut world);
        world.cut();
        world.now += std::time::Duration::from_hours(25);
        world.connect();
    }
    assert_eq!((world.seen.quarantines, world.hub.replica().unequal_repairs.len()), (0, 1));
}

#[test]
fn a_read_that_was_under_way_when_a_restream_begins_is_thrown_away() {
    let mut bench = OwnerBench::differed();
    bench.held = true;
    bench.model.create(Record::for_tests("a", "x", "late"));
    bench.input(Input::Changed);
    bench.sent.clear();
    bench.hear(verdict(Proposal::Restream, Position::ZERO));
    assert!(bench.step(), "the read was under way");
    assert_eq!(bench.sent, []);
    bench.step();
    let [Message::Ops(first)] = &bench.sent[..] else { panic!("{:?}", bench.sent) };
    assert_eq!((first.base, first.operations[0].id.get()), (Position::ZERO, 1));
}

#[test]
fn an_update_below_the_held_modno_is_not_applied_and_ends_in_a_restream() {
    let (mut world, ids) = synced(4);
    world.corrupt_row(ids[0], Modno::new(10_000).unwrap());
    world.update(ids[0], "newer, but below");
    world.run_while(|world, _| world.hub.replica().cursor != world.owner.head());
    assert_eq!(world.hub.live()[&ids[0]].modno.get(), 10_000);
    settle(&mut world);
    assert_eq!(world.seen.restreams, 1);
}
