//! The handshake's messages over a stream, one after the other.
//!
//! `core`'s handshake checks everything; here its steps meet the stream, the identity that signs, and the store that
//! says who is let in. The driver bounds the time.

use opmesh_core::handshake::{Acceptor, AcceptorConfig, Dialer, DialerConfig, Established};
use opmesh_core::model::PublicKey;

use crate::store::Authorization;
use crate::wire;

use super::Local;
use super::connection::ConnectionInfo;
use super::ending::Ending;
use super::link::Link;
use super::session::Target;

/// Lets a dialer prove who it is, and asks the store whether it is let in.
pub(super) async fn accept(
    local: &Local,
    link: &mut Link,
    info: &ConnectionInfo,
) -> Result<Established, Ending> {
    let me = local.me();
    let awaiting_hello = Acceptor::start(AcceptorConfig {
        me: me.identity.public_key(),
        instance: me.instance.clone(),
        keys: info.keys.clone(),
        tls_peer: None,
    });
    let hello = wire::hello(link.receive().await?)?;
    let (signing, message) = awaiting_hello.hello(hello, random()?, random()?)?;
    let (awaiting_proof, challenge) = signing.signed(me.identity.sign(&message));
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
    tls_peer: Option<PublicKey>,
    target: &Target,
) -> Result<Established, Ending> {
    let me = local.me();
    let config = DialerConfig {
        me: me.identity.public_key(),
        instance: me.instance.clone(),
        hub: target.hub,
        grants: target.grants.to_strings(),
        pairing_token: target.token.as_ref().map(crate::identity::Identity::public_key),
        keys: info.keys.clone(),
        tls_peer,
    };
    let (awaiting_challenge, hello) = Dialer::start(config, random()?);
    link.send(hello.into()).await?;

    let challenge = wire::challenge(link.receive().await?)?;
    let (signing, request) = awaiting_challenge.challenge(challenge)?;
    info.gate.authenticated();
    let token = target.token.as_ref().zip(request.token.as_ref());
    let token_signature = token.map(|(token, message)| token.sign(message));
    let identity_signature = me.identity.sign(&request.identity);
    let (awaiting_accepted, proof) = signing.signed(identity_signature, token_signature);
    link.send(proof.into()).await?;

    let accepted = wire::accepted(link.receive().await?)?;
    let (established, confirm) = awaiting_accepted.accepted(accepted)?;
    link.send(confirm.into()).await?;
    Ok(established)
}

fn random<const N: usize>() -> Result<[u8; N], Ending> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Ending::Randomness)?;
    Ok(bytes)
}
