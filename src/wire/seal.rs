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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bit of an encoded frame turned over, and what `read` makes of it.
    fn assert_every_bit_counts<T: PartialEq + Clone>(
        message: T,
        frame: impl Fn(T) -> Frame,
        read: impl Fn(Frame) -> Result<T, WireFault>,
    ) {
        let clean = frame(message.clone()).encode_to_vec();
        for bit in 0..clean.len() * 8 {
            let mut flipped = clean.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let arrived = Frame::decode(flipped.as_slice()).ok().and_then(|frame| read(frame).ok());
            assert!(arrived != Some(message.clone()), "bit {bit} changes nothing");
        }
    }

    #[test]
    fn every_bit_of_an_encoded_frame_of_the_channel_counts() {
        assert_every_bit_counts(SealOffer(Box::new([7; ENCAPSULATION_BYTES])), Frame::from, seal_offer);
        assert_every_bit_counts(SealAnswer(Box::new([7; ENCAPSULATION_BYTES])), Frame::from, seal_answer);
        assert_every_bit_counts(Sealed(vec![7; 100]), Frame::from, sealed);
    }

    #[test]
    fn a_key_of_another_length_is_none_and_frames_come_in_their_place_only() {
        let short = pb::SealOffer { public_key: vec![7; ENCAPSULATION_BYTES - 1] };
        let refused = seal_offer(Frame { body: Some(Body::SealOffer(short)) }).unwrap_err();
        assert!(matches!(refused, WireFault::Length { expected: ENCAPSULATION_BYTES, .. }));
        let refused = seal_answer(Sealed(Vec::new()).into()).unwrap_err();
        assert_eq!(refused.to_string(), "Sealed came where SealAnswer was expected");
        assert!(from_sealed(&[0xff; 4]).is_err());
    }
}
