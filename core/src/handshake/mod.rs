//! Who the peer is: five messages, after which both sides know each other's key, that nobody stands between them, and
//! what each lets the other do.
//!
//! Each state is a type that is consumed by the step that leaves it, so that no step can be left out or done twice.
//! Signing is an effect: a step returns the bytes to sign, the next one takes the signature. Nonces and the session's
//! name come in as arguments. Whether a proved key may connect at all is not decided here: the driver asks the store,
//! between [`AcceptorAwaitingProof::proof`] and [`AcceptorAuthorizing::authorized`].
//!
//! The acceptor proves itself first; until then the dialer has shown nothing but randomness. A [`HandshakeFault`] is
//! for this side's log. A stranger learns nothing from it: the acceptor answers every failure up to and including the
//! proof, and a key that is not listed, with one status and one text, which is `transport`'s duty.

mod acceptor;
mod check;
mod dialer;
mod message;
mod transcript;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::model::{InstanceId, KeyId, PublicKey};
use crate::permission::{ScopeFault, Scopes};
use crate::protocol::Capability;

pub(crate) use check::signature_holds;

pub use acceptor::{
    Acceptor, AcceptorAuthorizing, AcceptorAwaitingConfirm, AcceptorAwaitingHello, AcceptorAwaitingProof,
    AcceptorConfig, AcceptorSigning, Claim,
};
pub use check::{MAX_CAPABILITIES, MAX_CAPABILITY_BYTES};
pub use dialer::{
    Dialer, DialerAwaitingAccepted, DialerAwaitingChallenge, DialerConfig, DialerSigning, SignRequest,
};
pub use message::{Accepted, Challenge, Confirm, Hello, PairingProof, Proof};
pub use transcript::{sealed_binding, target_tag};

/// The protocol versions that this program speaks, ascending.
pub const VERSIONS: [u32; 1] = [1];

/// The random bytes that each side contributes.
pub type MessageNonce = [u8; 32];

/// What the handshake takes from the channel it runs in. It is configured on both sides, never negotiated.
#[derive(Clone, PartialEq, Eq)]
pub enum ChannelKeys {
    /// TLS 1.3. Both values are exported from the connection with an empty context.
    Tls {
        /// RFC 9266, label `EXPORTER-Channel-Binding`: the same on both ends of one connection, and on no other.
        exporter: [u8; 32],
        /// Label [`CONFIRM_EXPORTER`]: the key of the confirmations.
        confirm: [u8; 32],
    },
    /// HPKE inside the stream, over whatever carries it.
    Sealed {
        /// [`sealed_binding`]: the same on both ends of one stream, and on no other.
        binding: [u8; 32],
        /// Exported with [`SEALED_CONFIRM`]: the key of the confirmations.
        confirm: [u8; 32],
    },
    /// No protection, for debugging on loopback. Whoever sits on the line can change what is granted, and nothing
    /// else, without being noticed.
    Plain,
}

/// The TLS exporter label of [`ChannelKeys::Tls::confirm`].
pub const CONFIRM_EXPORTER: &[u8] = b"EXPORTER-opmesh-hs1-fin";

/// The TLS exporter label of [`ChannelKeys::Tls::exporter`].
pub const BINDING_EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// The `info` of the HPKE context of a sealed channel; its sender is the acceptor.
pub const SEALED_INFO: &[u8] = b"opmesh/hs/1/transport";

/// The HPKE exporter context of the key for what the dialer says in a sealed channel.
pub const SEALED_DIALER: &[u8] = b"opmesh/hs/1/i2r";

/// The HPKE exporter context of the key for what the acceptor says in a sealed channel.
pub const SEALED_ACCEPTOR: &[u8] = b"opmesh/hs/1/r2i";

/// The HPKE exporter context of [`ChannelKeys::Sealed::confirm`].
pub const SEALED_CONFIRM: &[u8] = b"opmesh/hs/1/fin";

impl ChannelKeys {
    /// Stands in the transcript, so that one said in one channel is worth nothing in another.
    const fn suite(&self) -> &'static str {
        match self {
            Self::Tls { .. } => "opmesh-1-tls",
            Self::Sealed { .. } => "opmesh-1-sealed",
            Self::Plain => "opmesh-1-plain",
        }
    }
}

impl fmt::Debug for ChannelKeys {
    /// The keys are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.suite())
    }
}

/// What both sides have at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// The other side's key; it has proved that it holds it.
    pub peer: PublicKey,
    /// The other side's label for itself.
    pub instance: InstanceId,
    /// What the other side can do beyond the version; names that we do not know among them.
    pub capabilities: Vec<String>,
    /// The acceptor's random name for the session; the same on both sides, for logs.
    pub session: [u8; 16],
    /// What the other side lets us do, each `TYPE:SCOPE,…`, as it wrote it.
    pub grants_received: Vec<String>,
    /// Which operations the acceptor takes.
    pub accepted: Scopes,
}

impl Established {
    /// Whether the other side has named this.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.iter().any(|name| name == capability.name())
    }
}

/// One variant for each way in which the other side can misbehave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFault {
    /// Hello: no versions, or not in ascending order.
    #[error("the dialer's protocol versions {0:?} are not a strictly ascending list")]
    MalformedVersions(Vec<u32>),
    /// Hello: nothing that we speak.
    #[error(
        "the dialer speaks protocol versions {offered:?}, this program {VERSIONS:?}: upgrade the older side"
    )]
    NoCommonVersion {
        /// What came.
        offered: Vec<u32>,
    },
    /// Hello: meant for another hub, or relayed from one.
    #[error("the dialer means another hub than this one: check the key ID that it was given")]
    WrongTarget,
    /// Challenge: a version that we did not offer.
    #[error("the hub chose protocol version {version}, which was not offered ({VERSIONS:?})")]
    VersionNotOffered {
        /// What came.
        version: u32,
    },
    /// Challenge: another key than the one that is pinned.
    #[error("the hub has the key {presented}, expected {expected}: the URL leads to another instance")]
    WrongHub {
        /// Whom we dialled.
        expected: KeyId,
        /// Who answered.
        presented: KeyId,
    },
    /// Challenge, Proof: our own key. We dialled ourselves, or somebody reflects what we say.
    #[error("the peer presents this instance's own key: the URL leads back here, or the identity was copied")]
    OwnKey,
    /// Challenge, Proof: the certificate carries another key.
    #[error("the TLS certificate carries the key {tls}, but the peer presents {presented}")]
    TlsKeyDiffers {
        /// In the certificate.
        tls: KeyId,
        /// In the message.
        presented: KeyId,
    },
    /// Challenge, Proof: too many or too long, or not in ascending order.
    #[error("the peer's capabilities are not a strictly ascending list of short names")]
    MalformedCapabilities,
    /// Challenge, Proof: not a point of the curve, of small order, or not in canonical form. Also a token's key.
    #[error("{key} belongs to a key for which signatures prove nothing")]
    UnusableKey {
        /// What it hashes to.
        key: KeyId,
    },
    /// Challenge.
    #[error("the hub's signature does not hold: it lacks the key, or somebody changed what was said")]
    AcceptorSignature,
    /// Proof.
    #[error("the dialer's signature does not hold: it lacks the key, or somebody changed what was said")]
    DialerSignature,
    /// Proof: the token's.
    #[error(
        "the signature with the pairing token does not hold: the token is not this one, or was used elsewhere"
    )]
    TokenSignature,
    /// Accepted.
    #[error("the hub's confirmation does not hold: somebody changed what was said")]
    AcceptorConfirmation,
    /// Accepted: confirmed, but not a scope list.
    #[error("the hub says that it takes {text:?}: {fault}")]
    MalformedScopes {
        /// What came.
        text: String,
        /// What is wrong with it.
        #[source]
        fault: ScopeFault,
    },
    /// Confirm.
    #[error("the dialer's confirmation does not hold: somebody changed what was said")]
    DialerConfirmation,
}
