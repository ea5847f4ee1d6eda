//! The messages of the sealed channel ⇄ frames. What is in them is bytes here: `transport/seal.rs` makes and opens them.

use prost::Message as _;

use super::decode::{fixed, name};
use super::fault::WireFault;
use super::pb::{self, Frame, frame::Body};

/// A public key of MLKEM1024-P384, and what is encapsulated to one: an ML-KEM-1024 key or ciphertext (FIPS 203, 1568
/// bytes) and an uncompressed point of P-384 (97 bytes).
pub const ENCAPSULATION_BYTES: usize = 1568 + 97;

/// The dialer's public key for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealOffer(pub Box<[u8; ENCAPSULATION_BYTES]>);

/// What the acceptor encapsulated to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealAnswer(pub Box<[u8; ENCAPSULATION_BYTES]>);

/// A frame that only the other side can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

/// Whether a dialer speaks through a sealed channel, whatever else its first frame says.
pub fn is_seal_offer(frame: &Frame) -> bool {
    matches!(frame.body, Some(Body::SealOffer(_)))
}

/// The dialer's first frame in a sealed channel.
pub fn seal_offer(frame: Frame) -> Result<SealOffer, WireFault> {
    match body(frame)? {
        Body::SealOffer(offer) => Ok(SealOffer(Box::new(fixed("seal_offer.public_key", &offer.public_key)?))),
        body => Err(misplaced(&body, "SealOffer")),
    }
}

/// The acceptor's first frame in a sealed channel.
pub fn seal_answer(frame: Frame) -> Result<SealAnswer, WireFault> {
    match body(frame)? {
        Body::SealAnswer(answer) => {
            Ok(SealAnswer(Box::new(fixed("seal_answer.encapsulation", &answer.encapsulation)?)))
        }
        body => Err(misplaced(&body, "SealAnswer")),
    }
}

/// Every later frame in a sealed channel.
pub fn sealed(frame: Frame) -> Result<Sealed, WireFault> {
    match body(frame)? {
        Body::Sealed(sealed) => Ok(Sealed(sealed.ciphertext)),
        body => Err(misplaced(&body, "Sealed")),
    }
}

/// What is sealed of a frame: all of it.
pub fn to_be_sealed(frame: &Frame) -> Vec<u8> {
    frame.encode_to_vec()
}

/// The frame in what was sealed.
pub fn from_sealed(opened: &[u8]) -> Result<Frame, WireFault> {
    Frame::decode(opened).map_err(|error| WireFault::Undecodable(error.to_string()))
}

fn body(frame: Frame) -> Result<Body, WireFault> {
    frame.body.ok_or(WireFault::UnknownBody)
}

fn misplaced(body: &Body, expected: &'static str) -> WireFault {
    WireFault::OutOfPlace { message: name(body), expected }
}

impl From<SealOffer> for Frame {
    fn from(offer: SealOffer) -> Self {
        Self { body: Some(Body::SealOffer(pb::SealOffer { public_key: offer.0.to_vec() })) }
    }
}

impl From<SealAnswer> for Frame {
    fn from(answer: SealAnswer) -> Self {
        Self { body: Some(Body::SealAnswer(pb::SealAnswer { encapsulation: answer.0.to_vec() })) }
    }
}

impl From<Sealed> for Frame {
    fn from(sealed: Sealed) -> Self {
        Self { body: Some(Body::Sealed(pb::Sealed { ciphertext: sealed.0 })) }
    }
}
