//! What two peers say to each other once the handshake is done. Each message states a fact, from the side that
//! sends it. `wire` turns them into protobuf and back; limits on size and shape are checked there, so that a message
//! that exists is well-formed.

use crate::model::{
    Incarnation, Modno, OpId, Operation, Position, ProcessNonce, PublicKey, SetDigest, Tombstone,
};
use crate::permission::Scopes;
use crate::succession::Succession;

use super::share::Share;

/// One frame of the `Sync` stream after the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Owner → hub, once, first.
    State(State),
    /// Hub → owner: the answer to [`State`], and again when a repair starts.
    Verdict(Verdict),
    /// Owner → hub: it does not recognise the hub's newest position.
    Matchpoint(Matchpoint),
    /// Owner → hub, only in a diff.
    Manifest(Manifest),
    /// Hub → owner: exactly one for each [`Manifest`].
    Need(Need),
    /// Owner → hub: one or more for each [`Need`].
    Answer(Answer),
    /// Owner → hub.
    Ops(Ops),
    /// Owner → hub, at a consistent point.
    Mark(Mark),
    /// Hub → owner, on durable apply.
    Ack(Ack),
    /// Both ways, beside the operations; the sharing machine of a session takes these.
    Share(Share),
    /// Both ways, at most once, first: which key comes after the sender's, or came before it.
    Succession(Box<Succession>),
    /// The answer to one: its newest key is stored.
    SuccessionKnown(PublicKey),
    /// Both ways, every 20 s.
    Heartbeat,
    /// Both ways, last. A stream without it was interrupted, never complete.
    End(EndReason),
}

/// Where the owner stands, read in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// This life of the owner's database.
    pub incarnation: Incarnation,
    /// This run of the owner's process.
    pub process: ProcessNonce,
    /// The last change.
    pub head: Position,
    /// What the owner lets this hub read.
    pub granted: Scopes,
    /// All live operations inside the view.
    pub set: SetDigest,
}

/// What the hub proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How to go on, if the owner recognises `newest`.
    pub proposal: Proposal,
    /// The highest position from which the hub has stored anything.
    pub newest: Position,
    /// The cursor and remembered older positions, newest first; empty when in sync.
    pub candidates: Vec<Position>,
    /// Cumulative count of Ops and Answer frames that the hub allows in this session.
    pub credit: u64,
}

/// How the hub proposes to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposal {
    /// Both sides hold the same set.
    InSync,
    /// Ops from the cursor.
    Resume {
        /// Up to here the hub has everything.
        cursor: Position,
    },
    /// Manifests from `done`.
    Diff {
        /// The first id that is not settled; 0 or 1 is the beginning, 2⁶³−1 means that only the end is missing.
        done: u64,
    },
    /// Everything again: the hub has set all rows of this owner aside.
    Restream,
}

/// The newest candidate that the owner recognises, under its new incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matchpoint {
    /// None: nothing is common.
    pub position: Option<Position>,
    /// Taken and made durable before this was sent.
    pub incarnation: Incarnation,
}

/// The live operations of the view in a range of ids, read in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// First id of the range.
    pub lo: u64,
    /// First id after the range; [`OpId::END`] in the last one.
    pub hi: u64,
    /// The head of the transaction that read it.
    pub as_of: Position,
    /// Ascending by id, all inside the range.
    pub entries: Vec<(OpId, Modno)>,
}

/// The ids of one manifest that the hub lacks or holds with another modno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The manifest's.
    pub hi: u64,
    /// Ascending, maybe none.
    pub ids: Vec<OpId>,
}

/// What the owner holds of the ids that were needed, in id order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The first id not yet settled; the manifest's `hi` in its final answer.
    pub hi: u64,
    /// The head of the transaction that read it.
    pub as_of: Position,
    /// Ascending by id.
    pub operations: Vec<Operation>,
    /// Needed, but no longer in the view. Changes nothing by itself: its tombstone comes with Ops.
    pub gone: Vec<OpId>,
    /// The final answer of the final manifest.
    pub last: bool,
}

/// The changes after `base` up to `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ops {
    /// The previous frame's end: the hub's cursor.
    pub base: Position,
    /// Everything up to here is in this frame, outside the view, or was changed again later.
    pub end: Position,
    /// The head of the transaction that read it. What was changed again lies between `end` and here: an owner that goes
    /// back to a time before `as_of` has rows that this frame left out.
    pub as_of: Position,
    /// Ascending by modno.
    pub operations: Vec<Operation>,
    /// Ascending by modno.
    pub tombstones: Vec<Tombstone>,
}

/// The owner's set at a consistent point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Equals the last `end`.
    pub position: Position,
    /// Read in the transaction that found no change after `position`.
    pub set: SetDigest,
}

/// What is durable at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The hub's cursor.
    pub cursor: Position,
    /// Cumulative count of Ops and Answer frames allowed in this session.
    pub credit: u64,
    /// Cumulative count of Ops and Answer frames that the hub is done with in this session.
    pub settled: u64,
    /// The answer to a Mark.
    pub mark: Option<MarkAnswer>,
}

/// Whether the hub's set was the marked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkAnswer {
    /// The Mark's.
    pub position: Position,
    /// The result.
    pub outcome: Comparison,
}

/// The outcome of comparing two sets by digest and count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same operations.
    Equal,
    /// Not the same.
    Differs,
}

/// Why a side ends the stream on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// This process stops.
    Shutdown,
    /// Grants changed; the next session has the new view.
    GrantsChanged,
    /// The peer was blocked, removed or unverified.
    Revoked,
    /// A newer session of the same peer took over.
    Displaced,
    /// The session has run for long; the next one has new keys.
    Aged,
}
