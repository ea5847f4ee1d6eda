//! Who a peer is: a public key, its key ID, and the label it gives itself.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// An ed25519 public key as it travels: 32 bytes. Whether it is a sound curve point is checked where it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The name by which a peer is authorized.
    pub fn key_id(&self) -> KeyId {
        KeyId(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// `ed25519.` + base64url(SHA-256(public key)) without padding: 51 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 32]);

/// What every key ID starts with.
const KEY_ID_PREFIX: &str = "ed25519.";

/// A name that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Not `ed25519.` and 43 base64url characters.
    #[error("{0:?} is not a key ID: expected `ed25519.` and 43 base64url characters")]
    KeyId(String),
    /// Not a usable instance id.
    #[error(
        "{0:?} is not an instance id: expected 1 to 64 characters, none of them white space or a control character"
    )]
    InstanceId(String),
}

impl KeyId {
    /// The 32 hash bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the 32 hash bytes, as stores keep it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY_ID_PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for KeyId {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        text.strip_prefix(KEY_ID_PREFIX)
            .and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| NameFault::KeyId(text.to_owned()))
    }
}

/// The label that an instance gives itself. It is signed with the key, shown to people, and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(String);

impl InstanceId {
    /// The longest instance id in characters.
    pub const MAX_CHARS: usize = 64;

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let chars = text.chars().count();
        let clean = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if clean && (1..=Self::MAX_CHARS).contains(&chars) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameFault::InstanceId(text.to_owned()))
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_the_hash_of_the_key_in_51_characters() {
        let id = PublicKey([7; 32]).key_id();
        let text = id.to_string();
        assert_eq!(text.len(), 51);
        assert_eq!(text.parse::<KeyId>().unwrap(), id);
        assert!(text.to_uppercase().parse::<KeyId>().is_err());
        assert!("ed25519.".parse::<KeyId>().is_err());
        assert!(format!("{text}=").parse::<KeyId>().is_err());
    }

    #[test]
    fn instance_ids_carry_nothing_that_could_forge_a_log_line() {
        assert!("web-1".parse::<InstanceId>().is_ok());
        assert!("büro".parse::<InstanceId>().is_ok());
        for bad in ["", "a b", "a\nb", "\u{1b}[31m", &"x".repeat(65)] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
    }
}
