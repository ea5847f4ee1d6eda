//! What a session asks of the outside, and what it is told.
//!
//! A session never waits: each call of `handle` takes one [`Input`] and pushes [`Output`]s in the order in which they
//! must happen. The driver performs them and feeds the results back.

use crate::model::{Incarnation, Modno, OpId, Operation, Position, SetDigest, Tombstone};
use crate::permission::View;
use crate::replica::{Committed, Transaction};

use crate::protocol::limits::{CAREFUL_FRAME_BYTES, FRAME_BYTES};
use crate::protocol::{EndReason, Message, Proposal, Violation};

/// What a session is told.
#[derive(Debug)]
pub enum Input {
    /// A frame arrived.
    Received(Message),
    /// The store answered the one outstanding [`Output::Read`].
    Found(Found),
    /// Owner: the store has made a new incarnation durable.
    NewIncarnation(Incarnation),
    /// Hub: the oldest outstanding [`Output::Commit`] is durable, or was refused as a whole.
    Committed(Result<Committed, Violation>),
    /// Owner: there are changes after the last read.
    Changed,
    /// A frame arrived that is another machine's: the peer lives.
    Heard,
    /// Time passed; see `Session::deadline`.
    Tick,
    /// This side wants to end.
    Close(EndReason),
}

/// What a session wants done, in order.
#[derive(Debug)]
pub enum Output {
    /// Put a frame on the stream.
    Send(Message),
    /// Owner: read from the own log. At most one is outstanding. The driver performs it once an outbound slot is
    /// free, so that what it leads to can always be sent.
    Read(Read),
    /// Owner: draw a new incarnation and make it durable.
    TakeIncarnation,
    /// Hub: perform this in one transaction. Several may be outstanding; they are performed and answered in order.
    Commit(Transaction),
    /// Hub: compare a manifest with the rows held. Only asked when no commit is outstanding; answered by
    /// [`Found::Needs`].
    Compare(Compare),
    /// Tell the node; changes nothing in the protocol.
    Report(Report),
    /// The session is over. Nothing follows.
    Finish(Finish),
}

/// A read of the owner's log; each is one short transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Incarnation, head and the view's digest → [`Found::Here`].
    Here {
        /// What the hub may see.
        view: View,
    },
    /// The chains remembered at these modnos → [`Found::Checkpoints`].
    Checkpoints {
        /// Any order, no zero.
        modnos: Vec<Modno>,
    },
    /// A frame of changes after `after` → [`Found::Changes`].
    Changes {
        /// Exclusive.
        after: Modno,
        /// What the hub may see.
        view: View,
        /// Most bytes of records; one operation may stand alone above it.
        frame_bytes: usize,
    },
    /// A frame of the sorted ids from `lo` → [`Found::Manifest`].
    Manifest {
        /// Inclusive.
        lo: u64,
        /// What the hub may see.
        view: View,
    },
    /// A frame of these operations → [`Found::Operations`].
    Operations {
        /// Ascending.
        ids: Vec<OpId>,
        /// What the hub may see.
        view: View,
        /// As in [`Read::Changes`].
        frame_bytes: usize,
    },
}

/// How much an owner sends ahead of what is durable at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As much as the hub's credit allows.
    Full,
    /// Little, because streams to this hub are cut: see [`CAREFUL_FRAME_BYTES`].
    Careful,
}

impl Pace {
    pub(super) const fn frame_bytes(self) -> usize {
        match self {
            Self::Full => FRAME_BYTES,
            Self::Careful => CAREFUL_FRAME_BYTES,
        }
    }
}

/// Which ids of a manifest the hub needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// First id of the range.
    pub lo: u64,
    /// First id after it.
    pub hi: u64,
    /// The manifest's entries.
    pub entries: Vec<(OpId, Modno)>,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Answer to [`Read::Here`].
    Here(Here),
    /// Answer to [`Read::Checkpoints`]: those that exist, any order.
    Checkpoints(Vec<Position>),
    /// Answer to [`Read::Changes`].
    Changes(Changes),
    /// Answer to [`Read::Manifest`].
    Manifest(ManifestPage),
    /// Answer to [`Read::Operations`].
    Operations(OperationsPage),
    /// Answer to [`Output::Compare`]: ascending.
    Needs(Vec<OpId>),
}

/// Where the owner stands, from one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// This life of the database.
    pub incarnation: Incarnation,
    /// The last change.
    pub head: Position,
    /// Live operations inside the view.
    pub set: SetDigest,
}

/// A frame's worth of changes; at most [`crate::protocol::limits::FRAME_OPERATIONS`] rows and as many bytes as were asked
/// for, but at least one row if there is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Inside the view, ascending by modno.
    pub operations: Vec<Operation>,
    /// Inside the view, ascending by modno.
    pub tombstones: Vec<Tombstone>,
    /// The last change that was looked at, inside the view or not; the position asked from when there was none.
    pub end: Position,
    /// The head of the transaction.
    pub as_of: Position,
    /// The view's digest, when the same transaction held no change after `end`: a consistent point.
    pub consistent: Option<SetDigest>,
}

/// A frame's worth of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestPage {
    /// First id after the range; [`OpId::END`] when there are no more.
    pub hi: u64,
    /// The head of the transaction.
    pub as_of: Position,
    /// Ascending.
    pub entries: Vec<(OpId, Modno)>,
}

/// A frame's worth of operations by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationsPage {
    /// The head of the transaction.
    pub as_of: Position,
    /// Ascending by id.
    pub operations: Vec<Operation>,
    /// Asked for, but not (or no longer) in the view.
    pub gone: Vec<OpId>,
    /// How many of the ids asked for were looked at, from the front; at least one.
    pub settled: usize,
}

/// What the node shows and counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Owner: the hub answered with this proposal.
    Verdict(Proposal),
    /// Owner: the hub does not know this history; a new incarnation was announced.
    Fork {
        /// What is common.
        matchpoint: Option<Position>,
    },
    /// Owner: durable at the hub.
    Acked(Position),
    /// Owner: everything up to here was sent and nothing is left to send.
    CaughtUp(Position),
    /// Both: the sets were compared and are equal.
    Proved {
        /// Where.
        position: Position,
        /// What.
        set: SetDigest,
    },
    /// Both: the sets were compared at this position and differ.
    Differs(Position),
    /// Hub: the last change of the owner's log, as the owner has just said.
    OwnerAt(Position),
    /// Hub: something was committed; what it changed.
    Applied(Box<Committed>),
}

/// How a session ended, from this side's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// This side said so; its End has been sent.
    Closed(EndReason),
    /// The peer sent its End.
    PeerEnded(EndReason),
    /// The peer broke a rule; the status names it.
    Violation(Violation),
    /// No frame for 60 s.
    Silent,
}
