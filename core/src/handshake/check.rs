//! The checks that both sides make of the other.

use ed25519_dalek::{Signature, VerifyingKey};
use subtle::ConstantTimeEq as _;

use super::HandshakeFault;
use super::transcript::{Hash, Party};
use crate::model::PublicKey;

/// Most capabilities that a peer may name.
pub const MAX_CAPABILITIES: usize = 64;
/// The longest name of a capability in bytes.
pub const MAX_CAPABILITY_BYTES: usize = 64;

/// What can be said about the other side before its signature: its key is not ours, is the one that the channel was
/// made with, and its capabilities are well-formed.
pub(super) fn party(
    peer: &Party,
    me: &PublicKey,
    tls_peer: Option<&PublicKey>,
) -> Result<(), HandshakeFault> {
    if peer.key == *me {
        return Err(HandshakeFault::OwnKey);
    }
    if let Some(tls) = tls_peer.filter(|tls| **tls != peer.key) {
        return Err(HandshakeFault::TlsKeyDiffers { tls: tls.key_id(), presented: peer.key.key_id() });
    }
    let names = &peer.capabilities;
    let short = names.iter().all(|name| (1..=MAX_CAPABILITY_BYTES).contains(&name.len()));
    if short && names.len() <= MAX_CAPABILITIES && names.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(HandshakeFault::MalformedCapabilities)
    }
}

/// Verifies strictly: a key of small order, a key or signature that is not in its one canonical form, or a signature
/// that only holds up to the cofactor is refused. `fault` is what a wrong signature of a usable key is.
pub(super) fn signature(
    key: &PublicKey,
    signed: &[u8],
    signature: &[u8; 64],
    fault: HandshakeFault,
) -> Result<(), HandshakeFault> {
    let Some(verifying) = usable(key) else {
        return Err(HandshakeFault::UnusableKey { key: key.key_id() });
    };
    verifying.verify_strict(signed, &Signature::from_bytes(signature)).map_err(|_| fault)
}

/// Whether a usable key signed this, as strictly as in the handshake.
pub(crate) fn signature_holds(key: &PublicKey, signed: &[u8], signature: &[u8; 64]) -> bool {
    usable(key).is_some_and(|key| key.verify_strict(signed, &Signature::from_bytes(signature)).is_ok())
}

fn usable(key: &PublicKey) -> Option<VerifyingKey> {
    let verifying = VerifyingKey::from_bytes(&key.0).ok()?;
    // Decoding reduces y modulo p, so that a second spelling of a key decodes, too.
    let canonical = verifying.to_edwards().compress().to_bytes() == key.0;
    (canonical && !verifying.is_weak()).then_some(verifying)
}

/// Compares in constant time.
pub(super) fn confirmation(
    expected: &Hash,
    presented: &Hash,
    fault: HandshakeFault,
) -> Result<(), HandshakeFault> {
    if bool::from(expected.ct_eq(presented)) { Ok(()) } else { Err(fault) }
}
