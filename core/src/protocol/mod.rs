//! What peers say to each other after the handshake, the rules that they must keep, and the limits.

mod capability;
pub mod limits;
mod message;
mod share;
mod violation;

pub use capability::Capability;
pub use message::{
    Ack, Answer, Comparison, EndReason, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal,
    State, Verdict,
};
pub use share::{NamedRepo, Outcome, Refused, Request, Resources, Share, Shown, Write, WriteKey, Written};
pub use violation::Violation;
