//! What owners' frames do to the rows held for them: the same as in the model, at every cache size.

use std::collections::BTreeMap;

use opmesh::clock::Clock;
use opmesh::store::{Epoch, Store, StoreError};
use opmesh_core::model::{Incarnation, KeyId, Modno, OpId, Operation, Position, Record, SetDigest};
use opmesh_core::oracle::{FrameSize, HubModel, OwnerModel};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::protocol::limits::FRAME_BYTES;
use opmesh_core::protocol::{Answer, Mark, Matchpoint, Ops, State, Violation};
use opmesh_core::replica::{Committed, ParkReason, StaleOps, Transaction};
use opmesh_core::session::{Compare, Found, Read};
use proptest::prelude::*;

use super::support::{Place, as_sent, client, key, local_ids, parked, rows};

const FRAME: FrameSize = FrameSize { rows: 5, entries: 7 };
const VIEWS: [&str; 4] = ["*", "repo:a", "*,!plan:p", "repo:b,plan:p"];

/// One step of a schedule.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Update(u8),
    Delete(u8),
    Remember,
    GoBack,
    State(u8),
    StateWithOldLabel,
    Ops(StaleOps),
    OpsFromElsewhere,
    OpsOutsideTheView,
    Diff,
    Mark,
    WrongMark,
    Fork(bool),
    Release,
    TakeOver,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<u8>().prop_map(Step::Create),
        4 => any::<u8>().prop_map(Step::Update),
        4 => any::<u8>().prop_map(Step::Delete),
        1 => Just(Step::Remember),
        1 => Just(Step::GoBack),
        3 => any::<u8>().prop_map(Step::State),
        1 => Just(Step::StateWithOldLabel),
        6 => Just(Step::Ops(StaleOps::Drop)),
        6 => Just(Step::Ops(StaleOps::Refuse)),
        1 => Just(Step::OpsFromElsewhere),
        1 => Just(Step::OpsOutsideTheView),
        8 => Just(Step::Diff),
        3 => Just(Step::Mark),
        3 => Just(Step::WrongMark),
        2 => any::<bool>().prop_map(Step::Fork),
        1 => Just(Step::Release),
        1 => Just(Step::TakeOver),
        1 => Just(Step::Reopen),
    ]
}

/// An owner, the model of its hub, and the real hub.
struct Pair {
    place: Place,
    store: Store,
    key: KeyId,
    epoch: Epoch,
    owner: OwnerModel,
    model: HubModel,
    view: View,
    old_label: Incarnation,
    remembered: Option<OwnerModel>,
    local_ids: BTreeMap<OpId, OpId>,
}

impl Pair {
    async fn new(cache_entries: usize) -> Self {
        let place = Place::new(cache_entries).await;
        let store = place.open();
        let (key_id, epoch) = client(&store, 2).await;
        let label = Incarnation::new(1).unwrap();
        Self {
            place,
            store,
            key: key_id,
            epoch,
            owner: OwnerModel::new(&key(2), label, FRAME),
            model: HubModel::new(&key(2)),
            view: View::new(Scopes::everything(), Scopes::everything()),
            old_label: label,
            remembered: None,
            local_ids: BTreeMap::new(),
        }
    }

    fn some_id(&self, pick: u8) -> Option<OpId> {
        let live = self.owner.live();
        let nth = usize::from(pick) % live.len().max(1);
        live.keys().nth(nth).copied()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Create(n) => {
                let record = Record::for_tests(
                    ["a", "b", "c"][usize::from(n % 3)],
                    ["p", "q"][usize::from(n / 3 % 2)],
                    "m",
                );
                self.owner.create(record);
            }
            Step::Update(n) => {
                if let Some(id) = self.some_id(n) {
                    self.owner.update(id, &n.to_string());
                }
            }
            Step::Delete(n) => {
                if let Some(id) = self.some_id(n) {
                    self.owner.delete(id);
                }
            }
            Step::Remember => self.remembered = Some(self.owner.clone()),
            Step::GoBack => self.owner = self.remembered.clone().unwrap_or_else(|| self.owner.clone()),
            Step::Release => {
                opmesh_core::replica::release(&mut self.model).unwrap();
                self.store.release(&self.key).await.unwrap();
                self.epoch = self.store.take_over(&self.key).await.unwrap().epoch;
            }
            Step::TakeOver => {
                let old = self.epoch;
                self.epoch = self.store.take_over(&self.key).await.unwrap().epoch;
                let mark = Transaction::Mark(Mark { position: Position::ZERO, set: SetDigest::EMPTY });
                let fenced = self.store.submit(&self.key, old, mark).await.await;
                assert_eq!(fenced, Err(StoreError::Fenced));
            }
            Step::Reopen => {
                self.store.close().await;
                self.store = self.place.open();
            }
            frame => {
                if let Some(transaction) = self.transaction(frame) {
                    self.commit(transaction).await;
                }
            }
        }
    }

    fn transaction(&mut self, step: Step) -> Option<Transaction> {
        let replica = self.model.replica().clone();
        match step {
            Step::State(n) => {
                let granted: Scopes = VIEWS[usize::from(n) % VIEWS.len()].parse().unwrap();
                self.view = View::new(granted.clone(), Scopes::everything());
                Some(self.state(self.owner.incarnation, granted))
            }
            Step::StateWithOldLabel => Some(self.state(self.old_label, self.view.granted().clone())),
            Step::Ops(stale) => Some(Transaction::Ops { ops: self.ops(replica.cursor), stale }),
            Step::OpsFromElsewhere => {
                let mut ops = self.ops(replica.cursor);
                ops.base.modno = Modno::MAX;
                Some(Transaction::Ops { ops, stale: StaleOps::Refuse })
            }
            Step::OpsOutsideTheView => {
                let mut ops = self.ops(replica.cursor);
                let mut stranger = self.owner.clone();
                let id = stranger.create(Record::for_tests("c", "p", "secret"));
                ops.operations.push(stranger.live()[&id].clone());
                Some(Transaction::Ops { ops, stale: StaleOps::Refuse })
            }
            Step::Diff => self.answer(),
            Step::Mark => {
                Some(Transaction::Mark(Mark { position: replica.cursor, set: self.owner.set(&self.view) }))
            }
            Step::WrongMark => {
                let set = SetDigest::from_parts([9; 16], 3);
                Some(Transaction::Mark(Mark { position: replica.cursor, set }))
            }
            Step::Fork(common) => {
                let position = common.then_some(replica.cursor).filter(|cursor| *cursor != Position::ZERO);
                self.old_label = self.owner.incarnation;
                self.owner.incarnation = Incarnation::new(self.old_label.get() + 1).unwrap();
                let incarnation = self.owner.incarnation;
                Some(Transaction::Matchpoint(Matchpoint { position, incarnation }))
            }
            _ => None,
        }
    }

    fn state(&self, incarnation: Incarnation, granted: Scopes) -> Transaction {
        let state = State {
            incarnation,
            process: opmesh_core::model::ProcessNonce::new(1).unwrap(),
            head: self.owner.head(),
            granted,
            set: self.owner.set(&self.view),
        };
        Transaction::State { state, accepted: Scopes::everything() }
    }

    fn ops(&self, base: Position) -> Ops {
        let read = Read::Changes { after: base.modno, view: self.view.clone(), frame_bytes: FRAME_BYTES };
        let Found::Changes(found) = self.owner.read(read) else { unreachable!() };
        Ops {
            base,
            end: found.end,
            as_of: found.as_of,
            operations: found.operations,
            tombstones: found.tombstones,
        }
    }

    fn answer(&self) -> Option<Transaction> {
        let compare = self.comparison(self.model.replica().diff?.done);
        let ids = self.model.compare(&compare);
        let read = Read::Operations { ids: ids.clone(), view: self.view.clone(), frame_bytes: FRAME_BYTES };
        let Found::Operations(found) = self.owner.read(read) else { unreachable!() };
        let hi = ids.get(found.settled).map_or(compare.hi, |id| id.get());
        let answer = Answer {
            hi,
            as_of: found.as_of,
            operations: found.operations,
            gone: found.gone,
            last: hi == OpId::END,
        };
        let listed = compare.entries.iter().map(|(id, _)| *id).collect();
        Some(Transaction::Answer { answer, listed, as_of: self.owner.head() })
    }

    fn comparison(&self, lo: u64) -> Compare {
        let read = Read::Manifest { lo, view: self.view.clone() };
        let Found::Manifest(page) = self.owner.read(read) else { unreachable!() };
        Compare { lo, hi: page.hi, entries: page.entries }
    }

    async fn commit(&mut self, transaction: Transaction) {
        if matches!(transaction, Transaction::Answer { .. }) {
            let compare = self.comparison(self.model.replica().diff.unwrap().done);
            let found = self.store.compare(&self.key, compare.clone()).await.unwrap();
            assert_eq!(found, self.model.compare(&compare));
        }
        let expected = self.model.commit(transaction.clone(), Clock::system().wall());
        let found = self.store.submit(&self.key, self.epoch, transaction).await.await.unwrap();
        assert_eq!(found, expected);
        self.check().await;
    }

    async fn check(&mut self) {
        let rows = rows(&self.store, self.key).await;
        let live: BTreeMap<OpId, Operation> =
            rows.iter().map(|row| (row.original_id, as_sent(row))).collect();
        assert_eq!(&live, self.model.live());
        for (id, local) in local_ids(&rows) {
            assert_eq!(*self.local_ids.entry(id).or_insert(local), local, "the local id of {id} moved");
        }
        let sorted = |mut copies: Vec<(Operation, ParkReason)>| {
            copies.sort_by_key(|(row, reason)| (row.id, row.modno, row.record.as_bytes().to_vec(), *reason));
            copies
        };
        let copies = parked(&self.store, self.key).await;
        let expected = self.model.parked.iter().map(|copy| (copy.operation.clone(), copy.reason)).collect();
        let found = copies.iter().map(|copy| (as_sent(&copy.operation), copy.reason)).collect();
        assert_eq!(sorted(found), sorted(expected));
        for copy in &copies {
            assert_eq!(self.local_ids[&copy.operation.original_id], copy.operation.id);
        }
        let check = self.store.verify_host(&self.key).await.unwrap();
        assert!(check.equal(), "{check:?}");
        let facts = self.store.peer(&self.key).await.unwrap().unwrap().replica.unwrap();
        assert_eq!(facts.cursor, self.model.replica().cursor);
        assert_eq!(facts.catching_up, self.model.replica().diff.is_some());
        assert_eq!(facts.quarantined.is_some(), self.model.replica().quarantined.is_some());
        assert_eq!(facts.conflict, self.model.replica().conflict.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn frames_do_to_the_store_what_they_do_to_the_model(
        steps in proptest::collection::vec(step(), 10..70),
        cache_entries in prop_oneof![Just(0), Just(1), Just(opmesh::store::DEFAULT_CACHE_ENTRIES)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new(cache_entries).await;
            pair.take(Step::State(0)).await;
            for step in steps {
                pair.take(step).await;
            }
            pair.check().await;
            pair.store.close().await;
            pair.store = pair.place.open();
            pair.check().await;
        });
    }
}

fn operation(id: u64, modno: u64, text: &str) -> Operation {
    Operation {
        id: OpId::new(id).unwrap(),
        flow_id: opmesh_core::model::FlowId::new(id).unwrap(),
        modno: Modno::new(modno).unwrap(),
        record: Record::for_tests("r", "p", text),
    }
}

fn at(modno: u64) -> Position {
    Position { modno: Modno::new(modno).unwrap(), chain: opmesh_core::model::Chain([7; 16]) }
}

fn first_state() -> Transaction {
    let state = State {
        incarnation: Incarnation::new(5).unwrap(),
        process: opmesh_core::model::ProcessNonce::new(1).unwrap(),
        head: at(9),
        granted: Scopes::everything(),
        set: SetDigest::from_parts([1; 16], 9),
    };
    Transaction::State { state, accepted: Scopes::everything() }
}

fn frame(base: Position, end: u64, operations: Vec<Operation>) -> Transaction {
    let ops = Ops { base, end: at(end), as_of: at(end), operations, tombstones: vec![] };
    Transaction::Ops { ops, stale: StaleOps::Refuse }
}

#[tokio::test]
async fn five_owners_with_equal_ids_never_land_on_one_anothers_rows() {
    for cache_entries in [0, 1, opmesh::store::DEFAULT_CACHE_ENTRIES] {
        let place = Place::new(cache_entries).await;
        let store = place.open();
        let mut local = std::collections::BTreeSet::new();
        let mut owners = Vec::new();
        for peer in 2..7 {
            owners.push((peer, client(&store, peer).await));
        }
        for round in [0_u64, 10] {
            for (peer, (key, epoch)) in &owners {
                let base = if round == 0 { Position::ZERO } else { at(10) };
                if round == 0 {
                    store.submit(key, *epoch, first_state()).await.await.unwrap().unwrap();
                }
                let rows = (1..=10).map(|id| operation(id, id + round, &format!("{peer} {round}"))).collect();
                store.submit(key, *epoch, frame(base, 10 + round, rows)).await.await.unwrap().unwrap();
            }
        }
        for (peer, (key, _)) in &owners {
            let rows = rows(&store, *key).await;
            assert_eq!(rows.len(), 10);
            assert!(
                rows.iter().all(|row| as_sent(row).record == operation(1, 1, &format!("{peer} 10")).record)
            );
            local.extend(rows.iter().map(|row| row.id));
            assert!(store.verify_host(key).await.unwrap().equal());
        }
        assert_eq!(local.len(), 50, "every row has a local id of its own");
    }
}

#[tokio::test]
async fn a_frame_that_breaks_a_rule_takes_no_other_frame_of_its_group_down() {
    let place = Place::new(100).await;
    let store = place.open();
    let (good, good_epoch) = client(&store, 2).await;
    let (bad, bad_epoch) = client(&store, 3).await;
    for (key, epoch) in [(good, good_epoch), (bad, bad_epoch)] {
        store.submit(&key, epoch, first_state()).await.await.unwrap().unwrap();
    }
    let mut answers = Vec::new();
    for n in 0..20 {
        let base = if n == 0 { Position::ZERO } else { at(n) };
        let row = vec![operation(n + 1, n + 1, "good")];
        answers.push((true, store.submit(&good, good_epoch, frame(base, n + 1, row.clone())).await));
        answers.push((false, store.submit(&bad, bad_epoch, frame(at(99), 100, row)).await));
    }
    for (well, answer) in answers {
        match answer.await.unwrap() {
            Ok(Committed::Applied(applied)) => assert!(well && applied.stored == 1),
            Err(Violation::BaseIsNotCursor { .. }) => assert!(!well),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rows(&store, good).await.len(), 20);
    assert!(rows(&store, bad).await.is_empty());
    assert!(store.verify_host(&good).await.unwrap().equal());
}

#[tokio::test]
async fn a_staged_row_that_changes_before_the_diff_ends_stays() {
    let place = Place::new(100).await;
    let store = place.open();
    let (key, epoch) = client(&store, 2).await;
    let commit = async |transaction| store.submit(&key, epoch, transaction).await.await.unwrap().unwrap();
    commit(first_state()).await;
    commit(frame(Position::ZERO, 3, (1..=3).map(|id| operation(id, id, "x")).collect())).await;
    commit(Transaction::Mark(Mark { position: at(3), set: SetDigest::EMPTY })).await;
    let answer = |hi, last, listed: u64| Transaction::Answer {
        answer: Answer { hi, as_of: at(3), operations: vec![], gone: vec![], last },
        listed: vec![OpId::new(listed).unwrap()],
        as_of: at(3),
    };
    commit(answer(3, false, 1)).await;
    let again = vec![operation(2, 4, "again")];
    let ops = Ops { base: at(3), end: at(4), as_of: at(4), operations: again, tombstones: vec![] };
    commit(Transaction::Ops { ops, stale: StaleOps::Drop }).await;
    commit(answer(OpId::END, true, 3)).await;
    assert_eq!(rows(&store, key).await.len(), 3);
    assert!(parked(&store, key).await.is_empty());
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash_and_no_local_id_comes_twice() {
    let mut place = Place::new(100).await;
    let mut store = place.open();
    let (key, mut epoch) = client(&store, 2).await;
    store.submit(&key, epoch, first_state()).await.await.unwrap().unwrap();
    for n in 0..5_u64 {
        let base = if n == 0 { Position::ZERO } else { at(n) };
        let row = vec![operation(n + 1, n + 1, "x")];
        store.submit(&key, epoch, frame(base, n + 1, row)).await.await.unwrap().unwrap();
        let crashed = place.after_a_crash();
        drop(std::mem::replace(&mut store, crashed.open()));
        place = crashed;
        let held = rows(&store, key).await;
        assert_eq!(held.len(), usize::try_from(n).unwrap() + 1);
        let distinct: std::collections::BTreeSet<_> = held.iter().map(|row| row.id).collect();
        assert_eq!(distinct.len(), held.len());
        epoch = store.take_over(&key).await.unwrap().epoch;
    }
}

#[tokio::test]
async fn a_bit_flipped_in_a_record_is_found_and_named() {
    let place = Place::new(100).await;
    let store = place.open();
    let (key, epoch) = client(&store, 2).await;
    store.submit(&key, epoch, first_state()).await.await.unwrap().unwrap();
    let rows_sent = (1..=3).map(|id| operation(id, id, "text")).collect();
    store.submit(&key, epoch, frame(Position::ZERO, 3, rows_sent)).await.await.unwrap().unwrap();
    store.close().await;
    place.tamper(
        "UPDATE operations SET record = CAST(replace(CAST(record AS TEXT), 'text', 'tex4') AS BLOB)
         WHERE original_id = 2",
    );
    let store = place.open();
    let check = store.verify_host(&key).await.unwrap();
    assert!(!check.equal());
    assert_eq!(check.bad_operations.len(), 1);
    assert_eq!(check.bad_operations[0].fault.name(), "record_hash");
    assert_eq!(check.computed.count(), 3);
    assert_ne!(check.computed, check.stored);
    assert_eq!(rows(&store, key).await.len(), 3, "lists go on");
}
