//! The protocol on the wire: generated `opmesh.sync.v1` types and their conversions.
//!
//! What comes in is parsed once, here, and every limit on size, shape, order and range is checked on the way; past this
//! module a message that exists is well-formed. What a message *means* is not decided here: that is `core`'s session and
//! handshake. Called by `transport`, which carries frames without looking into them.

mod decode;
mod encode;
mod fault;
mod handshake;
mod inquiry;
mod seal;
mod share;
mod succession;

#[allow(
    warnings,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code"
)]
mod pb {
    tonic::include_proto!("opmesh.sync.v1");
}

pub use decode::{MESSAGE_BYTES, MESSAGE_BYTES_BEFORE_AUTHENTICATION, decode};
pub use encode::encode;
pub use fault::WireFault;
pub use handshake::{accepted, challenge, confirm, hello, proof};
pub use inquiry::{findings, inquiry, is_inquiry};
pub use pb::Frame;
pub(crate) use pb::{peer_sync_client, peer_sync_server};
pub use seal::{ENCAPSULATION_BYTES, from_sealed, is_seal_offer, seal_answer, seal_offer, to_be_sealed};
pub use seal::{SealAnswer, SealOffer, Sealed, sealed};

/// The service's name, for health.
pub(crate) const SERVICE_NAME: &str = "opmesh.sync.v1.PeerSync";
/// The service's descriptors, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sync.descriptors.bin"));

#[cfg(test)]
mod tests;
