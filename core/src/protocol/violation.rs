//! One variant for each way a peer can misbehave. The text names the rule; `transport` maps it to a status.

use crate::model::{Incarnation, OpId, Position, Scope};

/// What the peer did that it must not do. The session ends, and nothing of the offending frame is applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message that does not belong here.
    #[error("{message} is not expected while {state}")]
    OutOfState {
        /// Its name.
        message: &'static str,
        /// What the session is doing.
        state: &'static str,
    },
    /// Ops whose base is not the hub's cursor.
    #[error("ops start at {base} but the cursor is {cursor}")]
    BaseIsNotCursor {
        /// What came.
        base: Position,
        /// What the hub has.
        cursor: Position,
    },
    /// A row outside the view.
    #[error("operation {id} of repo {:?} and plan {:?} is outside the view", scope.repo, scope.plan)]
    OutsideView {
        /// The operation.
        id: OpId,
        /// Where it belongs.
        scope: Scope,
    },
    /// More Ops and Answer frames than the credit allows.
    #[error("frame {frame} exceeds the credit of {credit}")]
    CreditExceeded {
        /// Its number in this session, from 1.
        frame: u64,
        /// What was allowed.
        credit: u64,
    },
    /// Manifests that do not tile the ids.
    #[error("manifest starts at {lo} but the previous one ended at {expected}")]
    ManifestGap {
        /// What came.
        lo: u64,
        /// What was expected.
        expected: u64,
    },
    /// More manifests in flight than allowed.
    #[error("more than {limit} manifests are not fully answered and acknowledged")]
    TooManyManifests {
        /// How many may be.
        limit: usize,
    },
    /// An answer, or a need, that does not fit the manifest it belongs to.
    #[error("{message} does not fit its manifest: {detail}")]
    DoesNotFitManifest {
        /// `Need` or `Answer`.
        message: &'static str,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A Mark that is not at the hub's cursor, or a second one before the first was answered.
    #[error("mark at {position} does not stand at the end of the last ops")]
    MarkNotAtEnd {
        /// Where it stands.
        position: Position,
    },
    /// A matchpoint that the hub did not propose, or an incarnation that is not new.
    #[error("matchpoint {0:?} was not among the candidates")]
    UnknownMatchpoint(Option<Position>),
    /// The hub acknowledged what was never sent, or took credit back.
    #[error("ack is not monotone or exceeds what was sent")]
    ImpossibleAck,
    /// The hub's verdict does not fit the owner's state.
    #[error("verdict does not fit: {detail}")]
    ImpossibleVerdict {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// More of this message than a peer may send.
    #[error("more than {limit} {message} in a minute")]
    TooOften {
        /// Its name.
        message: &'static str,
        /// How many may come.
        limit: u32,
    },
    /// A Write before the last one was answered.
    #[error("a second Write came before the first one was answered")]
    SecondWrite,
    /// A Written whose key is not the one asked for.
    #[error("Written answers nothing that was asked")]
    UnaskedAnswer,
    /// The owner presents a label that it, or a copy of it, has already replaced.
    #[error(
        "incarnation {presented} was superseded; two databases use this identity, or an old copy was restored twice"
    )]
    SupersededIncarnation {
        /// The label.
        presented: Incarnation,
    },
}
