//! What is signed and confirmed: a canonical encoding of everything said so far, never protobuf bytes.
//!
//! Both sides build the same transcript, each from what it sent and what it received, so that any difference between
//! the two shows in the next signature or confirmation. One type for each stage; a stage is consumed by the next.
//! The byte layout is written down in `docs/protocol.md` and pinned by `docs/handshake-vectors.json`.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::message::{Accepted, Challenge, Hello, Proof};
use super::{ChannelKeys, MessageNonce};
use crate::model::{InstanceId, KeyId, PublicKey};

/// A SHA-256 hash or an HMAC-SHA-256.
pub(super) type Hash = [u8; 32];

const TARGET: &[u8] = b"opmesh/hs/1/dst\0";
const HISTORY_1: &[u8] = b"opmesh/hs/1/th1\0";
const HISTORY_2: &[u8] = b"opmesh/hs/1/th2\0";
const HISTORY_3: &[u8] = b"opmesh/hs/1/th3\0";
const HISTORY_4: &[u8] = b"opmesh/hs/1/th4\0";
const RESPONDER: &[u8] = b"opmesh/hs/1/responder\0";
const INITIATOR: &[u8] = b"opmesh/hs/1/initiator\0";
const PAIRING: &[u8] = b"opmesh/hs/1/pairing\0";
const ACCEPTED: &[u8] = b"opmesh/hs/1/accepted\0";
const CONFIRM: &[u8] = b"opmesh/hs/1/confirm\0";
const KEM: &[u8] = b"opmesh/hs/1/kem\0";
const PLAIN_KEY: &[u8] = b"opmesh/hs/1/fin\0";

/// Which hub a Hello is meant for, so that it cannot be used at another one, and nobody who does not know the hub can
/// tell: the first 16 bytes of SHA-256(label ‖ key ID as text ‖ nonce).
pub fn target_tag(hub: &KeyId, nonce: &MessageNonce) -> [u8; 16] {
    let hash = Piece::labelled(TARGET).raw(hub.to_string().as_bytes()).raw(nonce).hash();
    let mut tag = [0; 16];
    tag.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    tag
}

/// What binds a handshake to a sealed channel, and each sealed frame to its stream: SHA-256 over both messages of the
/// key encapsulation, as they were sent and as they came.
pub fn sealed_binding(public_key: &[u8], encapsulation: &[u8]) -> [u8; 32] {
    Piece::labelled(KEM).field(public_key).field(encapsulation).hash()
}

/// One side, as it presents itself.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub(super) key: PublicKey,
    pub(super) instance: InstanceId,
    pub(super) capabilities: Vec<String>,
}

impl Party {
    pub(super) fn of_challenge(challenge: &Challenge) -> Self {
        Self {
            key: challenge.public_key,
            instance: challenge.instance_id.clone(),
            capabilities: challenge.capabilities.clone(),
        }
    }

    pub(super) fn of_proof(proof: &Proof) -> Self {
        Self {
            key: proof.public_key,
            instance: proof.instance_id.clone(),
            capabilities: proof.capabilities.clone(),
        }
    }

    fn encode(&self) -> Piece {
        Piece::default()
            .field(&self.key.0)
            .field(self.instance.as_str().as_bytes())
            .field(&list(&self.capabilities))
    }
}

/// What the signatures and confirmations take from the channel.
#[derive(Debug)]
struct Binding {
    /// enc(kind) ‖ enc(value).
    cb: Vec<u8>,
    confirmation_key: ConfirmationKey,
}

/// The key of the two confirmations: secret, in a channel that has secrets.
pub(super) struct ConfirmationKey(pub(super) Hash);

impl fmt::Debug for ConfirmationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfirmationKey")
    }
}

/// After Hello and the open part of Challenge: version, channel and both nonces are fixed.
#[derive(Debug)]
pub(super) struct Opened {
    binding: Binding,
    pub(super) history: Hash,
}

/// After Challenge: the acceptor is fixed.
#[derive(Debug)]
pub(super) struct Challenged {
    binding: Binding,
    pub(super) history: Hash,
    pub(super) acceptor: Party,
}

/// After Proof: both are fixed.
#[derive(Debug)]
pub(super) struct Proved {
    pub(super) confirmation_key: ConfirmationKey,
    pub(super) history: Hash,
    pub(super) acceptor: Party,
    pub(super) dialer: Party,
}

/// After Accepted.
#[derive(Debug)]
pub(super) struct Closing {
    confirmation_key: ConfirmationKey,
    pub(super) history: Hash,
    pub(super) acceptor: Party,
    pub(super) dialer: Party,
}

/// What the dialer signs.
#[derive(Debug)]
pub(super) struct DialerSigns {
    /// With its own key.
    pub(super) identity: Vec<u8>,
    /// With the token's key.
    pub(super) token: Vec<u8>,
}

impl Opened {
    pub(super) fn new(
        keys: &ChannelKeys,
        hello: &Hello,
        version: u32,
        nonce: &MessageNonce,
        session: &[u8; 16],
    ) -> Self {
        let versions: Vec<u8> = hello.versions.iter().flat_map(|version| version.to_be_bytes()).collect();
        let said = Piece::default()
            .field(&versions)
            .field(keys.suite().as_bytes())
            .field(&hello.nonce)
            .field(&hello.target_tag);
        let answered = Piece::default()
            .field(&version.to_be_bytes())
            .field(keys.suite().as_bytes())
            .field(nonce)
            .field(session);
        Self {
            binding: Binding::new(keys, &hello.nonce, nonce),
            history: Piece::labelled(HISTORY_1).field(&said.0).field(&answered.0).hash(),
        }
    }

    /// What the acceptor signs with its own key.
    pub(super) fn acceptor_signs(&self, acceptor: &Party) -> Vec<u8> {
        Piece::labelled(RESPONDER).raw(&self.history).raw(&self.binding.cb).raw(&acceptor.encode().0).0
    }

    pub(super) fn challenged(self, acceptor: Party, signature: &[u8; 64]) -> Challenged {
        let said = acceptor.encode().field(signature);
        let history = Piece::labelled(HISTORY_2).raw(&self.history).field(&said.0).hash();
        Challenged { binding: self.binding, history, acceptor }
    }
}

impl Challenged {
    /// What the dialer signs, with one key and with the other; they differ in the label only.
    pub(super) fn dialer_signs(&self, dialer: &Party, token: Option<&PublicKey>) -> DialerSigns {
        let signed = |label| {
            Piece::labelled(label)
                .raw(&self.history)
                .raw(&self.binding.cb)
                .key_ids(&self.acceptor, dialer)
                .field(self.acceptor.instance.as_str().as_bytes())
                .field(dialer.instance.as_str().as_bytes())
                .field(&list(&self.acceptor.capabilities))
                .field(&list(&dialer.capabilities))
                .field(token.map_or(&[], |key| key.0.as_slice()))
                .0
        };
        DialerSigns { identity: signed(INITIATOR), token: signed(PAIRING) }
    }

    pub(super) fn proved(self, proof: &Proof) -> Proved {
        let dialer = Party::of_proof(proof);
        let pairing = proof.pairing.as_ref().map_or_else(Piece::default, |pairing| {
            Piece::default().field(&pairing.token_key.0).field(&pairing.signature)
        });
        let said = dialer.encode().field(&pairing.0).field(&proof.signature);
        Proved {
            confirmation_key: self.binding.confirmation_key,
            history: Piece::labelled(HISTORY_3).raw(&self.history).field(&said.0).hash(),
            acceptor: self.acceptor,
            dialer,
        }
    }
}

impl Proved {
    /// The acceptor's confirmation.
    pub(super) fn confirmation(&self, grants: &[String], accepted_scopes: &str) -> Hash {
        Piece::labelled(ACCEPTED)
            .raw(&self.history)
            .key_ids(&self.acceptor, &self.dialer)
            .field(&Self::body(grants, accepted_scopes).0)
            .authenticate(&self.confirmation_key.0)
    }

    pub(super) fn accepted(self, accepted: &Accepted) -> Closing {
        let said = Self::body(&accepted.grants, &accepted.accepted_scopes).field(&accepted.confirmation);
        Closing {
            confirmation_key: self.confirmation_key,
            history: Piece::labelled(HISTORY_4).raw(&self.history).field(&said.0).hash(),
            acceptor: self.acceptor,
            dialer: self.dialer,
        }
    }

    fn body(grants: &[String], accepted_scopes: &str) -> Piece {
        Piece::default().field(&list(grants)).field(accepted_scopes.as_bytes())
    }
}

impl Closing {
    /// The dialer's confirmation.
    pub(super) fn confirmation(&self, grants: &[String]) -> Hash {
        Piece::labelled(CONFIRM)
            .raw(&self.history)
            .key_ids(&self.acceptor, &self.dialer)
            .field(&Piece::default().field(&list(grants)).0)
            .authenticate(&self.confirmation_key.0)
    }
}

impl Binding {
    fn new(keys: &ChannelKeys, dialer_nonce: &MessageNonce, acceptor_nonce: &MessageNonce) -> Self {
        match keys {
            ChannelKeys::Tls { exporter, confirm } => Self {
                cb: Piece::default().field(b"tls-exporter").field(exporter).0,
                confirmation_key: ConfirmationKey(*confirm),
            },
            ChannelKeys::Sealed { binding, confirm } => Self {
                cb: Piece::default().field(b"hpke-kem").field(binding).0,
                confirmation_key: ConfirmationKey(*confirm),
            },
            ChannelKeys::Plain => Self {
                cb: Piece::default().field(b"none").field(b"").0,
                confirmation_key: ConfirmationKey(plain_key(dialer_nonce, acceptor_nonce)),
            },
        }
    }
}

/// HKDF-SHA-256 (RFC 5869) without salt over both nonces, 32 bytes: on an open channel the confirmations only show
/// that both sides saw the same. They cannot hide anything from whoever can read the nonces.
fn plain_key(dialer_nonce: &MessageNonce, acceptor_nonce: &MessageNonce) -> Hash {
    let extracted = Piece::default().raw(dialer_nonce).raw(acceptor_nonce).authenticate(&[0; 32]);
    Piece::labelled(PLAIN_KEY).raw(&[1]).authenticate(&extracted)
}

/// Bytes of the transcript under construction.
#[derive(Default)]
struct Piece(Vec<u8>);

impl Piece {
    fn labelled(label: &[u8]) -> Self {
        Self(label.to_vec())
    }

    /// enc(x) = length as u32 BE ‖ x. No field of a message can be 4 GiB long.
    fn field(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.raw(&length.to_be_bytes()).raw(bytes)
    }

    /// Bytes whose length is fixed, or that are encoded already.
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn key_ids(self, acceptor: &Party, dialer: &Party) -> Self {
        self.field(acceptor.key.key_id().to_string().as_bytes())
            .field(dialer.key.key_id().to_string().as_bytes())
    }

    fn hash(&self) -> Hash {
        Sha256::digest(&self.0).into()
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn authenticate(&self, key: &Hash) -> Hash {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
        mac.update(&self.0);
        mac.finalize().into_bytes().into()
    }
}

/// The texts of a list, each as a field.
fn list(texts: &[String]) -> Vec<u8> {
    texts.iter().fold(Piece::default(), |piece, text| piece.field(text.as_bytes())).0
}
