//! The five messages of the handshake, as facts that one side states. `wire` turns them into protobuf and back.
//!
//! Text that the transcript covers is kept as it came, so that what was signed and what is used cannot differ.

use crate::model::{InstanceId, PublicKey};

/// Dialer, first. Reveals nothing but randomness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions that the dialer speaks, strictly ascending.
    pub versions: Vec<u32>,
    /// Random.
    pub nonce: [u8; 32],
    /// Which hub is meant; see [`super::target_tag`].
    pub target_tag: [u8; 16],
}

/// Acceptor: it proves itself first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The highest version that both speak.
    pub version: u32,
    /// Random.
    pub nonce: [u8; 32],
    /// Random; names the session in logs.
    pub session: [u8; 16],
    /// The acceptor's key.
    pub public_key: PublicKey,
    /// The acceptor's label for itself.
    pub instance_id: InstanceId,
    /// What the acceptor can do beyond the version, strictly ascending. Unknown ones are ignored but covered.
    pub capabilities: Vec<String>,
    /// Ed25519, by `public_key`.
    pub signature: [u8; 64],
}

/// Dialer: who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The dialer's key.
    pub public_key: PublicKey,
    /// The dialer's label for itself.
    pub instance_id: InstanceId,
    /// What the dialer can do beyond the version, strictly ascending. Unknown ones are ignored but covered.
    pub capabilities: Vec<String>,
    /// Ed25519, by `public_key`.
    pub signature: [u8; 64],
    /// Set when the dialer pairs by a token.
    pub pairing: Option<PairingProof>,
}

/// That the dialer holds a pairing token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairingProof {
    /// The token's public key; its seed never travels.
    pub token_key: PublicKey,
    /// Ed25519, by `token_key`.
    pub signature: [u8; 64],
}

/// Acceptor: the dialer is authorized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What the acceptor lets the dialer do, each `TYPE:SCOPE,…`.
    pub grants: Vec<String>,
    /// Which operations the acceptor takes: `SCOPE,…`, or empty for none.
    pub accepted_scopes: String,
    /// HMAC-SHA-256 over the transcript and all of the above.
    pub confirmation: [u8; 32],
}

/// Dialer: now the session counts, and an older one of the same peer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// What the dialer lets the acceptor do, each `TYPE:SCOPE,…`.
    pub grants: Vec<String>,
    /// HMAC-SHA-256 over the transcript and all of the above.
    pub confirmation: [u8; 32],
}
