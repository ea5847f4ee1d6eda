//! Pairing tokens: made here, used once by a host.

use std::time::Duration;

use opmesh_core::model::UnixMs;
use opmesh_core::permission::Grants;

use super::reply::{Out, Stop};
use super::show;
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::Node;
use crate::pairing::PairingToken;
use crate::store::NewToken;

/// How long a token is good unless told otherwise: long enough to walk to the other machine.
const DEFAULT_TTL: Duration = Duration::from_mins(10);
/// How long at most: a token is a secret in somebody's notes.
const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// How often unless told otherwise.
const DEFAULT_USES: u32 = 1;

pub(super) async fn create(
    node: &Node,
    request: pb::CreateTokenRequest,
) -> Result<pb::CreatedToken, Failure> {
    let grants = Grants::parse(&request.grants)?;
    let uses = request.uses.unwrap_or(DEFAULT_USES);
    if uses == 0 {
        return Err(Failure::new(Reason::InvalidArgument, "a token needs at least one use"));
    }
    let (live, most) = (node.store().tokens().await?.len(), node.limits().live_tokens);
    if u32::try_from(live).is_ok_and(|live| live >= most) {
        let text = format!("{live} pairing tokens can be used already, {most} are allowed at a time");
        let hint = "cancel one with `opmesh pair cancel`, or give one token several --uses";
        return Err(Failure::new(Reason::Limit, text).hint(hint));
    }
    let expires = node.clock().wall().0.saturating_add(ttl_ms(request.ttl_ms)?);
    let instance = Some(node.instance());
    let token = PairingToken::random(node.identity().key_id(), instance, UnixMs(expires))?;
    let stored = NewToken {
        public_key: token.public_key(),
        grants,
        label: request.label,
        expires: token.expires,
        uses,
    };
    let stored = node.store().add_token(stored).await?;
    Ok(pb::CreatedToken {
        token: token.reveal().to_string(),
        id: stored.id.to_string(),
        expires_unix_ms: stored.expires.0,
        grants: stored.grants.to_strings(),
    })
}

fn ttl_ms(asked: Option<i64>) -> Result<i64, Failure> {
    let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let ttl = asked.unwrap_or(ms(DEFAULT_TTL));
    if (1..=ms(MAX_TTL)).contains(&ttl) {
        return Ok(ttl);
    }
    Err(Failure::new(Reason::InvalidArgument, "a token is good for more than nothing and at most seven days"))
}

pub(super) async fn list(node: Node, out: Out<pb::Token>) -> Result<(), Stop> {
    for token in node.store().tokens().await? {
        out.send(show::token(&token)).await?;
    }
    Ok(())
}

pub(super) async fn cancel(node: &Node, id: &str) -> Result<pb::Token, Failure> {
    let tokens = node.store().tokens().await?;
    let token = tokens.iter().find(|token| token.id.to_string() == id).ok_or_else(|| {
        Failure::new(
            Reason::UnknownToken,
            format!("there is no pairing token {id:?} that could still be used"),
        )
        .hint("`opmesh pair tokens` lists them")
    })?;
    node.store().cancel_token(token.id).await?;
    Ok(show::token(token))
}
