//! Two sides on one line, and everything that somebody between them, or one of them, could do.

mod attackers;
mod attacks;
mod bits;
mod vectors;

use ed25519_dalek::{Signer as _, SigningKey};

use super::*;

/// Two sides that would understand each other, and the line between them.
#[derive(Clone)]
struct World {
    dialer: SigningKey,
    hub: SigningKey,
    token: Option<SigningKey>,
    /// Whom the dialer means.
    target: KeyId,
    dialer_keys: ChannelKeys,
    hub_keys: ChannelKeys,
    dialer_sees: Option<PublicKey>,
    hub_sees: Option<PublicKey>,
    /// Stands for the random source.
    seed: u8,
}

/// Something said, on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Hello(Hello),
    Challenge(Challenge),
    Proof(Proof),
    Accepted(Accepted),
    Confirm(Confirm),
}

/// Who ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    /// It was no message.
    Wire,
    Dialer(HandshakeFault),
    Acceptor(HandshakeFault),
}

/// What both sides have at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Done {
    dialer: Established,
    hub: Established,
    claim: Claim,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn sign(key: &SigningKey, bytes: &[u8]) -> [u8; 64] {
    key.sign(bytes).to_bytes()
}

fn tls(connection: u8) -> ChannelKeys {
    ChannelKeys::Tls { exporter: [connection; 32], confirm: [connection ^ 0xff; 32] }
}

fn sealed(stream: u8) -> ChannelKeys {
    ChannelKeys::Sealed { binding: [stream; 32], confirm: [stream ^ 0xff; 32] }
}

impl World {
    fn tls() -> Self {
        let (dialer, hub) = (key(1), key(2));
        Self {
            target: public(&hub).key_id(),
            dialer_sees: Some(public(&hub)),
            hub_sees: Some(public(&dialer)),
            dialer,
            hub,
            token: None,
            dialer_keys: tls(7),
            hub_keys: tls(7),
            seed: 0x40,
        }
    }

    fn sealed() -> Self {
        let (dialer_keys, hub_keys) = (sealed(9), sealed(9));
        Self { dialer_keys, hub_keys, dialer_sees: None, hub_sees: None, ..Self::tls() }
    }

    fn plain() -> Self {
        let (dialer_keys, hub_keys) = (ChannelKeys::Plain, ChannelKeys::Plain);
        Self { dialer_keys, hub_keys, dialer_sees: None, hub_sees: None, ..Self::tls() }
    }

    fn with_token(self) -> Self {
        Self { token: Some(key(3)), ..self }
    }

    fn dialer_config(&self) -> DialerConfig {
        DialerConfig {
            me: public(&self.dialer),
            instance: "web-1".parse().unwrap(),
            capabilities: Vec::new(),
            hub: self.target,
            grants: vec!["READ_OPERATIONS:*,!plan:secret".to_owned()],
            pairing_token: self.token.as_ref().map(public),
            keys: self.dialer_keys.clone(),
            tls_peer: self.dialer_sees,
        }
    }

    fn dial(&self) -> (DialerAwaitingChallenge, Hello) {
        Dialer::start(self.dialer_config(), [self.seed; 32])
    }

    fn answer(&self, hello: Hello) -> Result<(AcceptorAwaitingProof, Challenge), HandshakeFault> {
        let config = AcceptorConfig {
            me: public(&self.hub),
            instance: "hub".parse().unwrap(),
            capabilities: Vec::new(),
            keys: self.hub_keys.clone(),
            tls_peer: self.hub_sees,
        };
        let (nonce, session) = ([self.seed + 1; 32], [self.seed + 2; 16]);
        let (signing, bytes) = Acceptor::start(config).hello(hello, nonce, session)?;
        Ok(signing.signed(sign(&self.hub, &bytes)))
    }

    fn prove(
        &self,
        waiting: DialerAwaitingChallenge,
        challenge: Challenge,
    ) -> Result<(DialerAwaitingAccepted, Proof), HandshakeFault> {
        let (signing, request) = waiting.challenge(challenge)?;
        let token = self.token.as_ref().zip(request.token).map(|(key, bytes)| sign(key, &bytes));
        Ok(signing.signed(sign(&self.dialer, &request.identity), token))
    }

    fn authorize(authorizing: AcceptorAuthorizing) -> (AcceptorAwaitingConfirm, Accepted) {
        let shared = ["READ_CONFIG:repo:shared", "RECEIVE_SHARED_REPOS:*"].map(str::to_owned).to_vec();
        authorizing.authorized(shared, "*,!repo:tmp".parse().unwrap())
    }

    /// The whole handshake; `line` sees each message in turn and hands on what arrives, if that still is a message.
    fn exchange(&self, line: &mut dyn FnMut(Said) -> Option<Said>) -> Result<Done, Refused> {
        let (dialing, hello) = self.dial();
        let Some(Said::Hello(hello)) = line(Said::Hello(hello)) else { return Err(Refused::Wire) };
        let (proving, challenge) = self.answer(hello).map_err(Refused::Acceptor)?;
        let Some(Said::Challenge(challenge)) = line(Said::Challenge(challenge)) else {
            return Err(Refused::Wire);
        };
        let (accepting, proof) = self.prove(dialing, challenge).map_err(Refused::Dialer)?;
        let Some(Said::Proof(proof)) = line(Said::Proof(proof)) else { return Err(Refused::Wire) };
        let (authorizing, claim) = proving.proof(proof).map_err(Refused::Acceptor)?;
        let (confirming, accepted) = Self::authorize(authorizing);
        let Some(Said::Accepted(accepted)) = line(Said::Accepted(accepted)) else {
            return Err(Refused::Wire);
        };
        let (dialer, confirm) = accepting.accepted(accepted).map_err(Refused::Dialer)?;
        let Some(Said::Confirm(confirm)) = line(Said::Confirm(confirm)) else { return Err(Refused::Wire) };
        let hub = confirming.confirm(confirm).map_err(Refused::Acceptor)?;
        Ok(Done { dialer, hub, claim })
    }

    /// The handshake without anybody on the line.
    fn run(&self) -> Result<Done, Refused> {
        self.exchange(&mut Some)
    }
}

#[test]
fn both_sides_end_with_each_others_key_name_and_grants() {
    for world in [World::tls(), World::sealed(), World::plain()] {
        for world in [world.clone(), world.with_token()] {
            let Done { dialer, hub, claim } = world.run().unwrap();
            assert_eq!(dialer.peer, public(&world.hub));
            assert_eq!(dialer.instance.as_str(), "hub");
            assert_eq!(dialer.grants_received, ["READ_CONFIG:repo:shared", "RECEIVE_SHARED_REPOS:*"]);
            assert_eq!(hub.peer, public(&world.dialer));
            assert_eq!(hub.instance.as_str(), "web-1");
            assert_eq!(hub.grants_received, ["READ_OPERATIONS:*,!plan:secret"]);
            assert_eq!(
                (dialer.session, dialer.accepted.to_string()),
                (hub.session, "*,!repo:tmp".to_owned())
            );
            assert_eq!(hub.accepted, dialer.accepted);
            assert_eq!((claim.key, claim.instance), (hub.peer, hub.instance));
            assert_eq!(claim.token, world.token.as_ref().map(public));
        }
    }
}

#[test]
fn a_hub_that_takes_nothing_says_so() {
    let world = World::tls();
    let (dialing, hello) = world.dial();
    let (proving, challenge) = world.answer(hello).unwrap();
    let (accepting, proof) = world.prove(dialing, challenge).unwrap();
    let (authorizing, _) = proving.proof(proof).unwrap();
    let (confirming, accepted) = authorizing.authorized(Vec::new(), Scopes::nothing());
    let (dialer, confirm) = accepting.accepted(accepted).unwrap();
    assert!(dialer.accepted.is_nothing() && dialer.grants_received.is_empty());
    assert!(confirming.confirm(confirm).is_ok());
}

#[test]
fn until_the_hub_has_proved_itself_the_dialer_says_nothing_that_depends_on_who_it_is() {
    let world = World::tls().with_token();
    let other = World { dialer: key(9), token: None, ..world.clone() };
    assert_eq!(world.dial().1, other.dial().1);
}

#[test]
fn secrets_of_the_channel_are_not_in_debug_output() {
    let shown = format!("{:?} {:?}", World::tls().dial().0, World::tls().dialer_keys);
    let secret = format!("{:?}", [7u8 ^ 0xff; 32]);
    assert!(shown.contains("opmesh-1-tls") && !shown.contains(&secret), "{shown}");
    let (proving, _) = World::tls().answer(World::tls().dial().1).unwrap();
    assert!(!format!("{proving:?}").contains(&secret));
}
