//! The dialer's side: Hello, then Proof to whoever turned out to be the hub, then Confirm.

use super::message::{Accepted, Challenge, Confirm, Hello, PairingProof, Proof};
use super::transcript::{Challenged, Opened, Party, Proved, target_tag};
use super::{ChannelKeys, Established, HandshakeFault, MessageNonce, VERSIONS, check};
use crate::model::{InstanceId, KeyId, PublicKey};
use crate::permission::Scopes;

/// Where the dialer begins.
#[derive(Debug)]
pub enum Dialer {}

/// What the dialer brings.
#[derive(Debug, Clone)]
pub struct DialerConfig {
    /// Our key.
    pub me: PublicKey,
    /// Our label for ourselves.
    pub instance: InstanceId,
    /// What we can do beyond the version, strictly ascending.
    pub capabilities: Vec<String>,
    /// The hub that we mean.
    pub hub: KeyId,
    /// What we let the hub do, each `TYPE:SCOPE,…`.
    pub grants: Vec<String>,
    /// The public key of the pairing token, when we pair by one.
    pub pairing_token: Option<PublicKey>,
    /// The channel.
    pub keys: ChannelKeys,
    /// The key in the hub's certificate, in a channel that has one.
    pub tls_peer: Option<PublicKey>,
}

impl Dialer {
    /// Says which hub is meant, in a way that only the hub understands. The nonce is fresh randomness.
    pub fn start(config: DialerConfig, nonce: MessageNonce) -> (DialerAwaitingChallenge, Hello) {
        let target_tag = target_tag(&config.hub, &nonce);
        let hello = Hello { versions: VERSIONS.to_vec(), nonce, target_tag };
        (DialerAwaitingChallenge { config, hello: hello.clone() }, hello)
    }
}

/// Hello is sent.
#[derive(Debug)]
pub struct DialerAwaitingChallenge {
    config: DialerConfig,
    hello: Hello,
}

/// What the dialer has to sign, the same session with two keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignRequest {
    /// With our own key.
    pub identity: Vec<u8>,
    /// With the pairing token's key, when we pair by one.
    pub token: Option<Vec<u8>>,
}

impl DialerAwaitingChallenge {
    /// Checks that this is the hub that was meant, here and now. Nothing about us has been said before.
    pub fn challenge(self, challenge: Challenge) -> Result<(DialerSigning, SignRequest), HandshakeFault> {
        let Self { config, hello } = self;
        if !hello.versions.contains(&challenge.version) {
            return Err(HandshakeFault::VersionNotOffered { version: challenge.version });
        }
        let acceptor = Party::of_challenge(&challenge);
        check::party(&acceptor, &config.me, config.tls_peer.as_ref())?;
        let presented = acceptor.key.key_id();
        if presented != config.hub {
            return Err(HandshakeFault::WrongHub { expected: config.hub, presented });
        }
        let opened =
            Opened::new(&config.keys, &hello, challenge.version, &challenge.nonce, &challenge.session);
        let signed = opened.acceptor_signs(&acceptor);
        check::signature(&acceptor.key, &signed, &challenge.signature, HandshakeFault::AcceptorSignature)?;
        let transcript = opened.challenged(acceptor, &challenge.signature);

        let me = Party { key: config.me, instance: config.instance, capabilities: config.capabilities };
        let signs = transcript.dialer_signs(&me, config.pairing_token.as_ref());
        let token = config.pairing_token.is_some().then_some(signs.token);
        let signing = DialerSigning {
            transcript,
            me,
            token_key: config.pairing_token,
            grants: config.grants,
            session: challenge.session,
        };
        Ok((signing, SignRequest { identity: signs.identity, token }))
    }
}

/// The hub has proved itself, and what we say to it is being signed.
#[derive(Debug)]
pub struct DialerSigning {
    transcript: Challenged,
    me: Party,
    token_key: Option<PublicKey>,
    grants: Vec<String>,
    session: [u8; 16],
}

impl DialerSigning {
    /// Takes the signatures that the [`SignRequest`] asked for. The hub refuses a proof that lacks one.
    pub fn signed(self, identity: [u8; 64], token: Option<[u8; 64]>) -> (DialerAwaitingAccepted, Proof) {
        let pairing = self.token_key.zip(token);
        let proof = Proof {
            public_key: self.me.key,
            instance_id: self.me.instance,
            capabilities: self.me.capabilities,
            signature: identity,
            pairing: pairing.map(|(token_key, signature)| PairingProof { token_key, signature }),
        };
        let transcript = self.transcript.proved(&proof);
        (DialerAwaitingAccepted { transcript, grants: self.grants, session: self.session }, proof)
    }
}

/// Proof is sent.
#[derive(Debug)]
pub struct DialerAwaitingAccepted {
    transcript: Proved,
    grants: Vec<String>,
    session: [u8; 16],
}

impl DialerAwaitingAccepted {
    /// Checks that the hub saw what we said and means what it says. The session counts for us now, and for the hub
    /// once it has the Confirm.
    pub fn accepted(self, accepted: Accepted) -> Result<(Established, Confirm), HandshakeFault> {
        let expected = self.transcript.confirmation(&accepted.grants, &accepted.accepted_scopes);
        check::confirmation(&expected, &accepted.confirmation, HandshakeFault::AcceptorConfirmation)?;
        let closing = self.transcript.accepted(&accepted);
        let confirmation = closing.confirmation(&self.grants);
        let scopes = Scopes::from_wire(&accepted.accepted_scopes).map_err(|fault| {
            HandshakeFault::MalformedScopes { text: accepted.accepted_scopes.clone(), fault }
        })?;
        let established = Established {
            peer: closing.acceptor.key,
            instance: closing.acceptor.instance,
            capabilities: closing.acceptor.capabilities,
            session: self.session,
            grants_received: accepted.grants,
            accepted: scopes,
        };
        Ok((established, Confirm { grants: self.grants, confirmation }))
    }
}
