//! The hub's rules for one owner: what it keeps, and what each frame does to it, one transaction per frame.
//!
//! A store supplies [`Rows`], the primitive steps inside one of its transactions; the rules are here, once, for every
//! store. [`apply`] never sees half a transaction: when it returns a [`Fault`], the store rolls back.
//!
//! Called by the stores; the session decides *when* a transaction runs, this module decides *what* it does.

mod apply;
mod rows;

pub use apply::{accept_presented, apply, refuse_presented, release};
pub use rows::{Held, ParkReason, Rows, StagedFate};

use crate::guard;
use crate::matchpoint::Trail;
use crate::model::{Incarnation, OpId, Position, SetDigest, UnixMs};
use crate::permission::{Scopes, View};
use crate::protocol::{Answer, Comparison, Mark, Matchpoint, Ops, Proposal, State, Violation};

/// What a hub keeps about one owner, besides the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The owner's current label; none before the first session.
    pub incarnation: Option<Incarnation>,
    /// The view that the rows belong to; none before the first session.
    pub view: Option<View>,
    /// Up to here the hub has everything in the view.
    pub cursor: Position,
    /// The highest position from which anything was stored.
    pub newest: Position,
    /// Older cursors, for finding what is common after a fork.
    pub trail: Trail,
    /// A diff that is owed or under way.
    pub diff: Option<DiffProgress>,
    /// The repair under way, or the last one that no Mark has judged yet.
    pub rung: Option<Rung>,
    /// When repairs ended unequal, within the last 24 hours.
    pub unequal_repairs: Vec<UnixMs>,
    /// Since when repairs are given up; rows are still applied and acknowledged.
    pub quarantined: Option<UnixMs>,
    /// Deletes and live rows of the last 24 hours.
    pub guard: guard::Window,
    /// A superseded label was presented; an operator must decide.
    pub conflict: Option<Incarnation>,
}

impl Default for Replica {
    fn default() -> Self {
        Self {
            incarnation: None,
            view: None,
            cursor: Position::ZERO,
            newest: Position::ZERO,
            trail: Trail::default(),
            diff: None,
            rung: None,
            unequal_repairs: Vec::new(),
            quarantined: None,
            guard: guard::Window::default(),
            conflict: None,
        }
    }
}

/// How far a diff is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffProgress {
    /// The `as_of` of the first manifest that was answered; the cursor once the diff ends.
    pub start: Option<Position>,
    /// The first id that is not settled.
    pub done: u64,
    /// Whether anything was stored or removed so far.
    pub changed: bool,
}

impl DiffProgress {
    /// A diff of which nothing is done.
    pub const OWED: Self = Self { start: None, done: 0, changed: false };
}

/// What was started because a Mark differed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// A diff; whether it changed anything is known once it has ended.
    Diff {
        /// It stored or removed something.
        changed: bool,
    },
    /// Everything again.
    Restream,
}

/// One transaction at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// The owner's State: supersede, change the view, compare, propose.
    State {
        /// What the owner said.
        state: State,
        /// What the hub lets in.
        accepted: Scopes,
    },
    /// A fork: set aside what is not common.
    Matchpoint(Matchpoint),
    /// Apply a frame of changes and move the cursor.
    Ops {
        /// The frame.
        ops: Ops,
        /// What to do when its base is not the cursor.
        stale: StaleOps,
    },
    /// Apply a frame of a diff, stage what the manifest does not list, move `done`; settle when it is the last.
    Answer {
        /// The frame.
        answer: Answer,
        /// The ids that the manifest lists, ascending; those outside [done, answer.hi) do not matter.
        listed: Vec<OpId>,
        /// The manifest's `as_of`.
        as_of: Position,
    },
    /// Compare the sets; decide on a repair when they differ.
    Mark(Mark),
}

/// What to do with Ops whose base is not the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleOps {
    /// The peer broke a rule.
    Refuse,
    /// A repair has begun and the owner has not read of it yet: drop the frame.
    Drop,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Answer to State.
    Judged {
        /// How to go on.
        proposal: Proposal,
        /// See [`crate::protocol::Verdict`].
        newest: Position,
        /// See [`crate::protocol::Verdict`].
        candidates: Vec<Position>,
        /// The view that is in force now.
        view: View,
        /// Rows parked because they left the view.
        left_view: u64,
    },
    /// State presented a superseded label; nothing but that was noted.
    Conflict {
        /// The label.
        presented: Incarnation,
    },
    /// Answer to Matchpoint.
    Forked {
        /// Rows set aside.
        parked: u64,
    },
    /// Ops or Answer is durable.
    Applied(Applied),
    /// Ops were dropped because a repair has begun.
    Dropped {
        /// Where they started.
        base: Position,
        /// The hub's cursor.
        cursor: Position,
    },
    /// Answer to Mark.
    Marked {
        /// The Mark's.
        position: Position,
        /// The result.
        outcome: Comparison,
        /// The hub's set.
        set: SetDigest,
        /// What to start now.
        repair: Option<Repair>,
    },
}

/// What a frame changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The hub's cursor after it.
    pub cursor: Position,
    /// Rows stored.
    pub stored: u64,
    /// Rows deleted.
    pub removed: u64,
    /// Rows that the guard set aside.
    pub guarded: u64,
}

/// A repair that a differing Mark started; the session sends it as a second Verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// [`Proposal::Diff`] or [`Proposal::Restream`].
    pub proposal: Proposal,
    /// See [`crate::protocol::Verdict`].
    pub newest: Position,
}

/// Why a transaction did not happen.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// The peer broke a rule.
    Violation(Violation),
    /// The store failed.
    Store(E),
}

impl<E> From<Violation> for Fault<E> {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
