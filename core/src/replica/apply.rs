//! What each transaction does. Design §5 is the source of every rule here.

use crate::guard;
use crate::model::{OpId, Position, UnixMs};
use crate::permission::{Scopes, View};
use crate::protocol::{Answer, Comparison, Mark, Matchpoint, Ops, Proposal, State, Violation};

use super::{
    Applied, Committed, DiffProgress, Fault, ParkReason, Repair, Replica, Rows, Rung, StagedFate, StaleOps,
    Transaction,
};

/// Repairs that may end unequal within 24 hours; the next one quarantines.
const UNEQUAL_REPAIRS_ALLOWED: usize = 3;

/// Performs one transaction. On a fault the store rolls back, and nothing has happened.
pub fn apply<R: Rows>(
    rows: &mut R,
    transaction: Transaction,
    now: UnixMs,
) -> Result<Committed, Fault<R::Error>> {
    let mut hub = Hub { replica: rows.load().map_err(Fault::Store)?, rows, now };
    let committed = match transaction {
        Transaction::State { state, accepted } => hub.state(state, accepted),
        Transaction::Matchpoint(matchpoint) => hub.fork(matchpoint),
        Transaction::Ops { ops, stale } => hub.ops(ops, stale),
        Transaction::Answer { answer, listed, as_of } => hub.answer(answer, &listed, as_of),
        Transaction::Mark(mark) => hub.mark(mark),
    }?;
    hub.save()?;
    Ok(committed)
}

/// The operator lets a quarantined owner be repaired again.
pub fn release<R: Rows>(rows: &mut R) -> Result<(), R::Error> {
    let mut replica = rows.load()?;
    replica.release();
    rows.save(&replica)
}

/// The operator says that the database which presented a superseded label is the right one: its label is current
/// again and the other one superseded. Whether anything was noted to decide on.
pub fn accept_presented<R: Rows>(rows: &mut R) -> Result<bool, R::Error> {
    let mut replica = rows.load()?;
    let Some(presented) = replica.conflict.take() else { return Ok(false) };
    if let Some(current) = replica.incarnation.filter(|current| *current != presented) {
        rows.supersede(current)?;
    }
    rows.reinstate(presented)?;
    replica.incarnation = Some(presented);
    replica.release();
    rows.save(&replica)?;
    Ok(true)
}

/// The operator says that the database which presented a superseded label is the wrong one. It stays refused.
/// Whether anything was noted to decide on.
pub fn refuse_presented<R: Rows>(rows: &mut R) -> Result<bool, R::Error> {
    let mut replica = rows.load()?;
    let noted = replica.conflict.take().is_some();
    rows.save(&replica)?;
    Ok(noted)
}

impl Replica {
    /// Begins anew, with the history of repairs forgotten.
    fn release(&mut self) {
        self.repaired();
        self.unequal_repairs.clear();
    }

    /// The sets are equal. How often repairs ended unequal before is not forgotten: rows that keep rotting end in
    /// quarantine, too.
    fn repaired(&mut self) {
        self.rung = None;
        self.quarantined = None;
    }

    fn candidates(&self) -> Vec<Position> {
        self.trail.candidates(self.cursor)
    }

    fn move_cursor(&mut self, to: Position) {
        self.trail.push(self.cursor);
        self.cursor = to;
        self.newest = self.newest.later(to);
    }
}

struct Hub<'a, R: Rows> {
    rows: &'a mut R,
    replica: Replica,
    now: UnixMs,
}

impl<R: Rows> Hub<'_, R> {
    fn save(&mut self) -> Result<(), Fault<R::Error>> {
        self.rows.save(&self.replica).map_err(Fault::Store)
    }

    fn state(&mut self, state: State, accepted: Scopes) -> Result<Committed, Fault<R::Error>> {
        if self.rows.is_superseded(state.incarnation).map_err(Fault::Store)? {
            self.replica.conflict = Some(state.incarnation);
            return Ok(Committed::Conflict { presented: state.incarnation });
        }
        self.adopt_incarnation(state.incarnation)?;
        let view = View::new(state.granted, accepted);
        let left_view = self.change_view(&view)?;
        let proposal = if self.rows.set().map_err(Fault::Store)? == state.set {
            self.in_sync(state.head)?;
            Proposal::InSync
        } else if let Some(diff) = self.replica.diff {
            Proposal::Diff { done: diff.done }
        } else {
            Proposal::Resume { cursor: self.replica.cursor }
        };
        let candidates = if proposal == Proposal::InSync { Vec::new() } else { self.replica.candidates() };
        Ok(Committed::Judged { proposal, newest: self.replica.newest, candidates, view, left_view })
    }

    /// A new label supersedes the stored one.
    fn adopt_incarnation(&mut self, presented: crate::model::Incarnation) -> Result<(), Fault<R::Error>> {
        match self.replica.incarnation.replace(presented) {
            Some(stored) if stored != presented => {
                self.rows.supersede(stored).map_err(Fault::Store)?;
                self.replica.release();
            }
            _ => {}
        }
        Ok(())
    }

    /// Parks what left, stores the view, and owes a diff when something joined or a diff was cut off.
    fn change_view(&mut self, view: &View) -> Result<u64, Fault<R::Error>> {
        if self.replica.view.as_ref() == Some(view) {
            return Ok(0);
        }
        let left = self.rows.park_outside(view, self.now).map_err(Fault::Store)?;
        let joined = self.replica.view.as_ref().is_some_and(|old| view.widens(old));
        let cut_off = self.drop_diff()?;
        if joined || cut_off {
            self.replica.diff = Some(DiffProgress::OWED);
        }
        self.replica.view = Some(view.clone());
        self.replica.release();
        Ok(left)
    }

    fn drop_diff(&mut self) -> Result<bool, Fault<R::Error>> {
        self.rows.clear_staged().map_err(Fault::Store)?;
        Ok(self.replica.diff.take().is_some())
    }

    /// Equal digests prove equal sets: the owner's head is a position at which the hub has everything. They do not
    /// prove equal histories: unless the head is the hub's newest position, copies set aside may lie on a branch that
    /// the owner no longer knows, and are kept.
    fn in_sync(&mut self, head: Position) -> Result<(), Fault<R::Error>> {
        self.drop_diff()?;
        if head != self.replica.newest {
            self.rows.keep_copies_above(crate::model::Modno::ZERO).map_err(Fault::Store)?;
        }
        self.replica.cursor = head;
        self.replica.newest = head;
        self.replica.trail = crate::matchpoint::Trail::default();
        self.proved()
    }

    /// What equality of the sets ends: repairs, quarantine, and copies that were kept only until it was proved.
    fn proved(&mut self) -> Result<(), Fault<R::Error>> {
        self.replica.repaired();
        let Some(view) = self.replica.view.clone() else { return Ok(()) };
        let absent = self.rows.absent_copies(&view).map_err(Fault::Store)?;
        let fate = self.judge_absent(absent)?;
        self.rows.retire_copies(&view, fate, self.now).map_err(Fault::Store)
    }

    /// One guard for every way in which rows vanish because a list does not name them.
    fn judge_absent(&mut self, absent: u64) -> Result<StagedFate, Fault<R::Error>> {
        self.observe_live()?;
        Ok(match self.replica.guard.absent(self.now, absent) {
            guard::Ruling::Delete => StagedFate::Delete,
            guard::Ruling::Park => StagedFate::Park,
        })
    }

    fn observe_live(&mut self) -> Result<(), Fault<R::Error>> {
        let live = self.rows.set().map_err(Fault::Store)?.count();
        self.replica.guard.observe(self.now, live);
        Ok(())
    }

    fn fork(&mut self, matchpoint: Matchpoint) -> Result<Committed, Fault<R::Error>> {
        let known = self.replica.incarnation == Some(matchpoint.incarnation)
            || self.rows.is_superseded(matchpoint.incarnation).map_err(Fault::Store)?;
        if known {
            return Err(Violation::SupersededIncarnation { presented: matchpoint.incarnation }.into());
        }
        let common = matchpoint.position.unwrap_or(Position::ZERO);
        let parked = self.rows.park_above(common.modno, ParkReason::Fork, self.now).map_err(Fault::Store)?;
        self.rows.keep_copies_above(common.modno).map_err(Fault::Store)?;
        self.drop_diff()?;
        self.adopt_incarnation(matchpoint.incarnation)?;
        self.replica.trail.forget_after(common.modno);
        self.replica.cursor = common;
        self.replica.newest = common;
        self.replica.release();
        self.replica.diff = Some(DiffProgress::OWED);
        Ok(Committed::Forked { parked })
    }

    fn ops(&mut self, ops: Ops, stale: StaleOps) -> Result<Committed, Fault<R::Error>> {
        let cursor = self.replica.cursor;
        if ops.base != cursor {
            return match stale {
                StaleOps::Drop => Ok(Committed::Dropped { base: ops.base, cursor }),
                StaleOps::Refuse => Err(Violation::BaseIsNotCursor { base: ops.base, cursor }.into()),
            };
        }
        if self.replica.diff.is_some() && stale == StaleOps::Refuse {
            return Err(Violation::OutOfState { message: "Ops", state: "a diff is under way" }.into());
        }
        self.observe_live()?;
        let mut applied = Applied { cursor: ops.end, stored: 0, removed: 0, guarded: 0 };
        for operation in &ops.operations {
            self.require_in_view(operation.id, operation.record.scope())?;
            if self.newer_than_held(operation.id, |held| operation.modno >= held)? {
                self.rows.put(operation).map_err(Fault::Store)?;
                applied.stored += 1;
            }
        }
        for tombstone in &ops.tombstones {
            self.require_in_view(tombstone.id, &tombstone.scope)?;
            let removes = self
                .rows
                .held(tombstone.id)
                .map_err(Fault::Store)?
                .is_some_and(|held| held.modno < tombstone.modno);
            if removes {
                self.remove_by_tombstone(tombstone.id, &mut applied)?;
            }
        }
        self.observe_live()?;
        self.replica.move_cursor(ops.end);
        self.replica.newest = self.replica.newest.later(ops.as_of);
        Ok(Committed::Applied(applied))
    }

    fn remove_by_tombstone(&mut self, id: OpId, applied: &mut Applied) -> Result<(), Fault<R::Error>> {
        match self.replica.guard.tombstone(self.now) {
            guard::Ruling::Delete => {
                applied.removed += 1;
                self.rows.remove(id)
            }
            guard::Ruling::Park => {
                applied.guarded += 1;
                self.rows.park(id, ParkReason::Guard, self.now)
            }
        }
        .map_err(Fault::Store)
    }

    fn require_in_view(&self, id: OpId, scope: &crate::model::Scope) -> Result<(), Violation> {
        match &self.replica.view {
            Some(view) if view.includes(scope) => Ok(()),
            _ => Err(Violation::OutsideView { id, scope: scope.clone() }),
        }
    }

    fn newer_than_held(
        &mut self,
        id: OpId,
        newer: impl Fn(crate::model::Modno) -> bool,
    ) -> Result<bool, Fault<R::Error>> {
        Ok(self.rows.held(id).map_err(Fault::Store)?.is_none_or(|held| newer(held.modno)))
    }

    fn answer(
        &mut self,
        answer: Answer,
        listed: &[OpId],
        as_of: Position,
    ) -> Result<Committed, Fault<R::Error>> {
        let Some(mut diff) = self.replica.diff else {
            return Err(Violation::OutOfState { message: "Answer", state: "no diff is under way" }.into());
        };
        let mut applied = Applied { cursor: self.replica.cursor, stored: 0, removed: 0, guarded: 0 };
        for operation in &answer.operations {
            self.require_in_view(operation.id, operation.record.scope())?;
            if self.newer_than_held(operation.id, |held| operation.modno >= held)? {
                self.rows.put(operation).map_err(Fault::Store)?;
                applied.stored += 1;
            }
        }
        self.rows.stage(diff.done, answer.hi, listed, as_of.modno).map_err(Fault::Store)?;
        diff.changed |= applied.stored > 0;
        diff.done = answer.hi;
        let start = *diff.start.get_or_insert(as_of);
        self.replica.newest = self.replica.newest.later(answer.as_of);
        self.replica.diff = Some(diff);
        if answer.last {
            self.settle(diff, start, &mut applied)?;
        }
        self.observe_live()?;
        Ok(Committed::Applied(applied))
    }

    /// The end of a diff: what the owner no longer lists goes, and the cursor stands where the diff began.
    fn settle(
        &mut self,
        diff: DiffProgress,
        start: Position,
        applied: &mut Applied,
    ) -> Result<(), Fault<R::Error>> {
        let staged = self.rows.staged().map_err(Fault::Store)?;
        let fate = self.judge_absent(staged)?;
        self.rows.settle_staged(fate, self.now).map_err(Fault::Store)?;
        match fate {
            StagedFate::Delete => applied.removed += staged,
            StagedFate::Park => applied.guarded += staged,
        }
        if let Some(Rung::Diff { changed }) = &mut self.replica.rung {
            *changed = diff.changed || staged > 0;
        }
        self.replica.diff = None;
        self.replica.move_cursor(start);
        applied.cursor = start;
        Ok(())
    }

    fn mark(&mut self, mark: Mark) -> Result<Committed, Fault<R::Error>> {
        let position = mark.position;
        if position != self.replica.cursor || self.replica.diff.is_some() {
            return Err(Violation::MarkNotAtEnd { position }.into());
        }
        let set = self.rows.set().map_err(Fault::Store)?;
        if set == mark.set {
            self.proved()?;
            return Ok(Committed::Marked { position, outcome: Comparison::Equal, set, repair: None });
        }
        let repair = self.next_rung()?.map(|proposal| Repair { proposal, newest: self.replica.newest });
        Ok(Committed::Marked { position, outcome: Comparison::Differs, set, repair })
    }

    /// Repairs end: a diff, more diffs while they change something, everything again, quarantine.
    fn next_rung(&mut self) -> Result<Option<Proposal>, Fault<R::Error>> {
        if self.replica.quarantined.is_some() {
            return Ok(None);
        }
        let ended = self.replica.rung.take();
        let exhausted = ended.is_some() && self.note_unequal_repair() > UNEQUAL_REPAIRS_ALLOWED;
        match ended {
            Some(Rung::Restream) => self.quarantine(),
            _ if exhausted => self.quarantine(),
            Some(Rung::Diff { changed: false }) => {
                self.rows
                    .park_above(crate::model::Modno::ZERO, ParkReason::Restream, self.now)
                    .map_err(Fault::Store)?;
                self.replica.rung = Some(Rung::Restream);
                self.replica.cursor = Position::ZERO;
                return Ok(Some(Proposal::Restream));
            }
            None | Some(Rung::Diff { changed: true }) => {
                self.replica.rung = Some(Rung::Diff { changed: false });
                self.replica.diff = Some(DiffProgress::OWED);
                return Ok(Some(Proposal::Diff { done: 0 }));
            }
        }
        Ok(None)
    }

    /// How many repairs ended unequal in the last 24 hours, with this one.
    fn note_unequal_repair(&mut self) -> usize {
        let now = self.now;
        let ended = &mut self.replica.unequal_repairs;
        ended.retain(|at| now.since(*at) < guard::WINDOW_MS);
        ended.push(now);
        let surplus = ended.len().saturating_sub(UNEQUAL_REPAIRS_ALLOWED + 1);
        ended.drain(..surplus);
        ended.len()
    }

    fn quarantine(&mut self) {
        self.replica.quarantined = Some(self.now);
    }
}
