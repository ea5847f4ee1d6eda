//! Histories that do not continue: older copies, empty databases, clones.

use std::collections::BTreeSet;
use std::convert::Infallible;

use opmesh_core::model::Incarnation;
use opmesh_core::oracle::{HubModel, OwnerModel};
use opmesh_core::protocol::Violation;
use opmesh_core::replica::{Rows, accept_presented, refuse_presented};
use opmesh_core::session::Finish;

use crate::world::Version;

use super::*;

/// A database and what only the test knows about it.
type Database = (OwnerModel, BTreeSet<Version>);

fn database(world: &World) -> Database {
    (world.owner.clone(), world.history.clone())
}

fn run_on(world: &mut World, (owner, history): Database) {
    world.cut();
    world.trace.clear();
    world.owner = owner;
    world.history = history;
}

fn is_superseded(world: &mut World, label: Incarnation) -> bool {
    let known: Result<bool, Infallible> = world.hub.is_superseded(label);
    known.unwrap()
}

/// Ten common rows, ten more at the hub, and then the owner is the older copy.
fn restored_from_an_older_copy() -> (World, Vec<OpId>) {
    let mut world = world();
    fill(&mut world, "a", 10);
    settle(&mut world);
    let copy = database(&world);
    let dead = fill(&mut world, "a", 10);
    settle(&mut world);
    run_on(&mut world, copy);
    (world, dead)
}

#[test]
fn an_owner_that_is_behind_the_hub_is_a_fork_found_in_one_exchange() {
    let (mut world, dead) = restored_from_an_older_copy();
    let label = world.owner.incarnation;
    settle(&mut world);
    assert_eq!(names(&world)[..3], ["State", "Verdict", "Matchpoint"]);
    assert_eq!(parked(&world, ParkReason::Fork), dead);
    assert_eq!(world.hub.parked.len(), dead.len());
    assert_ne!(world.owner.incarnation, label);
    assert!(is_superseded(&mut world, label));
    reconnect(&mut world);
    assert_eq!(names(&world), ["State", "Verdict"]);
}

#[test]
fn an_owner_that_has_counted_past_the_hub_is_a_fork_all_the_same() {
    let (mut world, dead) = restored_from_an_older_copy();
    fill(&mut world, "b", 15);
    assert!(world.owner.head().modno > world.hub.replica().newest.modno);
    settle(&mut world);
    assert_eq!(names(&world)[..3], ["State", "Verdict", "Matchpoint"]);
    assert_eq!(parked(&world, ParkReason::Fork), dead);
    assert_eq!(world.hub.live().len(), 25);
}

#[test]
fn an_older_copy_whose_set_is_equal_keeps_what_was_set_aside() {
    let mut world = world();
    let ids = fill(&mut world, "a", 3);
    world.create("b", "x", "kept");
    let copy = database(&world);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    world.granted = "*".parse().unwrap();
    world.cut();
    let gone = world.create("b", "x", "only at the hub");
    settle(&mut world);
    world.cut();
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    run_on(&mut world, copy);
    settle(&mut world);
    assert_eq!(proposals(&world), [Proposal::InSync]);
    world.cut();
    world.granted = "*".parse().unwrap();
    settle(&mut world);
    assert_eq!(world.hub.live().len(), ids.len() + 1);
    assert_eq!(parked(&world, ParkReason::Fork), [gone]);
}

#[test]
fn a_wiped_hub_is_filled_again() {
    let mut world = world();
    fill(&mut world, "a", 10);
    settle(&mut world);
    world.hub = HubModel::new(&world.key);
    reconnect(&mut world);
    assert_eq!(sent(&world).len(), 10);
    assert_eq!((count(&world, "Manifest"), world.seen.forks, world.hub.parked.len()), (0, 0, 0));
}

#[test]
fn a_hub_restored_from_a_copy_resumes_from_it() {
    let mut world = world();
    let ids = fill(&mut world, "a", 10);
    settle(&mut world);
    let copy = world.hub.clone();
    world.delete(ids[3]);
    world.update(ids[4], "later");
    let more = fill(&mut world, "a", 5);
    settle(&mut world);
    world.hub = copy;
    reconnect(&mut world);
    assert_eq!(sent(&world).len(), more.len() + 1);
    assert_eq!((count(&world, "Manifest"), world.seen.forks, world.hub.parked.len()), (0, 0, 0));
}

#[test]
fn an_owner_wiped_with_its_old_key_erases_nothing_and_its_label_is_superseded() {
    let mut world = world();
    let ids = fill(&mut world, "a", 10);
    settle(&mut world);
    let label = world.owner.incarnation;
    world.wipe_owner(SMALL);
    world.trace.clear();
    settle(&mut world);
    assert_eq!(names(&world)[..3], ["State", "Verdict", "Matchpoint"]);
    assert_eq!(parked(&world, ParkReason::Fork), ids);
    assert!(is_superseded(&mut world, label));
    let again = fill(&mut world, "b", 4);
    settle(&mut world);
    assert_eq!(again, ids[..4], "a wiped owner counts from one again");
    assert_eq!(parked(&world, ParkReason::Fork), ids);
}

#[test]
fn an_owner_wiped_and_rewritten_before_it_connects_erases_nothing() {
    let mut world = world();
    let ids = fill(&mut world, "a", 10);
    settle(&mut world);
    world.wipe_owner(SMALL);
    fill(&mut world, "b", 20);
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Fork), ids);
    assert_eq!(world.hub.live().len(), 20);
}

/// Two machines with one identity. By night the clone runs, by day the first one; the day has the newer label.
fn day_and_night() -> (World, Database, Database) {
    let mut world = world();
    fill(&mut world, "a", 5);
    settle(&mut world);
    let night = database(&world);
    let day = database(&world);
    run_on(&mut world, night);
    fill(&mut world, "a", 2);
    settle(&mut world);
    let night = database(&world);
    run_on(&mut world, day);
    fill(&mut world, "b", 3);
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Fork).len(), 2);
    let day = database(&world);
    run_on(&mut world, night.clone());
    (world, day, night)
}

fn is_refused(world: &mut World) {
    let before = (world.hub.live().clone(), world.hub.parked.clone());
    world.endings.clear();
    world.connect();
    world.run();
    let presented = world.owner.incarnation;
    let violation = Violation::SupersededIncarnation { presented };
    assert_eq!(world.endings, [Finish::Violation(violation)]);
    assert_eq!(world.hub.replica().conflict, Some(presented));
    assert_eq!((world.hub.live().clone(), world.hub.parked.clone()), before);
    sound(world);
}

#[test]
fn a_clone_that_presents_a_superseded_label_is_refused_until_an_operator_decides() {
    let (mut world, day, night) = day_and_night();
    is_refused(&mut world);
    run_on(&mut world, day);
    settle(&mut world);
    assert!(world.hub.replica().conflict.is_some(), "the note stays until an operator decides");
    run_on(&mut world, night);
    is_refused(&mut world);
}

#[test]
fn accepting_the_clone_makes_it_current_and_the_other_one_superseded() {
    let (mut world, day, night) = day_and_night();
    is_refused(&mut world);
    let decided: Result<bool, Infallible> = accept_presented(&mut world.hub);
    assert_eq!(decided, Ok(true));
    settle(&mut world);
    assert_eq!(world.hub.live().len(), 7);
    assert_eq!(world.hub.replica().conflict, None);
    assert_eq!(parked(&world, ParkReason::Fork).len(), 3, "what the day wrote is set aside");
    assert_ne!(world.owner.incarnation, night.0.incarnation, "a fork has a label of its own");
    run_on(&mut world, day);
    is_refused(&mut world);
}

#[test]
fn refusing_the_clone_leaves_it_refused() {
    let (mut world, day, night) = day_and_night();
    is_refused(&mut world);
    let decided: Result<bool, Infallible> = refuse_presented(&mut world.hub);
    assert_eq!(decided, Ok(true));
    assert_eq!(world.hub.replica().conflict, None);
    run_on(&mut world, day);
    settle(&mut world);
    run_on(&mut world, night);
    is_refused(&mut world);
    let decided: Result<bool, Infallible> = refuse_presented(&mut world.hub);
    assert_eq!(decided, Ok(true));
    let nothing: Result<bool, Infallible> = accept_presented(&mut world.hub);
    assert_eq!(nothing, Ok(false));
}

#[test]
fn a_fork_during_a_diff_drops_it_and_loses_nothing() {
    let mut world = world();
    fill(&mut world, "a", 6);
    let copy = database(&world);
    let dead = fill(&mut world, "b", 20);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    world.cut();
    world.granted = "*".parse().unwrap();
    world.connect();
    world.run_while(|world, _| world.hub.replica().diff.is_none_or(|diff| diff.done < 12));
    let held: Vec<_> = world.hub.live().keys().copied().filter(|id| dead.contains(id)).collect();
    assert!(!held.is_empty() && held.len() < dead.len());
    run_on(&mut world, copy);
    settle(&mut world);
    assert_eq!(parked(&world, ParkReason::Fork), held);
}

#[test]
fn a_manifest_that_was_not_answered_leaves_nothing_behind() {
    let mut world = world();
    let ids = fill(&mut world, "a", 3);
    fill(&mut world, "b", 3);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    world.cut();
    world.granted = "*".parse().unwrap();
    let before = database(&world);
    // The manifest does not list what is deleted here, and then the delete never happened.
    world.delete(ids[0]);
    world.connect();
    world.run_while(|world, _| count(world, "Need") == 0);
    assert!(world.hub.replica().diff.is_some_and(|diff| diff.start.is_none()), "nothing was answered");
    run_on(&mut world, before);
    settle(&mut world);
    assert_eq!(world.seen.forks, 0, "the hub has stored nothing of what never happened");
    assert_eq!((world.seen.differs, world.hub.parked.len()), (0, 0));
}

#[test]
fn what_a_dropped_diff_has_staged_is_forgotten() {
    let mut world = world();
    let ids = fill(&mut world, "a", 3);
    fill(&mut world, "b", 20);
    world.granted = "repo:a".parse().unwrap();
    settle(&mut world);
    world.cut();
    world.granted = "*".parse().unwrap();
    let before = database(&world);
    world.delete(ids[0]);
    world.connect();
    world.run_while(|world, _| world.hub.replica().diff.is_none_or(|diff| diff.done <= ids[0].get()));
    run_on(&mut world, before);
    settle(&mut world);
    assert_eq!((world.seen.forks, world.seen.differs), (1, 0));
    assert!(world.hub.live().contains_key(&ids[0]), "it was never deleted");
}
