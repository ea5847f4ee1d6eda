//! The acceptor's side: Challenge to whoever means this hub, then Accepted to whom the store authorizes.

use super::message::{Accepted, Challenge, Confirm, Hello, Proof};
use super::transcript::{Challenged, Closing, Opened, Party, Proved, target_tag};
use super::{ChannelKeys, Established, HandshakeFault, MessageNonce, VERSIONS, check};
use crate::model::{InstanceId, PublicKey};
use crate::permission::Scopes;

/// Where the acceptor begins.
#[derive(Debug)]
pub enum Acceptor {}

/// What the acceptor brings.
#[derive(Debug, Clone)]
pub struct AcceptorConfig {
    /// Our key.
    pub me: PublicKey,
    /// Our label for ourselves.
    pub instance: InstanceId,
    /// What we can do beyond the version, strictly ascending.
    pub capabilities: Vec<String>,
    /// The channel.
    pub keys: ChannelKeys,
    /// The key in the dialer's certificate, in a channel that has one.
    pub tls_peer: Option<PublicKey>,
}

impl Acceptor {
    /// Waits for a dialer to speak.
    pub const fn start(config: AcceptorConfig) -> AcceptorAwaitingHello {
        AcceptorAwaitingHello { config }
    }
}

/// Nothing has been said.
#[derive(Debug)]
pub struct AcceptorAwaitingHello {
    config: AcceptorConfig,
}

impl AcceptorAwaitingHello {
    /// Checks that this hub is meant, and returns what to sign. Nonce and session name are fresh randomness.
    pub fn hello(
        self,
        hello: Hello,
        nonce: MessageNonce,
        session: [u8; 16],
    ) -> Result<(AcceptorSigning, Vec<u8>), HandshakeFault> {
        let AcceptorConfig { me, instance, capabilities, keys, tls_peer } = self.config;
        let version = common_version(&hello.versions)?;
        if hello.target_tag != target_tag(&me.key_id(), &hello.nonce) {
            return Err(HandshakeFault::WrongTarget);
        }
        let me = Party { key: me, instance, capabilities };
        let transcript = Opened::new(&keys, &hello, version, &nonce, &session);
        let signed = transcript.acceptor_signs(&me);
        Ok((AcceptorSigning { transcript, me, tls_peer, version, nonce, session }, signed))
    }
}

/// The highest version that both sides speak.
fn common_version(offered: &[u32]) -> Result<u32, HandshakeFault> {
    if offered.is_empty() || !offered.is_sorted_by(|a, b| a < b) {
        return Err(HandshakeFault::MalformedVersions(offered.to_vec()));
    }
    let common = VERSIONS.iter().rev().find(|version| offered.contains(version));
    common.copied().ok_or_else(|| HandshakeFault::NoCommonVersion { offered: offered.to_vec() })
}

/// A dialer means this hub, and our answer is being signed.
#[derive(Debug)]
pub struct AcceptorSigning {
    transcript: Opened,
    me: Party,
    tls_peer: Option<PublicKey>,
    version: u32,
    nonce: MessageNonce,
    session: [u8; 16],
}

impl AcceptorSigning {
    /// Takes the signature by our own key.
    pub fn signed(self, signature: [u8; 64]) -> (AcceptorAwaitingProof, Challenge) {
        let challenge = Challenge {
            version: self.version,
            nonce: self.nonce,
            session: self.session,
            public_key: self.me.key,
            instance_id: self.me.instance.clone(),
            capabilities: self.me.capabilities.clone(),
            signature,
        };
        let transcript = self.transcript.challenged(self.me, &signature);
        (AcceptorAwaitingProof { transcript, tls_peer: self.tls_peer, session: self.session }, challenge)
    }
}

/// Challenge is sent.
#[derive(Debug)]
pub struct AcceptorAwaitingProof {
    transcript: Challenged,
    tls_peer: Option<PublicKey>,
    session: [u8; 16],
}

/// Who a dialer has proved to be. It says nothing about what that one may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The dialer holds this key.
    pub key: PublicKey,
    /// What it calls itself, signed with that key.
    pub instance: InstanceId,
    /// The dialer holds this pairing token, and means it for that key, this hub and this session.
    pub token: Option<PublicKey>,
}

impl AcceptorAwaitingProof {
    /// Checks that the dialer holds the keys that it presents. Both signatures are verified whatever becomes of the
    /// first, also where there is no second, so that the time tells nothing.
    pub fn proof(self, proof: Proof) -> Result<(AcceptorAuthorizing, Claim), HandshakeFault> {
        let dialer = Party::of_proof(&proof);
        check::party(&dialer, &self.transcript.acceptor.key, self.tls_peer.as_ref())?;
        let token = proof.pairing.as_ref().map(|pairing| pairing.token_key);
        let signs = self.transcript.dialer_signs(&dialer, token.as_ref());
        let fault = HandshakeFault::DialerSignature;
        let identity = check::signature(&dialer.key, &signs.identity, &proof.signature, fault);
        let pairing = proof.pairing.as_ref().map(|pairing| (&pairing.token_key, &pairing.signature));
        let (key, signature) = pairing.unwrap_or((&dialer.key, &proof.signature));
        let held = check::signature(key, &signs.token, signature, HandshakeFault::TokenSignature);
        identity?;
        if pairing.is_some() {
            held?;
        }
        let claim = Claim { key: dialer.key, instance: dialer.instance, token };
        let transcript = self.transcript.proved(&proof);
        Ok((AcceptorAuthorizing { transcript, session: self.session }, claim))
    }
}

/// The dialer has proved who it is, and the store is being asked what it may do.
#[derive(Debug)]
pub struct AcceptorAuthorizing {
    transcript: Proved,
    session: [u8; 16],
}

impl AcceptorAuthorizing {
    /// Says what the dialer may do with our things, each `TYPE:SCOPE,…`, and which operations we take from it.
    pub fn authorized(
        self,
        grants_given: Vec<String>,
        accepted: Scopes,
    ) -> (AcceptorAwaitingConfirm, Accepted) {
        let accepted_scopes = accepted.to_string();
        let confirmation = self.transcript.confirmation(&grants_given, &accepted_scopes);
        let message = Accepted { grants: grants_given, accepted_scopes, confirmation };
        let transcript = self.transcript.accepted(&message);
        (AcceptorAwaitingConfirm { transcript, accepted, session: self.session }, message)
    }
}

/// Accepted is sent.
#[derive(Debug)]
pub struct AcceptorAwaitingConfirm {
    transcript: Closing,
    accepted: Scopes,
    session: [u8; 16],
}

impl AcceptorAwaitingConfirm {
    /// Checks that the dialer saw what we said. Only now does the session count: a handshake that
    /// somebody begins and cannot finish displaces no live session.
    pub fn confirm(self, confirm: Confirm) -> Result<Established, HandshakeFault> {
        let expected = self.transcript.confirmation(&confirm.grants);
        check::confirmation(&expected, &confirm.confirmation, HandshakeFault::DialerConfirmation)?;
        Ok(Established {
            peer: self.transcript.dialer.key,
            instance: self.transcript.dialer.instance,
            capabilities: self.transcript.dialer.capabilities,
            session: self.session,
            grants_received: confirm.grants,
            accepted: self.accepted,
        })
    }
}
