//! The sealed channel: HPKE inside the stream, so that whoever ends TLS on the way sees sizes and times and nothing
//! else.
//!
//! The dialer makes a key pair for one stream and sends the public half; the acceptor encapsulates a secret to it; from
//! that secret come a key for each direction and the key of the handshake's confirmations. Who the two are is not
//! settled here: that is the handshake, which is bound to both messages of the exchange. What is sealed is counted, so
//! that nothing can be changed, left out, repeated, reordered or moved to another stream. Bytes in, bytes out:
//! `link.rs` puts them into frames, `handshake.rs` makes the exchange.

use std::fmt;

use aes_gcm::aead::Payload;
use aes_gcm::{Aes256Gcm, KeyInit as _, aead::Aead as _};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::MlKem1024P384;
use hpke::{Deserializable as _, HpkeError, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use opmesh_core::handshake::{
    ChannelKeys, SEALED_ACCEPTOR, SEALED_CONFIRM, SEALED_DIALER, SEALED_INFO, sealed_binding,
};

use crate::wire::{ENCAPSULATION_BYTES, SealAnswer, SealOffer, Sealed};

/// Frames in one direction; AES-GCM must not be asked for more under one key (RFC 8446 section 5.5 counts the same
/// way). The stream ends there, and the next one has other keys.
const FRAMES: u64 = 1 << 32;
/// Sealed bytes in one direction, for the same reason.
const BYTES: u64 = 1 << 40;

/// Why a sealed channel cannot come about or go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// The dialer's offer.
    #[error("the dialer's offer of a sealed channel is no public key")]
    PublicKey,
    /// The acceptor's answer.
    #[error("the answer to our offer of a sealed channel cannot be used")]
    Encapsulation,
    /// A frame that the other side did not seal, or not now, or not here.
    #[error("a sealed frame does not open: something on the way changes, drops, repeats or reorders frames")]
    DoesNotOpen,
    /// `FRAMES` or `BYTES`.
    #[error("this stream has carried as much as one key may: a new one begins")]
    Spent,
}

/// The dialer's half of an exchange that was begun.
pub(super) struct Offered {
    private: <MlKem1024P384 as Kem>::PrivateKey,
    offer: SealOffer,
}

/// What both sides have after the exchange.
pub(super) struct Agreed {
    pub(super) keys: ChannelKeys,
    pub(super) seal: Box<Seal>,
}

/// Makes a key pair for one stream.
pub(super) fn offer() -> (Box<Offered>, SealOffer) {
    let (private, public) = MlKem1024P384::gen_keypair();
    let offer = SealOffer(bytes(&public));
    (Box::new(Offered { private, offer: offer.clone() }), offer)
}

impl Offered {
    /// The acceptor answered.
    pub(super) fn answered(self: Box<Self>, answer: &SealAnswer) -> Result<Agreed, SealFault> {
        let fault = |_| SealFault::Encapsulation;
        let encapsulated =
            <MlKem1024P384 as Kem>::EncappedKey::from_bytes(answer.0.as_slice()).map_err(fault)?;
        let context = hpke::setup_receiver::<AesGcm256, HkdfSha256, MlKem1024P384>(
            &OpModeR::Base,
            &self.private,
            &encapsulated,
            SEALED_INFO,
        );
        let context = context.map_err(fault)?;
        let export = |label: &[u8], key: &mut [u8]| context.export(label, key);
        Agreed::new(Side::Dialer, &self.offer, answer, export).map_err(fault)
    }
}

/// Answers a dialer's offer.
pub(super) fn answer(offer: &SealOffer) -> Result<(SealAnswer, Agreed), SealFault> {
    let fault = |_| SealFault::PublicKey;
    let public = <MlKem1024P384 as Kem>::PublicKey::from_bytes(offer.0.as_slice()).map_err(fault)?;
    let sending =
        hpke::setup_sender::<AesGcm256, HkdfSha256, MlKem1024P384>(&OpModeS::Base, &public, SEALED_INFO);
    let (encapsulated, context) = sending.map_err(fault)?;
    let answer = SealAnswer(bytes(&encapsulated));
    let export = |label: &[u8], key: &mut [u8]| context.export(label, key);
    let agreed = Agreed::new(Side::Acceptor, offer, &answer, export).map_err(fault)?;
    Ok((answer, agreed))
}

fn bytes(value: &impl Serializable) -> Box<[u8; ENCAPSULATION_BYTES]> {
    let mut bytes = Box::new([0; ENCAPSULATION_BYTES]);
    value.write_exact(bytes.as_mut_slice());
    bytes
}

/// Which end of the stream this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialer,
    Acceptor,
}

impl Agreed {
    fn new(
        side: Side,
        offer: &SealOffer,
        answer: &SealAnswer,
        export: impl Fn(&[u8], &mut [u8]) -> Result<(), HpkeError>,
    ) -> Result<Self, HpkeError> {
        let exported = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            export(label, key.as_mut_slice()).map(|()| key)
        };
        let binding = sealed_binding(offer.0.as_slice(), answer.0.as_slice());
        let confirm = *exported(SEALED_CONFIRM)?;
        let dialer = Direction::new(&*exported(SEALED_DIALER)?, SEALED_DIALER, &binding);
        let acceptor = Direction::new(&*exported(SEALED_ACCEPTOR)?, SEALED_ACCEPTOR, &binding);
        let (outgoing, incoming) = match side {
            Side::Dialer => (dialer, acceptor),
            Side::Acceptor => (acceptor, dialer),
        };
        Ok(Self {
            keys: ChannelKeys::Sealed { binding, confirm },
            seal: Box::new(Seal { outgoing, incoming }),
        })
    }
}

/// Both directions of one sealed stream, seen from one end.
pub(super) struct Seal {
    outgoing: Direction,
    incoming: Direction,
}

impl Seal {
    /// Seals what is sent next.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Result<Sealed, SealFault> {
        let (outgoing, nonce) = (&self.outgoing, self.outgoing.nonce(plain.len())?);
        let payload = Payload { msg: plain, aad: &outgoing.about };
        let sealed = outgoing.cipher.encrypt(&nonce.into(), payload).map_err(|_| SealFault::Spent)?;
        self.outgoing.counted(plain.len());
        Ok(Sealed(sealed))
    }

    /// Opens what came next. After a fault nothing opens any more.
    pub(super) fn open(&mut self, sealed: &Sealed) -> Result<Vec<u8>, SealFault> {
        let (incoming, nonce) = (&self.incoming, self.incoming.nonce(sealed.0.len())?);
        let payload = Payload { msg: &sealed.0, aad: &incoming.about };
        if let Ok(plain) = incoming.cipher.decrypt(&nonce.into(), payload) {
            self.incoming.counted(sealed.0.len());
            return Ok(plain);
        }
        self.incoming.frames = FRAMES;
        Err(SealFault::DoesNotOpen)
    }
}

impl fmt::Debug for Seal {
    /// The keys are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("sealed", &self.outgoing.frames)
            .field("opened", &self.incoming.frames)
            .finish()
    }
}

/// What goes one way. Cipher and key are wiped when it is dropped.
struct Direction {
    cipher: Aes256Gcm,
    /// Direction and stream; goes into every tag.
    about: Vec<u8>,
    frames: u64,
    bytes: u64,
}

impl Direction {
    fn new(key: &[u8; 32], name: &[u8], binding: &[u8; 32]) -> Self {
        let cipher = Aes256Gcm::new(key.into());
        Self { cipher, about: [name, b"\0", binding].concat(), frames: 0, bytes: 0 }
    }

    /// The next frame's number as 96 bits, big-endian.
    fn nonce(&self, bytes: usize) -> Result<[u8; 12], SealFault> {
        if self.frames >= FRAMES || self.bytes.saturating_add(length(bytes)) > BYTES {
            return Err(SealFault::Spent);
        }
        let mut nonce = [0; 12];
        let number = self.frames.to_be_bytes();
        nonce.iter_mut().skip(4).zip(number).for_each(|(to, from)| *to = from);
        Ok(nonce)
    }

    fn counted(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += length(bytes);
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
