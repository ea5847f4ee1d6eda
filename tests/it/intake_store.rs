//! A run's beginning and end in a real store: once each, whoever hands them in and in whatever order.

use opmesh::clock::Clock;
use opmesh::intake::{Begun, RecordFault, Recorder, RunKey, RunResult, RunStart, RunStep};
use opmesh::record::Draft;
use opmesh::store::{OpRow, OpsQuery, OwnChange, Store};
use opmesh_core::model::{FlowId, Kind, OpId, PublicKey, Status};

struct House {
    _folder: tempfile::TempDir,
    store: Store,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::create(&folder.path().join("opmesh.db"), PublicKey([7; 32]), Clock::system()).unwrap();
        Self { _folder: folder, store }
    }

    /// Oldest first.
    async fn rows(&self) -> Vec<OpRow> {
        let mut rows = self.store.operations(OpsQuery::default()).await.unwrap().rows;
        rows.reverse();
        rows
    }

    async fn drafts(&self) -> Vec<Draft> {
        self.rows().await.iter().map(|row| Draft::decode(row.record.as_ref().unwrap())).collect()
    }
}

fn start(flow: Option<u64>) -> RunStart {
    let operation = Draft::new(Kind::Backup, Status::InProgress, "r", "p", 1_000);
    RunStart { key: RunKey::random().unwrap(), flow, operation, pid: 1 }
}

fn ended(start: &RunStart, begun: Option<Begun>, snapshots: &[&str]) -> RunResult {
    let operations = snapshots.iter().map(|id| Draft {
        status: Status::Success,
        end_unix_ms: Some(2_000),
        snapshot_id: (*id).to_owned(),
        ..start.operation.clone()
    });
    RunResult { start: start.clone(), begun, step: RunStep::Ended, operations: operations.collect() }
}

#[tokio::test]
async fn a_run_is_one_operation_that_begins_and_ends() {
    let house = House::new();
    let start = start(None);
    let begun = house.store.begin(&start).await.unwrap();
    assert_eq!(house.drafts().await, std::slice::from_ref(&start.operation));
    let result = ended(&start, Some(begun), &["s1"]);
    for _ in 0..3 {
        house.store.finish(&result).await.unwrap();
        assert_eq!(house.drafts().await, result.operations);
    }
    assert_eq!(house.rows().await[0].id, begun.id);
}

#[tokio::test]
async fn further_snapshots_are_operations_of_the_same_flow() {
    for with_beginning in [true, false] {
        let house = House::new();
        let start = start(None);
        if with_beginning {
            house.store.begin(&start).await.unwrap();
        }
        let result = ended(&start, None, &["s1", "s2", "s3"]);
        for _ in 0..2 {
            house.store.finish(&result).await.unwrap();
            let rows = house.rows().await;
            assert_eq!(house.drafts().await, result.operations);
            assert!(rows.iter().all(|row| row.flow_id == rows[0].flow_id));
        }
    }
}

#[tokio::test]
async fn a_result_without_a_beginning_is_taken_in_once_and_a_late_beginning_is_refused() {
    let house = House::new();
    let start = start(None);
    let result = ended(&start, None, &["s1"]);
    house.store.finish(&result).await.unwrap();
    house.store.finish(&result).await.unwrap();
    assert!(matches!(house.store.begin(&start).await, Err(RecordFault::Refused(_))));
    assert_eq!(house.drafts().await, result.operations);
}

#[tokio::test]
async fn a_beginning_whose_answer_was_lost_is_found_by_its_end() {
    let house = House::new();
    let (lost, other) = (start(None), start(None));
    let other = RunStart { operation: Draft { start_unix_ms: 999, ..other.operation.clone() }, ..other };
    house.store.begin(&other).await.unwrap();
    house.store.begin(&lost).await.unwrap();
    house.store.finish(&ended(&lost, None, &["s1"])).await.unwrap();
    let statuses: Vec<Status> = house.drafts().await.iter().map(|draft| draft.status).collect();
    assert_eq!(statuses, [Status::InProgress, Status::Success]);
}

#[tokio::test]
async fn a_number_from_another_life_of_the_store_is_not_trusted() {
    let house = House::new();
    let mine = start(None);
    let theirs = start(None);
    let theirs = RunStart { operation: Draft { start_unix_ms: 5, ..theirs.operation.clone() }, ..theirs };
    let taken = house.store.begin(&theirs).await.unwrap();
    // The store that gave `mine` this number was replaced by an older copy.
    house.store.finish(&ended(&mine, Some(taken), &["s1"])).await.unwrap();
    let drafts = house.drafts().await;
    assert_eq!(drafts, [theirs.operation, ended(&mine, None, &["s1"]).operations.remove(0)]);
}

#[tokio::test]
async fn a_run_that_is_gone_does_not_undo_an_end_that_was_recorded() {
    let house = House::new();
    let start = start(None);
    let begun = house.store.begin(&start).await.unwrap();
    let gone = Draft { status: Status::SystemCancelled, ..start.operation.clone() };
    let gone = RunResult { start: start.clone(), begun: None, step: RunStep::Gone, operations: vec![gone] };
    let result = ended(&start, Some(begun), &["s1"]);
    house.store.finish(&result).await.unwrap();
    house.store.finish(&gone).await.unwrap();
    assert_eq!(house.drafts().await, result.operations);
}

#[tokio::test]
async fn an_operation_that_was_deleted_meanwhile_stays_deleted() {
    let house = House::new();
    let start = start(None);
    let begun = house.store.begin(&start).await.unwrap();
    house.store.append(vec![OwnChange::Delete { id: begun.id, expect_modno: None }]).await.unwrap();
    house.store.finish(&ended(&start, Some(begun), &["s1"])).await.unwrap();
    assert_eq!(house.drafts().await, []);
}

#[tokio::test]
async fn a_flow_is_joined_when_it_exists_and_a_new_one_begun_when_it_does_not() {
    let house = House::new();
    let outer = house.store.begin(&start(None)).await.unwrap();
    let joined = house.store.begin(&start(Some(outer.flow_id.get()))).await.unwrap();
    assert_eq!(joined.flow_id, outer.flow_id);
    for nonsense in [0, 999_999, u64::MAX] {
        let own = house.store.begin(&start(Some(nonsense))).await.unwrap();
        assert_ne!(own.flow_id, outer.flow_id);
    }
}

#[test]
fn what_is_handed_over_survives_as_text() {
    let start = start(Some(5));
    let begun = Begun { id: OpId::new(7).unwrap(), flow_id: FlowId::new(8).unwrap() };
    let result = ended(&start, Some(begun), &["s1", "s2"]);
    let text = serde_json::to_string(&result).unwrap();
    assert_eq!(serde_json::from_str::<RunResult>(&text).unwrap(), result);
    assert!(serde_json::from_str::<RunStart>("{}").is_err());
}
