//! What a run has exercised, counted, so that a generator that stops exercising something is noticed.

use opmesh_core::protocol::{Comparison, Message, Proposal, Violation};
use opmesh_core::replica::{Committed, Replica, Rung, Transaction};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each thing happened.
        #[derive(Debug, Default, Clone)]
        pub struct Seen { $($(#[$doc])* pub $name: u64,)* }

        impl Seen {
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            /// Every counter with its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name),)*] }
        }
    };
}

counters! {
    sessions,
    frames,
    /// State or Mark was equal.
    proved,
    forks,
    conflicts,
    /// Answers after which their manifest was not settled.
    split_answers,
    /// Ids that were needed and had gone when they were read.
    gone,
    /// Verdicts that go on with a diff at an id above zero.
    diffs_resumed,
    /// The view changed while a diff was under way.
    views_in_diff,
    /// A view change owed a diff because something joined.
    views_widened,
    parked_by_view,
    parked_by_fork,
    /// A set-aside copy became live again from the owner's bytes.
    unparked,
    differs,
    /// Marks that differed though nothing had rotted; a rule read wrongly shows here first.
    false_differs,
    repairs,
    restreams,
    /// A fork while a re-stream was not proved.
    forks_in_restream,
    /// Sessions that go on with a repair which another session started.
    repairs_resumed,
    /// Ops in flight when a repair began, dropped.
    dropped_ops,
    /// Ops in flight when a repair began, applied.
    ops_before_repair,
    quarantines,
    /// Ops that were applied in quarantine.
    ops_in_quarantine,
    released_by_equality,
    released_by_view,
    released_by_incarnation,
    released_by_operator,
    /// A quarantine that ended without one of those causes.
    released_wrongly,
    /// The guard set rows aside that a diff no longer listed.
    guarded_in_diff,
    /// The guard set a row aside that a tombstone named.
    guarded_tombstones,
    /// Copies were retired by an equal set.
    copies_retired,
    /// The guard kept copies that an equal set would have retired.
    copies_guarded,
}

/// What the hub's store looked like around a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub before: &'a Replica,
    pub after: &'a Replica,
    /// Copies with each reason, in the order of `ParkReason::ALL`.
    pub copies_before: [usize; 4],
    pub copies_after: [usize; 4],
}

impl Seen {
    /// Counts what a transaction did.
    pub fn transaction(
        &mut self,
        transaction: &Transaction,
        result: &Result<Committed, Violation>,
        at: Around<'_>,
    ) {
        let Ok(committed) = result else { return };
        self.released(committed, at);
        let copies = |counts: [usize; 4]| counts.iter().sum::<usize>();
        let [.., guard_before, _] = at.copies_before;
        let [.., guard_after, _] = at.copies_after;
        match committed {
            Committed::Judged { proposal, left_view, .. } => self.judged(*proposal, *left_view, at),
            Committed::Forked { parked } => {
                self.parked_by_fork += parked;
                self.forks_in_restream += u64::from(at.before.rung == Some(Rung::Restream));
            }
            Committed::Applied(applied) => {
                self.unparked += u64::from(copies(at.copies_after) < copies(at.copies_before));
                match transaction {
                    Transaction::Ops { .. } => {
                        self.guarded_tombstones += applied.guarded;
                        self.ops_in_quarantine += u64::from(at.before.quarantined.is_some());
                        self.ops_before_repair += u64::from(at.before.diff.is_some());
                    }
                    _ => self.guarded_in_diff += applied.guarded,
                }
            }
            Committed::Dropped { .. } => self.dropped_ops += 1,
            Committed::Marked { outcome, repair, .. } => {
                self.proved += u64::from(*outcome == Comparison::Equal);
                self.differs += u64::from(*outcome == Comparison::Differs);
                self.repairs += u64::from(repair.is_some());
                let restreams = repair.as_ref().is_some_and(|repair| repair.proposal == Proposal::Restream);
                self.restreams += u64::from(restreams);
            }
            Committed::Conflict { .. } => self.conflicts += 1,
        }
        if matches!(
            committed,
            Committed::Judged { .. } | Committed::Marked { outcome: Comparison::Equal, .. }
        ) {
            self.copies_retired += u64::from(copies(at.copies_after) < copies(at.copies_before));
            self.copies_guarded += u64::from(guard_after > guard_before);
        }
    }

    fn judged(&mut self, proposal: Proposal, left_view: u64, at: Around<'_>) {
        let changed = at.before.view.is_some() && at.before.view != at.after.view;
        self.parked_by_view += left_view;
        self.views_in_diff += u64::from(changed && at.before.diff.is_some_and(|diff| diff.start.is_some()));
        self.views_widened += u64::from(changed && at.before.diff.is_none() && at.after.diff.is_some());
        self.diffs_resumed += u64::from(matches!(proposal, Proposal::Diff { done } if done > 0));
        self.repairs_resumed += u64::from(at.after.rung.is_some());
        self.proved += u64::from(proposal == Proposal::InSync);
    }

    fn released(&mut self, committed: &Committed, at: Around<'_>) {
        self.quarantines += u64::from(at.before.quarantined.is_none() && at.after.quarantined.is_some());
        if at.before.quarantined.is_none() || at.after.quarantined.is_some() {
            return;
        }
        let equal = matches!(
            committed,
            Committed::Marked { outcome: Comparison::Equal, .. }
                | Committed::Judged { proposal: Proposal::InSync, .. }
        );
        if at.before.view != at.after.view {
            self.released_by_view += 1;
        } else if at.before.incarnation != at.after.incarnation {
            self.released_by_incarnation += 1;
        } else if equal {
            self.released_by_equality += 1;
        } else {
            self.released_wrongly += 1;
        }
    }

    /// Counts a frame that the owner sends.
    pub fn owner_sends(&mut self, message: &Message, manifests: &mut std::collections::VecDeque<u64>) {
        self.frames += 1;
        match message {
            Message::Manifest(manifest) => manifests.push_back(manifest.hi),
            Message::Answer(answer) if manifests.front() == Some(&answer.hi) => {
                self.gone += u64::try_from(answer.gone.len()).unwrap();
                manifests.pop_front();
            }
            Message::Answer(answer) => {
                self.gone += u64::try_from(answer.gone.len()).unwrap();
                self.split_answers += 1;
            }
            Message::Matchpoint(_) => self.forks += 1,
            _ => {}
        }
    }
}
