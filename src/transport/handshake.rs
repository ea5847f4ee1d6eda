//! The handshake's messages over a stream, one after the other.
//!
//! On a sealed channel the exchange of keys comes first. `core`'s handshake checks everything; here its steps meet the stream, the identity that signs, and the store that
//! says who is let in. The driver bounds the time.

use opmesh_core::handshake::{Acceptor, AcceptorConfig, ChannelKeys, Dialer, DialerConfig, Established};
use opmesh_core::model::PublicKey;
use tokio::sync::mpsc;
use tonic::Status;

use crate::store::Authorization;
use crate::wire::{self, Frame};

use super::Local;
use super::connection::{ConnectionInfo, Protection};
use super::ending::Ending;
use super::link::{self, Link};
use super::seal::{self, Offered};
use super::session::Target;
use super::status;

/// Lets a dialer prove who it is, and asks the store whether it is let in.
pub(super) async fn accept(
    local: &Local,
    link: &mut Link,
    info: &ConnectionInfo,
) -> Result<Established, Ending> {
    let (keys, hello) = answer_channel(link, info).await?;
    let awaiting_hello = Acceptor::start(AcceptorConfig {
        me: local.identity.public_key(),
        instance: local.instance.clone(),
        keys,
        tls_peer: None,
    });
    let hello = wire::hello(hello)?;
    let (signing, message) = awaiting_hello.hello(hello, random()?, random()?)?;
    let (awaiting_proof, challenge) = signing.signed(local.identity.sign(&message));
    link.send(challenge.into()).await?;

    let proof = wire::proof(link.receive().await?)?;
    let (authorizing, claim) = awaiting_proof.proof(proof)?;
    let peer = claim.key.key_id();
    let (grants, accepted) = match local.store.authorize(claim).await? {
        Authorization::Granted { grants, accepted, .. } => (grants, accepted),
        Authorization::Refused(refusal) => {
            tracing::warn!(%peer, address = %info.address, reason = refusal.advice(), "a dialer was refused");
            return Err(Ending::Refused(refusal));
        }
    };
    info.gate.authenticated();
    let (awaiting_confirm, accepted) = authorizing.authorized(grants.to_strings(), accepted);
    link.send(accepted.into()).await?;

    let confirm = wire::confirm(link.receive().await?)?;
    Ok(awaiting_confirm.confirm(confirm)?)
}

/// Proves to a hub who we are, once it has proved who it is.
pub(super) async fn dial(
    local: &Local,
    link: &mut Link,
    info: &ConnectionInfo,
    opening: Opening,
    tls_peer: Option<PublicKey>,
    target: &Target,
) -> Result<Established, Ending> {
    let keys = opening.finish(link).await?;
    let config = DialerConfig {
        me: local.identity.public_key(),
        instance: local.instance.clone(),
        hub: target.hub,
        grants: target.grants.to_strings(),
        pairing_token: target.token.as_ref().map(crate::identity::Identity::public_key),
        keys,
        tls_peer,
    };
    let (awaiting_challenge, hello) = Dialer::start(config, random()?);
    link.send(hello.into()).await?;

    let challenge = wire::challenge(link.receive().await?)?;
    let (signing, request) = awaiting_challenge.challenge(challenge)?;
    info.gate.authenticated();
    let token = target.token.as_ref().zip(request.token.as_ref());
    let token_signature = token.map(|(token, message)| token.sign(message));
    let identity_signature = local.identity.sign(&request.identity);
    let (awaiting_accepted, proof) = signing.signed(identity_signature, token_signature);
    link.send(proof.into()).await?;

    let accepted = wire::accepted(link.receive().await?)?;
    let (established, confirm) = awaiting_accepted.accepted(accepted)?;
    link.send(confirm.into()).await?;
    Ok(established)
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
                Ok(Self::Offered(Box::new(offered)))
            }
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

/// What a stream that was refused at once means. In front of a sealed listener it is the proxy that refuses.
pub(super) fn unheard(info: &ConnectionInfo, refused: &Status) -> Ending {
    let ending = status::ending_of_hub(refused);
    match info.protection {
        Protection::Bound(_) => ending,
        Protection::Sealed => not_the_hubs_word(ending),
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
