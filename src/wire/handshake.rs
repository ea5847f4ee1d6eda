//! Handshake messages ⇄ frames. Each step of the handshake expects exactly one message; anything else is refused
//! here, by name.

use opmesh_core::handshake::{Accepted, Challenge, Confirm, Hello, PairingProof, Proof};
use opmesh_core::model::PublicKey;
use prost::Message as _;

use super::decode::{MESSAGE_BYTES_BEFORE_AUTHENTICATION, fixed, name};
use super::fault::WireFault;
use super::pb::{self, Frame, frame::Body};

/// The dialer's first message, from somebody who has proved nothing.
pub fn hello(frame: Frame) -> Result<Hello, WireFault> {
    match small(frame)? {
        Body::Hello(hello) => Ok(Hello {
            versions: hello.versions,
            nonce: fixed("hello.nonce", &hello.nonce)?,
            target_tag: fixed("hello.target_tag", &hello.target_tag)?,
        }),
        body => Err(misplaced(&body, "Hello")),
    }
}

/// The acceptor's first message, from somebody who has proved nothing.
pub fn challenge(frame: Frame) -> Result<Challenge, WireFault> {
    match small(frame)? {
        Body::Challenge(challenge) => Ok(Challenge {
            version: challenge.version,
            nonce: fixed("challenge.nonce", &challenge.nonce)?,
            session: fixed("challenge.session", &challenge.session)?,
            public_key: PublicKey(fixed("challenge.public_key", &challenge.public_key)?),
            instance_id: challenge.instance_id.parse()?,
            capabilities: challenge.capabilities,
            signature: fixed("challenge.signature", &challenge.signature)?,
        }),
        body => Err(misplaced(&body, "Challenge")),
    }
}

/// The dialer's second message, from somebody who has proved nothing.
pub fn proof(frame: Frame) -> Result<Proof, WireFault> {
    match small(frame)? {
        Body::Proof(proof) => Ok(Proof {
            public_key: PublicKey(fixed("proof.public_key", &proof.public_key)?),
            instance_id: proof.instance_id.parse()?,
            capabilities: proof.capabilities,
            signature: fixed("proof.signature", &proof.signature)?,
            pairing: proof.pairing.map(PairingProof::try_from).transpose()?,
        }),
        body => Err(misplaced(&body, "Proof")),
    }
}

/// The acceptor's second message.
pub fn accepted(frame: Frame) -> Result<Accepted, WireFault> {
    match frame.body.ok_or(WireFault::UnknownBody)? {
        // The scope list stays text: the transcript covers it as it was written, and the handshake parses it.
        Body::Accepted(accepted) => Ok(Accepted {
            grants: accepted.grants,
            accepted_scopes: accepted.accepted_scopes,
            confirmation: fixed("accepted.confirmation", &accepted.confirmation)?,
        }),
        body => Err(misplaced(&body, "Accepted")),
    }
}

/// The dialer's last message of the handshake.
pub fn confirm(frame: Frame) -> Result<Confirm, WireFault> {
    match frame.body.ok_or(WireFault::UnknownBody)? {
        Body::Confirm(confirm) => Ok(Confirm {
            grants: confirm.grants,
            confirmation: fixed("confirm.confirmation", &confirm.confirmation)?,
        }),
        body => Err(misplaced(&body, "Confirm")),
    }
}

fn small(frame: Frame) -> Result<Body, WireFault> {
    let (bytes, limit) = (frame.encoded_len(), MESSAGE_BYTES_BEFORE_AUTHENTICATION);
    if bytes > limit {
        return Err(WireFault::TooLarge { what: "a message before authentication", bytes, limit });
    }
    frame.body.ok_or(WireFault::UnknownBody)
}

fn misplaced(body: &Body, expected: &'static str) -> WireFault {
    WireFault::OutOfPlace { message: name(body), expected }
}

impl TryFrom<pb::PairingProof> for PairingProof {
    type Error = WireFault;

    fn try_from(proof: pb::PairingProof) -> Result<Self, WireFault> {
        Ok(Self {
            token_key: PublicKey(fixed("pairing.token_key", &proof.token_key)?),
            signature: fixed("pairing.signature", &proof.signature)?,
        })
    }
}

impl From<Hello> for Frame {
    fn from(hello: Hello) -> Self {
        let body = pb::Hello {
            versions: hello.versions,
            nonce: hello.nonce.to_vec(),
            target_tag: hello.target_tag.to_vec(),
        };
        Self { body: Some(Body::Hello(body)) }
    }
}

impl From<Challenge> for Frame {
    fn from(challenge: Challenge) -> Self {
        let body = pb::Challenge {
            version: challenge.version,
            nonce: challenge.nonce.to_vec(),
            session: challenge.session.to_vec(),
            public_key: challenge.public_key.0.to_vec(),
            instance_id: challenge.instance_id.to_string(),
            capabilities: challenge.capabilities,
            signature: challenge.signature.to_vec(),
        };
        Self { body: Some(Body::Challenge(body)) }
    }
}

impl From<Proof> for Frame {
    fn from(proof: Proof) -> Self {
        let pairing = proof.pairing.map(|pairing| pb::PairingProof {
            token_key: pairing.token_key.0.to_vec(),
            signature: pairing.signature.to_vec(),
        });
        let body = pb::Proof {
            public_key: proof.public_key.0.to_vec(),
            instance_id: proof.instance_id.to_string(),
            capabilities: proof.capabilities,
            signature: proof.signature.to_vec(),
            pairing,
        };
        Self { body: Some(Body::Proof(body)) }
    }
}

impl From<Accepted> for Frame {
    fn from(accepted: Accepted) -> Self {
        let body = pb::Accepted {
            grants: accepted.grants,
            accepted_scopes: accepted.accepted_scopes,
            confirmation: accepted.confirmation.to_vec(),
        };
        Self { body: Some(Body::Accepted(body)) }
    }
}

impl From<Confirm> for Frame {
    fn from(confirm: Confirm) -> Self {
        let body = pb::Confirm { grants: confirm.grants, confirmation: confirm.confirmation.to_vec() };
        Self { body: Some(Body::Confirm(body)) }
    }
}
