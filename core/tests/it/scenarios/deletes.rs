//! Many rows vanish at once.

use opmesh_core::model::Modno;
use opmesh_core::protocol::EndReason;

use super::*;

const LARGE: FrameSize = FrameSize { rows: 256, entries: 1_000 };

/// The owner deletes these while a diff is owed: the hub learns of it because a list does not name them.
fn vanish_from_a_diff(world: &mut World, ids: &[OpId]) {
    world.granted = "*,!repo:hidden".parse().unwrap();
    settle(world);
    world.close(EndReason::GrantsChanged);
    world.trace.clear();
    world.granted = "*".parse().unwrap();
    for id in ids {
        world.delete(*id);
    }
    settle(world);
    assert!(matches!(proposals(world)[..], [Proposal::Diff { .. }]));
}

#[test]
fn a_diff_that_would_delete_more_than_half_of_a_small_host_parks_it_all() {
    let mut world = world();
    let ids = fill(&mut world, "a", 8);
    vanish_from_a_diff(&mut world, &ids[..5]);
    assert_eq!(parked(&world, ParkReason::Guard), ids[..5]);
    assert_eq!(world.seen.guarded_in_diff, 5);
}

#[test]
fn a_diff_that_deletes_half_of_a_small_host_deletes_it() {
    let mut world = world();
    let ids = fill(&mut world, "a", 8);
    vanish_from_a_diff(&mut world, &ids[..4]);
    assert!(world.hub.parked.is_empty());
    assert_eq!(world.hub.live().len(), 4);
}

#[test]
fn a_diff_that_would_delete_more_than_a_tenth_of_a_large_host_parks_it_all() {
    let mut world = world_with(LARGE);
    let ids = fill(&mut world, "a", 1_200);
    vanish_from_a_diff(&mut world, &ids[..121]);
    assert_eq!(parked(&world, ParkReason::Guard), ids[..121]);
    let mut world = world_with(LARGE);
    let ids = fill(&mut world, "a", 1_200);
    vanish_from_a_diff(&mut world, &ids[..120]);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn tombstones_past_half_of_a_host_are_parked_and_acknowledged_all_the_same() {
    let mut world = world_with(LARGE);
    let ids = fill(&mut world, "a", 250);
    settle(&mut world);
    ids[..150].iter().for_each(|id| world.delete(*id));
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Guard), ids[125..150]);
    assert_eq!(world.hub.replica().cursor, world.owner.head());
    assert_eq!(world.hub.live().len(), 100);
}

#[test]
fn tombstones_may_always_delete_a_hundred() {
    let mut world = world_with(LARGE);
    let ids = fill(&mut world, "a", 101);
    settle(&mut world);
    for id in &ids {
        world.delete(*id);
    }
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Guard), ids[100..]);
}

#[test]
fn deletes_of_two_days_do_not_add_up() {
    let mut world = world_with(LARGE);
    let ids = fill(&mut world, "a", 200);
    settle(&mut world);
    ids[..100].iter().for_each(|id| world.delete(*id));
    settle(&mut world);
    world.cut();
    world.now += std::time::Duration::from_hours(25);
    ids[100..].iter().for_each(|id| world.delete(*id));
    settle(&mut world);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn a_guarded_copy_that_its_owner_sends_again_is_live_again() {
    let mut world = world();
    let ids = fill(&mut world, "a", 8);
    let copy = (world.owner.clone(), world.history.clone());
    vanish_from_a_diff(&mut world, &ids[..5]);
    // The operator brings the host's lost rows back from a copy.
    world.cut();
    (world.owner, world.history) = copy;
    settle(&mut world);
    assert_eq!(world.hub.live().len(), 8);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn a_tombstone_removes_only_an_older_row_and_an_unknown_id_is_no_error() {
    let mut world = world();
    let ids = fill(&mut world, "a", 3);
    settle(&mut world);
    world.corrupt_row(ids[0], Modno::new(1_000).unwrap());
    world.lose_row(ids[1]);
    world.delete(ids[0]);
    world.delete(ids[1]);
    world.connect();
    world.run_while(|world, _| world.hub.replica().cursor != world.owner.head());
    assert!(world.hub.live().contains_key(&ids[0]), "its modno is above the tombstone's");
    assert_eq!(world.fault, None);
}
