//! A dialer that only asks how it stands: one question in the place of its Confirm, one answer, the end of the stream.
//!
//! Since the handshake is not completed, no session begins and none is displaced: an operator can ask while everything
//! runs. Only a dialer that proved its key and was let in gets an answer.

use crate::model::UnixMs;

/// The longest version of a program in bytes.
pub const MAX_VERSION_BYTES: usize = 64;

/// Dialer, instead of Confirm. Only to a peer that named [`super::Capability::Inquiry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// The dialer's clock.
    pub at: UnixMs,
    /// The dialer's program, such as `0.1.0`.
    pub version: String,
}

/// Acceptor: how the dialer stands here. The stream ends after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The acceptor's clock.
    pub at: UnixMs,
    /// The acceptor's program.
    pub version: String,
    /// What the acceptor's program speaks, ascending.
    pub protocol_versions: Vec<u32>,
    /// What the dialer last let the acceptor do, each `TYPE:SCOPE,…`; from the last session.
    pub grants_received: Vec<String>,
    /// What the acceptor does with what the dialer sends.
    pub standing: Standing,
    /// Whether the acceptor can go on storing.
    pub room: Room,
    /// The schema of the acceptor's store.
    pub schema: u32,
}

/// How an owner stands at its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing stands in the way.
    Well,
    /// A comparison is owed or under way.
    CatchingUp,
    /// The guard held deletes back, and nobody has looked at them.
    NeedsDecision,
    /// Repairs are given up.
    Quarantined,
    /// A superseded history was presented, and nobody has decided.
    IdentityConflict,
}

/// How much room the acceptor's disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// Less than its reserve.
    Low,
    /// None to speak of.
    Full,
    /// The system did not say.
    Unknown,
}
