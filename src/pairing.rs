//! Pairing tokens as text: what the operator of a hub hands to the operator of a host.
//!
//! `opmesh1.<hub key ID>.<seed>.<expiry, Unix ms>#<hub instance id>`. The seed makes a key pair for one use; the hub
//! keeps the public half only, and the secret half never travels. What follows `#` is for people and may be missing.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use opmesh_core::model::{InstanceId, KeyId, PublicKey, UnixMs};
use zeroize::{Zeroize as _, Zeroizing};

use crate::identity::{Identity, IdentityError};

const VERSION: &str = "opmesh1";

/// A pairing token with its secret. Wiped when it goes; `Debug` shows the hub only.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingToken {
    /// The hub that gave it.
    pub hub: KeyId,
    /// What the hub calls itself.
    pub instance: Option<InstanceId>,
    /// Afterwards the hub refuses it.
    pub expires: UnixMs,
    seed: [u8; 32],
}

/// A text that is no pairing token. The text itself is not repeated: it may hold most of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not of the form that `pair token` prints.
    #[error(
        "this is not a pairing token: expected the whole line that `opmesh pair token` printed on the hub"
    )]
    Malformed,
    /// Of a later form.
    #[error("this pairing token is of a newer kind than this program knows: use the hub's version of opmesh")]
    Newer,
}

impl PairingToken {
    /// Draws a new one.
    pub fn random(hub: KeyId, instance: Option<InstanceId>, expires: UnixMs) -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| IdentityError::Randomness)?;
        Ok(Self { hub, instance, expires, seed })
    }

    /// What the holder of the token signs with.
    pub fn key(&self) -> Identity {
        Identity::from_seed(&self.seed)
    }

    /// What the hub knows the token by.
    pub fn public_key(&self) -> PublicKey {
        self.key().public_key()
    }

    /// The secret.
    pub const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The token as text, secret included.
    pub fn reveal(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.seed));
        let instance = self.instance.as_ref().map_or("", InstanceId::as_str);
        Zeroizing::new(format!("{VERSION}.{}.{}.{}#{instance}", self.hub, seed.as_str(), self.expires.0))
    }
}

impl Drop for PairingToken {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl fmt::Debug for PairingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairingToken")
            .field("hub", &self.hub)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl FromStr for PairingToken {
    type Err = TokenFault;

    fn from_str(text: &str) -> Result<Self, TokenFault> {
        let (token, instance) = text.trim().split_once('#').unwrap_or((text.trim(), ""));
        let (version, rest) = token.split_once('.').ok_or(TokenFault::Malformed)?;
        if version != VERSION {
            let newer = version.strip_prefix("opmesh").is_some_and(|digits| digits.parse::<u32>().is_ok());
            return Err(if newer { TokenFault::Newer } else { TokenFault::Malformed });
        }
        let (rest, expires) = rest.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (hub, seed) = rest.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let decoded = URL_SAFE_NO_PAD.decode(seed).map(Zeroizing::new).map_err(|_| TokenFault::Malformed)?;
        Ok(Self {
            hub: hub.parse().map_err(|_| TokenFault::Malformed)?,
            instance: instance.parse().ok(),
            expires: UnixMs(expires.parse().map_err(|_| TokenFault::Malformed)?),
            seed: decoded.as_slice().try_into().map_err(|_| TokenFault::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> PairingToken {
        let hub = Identity::from_seed(&[1; 32]).key_id();
        PairingToken { hub, instance: "hub".parse().ok(), expires: UnixMs(1_700_000_000_000), seed: [7; 32] }
    }

    #[test]
    fn a_token_is_read_back_with_or_without_the_name_behind_it() {
        let text = token().reveal();
        assert!(text.starts_with("opmesh1.ed25519.") && text.ends_with(".1700000000000#hub"), "{}", *text);
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {}\n", *text).parse(), Ok(token()));
        let bare: PairingToken = text.trim_end_matches("#hub").parse().unwrap();
        assert_eq!((bare.hub, bare.instance.clone()), (token().hub, None));
    }

    #[test]
    fn other_texts_are_refused_without_being_repeated() {
        let text = token().reveal();
        for bad in ["", "opmesh1", "opmesh1.a.b.c", "x.y", &text[..40], &text.replace(".17", ".x")] {
            let fault = bad.parse::<PairingToken>().unwrap_err();
            assert_eq!(fault, TokenFault::Malformed, "{bad}");
        }
        assert_eq!(text.replace("opmesh1", "opmesh2").parse::<PairingToken>(), Err(TokenFault::Newer));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let seed = URL_SAFE_NO_PAD.encode([7; 32]);
        let shown = format!("{:?}", token());
        assert!(!shown.contains(&seed) && !shown.contains("7, 7"));
    }
}
