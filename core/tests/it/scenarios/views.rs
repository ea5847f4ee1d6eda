//! What a hub may see changes.

use opmesh_core::permission::Scopes;
use opmesh_core::protocol::EndReason;

use super::*;

fn grant(world: &mut World, scopes: &str) {
    world.close(EndReason::GrantsChanged);
    world.trace.clear();
    world.granted = scopes.parse().unwrap();
}

#[test]
fn narrowing_parks_what_left_and_widening_brings_what_joined() {
    let mut world = world();
    let (a, b) = (fill(&mut world, "a", 4), fill(&mut world, "b", 4));
    settle(&mut world);
    grant(&mut world, "repo:a");
    settle(&mut world);
    assert_eq!(world.hub.live().keys().copied().collect::<Vec<_>>(), a);
    assert_eq!(parked(&world, ParkReason::View), b);
    assert_eq!(count(&world, "Manifest"), 0, "nothing joined");
    world.update(b[0], "unseen");
    grant(&mut world, "*");
    settle(&mut world);
    assert!(matches!(proposals(&world)[..], [Proposal::Diff { done: 0 }]));
    assert_eq!(sent(&world), b);
    assert!(world.hub.parked.is_empty(), "an equal mark retires the copies");
}

#[test]
fn what_left_the_view_for_good_stays_set_aside() {
    let mut world = world();
    fill(&mut world, "a", 4);
    let b = fill(&mut world, "b", 4);
    settle(&mut world);
    grant(&mut world, "repo:a");
    for id in &b {
        world.delete(*id);
    }
    for _ in 0..3 {
        world.create("a", "x", "more");
        settle(&mut world);
        reconnect(&mut world);
    }
    assert_eq!(parked(&world, ParkReason::View), b);
}

#[test]
fn copies_that_an_equal_mark_would_erase_in_mass_are_kept_by_the_guard() {
    let mut world = world();
    fill(&mut world, "a", 2);
    let b = fill(&mut world, "b", 10);
    settle(&mut world);
    grant(&mut world, "repo:a");
    settle(&mut world);
    for id in &b[..9] {
        world.delete(*id);
    }
    grant(&mut world, "*");
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Guard), b[..9]);
    assert_eq!(world.hub.parked.len(), 9);
}

#[test]
fn a_copy_or_two_that_the_owner_deleted_meanwhile_go_with_the_equal_mark() {
    let mut world = world();
    fill(&mut world, "a", 10);
    let b = fill(&mut world, "b", 10);
    settle(&mut world);
    grant(&mut world, "repo:a");
    settle(&mut world);
    world.delete(b[0]);
    world.delete(b[1]);
    grant(&mut world, "*");
    settle(&mut world);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn empty_grants_show_nothing_and_keep_everything() {
    let mut world = world();
    let ids = fill(&mut world, "a", 5);
    settle(&mut world);
    grant(&mut world, "*");
    world.granted = Scopes::nothing();
    settle(&mut world);
    world.create("a", "x", "unseen");
    settle(&mut world);
    assert!(world.hub.live().is_empty());
    assert_eq!(parked(&world, ParkReason::View), ids);
    assert_eq!(sent(&world), []);
    grant(&mut world, "*");
    settle(&mut world);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn a_hub_that_accepts_less_narrows_the_view_as_well() {
    let mut world = world();
    let (a, b) = (fill(&mut world, "a", 3), fill(&mut world, "b", 3));
    settle(&mut world);
    world.close(EndReason::GrantsChanged);
    world.accepted = "*,!repo:b".parse().unwrap();
    settle(&mut world);
    assert_eq!(world.hub.live().keys().copied().collect::<Vec<_>>(), a);
    assert_eq!(parked(&world, ParkReason::View), b);
}

#[test]
fn a_view_that_changes_during_a_diff_begins_it_anew() {
    let mut world = world();
    fill(&mut world, "a", 2);
    fill(&mut world, "b", 20);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    grant(&mut world, "*");
    world.connect();
    world.run_while(|world, _| world.hub.replica().diff.is_none_or(|diff| diff.done < 8));
    // Narrower than the diff under way, and yet the diff is owed: what it staged is forgotten.
    grant(&mut world, "*,!plan:z");
    settle(&mut world);
    assert!(matches!(proposals(&world)[..], [Proposal::Diff { done: 0 }]));
    assert_eq!(world.hub.live().len(), 22);
    assert!(world.hub.parked.is_empty());
}

#[test]
fn an_equal_mark_over_a_narrower_view_does_not_erase_what_a_restream_set_aside() {
    let mut world = world();
    let a = fill(&mut world, "a", 2);
    let b = fill(&mut world, "b", 1);
    fill(&mut world, "a", 20);
    settle(&mut world);
    world.corrupt_row(a[0], opmesh_core::model::Modno::new(10_000).unwrap());
    world.create("a", "x", "one more");
    // The re-stream has parked everything and not begun.
    world.run_while(|world, _| parked(world, ParkReason::Restream).is_empty());
    assert_eq!(parked(&world, ParkReason::Restream).len(), 24);
    grant(&mut world, "repo:a");
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Restream), b);
}
