//! Lists: pages, filters, hosts and what freshness is judged by.

use opmesh::clock::Clock;
use opmesh::store::{Flow, OpsQuery, OwnChange, Store};
use opmesh_core::model::{Kind, Record, Status, UnixMs};

use super::support::{OWN, Place, rows};

/// A record with everything that lists filter by.
fn record(repo: &str, plan: &str, kind: Kind, status: Status, start: u8, end: u8) -> Record {
    let mut bytes = Vec::new();
    for (field, text) in [(2_u8, repo), (3, plan)] {
        bytes.push(field << 3 | 2);
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    let status = u8::try_from(status.number()).unwrap();
    bytes.extend_from_slice(&[4 << 3, status, 5 << 3, start, 6 << 3, end]);
    let key = kind.field() << 3 | 2;
    bytes.extend_from_slice(&[u8::try_from(key & 0x7f).unwrap() | 0x80, u8::try_from(key >> 7).unwrap(), 0]);
    Record::parse(bytes).unwrap()
}

async fn filled(store: &Store) {
    let mut changes = Vec::new();
    for n in 0..40_u8 {
        let repo = ["a", "b"][usize::from(n % 2)];
        let plan = ["p", "q", "r"][usize::from(n % 3)];
        let kind = [Kind::Backup, Kind::Prune][usize::from(n / 2 % 2)];
        let status = [Status::Success, Status::Error, Status::InProgress][usize::from(n / 4 % 3)];
        let record = record(repo, plan, kind, status, 10 + n / 2, 60 + n);
        changes.push(OwnChange::Create { flow: Flow::New, record });
    }
    store.append(changes).await.unwrap();
}

#[tokio::test]
async fn pages_put_together_are_the_whole_list_newest_first() {
    let place = Place::new(10).await;
    let store = place.open();
    filled(&store).await;
    let rows = rows(&store, OWN.key_id()).await;
    let order: Vec<_> = rows.iter().map(|row| (row.columns.start_unix_ms, row.id)).collect();
    assert_eq!(order.len(), 40);
    assert!(order.is_sorted_by(|newer, older| newer > older));
    let page = store.operations(OpsQuery::default()).await.unwrap();
    assert_eq!((page.rows, page.next), (rows, None));
}

#[tokio::test]
async fn filters_are_anded_and_their_values_ored() {
    let place = Place::new(10).await;
    let store = place.open();
    filled(&store).await;
    let all = rows(&store, OWN.key_id()).await;
    let query = OpsQuery {
        repos: vec!["a".to_owned()],
        plans: vec!["p".to_owned(), "q".to_owned()],
        kinds: vec![Kind::Backup],
        statuses: vec![Status::Success, Status::Error],
        since: Some(UnixMs(12)),
        until: Some(UnixMs(25)),
        ..OpsQuery::default()
    };
    let found = store.operations(query).await.unwrap().rows;
    let expected: Vec<_> = all
        .iter()
        .filter(|row| row.scope.repo == "a" && row.scope.plan != "r" && row.columns.kind == Kind::Backup)
        .filter(|row| row.columns.status != Status::InProgress)
        .filter(|row| (12..25).contains(&row.columns.start_unix_ms))
        .cloned()
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
    let flow = OpsQuery { flows: vec![all[3].flow_id], ..OpsQuery::default() };
    assert_eq!(store.operations(flow).await.unwrap().rows, vec![all[3].clone()]);
    let nowhere = OpsQuery { repos: vec!["none".to_owned()], ..OpsQuery::default() };
    assert!(store.operations(nowhere).await.unwrap().rows.is_empty());
    let unfinished = store.unfinished().await.unwrap();
    assert_eq!(unfinished.len(), all.iter().filter(|row| row.columns.status == Status::InProgress).count());
}

#[tokio::test]
async fn a_success_without_an_end_counts_from_its_start_and_one_without_either_from_its_receipt() {
    let place = Place::new(10).await;
    let store = place.open();
    let before = Clock::system().wall();
    for (plan, start) in [("started", 30), ("timeless", 0)] {
        let record = record("a", plan, Kind::Backup, Status::Success, start, 0);
        store.append(vec![OwnChange::Create { flow: Flow::New, record }]).await.unwrap();
    }
    let plans = store.plans(None).await.unwrap();
    assert_eq!(plans[0].last_success_unix_ms, Some(UnixMs(30)));
    let received = plans[1].last_success_unix_ms.unwrap();
    assert!((before..=Clock::system().wall()).contains(&received));
    let host = store.hosts().await.unwrap().remove(0);
    assert_eq!(host.last_success_unix_ms, Some(received));
}

#[tokio::test]
async fn freshness_is_judged_by_the_newest_backups_and_never_by_a_time_after_their_receipt() {
    let place = Place::new(10).await;
    let store = place.open();
    let runs = [
        (Kind::Backup, Status::Success, 10, 20),
        (Kind::Backup, Status::Warning, 30, 40),
        (Kind::Backup, Status::Error, 50, 60),
        (Kind::Backup, Status::InProgress, 70, 0),
        (Kind::Prune, Status::Success, 90, 100),
    ];
    for (kind, status, start, end) in runs {
        let change =
            OwnChange::Create { flow: Flow::New, record: record("a", "p", kind, status, start, end) };
        store.append(vec![change]).await.unwrap();
    }
    let plan = store.plans(None).await.unwrap().remove(0);
    assert_eq!(plan.last_start_unix_ms, Some(UnixMs(70)));
    assert_eq!(plan.last_finished, Some(Status::Error));
    assert_eq!(plan.last_success_unix_ms, Some(UnixMs(40)));
    assert!(plan.running);
    let host = store.hosts().await.unwrap().remove(0);
    assert!(host.is_self);
    assert_eq!((host.last_run_unix_ms, host.last_success_unix_ms), (Some(UnixMs(90)), Some(UnixMs(40))));
    assert_eq!(host.set.count(), 5);
}
