//! The handshake's messages over a stream, one after the other.
//!
//! On a sealed channel the exchange of its keys comes first. `core`'s handshake checks everything; here its steps meet
//! the stream, the identity that signs, and the store that says who is let in. The driver bounds the time.

use std::time::Duration;

use opmesh_core::handshake::{
    Accepted, Acceptor, AcceptorAwaitingConfirm, AcceptorAwaitingProof, AcceptorConfig, ChannelKeys, Confirm,
    Dialer, DialerConfig, DialerSigning, Established, Proof, SignRequest,
};
use opmesh_core::model::{KeyId, PublicKey};
use opmesh_core::permission::Grants;
use opmesh_core::protocol::Capability;
use tokio::sync::mpsc;
use tonic::Status;

use crate::store::Authorization;
use crate::wire::{self, Frame};

use super::connection::{ConnectionInfo, Protection};
use super::ending::Ending;
use super::inquiry;
use super::link::{self, Link};
use super::noise::Noise;
use super::seal::{self, Offered};
use super::session::Target;
use super::status;
use super::{Local, Me};

/// How long after its Proof a dialer that is not let in hears so. Longer than looking everything up and writing it
/// down takes, so that the time tells no more than the answer.
const REFUSAL_AFTER: Duration = Duration::from_millis(50);

/// What a dialer that was let in came for.
#[derive(Debug)]
pub(super) enum Visit {
    /// A session.
    Session(Box<Established>, Grants),
    /// An answer, which it got.
    Inquiry,
}

/// Lets a dialer prove who it is, and asks the store whether it is let in.
pub(super) async fn accept(local: &Local, link: &mut Link, info: &ConnectionInfo) -> Result<Visit, Ending> {
    let (keys, hello) = answer_channel(link, info).await?;
    let me = local.me();
    let awaiting_hello = Acceptor::start(AcceptorConfig {
        me: me.identity.public_key(),
        instance: me.instance.clone(),
        capabilities: Capability::names(),
        keys,
        tls_peer: None,
    });
    let hello = wire::hello(hello)?;
    let (signing, message) = awaiting_hello.hello(hello, random()?, random()?)?;
    let (awaiting_proof, challenge) = signing.signed(me.identity.sign(&message));
    link.send(challenge.into()).await?;

    let proof = wire::proof(link.receive().await?)?;
    let heard = local.clock.monotonic();
    let (peer, awaiting_confirm, accepted, given) = match judge(local, info, awaiting_proof, proof).await {
        Ok(let_in) => let_in,
        Err(ending) => {
            // Whatever was wrong, the answer takes as long.
            let spent = local.clock.monotonic().saturating_sub(heard);
            tokio::time::sleep(REFUSAL_AFTER.saturating_sub(spent)).await;
            return Err(ending);
        }
    };
    info.gate.authenticated();
    link.send(accepted.into()).await?;

    let last = link.receive().await?;
    if wire::is_inquiry(&last) {
        let findings = inquiry::findings(local, peer, wire::inquiry(last)?).await?;
        link.send(findings.into()).await?;
        return Ok(Visit::Inquiry);
    }
    let established = awaiting_confirm.confirm(wire::confirm(last)?)?;
    info.gate.established();
    Ok(Visit::Session(Box::new(established), given))
}

/// Whether the dialer holds the keys that it presents, and is let in.
async fn judge(
    local: &Local,
    info: &ConnectionInfo,
    awaiting_proof: AcceptorAwaitingProof,
    proof: Proof,
) -> Result<(KeyId, AcceptorAwaitingConfirm, Accepted, Grants), Ending> {
    let (authorizing, claim) = awaiting_proof.proof(proof)?;
    let (peer, address, doorman) = (claim.key.key_id(), info.address, &local.doorman);
    let is_listed = local.store.is_welcome(claim.key).await?;
    if !is_listed {
        let now = local.clock.monotonic();
        let Ok(wait) = doorman.attempt(peer, info.own_address(), claim.token.is_some(), now) else {
            if doorman.noise.may_log(Noise::TooOften) {
                tracing::warn!(%peer, %address, "a dialer that is not let in asks too often");
            }
            return Err(Ending::TooOften);
        };
        tokio::time::sleep(wait).await;
    }
    match local.store.authorize(claim).await? {
        Authorization::Granted { grants, accepted, .. } => {
            let (awaiting_confirm, accepted) = authorizing.authorized(grants.to_strings(), accepted);
            Ok((peer, awaiting_confirm, accepted, grants))
        }
        Authorization::Refused(refusal) => {
            if doorman.noise.may_log(Noise::Refused) {
                tracing::warn!(%peer, %address, reason = refusal.advice(), "a dialer was refused");
            }
            Err(Ending::Refused(refusal))
        }
    }
}

/// Proves to a hub who we are, once it has proved who it is, and completes the handshake.
pub(super) async fn dial(
    local: &Local,
    link: &mut Link,
    info: &ConnectionInfo,
    channel: Opening,
    tls_peer: Option<PublicKey>,
    target: &Target,
) -> Result<Established, Ending> {
    let me = local.me();
    let (signing, request) = greet(&me, link, info, channel, tls_peer, target).await?;
    let (established, confirm) = prove(&me, link, target, signing, request).await?;
    link.send(confirm.into()).await?;
    info.gate.established();
    Ok(established)
}

/// Lets a hub prove who it is; it has learnt nothing about us yet.
pub(super) async fn greet(
    me: &Me,
    link: &mut Link,
    info: &ConnectionInfo,
    channel: Opening,
    tls_peer: Option<PublicKey>,
    target: &Target,
) -> Result<(DialerSigning, SignRequest), Ending> {
    let keys = channel.finish(link).await?;
    let config = DialerConfig {
        me: me.identity.public_key(),
        instance: me.instance.clone(),
        capabilities: Capability::names(),
        hub: target.hub,
        grants: target.grants.to_strings(),
        pairing_token: target.token.as_ref().map(crate::identity::Identity::public_key),
        keys,
        tls_peer,
    };
    let (awaiting_challenge, hello) = Dialer::start(config, random()?);
    link.send(hello.into()).await?;

    let challenge = wire::challenge(link.receive().await?)?;
    let greeted = awaiting_challenge.challenge(challenge)?;
    info.gate.authenticated();
    Ok(greeted)
}

/// Proves to a hub who we are; it lets us in, and waits for our last word.
pub(super) async fn prove(
    me: &Me,
    link: &mut Link,
    target: &Target,
    signing: DialerSigning,
    request: SignRequest,
) -> Result<(Established, Confirm), Ending> {
    let token = target.token.as_ref().zip(request.token.as_ref());
    let token_signature = token.map(|(token, message)| token.sign(message));
    let identity_signature = me.identity.sign(&request.identity);
    let (awaiting_accepted, proof) = signing.signed(identity_signature, token_signature);
    link.send(proof.into()).await?;

    let accepted = wire::accepted(link.receive().await?)?;
    Ok(awaiting_accepted.accepted(accepted)?)
}

/// What the channel gives the handshake, and the dialer's first frame in it.
async fn answer_channel(link: &mut Link, info: &ConnectionInfo) -> Result<(ChannelKeys, Frame), Ending> {
    let first = link.receive().await?;
    let sealed = info.protection == Protection::Sealed;
    if wire::is_seal_offer(&first) != sealed {
        return Err(Ending::OtherChannel { listener: info.protection.channel() });
    }
    match &info.protection {
        Protection::Bound(keys) => Ok((keys.clone(), first)),
        Protection::Sealed => {
            let (answer, agreed) = seal::answer(&wire::seal_offer(first)?)?;
            link.send(answer.into()).await?;
            link.sealed_with(agreed.seal);
            Ok((agreed.keys, link.receive().await?))
        }
    }
}

/// A dialer's side of the channel, begun.
pub(super) enum Opening {
    /// The connection gives the keys.
    Bound(ChannelKeys),
    /// They are being agreed in the stream.
    Offered(Box<Offered>),
}

impl Opening {
    /// Puts what goes before the handshake into the queue. It lies there before the stream is opened: some proxies
    /// keep the answer's beginning back until the hub says something in it, and the hub waits for the dialer.
    pub(super) async fn begin(
        info: &ConnectionInfo,
        outbound: &mpsc::Sender<Result<Frame, Status>>,
    ) -> Result<Self, Ending> {
        match &info.protection {
            Protection::Bound(keys) => Ok(Self::Bound(keys.clone())),
            Protection::Sealed => {
                let (offered, offer) = seal::offer();
                outbound.send(Ok(offer.into())).await.map_err(|_| link::interrupted())?;
                Ok(Self::Offered(offered))
            }
        }
    }

    /// What a stream that was refused at once means. In front of a sealed listener it is the proxy that refuses.
    pub(super) fn refused(&self, refused: &Status) -> Ending {
        let ending = status::ending_of_hub(refused);
        match self {
            Self::Bound(_) => ending,
            Self::Offered(_) => not_the_hubs_word(ending),
        }
    }

    /// What the channel gives the handshake.
    async fn finish(self, link: &mut Link) -> Result<ChannelKeys, Ending> {
        match self {
            Self::Bound(keys) => Ok(keys),
            Self::Offered(offered) => {
                let answer = link.receive().await.map_err(not_the_hubs_word)?;
                let agreed = offered.answered(&wire::seal_answer(answer)?)?;
                link.sealed_with(agreed.seal);
                Ok(agreed.keys)
            }
        }
    }
}

/// A hub turns nobody away before it knows more than an offer: this was said by something on the way.
fn not_the_hubs_word(ending: Ending) -> Ending {
    match ending {
        Ending::TurnedAway(text) => Ending::HubError { code: "Unauthenticated".to_owned(), text },
        other => other,
    }
}

fn random<const N: usize>() -> Result<[u8; N], Ending> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Ending::Randomness)?;
    Ok(bytes)
}
