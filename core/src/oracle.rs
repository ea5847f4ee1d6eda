//! A store in memory, as plain as can be: the model that the tests of the session run on, and the oracle against which
//! every real store is checked. Behind the feature `oracle`; no part of a program.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use crate::diff::{Page, PageState};
use crate::model::{
    Chain, ChainEntry, FlowId, Incarnation, Modno, OpId, Operation, OwnerHasher, Position, PublicKey, Record,
    RowHash, Scope, SetDigest, Tombstone, UnixMs,
};
use crate::permission::View;
use crate::replica::{Committed, Fault, Held, ParkReason, Replica, Rows, StagedFate, Transaction, apply};
use crate::session::{Changes, Compare, Found, Here, ManifestPage, OperationsPage, Read};

/// What a hub holds of one owner.
#[derive(Debug, Clone)]
pub struct HubModel {
    hasher: OwnerHasher,
    replica: Replica,
    superseded: BTreeSet<Incarnation>,
    live: BTreeMap<OpId, Operation>,
    staged: BTreeMap<OpId, Modno>,
    /// Rows set aside, in the order in which that happened.
    pub parked: Vec<ParkedCopy>,
}

/// A row set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedCopy {
    /// The row as it was.
    pub operation: Operation,
    /// Why.
    pub reason: ParkReason,
}

impl HubModel {
    /// Nothing held yet of the owner with this key.
    pub fn new(owner: &PublicKey) -> Self {
        Self {
            hasher: OwnerHasher::new(owner),
            replica: Replica::default(),
            superseded: BTreeSet::new(),
            live: BTreeMap::new(),
            staged: BTreeMap::new(),
            parked: Vec::new(),
        }
    }

    /// Holds exactly what the owner shows in this view, as after a first sync of 256 changes a frame.
    pub fn in_step_with(owner: &OwnerModel, view: &View) -> Self {
        let mut replica = Replica {
            incarnation: Some(owner.incarnation),
            view: Some(view.clone()),
            cursor: owner.head,
            newest: owner.head,
            ..Replica::default()
        };
        for (modno, chain) in owner.checkpoints.iter().step_by(256) {
            replica.trail.push(Position { modno: *modno, chain: *chain });
        }
        let shown = owner.live.iter().filter(|(_, row)| view.includes(row.record.scope()));
        Self {
            hasher: owner.hasher,
            replica,
            superseded: BTreeSet::new(),
            live: shown.map(|(id, row)| (*id, row.clone())).collect(),
            staged: BTreeMap::new(),
            parked: Vec::new(),
        }
    }

    /// One transaction: all of it or, on a violation, nothing.
    pub fn commit(
        &mut self,
        transaction: Transaction,
        now: UnixMs,
    ) -> Result<Committed, crate::protocol::Violation> {
        let before = self.clone();
        apply(self, transaction, now).map_err(|fault| {
            *self = before;
            match fault {
                Fault::Violation(violation) => violation,
                Fault::Store(never) => match never {},
            }
        })
    }

    /// The live rows.
    pub const fn live(&self) -> &BTreeMap<OpId, Operation> {
        &self.live
    }

    /// The replica's state.
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Answers a comparison.
    pub fn compare(&self, compare: &Compare) -> Vec<OpId> {
        let held = self
            .live
            .values()
            .map(|operation| (operation.id, operation.modno))
            .filter(|(id, _)| (compare.lo..compare.hi).contains(&id.get()))
            .map(Ok::<_, Infallible>);
        match crate::diff::needs(&compare.entries, held) {
            Ok(ids) => ids,
            Err(never) => match never {},
        }
    }

    /// A row rots and is found: it goes, with its term.
    pub fn lose(&mut self, id: OpId) -> bool {
        self.live.remove(&id).is_some()
    }

    /// A row's modno rots, unnoticed until sets are compared: digests are added up from what is stored.
    pub fn corrupt_modno(&mut self, id: OpId, modno: Modno) {
        if let Some(operation) = self.live.get_mut(&id) {
            operation.modno = modno;
        }
    }

    fn set_aside(&mut self, id: OpId, reason: ParkReason) {
        if let Some(operation) = self.live.remove(&id) {
            self.parked.push(ParkedCopy { operation, reason });
        }
    }

    fn set_aside_all(&mut self, ids: Vec<OpId>, reason: ParkReason) -> u64 {
        let count = ids.len();
        for id in ids {
            self.set_aside(id, reason);
        }
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn ids(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<OpId> {
        self.live.values().filter(|operation| wanted(operation)).map(|operation| operation.id).collect()
    }

    fn is_provisional(copy: &ParkedCopy, view: &View) -> bool {
        match copy.reason {
            ParkReason::Restream | ParkReason::View => view.includes(copy.operation.record.scope()),
            ParkReason::Fork | ParkReason::Guard => false,
        }
    }

    fn staged_unchanged(&self) -> Vec<OpId> {
        let unchanged = |(id, modno): (&OpId, &Modno)| {
            self.live.get(id).filter(|operation| operation.modno == *modno).map(|_| *id)
        };
        self.staged.iter().filter_map(unchanged).collect()
    }
}

impl Rows for HubModel {
    type Error = Infallible;

    fn load(&mut self) -> Result<Replica, Infallible> {
        Ok(self.replica.clone())
    }

    fn save(&mut self, replica: &Replica) -> Result<(), Infallible> {
        self.replica = replica.clone();
        Ok(())
    }

    fn is_superseded(&mut self, incarnation: Incarnation) -> Result<bool, Infallible> {
        Ok(self.superseded.contains(&incarnation))
    }

    fn supersede(&mut self, incarnation: Incarnation) -> Result<(), Infallible> {
        self.superseded.insert(incarnation);
        Ok(())
    }

    fn reinstate(&mut self, incarnation: Incarnation) -> Result<(), Infallible> {
        self.superseded.remove(&incarnation);
        Ok(())
    }

    fn set(&mut self) -> Result<SetDigest, Infallible> {
        Ok(digest(&self.hasher, self.live.values()))
    }

    fn held(&mut self, id: OpId) -> Result<Option<Held>, Infallible> {
        Ok(self.live.get(&id).map(|row| Held { modno: row.modno, hash: self.hasher.row(row) }))
    }

    fn put(&mut self, operation: &Operation) -> Result<(), Infallible> {
        self.parked.retain(|copy| copy.operation != *operation);
        self.live.insert(operation.id, operation.clone());
        Ok(())
    }

    fn remove(&mut self, id: OpId) -> Result<(), Infallible> {
        self.live.remove(&id);
        Ok(())
    }

    fn park(&mut self, id: OpId, reason: ParkReason, _now: UnixMs) -> Result<(), Infallible> {
        self.set_aside(id, reason);
        Ok(())
    }

    fn park_above(&mut self, modno: Modno, reason: ParkReason, _now: UnixMs) -> Result<u64, Infallible> {
        let ids = self.ids(|operation| operation.modno > modno);
        Ok(self.set_aside_all(ids, reason))
    }

    fn park_outside(&mut self, view: &View, _now: UnixMs) -> Result<u64, Infallible> {
        let ids = self.ids(|operation| !view.includes(operation.record.scope()));
        Ok(self.set_aside_all(ids, ParkReason::View))
    }

    fn keep_copies_above(&mut self, modno: Modno) -> Result<(), Infallible> {
        for copy in &mut self.parked {
            let provisional = matches!(copy.reason, ParkReason::Restream | ParkReason::View);
            if provisional && copy.operation.modno > modno {
                copy.reason = ParkReason::Fork;
            }
        }
        Ok(())
    }

    fn absent_copies(&mut self, view: &View) -> Result<u64, Infallible> {
        let absent: BTreeSet<_> = self
            .parked
            .iter()
            .filter(|copy| Self::is_provisional(copy, view) && !self.live.contains_key(&copy.operation.id))
            .map(|copy| copy.operation.id)
            .collect();
        Ok(u64::try_from(absent.len()).unwrap_or(u64::MAX))
    }

    fn retire_copies(&mut self, view: &View, absent: StagedFate, _now: UnixMs) -> Result<(), Infallible> {
        let live = &self.live;
        self.parked.retain_mut(|copy| {
            if !Self::is_provisional(copy, view) {
                return true;
            }
            let keep = absent == StagedFate::Park && !live.contains_key(&copy.operation.id);
            if keep {
                copy.reason = ParkReason::Guard;
            }
            keep
        });
        Ok(())
    }

    fn stage(&mut self, lo: u64, hi: u64, listed: &[OpId], as_of: Modno) -> Result<(), Infallible> {
        for operation in self.live.values() {
            let id = operation.id;
            let inside = (lo..hi).contains(&id.get());
            if inside && operation.modno <= as_of && listed.binary_search(&id).is_err() {
                self.staged.insert(id, operation.modno);
            }
        }
        Ok(())
    }

    fn staged(&mut self) -> Result<u64, Infallible> {
        Ok(u64::try_from(self.staged_unchanged().len()).unwrap_or(u64::MAX))
    }

    fn settle_staged(&mut self, fate: StagedFate, _now: UnixMs) -> Result<(), Infallible> {
        for id in self.staged_unchanged() {
            match fate {
                StagedFate::Delete => {
                    self.live.remove(&id);
                }
                StagedFate::Park => self.set_aside(id, ParkReason::Guard),
            }
        }
        self.clear_staged()
    }

    fn clear_staged(&mut self) -> Result<(), Infallible> {
        self.staged.clear();
        Ok(())
    }
}

/// The digest of these rows.
pub fn digest<'a>(hasher: &OwnerHasher, rows: impl IntoIterator<Item = &'a Operation>) -> SetDigest {
    let mut set = SetDigest::EMPTY;
    rows.into_iter().for_each(|row| set.add(hasher.row(row)));
    set
}

/// An owner's own log.
#[derive(Debug, Clone)]
pub struct OwnerModel {
    hasher: OwnerHasher,
    /// This life of the log.
    pub incarnation: Incarnation,
    head: Position,
    last_id: u64,
    live: BTreeMap<OpId, Operation>,
    tombstones: BTreeMap<Modno, Tombstone>,
    checkpoints: BTreeMap<Modno, Chain>,
    frame: FrameSize,
}

/// How much a model puts in one frame; small, so that few rows make many frames.
#[derive(Debug, Clone, Copy)]
pub struct FrameSize {
    /// Rows in Ops and Answers, and changes looked at.
    pub rows: usize,
    /// Entries in Manifests.
    pub entries: usize,
}

impl OwnerModel {
    /// An empty log.
    pub fn new(owner: &PublicKey, incarnation: Incarnation, frame: FrameSize) -> Self {
        Self {
            hasher: OwnerHasher::new(owner),
            incarnation,
            head: Position::ZERO,
            last_id: 0,
            live: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            frame,
        }
    }

    /// The last change.
    pub const fn head(&self) -> Position {
        self.head
    }

    /// The live rows.
    pub const fn live(&self) -> &BTreeMap<OpId, Operation> {
        &self.live
    }

    /// The digest of the live rows inside a view.
    pub fn set(&self, view: &View) -> SetDigest {
        digest(&self.hasher, self.live.values().filter(|row| view.includes(row.record.scope())))
    }

    /// A new operation.
    pub fn create(&mut self, record: Record) -> OpId {
        self.last_id += 1;
        let id = number(OpId::new(self.last_id));
        self.store(id, number(FlowId::new(self.last_id)), record);
        id
    }

    /// New bytes for an operation.
    pub fn update(&mut self, id: OpId, message: &str) {
        let Some(old) = self.live.get(&id) else { return };
        let Scope { repo, plan } = old.record.scope();
        let record = Record::for_tests(repo, plan, message);
        let flow_id = old.flow_id;
        self.store(id, flow_id, record);
    }

    /// Deletes an operation.
    pub fn delete(&mut self, id: OpId) {
        let Some(old) = self.live.remove(&id) else { return };
        let modno = self.step(id, ChainEntry::Deleted);
        self.tombstones.insert(modno, Tombstone { id, modno, scope: old.record.scope().clone() });
    }

    fn store(&mut self, id: OpId, flow_id: FlowId, record: Record) {
        let modno = number(self.head.modno.next());
        let operation = Operation { id, flow_id, modno, record };
        self.step(id, ChainEntry::Stored(self.hasher.row(&operation)));
        self.live.insert(id, operation);
    }

    fn step(&mut self, id: OpId, entry: ChainEntry) -> Modno {
        let modno = number(self.head.modno.next());
        self.head = self.head.advance(self.incarnation, modno, id, entry);
        self.checkpoints.insert(modno, self.head.chain);
        modno
    }

    /// Answers a session's read.
    pub fn read(&self, read: Read) -> Found {
        match read {
            Read::Here { view } => {
                Found::Here(Here { incarnation: self.incarnation, head: self.head, set: self.set(&view) })
            }
            Read::Checkpoints { modnos } => {
                let position = |modno: &Modno| {
                    self.checkpoints.get(modno).map(|chain| Position { modno: *modno, chain: *chain })
                };
                Found::Checkpoints(modnos.iter().filter_map(position).collect())
            }
            // Frames of the model are counted in rows.
            Read::Changes { after, view, frame_bytes: _ } => Found::Changes(self.changes(after, &view)),
            Read::Manifest { lo, view } => Found::Manifest(self.manifest(lo, &view)),
            Read::Operations { ids, view, frame_bytes: _ } => Found::Operations(self.operations(&ids, &view)),
        }
    }

    fn changes(&self, after: Modno, view: &View) -> Changes {
        let mut changed: Vec<(Modno, Option<&Operation>, Option<&Tombstone>)> = self
            .live
            .values()
            .map(|row| (row.modno, Some(row), None))
            .chain(self.tombstones.values().map(|tombstone| (tombstone.modno, None, Some(tombstone))))
            .filter(|(modno, ..)| *modno > after)
            .collect();
        changed.sort_by_key(|(modno, ..)| *modno);
        let all = changed.len();
        changed.truncate(self.frame.rows);
        let last = changed.last().map_or(after, |(modno, ..)| *modno);
        Changes {
            end: Position { modno: last, chain: self.chain_at(last) },
            as_of: self.head,
            consistent: (changed.len() == all).then(|| self.set(view)),
            operations: changed
                .iter()
                .filter_map(|(_, row, _)| row.filter(|row| view.includes(row.record.scope())).cloned())
                .collect(),
            tombstones: changed
                .iter()
                .filter_map(|(.., gone)| gone.filter(|gone| view.includes(&gone.scope)).cloned())
                .collect(),
        }
    }

    fn chain_at(&self, modno: Modno) -> Chain {
        self.checkpoints.get(&modno).copied().unwrap_or(Chain::ZERO)
    }

    fn manifest(&self, lo: u64, view: &View) -> ManifestPage {
        let mut page = Page::new(lo);
        let mut hi = OpId::END;
        let rows = self.live.values().filter(|row| row.id.get() >= lo && view.includes(row.record.scope()));
        for (count, row) in rows.enumerate() {
            if count == self.frame.entries || page.push(row.id, row.modno) == PageState::Full {
                hi = row.id.get();
                break;
            }
        }
        ManifestPage { hi, as_of: self.head, entries: page.into_entries() }
    }

    fn operations(&self, ids: &[OpId], view: &View) -> OperationsPage {
        let settled = ids.len().min(self.frame.rows);
        let asked = || ids.iter().take(settled);
        let visible = |id: &OpId| self.live.get(id).filter(|row| view.includes(row.record.scope()));
        OperationsPage {
            as_of: self.head,
            operations: asked().filter_map(visible).cloned().collect(),
            gone: asked().filter(|id| visible(id).is_none()).copied().collect(),
            settled,
        }
    }
}

/// A model never counts far enough to leave the range.
#[expect(clippy::expect_used, reason = "2⁶³ changes do not happen in a test")]
fn number<T, E: std::fmt::Debug>(number: Result<T, E>) -> T {
    number.expect("a model's numbers stay in range")
}

/// The hash of a row as this owner's hasher gives it, for tests that look at single rows.
pub fn row_hash(owner: &PublicKey, operation: &Operation) -> RowHash {
    OwnerHasher::new(owner).row(operation)
}
