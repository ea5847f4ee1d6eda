//! How a session ended, or why it never began, sorted by whose doing it was.

use opmesh_core::handshake::HandshakeFault;
use opmesh_core::model::KeyId;
use opmesh_core::protocol::{EndReason, Violation};
use opmesh_core::session::Finish;

use crate::store::{AuditKind, Refusal, StoreError};
use crate::wire::WireFault;

use super::address::{AddressFault, Channel};
use super::client::DialError;
use super::seal::SealFault;

/// The end of one session or of one attempt. The text is for this side's operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The session ran, and one side ended it.
    #[error("{}", finish_text(.0))]
    Finished(Finish),

    /// The peer sent what is no message, or one of another phase.
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireFault),
    /// The dialer begins as in another channel than the one that is configured here.
    #[error("the dialer uses another channel: {}", channel_advice(*.listener))]
    OtherChannel {
        /// Ours.
        listener: Channel,
    },
    /// Somebody between the two changes what is sent, or the peer cannot seal.
    #[error("the sealed channel failed: {0}")]
    Seal(#[from] SealFault),
    /// The peer is not who it should be, or somebody interferes.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] HandshakeFault),
    /// The peer did not finish the handshake in time.
    #[error("the handshake was not finished in time")]
    HandshakeTimeout,
    /// The peer takes nothing that is sent to it.
    #[error("the peer has read nothing for a minute")]
    NotReading,
    /// Two processes with the same key keep pushing each other out.
    #[error(
        "two processes use the identity of this peer and keep displacing each other; stop one of them, or `opmesh peer \
         resolve` on the hub"
    )]
    Rivals,
    /// The stream broke off without an End.
    #[error("the connection was interrupted: {0}")]
    Interrupted(String),

    /// We do not let this peer in.
    #[error("this peer is refused: {}", .0.advice())]
    Refused(Refusal),
    /// A dialer that is not let in came too often to be heard again.
    #[error("this peer is not let in and asks too often")]
    TooOften,
    /// The hub does not let us in; it does not say why.
    #[error("the hub refused us: {0}; its operator sees the reason in its log and in `opmesh status` there")]
    TurnedAway(String),
    /// The hub ended the stream with an error.
    #[error("the hub answered {code}: {text}")]
    HubError {
        /// gRPC's name of the status.
        code: String,
        /// Its words, shortened.
        text: String,
    },

    /// No connection came about.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer's entry cannot be dialled.
    #[error(transparent)]
    Address(#[from] AddressFault),
    /// Our store failed, or this session no longer speaks for its peer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

impl Ending {
    /// Which other instance answered in the place of the hub.
    pub fn other_key(&self) -> Option<KeyId> {
        match self {
            Self::Dial(DialError::OtherKey { other, .. }) => Some(other.presented),
            Self::Handshake(HandshakeFault::WrongHub { presented, .. }) => Some(*presented),
            _ => None,
        }
    }
}

// What the audit log says of an end, when it bears on security and the store has not said so already: a key that it
// did not let in, and a superseded incarnation, were recorded with their effect.
impl Ending {
    /// The event on the hub's side, where a stranger may have been at work.
    pub(super) fn event_at_hub(&self) -> Option<AuditKind> {
        match self {
            Self::Wire(_) | Self::OtherChannel { .. } | Self::Handshake(_) => {
                Some(AuditKind::HandshakeFailed)
            }
            _ => self.event_in_session(),
        }
    }

    /// The event on the dialer's side.
    pub(super) fn event_at_host(&self) -> Option<AuditKind> {
        match self {
            _ if self.other_key().is_some() => Some(AuditKind::OtherKeyAnswered),
            Self::Handshake(_) => Some(AuditKind::HandshakeFailed),
            Self::TurnedAway(_) => Some(AuditKind::RefusedByHub),
            _ => self.event_in_session(),
        }
    }

    /// The event after the handshake, on either side.
    pub(super) const fn event_in_session(&self) -> Option<AuditKind> {
        match self {
            Self::Finished(Finish::Violation(Violation::OutsideView { .. })) => Some(AuditKind::ScopeDenied),
            Self::Rivals => Some(AuditKind::IdentityConflict),
            Self::Seal(SealFault::PublicKey | SealFault::Encapsulation | SealFault::DoesNotOpen) => {
                Some(AuditKind::HandshakeFailed)
            }
            Self::Finished(_)
            | Self::Seal(SealFault::Spent)
            | Self::Wire(_)
            | Self::OtherChannel { .. }
            | Self::Handshake(_)
            | Self::HandshakeTimeout
            | Self::TooOften
            | Self::NotReading
            | Self::Interrupted(_)
            | Self::Refused(_)
            | Self::TurnedAway(_)
            | Self::HubError { .. }
            | Self::Dial(_)
            | Self::Address(_)
            | Self::Store(_)
            | Self::Randomness => None,
        }
    }
}

/// What to do about two sides with different channels, for either of them.
pub(super) fn channel_advice(listener: Channel) -> String {
    format!(
        "the channel of this listener is {listener}; if that is meant, set it on the host, too: \
         `opmesh peer set HUB --channel {listener}`"
    )
}

fn finish_text(finish: &Finish) -> String {
    match finish {
        Finish::Closed(reason) => format!("this side ended the session: {}", reason_text(*reason)),
        Finish::PeerEnded(reason) => format!("the peer ended the session: {}", reason_text(*reason)),
        Finish::Violation(violation) => format!("the peer broke the protocol: {violation}"),
        Finish::Silent => "the peer has said nothing for a minute".to_owned(),
    }
}

const fn reason_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Shutdown => "shutdown",
        EndReason::GrantsChanged => "grants changed",
        EndReason::Revoked => "no longer let in",
        EndReason::Displaced => "a newer session took over",
        EndReason::Aged => "old enough for a new one",
    }
}
