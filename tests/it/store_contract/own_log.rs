//! The own log against its model, and its promises about numbers, atomicity and crashes.

use opmesh::store::{Change, Edit, Flow, OnceKey, OpRow, OwnChange, Refused, Store};
use opmesh_core::model::{FlowId, Modno, OpId, Record};
use opmesh_core::oracle::{FrameSize, OwnerModel};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::protocol::limits::FRAME_BYTES;
use opmesh_core::session::Read;
use proptest::prelude::*;

use super::support::{OWN, Place, as_sent, rows};

/// As large as the real ones, so that short logs fit in one frame on both sides.
const FRAME: FrameSize = FrameSize { rows: 256, entries: 65_536 };

fn create(text: &str) -> OwnChange {
    OwnChange::Create { flow: Flow::New, record: Record::for_tests("r", "p", text) }
}

fn update(id: OpId, text: &'static str) -> OwnChange {
    let edit = Edit::new(move |old| Ok(Record::for_tests(&old.scope().repo, &old.scope().plan, text)));
    OwnChange::Update { id, expect_modno: None, edit }
}

fn delete(id: OpId) -> OwnChange {
    OwnChange::Delete { id, expect_modno: None }
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Update(u8),
    Delete(u8),
    NewLife,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Create),
        3 => any::<u8>().prop_map(Step::Update),
        3 => any::<u8>().prop_map(Step::Delete),
        1 => Just(Step::NewLife),
    ]
}

async fn take(store: &Store, model: &mut OwnerModel, step: Step) {
    let pick = |n: u8| {
        let nth = usize::from(n) % model.live().len().max(1);
        model.live().keys().nth(nth).copied()
    };
    match step {
        Step::Create(n) => {
            let record =
                Record::for_tests(["a", "b"][usize::from(n % 2)], ["p", "q"][usize::from(n / 2 % 2)], "m");
            let change = OwnChange::Create { flow: Flow::New, record: record.clone() };
            let appended = store.append(vec![change]).await.unwrap();
            assert_eq!(model.create(record), appended[0].id);
        }
        Step::Update(n) => {
            if let Some(id) = pick(n) {
                store.append(vec![update(id, "new")]).await.unwrap();
                model.update(id, "new");
            }
        }
        Step::Delete(n) => {
            if let Some(id) = pick(n) {
                store.append(vec![delete(id)]).await.unwrap();
                model.delete(id);
            }
        }
        Step::NewLife => model.incarnation = store.take_incarnation().await.unwrap(),
    }
}

async fn compare(store: &Store, model: &OwnerModel, view: &View) {
    let view = view.clone();
    let mut reads = vec![Read::Here { view: view.clone() }];
    let head = model.head().modno.get();
    reads.push(Read::Checkpoints { modnos: (1..=head + 2).map(|n| Modno::new(n).unwrap()).collect() });
    for after in [0, head / 2, head] {
        reads.push(Read::Changes {
            after: Modno::new(after).unwrap(),
            view: view.clone(),
            frame_bytes: FRAME_BYTES,
        });
    }
    for lo in [0, 1, head / 2] {
        reads.push(Read::Manifest { lo, view: view.clone() });
    }
    let ids = (1..=head + 2).map(|n| OpId::new(n).unwrap()).collect();
    reads.push(Read::Operations { ids, view, frame_bytes: FRAME_BYTES });
    for read in reads {
        assert_eq!(store.read(read.clone()).await.unwrap(), model.read(read.clone()), "{read:?}");
    }
    assert_eq!(*store.head().borrow(), model.head());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn sessions_read_from_the_store_what_they_read_from_the_model(
        steps in proptest::collection::vec(step(), 1..60),
        view in prop_oneof![Just("*"), Just("repo:a"), Just("*,!plan:p"), Just("repo:none")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new(opmesh::store::DEFAULT_CACHE_ENTRIES).await;
            let store = place.open();
            let mut model = OwnerModel::new(&OWN, store.facts().await.unwrap().incarnation, FRAME);
            let view = View::new(view.parse().unwrap(), Scopes::everything());
            for step in steps {
                take(&store, &mut model, step).await;
            }
            compare(&store, &model, &view).await;
            assert!(store.verify_host(&OWN.key_id()).await.unwrap().equal());
            store.close().await;
            let store = place.open();
            compare(&store, &model, &view).await;
            let sent: std::collections::BTreeMap<_, _> =
                rows(&store, OWN.key_id()).await.iter().map(|row| (row.id, as_sent(row))).collect();
            assert_eq!(&sent, model.live());
        });
    }
}

#[tokio::test]
async fn one_bad_change_undoes_the_whole_call_and_is_named_by_its_index() {
    let place = Place::new(10).await;
    let store = place.open();
    let first = store.append(vec![create("one")]).await.unwrap()[0];
    let before = store.facts().await.unwrap();
    let missing = OpId::new(999).unwrap();
    let error = store.append(vec![create("two"), update(first.id, "x"), delete(missing)]).await.unwrap_err();
    assert_eq!((error.index, error.reason), (2, Refused::NoSuchOperation(missing)));
    assert_eq!(store.facts().await.unwrap(), before);
    let next = store.append(vec![create("three")]).await.unwrap()[0];
    assert_eq!(next.modno.get(), 2, "the modno of a change that did not happen is the next one's");
    assert!(next.id > first.id, "but its id is not given out again");
    assert!(store.verify_host(&OWN.key_id()).await.unwrap().equal());
}

#[tokio::test]
async fn changes_are_refused_for_the_reason_that_holds() {
    let place = Place::new(10).await;
    let store = place.open();
    let one = store.append(vec![create("one")]).await.unwrap()[0];
    let refused = |change| {
        let store = store.clone();
        async move { store.append(vec![change]).await.unwrap_err().reason }
    };
    let wrong = Some(Modno::new(9).unwrap());
    let stale = Refused::Stale { id: one.id, expected: Modno::new(9).unwrap(), found: one.modno };
    assert_eq!(refused(OwnChange::Delete { id: one.id, expect_modno: wrong }).await, stale);
    let no_flow = FlowId::new(77).unwrap();
    let record = Record::for_tests("r", "p", "m");
    let join = OwnChange::Create { flow: Flow::Join(no_flow), record };
    assert_eq!(refused(join).await, Refused::NoSuchFlow(no_flow));
    let moved = Edit::new(|_| Ok(Record::for_tests("other", "p", "m")));
    let moved = OwnChange::Update { id: one.id, expect_modno: None, edit: moved };
    assert_eq!(refused(moved).await, Refused::Fixed { id: one.id, what: "repo_id" });
    let unwilling = Edit::new(|_| Err("no".to_owned()));
    let unwilling = OwnChange::Update { id: one.id, expect_modno: Some(one.modno), edit: unwilling };
    assert_eq!(refused(unwilling).await, Refused::Edit("no".to_owned()));
}

#[tokio::test]
async fn a_spooled_result_is_taken_in_once_also_after_a_restart() {
    let place = Place::new(10).await;
    let store = place.open();
    let key = OnceKey([4; 16]);
    assert_eq!(store.append_once(key, vec![create("x")]).await.unwrap().unwrap().len(), 1);
    store.close().await;
    let store = place.open();
    assert_eq!(store.append_once(key, vec![create("x")]).await.unwrap(), None);
    assert_eq!(store.facts().await.unwrap().set.count(), 1);
}

#[tokio::test]
async fn a_key_whose_append_was_refused_can_be_used_again() {
    let place = Place::new(10).await;
    let store = place.open();
    let key = OnceKey([4; 16]);
    store.append_once(key, vec![delete(OpId::new(5).unwrap())]).await.unwrap_err();
    assert!(store.append_once(key, vec![create("x")]).await.unwrap().is_some());
}

#[tokio::test]
async fn ids_of_a_crashed_process_are_never_given_out_again() {
    let mut place = Place::new(10).await;
    let mut last = 0;
    for _ in 0..3 {
        let store = place.open();
        let appended = store.append(vec![create("a"), create("b")]).await.unwrap();
        assert!(appended[0].id.get() > last && appended[0].flow_id.get() > last);
        assert!(appended[1].id > appended[0].id);
        last = appended[1].id.get();
        place = place.after_a_crash();
        assert_eq!(*place.open().head().borrow(), *store.head().borrow());
    }
}

#[tokio::test]
async fn an_orderly_end_wastes_no_ids() {
    let place = Place::new(10).await;
    for expected in 1..4 {
        let store = place.open();
        let appended = store.append(vec![create("a")]).await.unwrap();
        assert_eq!((appended[0].id.get(), appended[0].flow_id.get()), (expected, expected));
        store.close().await;
    }
}

#[tokio::test]
async fn watchers_hear_of_changes_in_commit_order() {
    let place = Place::new(10).await;
    let store = place.open();
    let mut events = store.subscribe().await.unwrap();
    let id = store.append(vec![create("a")]).await.unwrap()[0].id;
    store.append(vec![update(id, "b"), delete(id)]).await.unwrap();
    store.append(vec![create("never"), delete(id)]).await.unwrap_err();
    let mut heard = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert_eq!(event.operation.id, id);
        heard.push(event.change);
    }
    assert_eq!(heard, vec![Change::Created, Change::Updated, Change::Deleted]);
}

#[tokio::test]
async fn who_begins_to_listen_during_a_transaction_reads_the_change_or_hears_of_it() {
    let place = Place::new(10).await;
    let store = place.open();
    let id = store.append(vec![create("before")]).await.unwrap()[0].id;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (began, beginning) = tokio::sync::oneshot::channel();
    let edit = Edit::new(move |_| {
        began.send(()).unwrap();
        held.recv().unwrap();
        Ok(Record::for_tests("r", "p", "after"))
    });
    let change = OwnChange::Update { id, expect_modno: None, edit };
    let mut writing = Box::pin(store.append(vec![change]));
    let mut listening = Box::pin(async {
        let events = store.subscribe().await.unwrap();
        (events, store.operation(id).await.unwrap().unwrap())
    });
    tokio::select! {
        biased;
        _ = &mut writing => panic!("it is held"),
        _ = &mut listening => panic!("nothing was committed"),
        holds = beginning => holds.unwrap(),
    }
    release.send(()).unwrap();
    writing.await.unwrap();
    let (mut events, read) = listening.await;
    let is_new = |row: &OpRow| row.record == Some(Record::for_tests("r", "p", "after"));
    assert!(is_new(&read) || events.try_recv().is_ok_and(|event| is_new(&event.operation)));
}
