//! What peers say to each other after the handshake, the rules that they must keep, and the limits.

mod capability;
mod inquiry;
pub mod limits;
mod message;
mod share;
mod violation;

pub use capability::Capability;
pub use inquiry::{Findings, Inquiry, MAX_VERSION_BYTES, Room, Standing};
pub use message::{
    Ack, Answer, Comparison, EndReason, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal,
    State, Verdict,
};
pub use share::{Outcome, Refused, Request, Share, Write, WriteKey, Written};
pub use violation::Violation;
