//! Making, opening and ending a store; files that are not ours, newer, or damaged.

use std::os::unix::fs::PermissionsExt as _;

use opmesh::clock::Clock;
use opmesh::store::{Flow, OpenOptions, OwnChange, Refused, Store, StoreError};

use super::support::{OWN, Place, key};

#[tokio::test]
async fn a_store_is_readable_by_its_owner_alone() {
    let place = Place::new(10).await;
    let store = place.open();
    store.set_instance("web".parse().unwrap()).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", place.path().display());
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn a_store_is_never_made_over_another_file() {
    let place = Place::new(10).await;
    let again = Store::create(&place.path(), OWN, Clock::system());
    assert_eq!(again.unwrap_err(), StoreError::Exists { path: place.path() });
    assert!(place.try_open().is_ok());
}

#[test]
fn a_missing_store_is_named() {
    let place = Place::empty(10);
    assert_eq!(place.try_open().unwrap_err(), StoreError::Missing { path: place.path() });
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_both_numbers_and_nothing_is_touched() {
    let place = Place::new(10).await;
    place.tamper("PRAGMA user_version = 7; PRAGMA wal_checkpoint(TRUNCATE);");
    let before = std::fs::read(place.path()).unwrap();
    let refused = place.try_open().unwrap_err();
    assert_eq!(refused, StoreError::NewerSchema { path: place.path(), found: 7, known: 2 });
    assert!(refused.to_string().contains("schema 7") && refused.to_string().contains("up to 2"));
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_alone() {
    let foreign = Place::empty(10);
    foreign.tamper("CREATE TABLE mine (x); INSERT INTO mine VALUES (1);");
    let text = Place::empty(10);
    std::fs::write(text.path(), "just some notes").unwrap();
    let nothing = Place::empty(10);
    std::fs::write(nothing.path(), "").unwrap();
    for place in [foreign, text, nothing] {
        let before = std::fs::read(place.path()).unwrap();
        assert_eq!(place.try_open().unwrap_err(), StoreError::NotAStore { path: place.path() });
        assert_eq!(std::fs::read(place.path()).unwrap(), before);
    }
}

#[tokio::test]
async fn a_store_that_is_cut_off_is_refused_by_name() {
    let place = Place::new(10).await;
    let whole = std::fs::read(place.path()).unwrap();
    std::fs::write(place.path(), &whole[..5000]).unwrap();
    let refused = place.try_open().unwrap_err();
    assert!(matches!(refused, StoreError::Unusable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("opmesh.db"));
}

#[tokio::test]
async fn a_store_is_refused_to_another_identity() {
    let place = Place::new(10).await;
    let options = OpenOptions { own: key(9), clock: Clock::system(), cache_entries: 0 };
    let refused = Store::open(&place.path(), options).unwrap_err();
    assert!(matches!(refused, StoreError::OtherIdentity { .. }));
}

#[tokio::test]
async fn a_store_that_meets_damage_stops_and_says_so_to_every_later_call() {
    let place = Place::new(10).await;
    place.damage("operations");
    let store = place.open();
    let record = opmesh_core::model::Record::for_tests("r", "p", "m");
    let create = || OwnChange::Create { flow: Flow::New, record: record.clone() };
    let (first, second) = tokio::join!(store.append(vec![create()]), store.append(vec![create()]));
    for stopped in [first, second] {
        let reason = stopped.unwrap_err().reason;
        assert!(matches!(reason, Refused::Store(StoreError::Stopped { .. })), "{reason:?}");
    }
    assert!(matches!(store.take_incarnation().await, Err(StoreError::Stopped { .. })));
    assert!(matches!(store.facts().await, Err(StoreError::Stopped { .. })));
    assert_eq!(*store.head().borrow(), opmesh_core::model::Position::ZERO);
    store.close().await;
}

#[tokio::test]
async fn after_its_end_a_store_answers_that_it_is_closed() {
    let place = Place::new(10).await;
    let store = place.open();
    store.close().await;
    assert_eq!(store.facts().await, Err(StoreError::Closed));
    assert_eq!(store.take_incarnation().await, Err(StoreError::Closed));
    let wal = format!("{}-wal", place.path().display());
    assert!(std::fs::metadata(wal).map_or(0, |data| data.len()) == 0, "the log is copied into the file");
}
