//! Tokens of the TCP listener: made here, checked by the guard.

use std::time::Duration;

use opmesh_core::model::UnixMs;

use super::reply::{Out, Stop};
use super::show;
use crate::admin::bearer::Secret;
use crate::admin::error::{Failure, Reason};
use crate::admin::guard::Role;
use crate::admin::pb;
use crate::node::Node;
use crate::store::{AdminToken, NewAdminToken};

/// How long a token is good unless told otherwise: a monitor needs a new one each month.
const DEFAULT_TTL: Duration = Duration::from_hours(30 * 24);
/// How long at most: what nobody renews within a year, nobody remembers.
const MAX_TTL: Duration = Duration::from_hours(365 * 24);

pub(super) async fn create(
    node: &Node,
    request: pb::CreateAdminTokenRequest,
) -> Result<pb::CreatedAdminToken, Failure> {
    let role = Role::from_name(&request.role).ok_or_else(|| {
        let names = Role::ALL.map(|(_, name)| name).join(", ");
        let text = format!("{:?} is no role: expected one of {names}", request.role);
        Failure::new(Reason::InvalidArgument, text)
    })?;
    let expires = UnixMs(node.clock().wall().0.saturating_add(ttl_ms(request.ttl_ms)?));
    let secret = Secret::random()?;
    let new = NewAdminToken { hash: secret.hash(), role: role.name(), label: request.label, expires };
    let stored = node.store().add_admin_token(new).await?;
    Ok(pb::CreatedAdminToken {
        token: secret.reveal().to_owned(),
        id: stored.id.to_string(),
        role: stored.role,
        expires_unix_ms: stored.expires.0,
    })
}

fn ttl_ms(asked: Option<i64>) -> Result<i64, Failure> {
    let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let ttl = asked.unwrap_or(ms(DEFAULT_TTL));
    if (1..=ms(MAX_TTL)).contains(&ttl) {
        return Ok(ttl);
    }
    let text = "an admin token is good for more than nothing and at most 365 days";
    Err(Failure::new(Reason::InvalidArgument, text))
}

pub(super) async fn list(node: Node, out: Out<pb::AdminToken>) -> Result<(), Stop> {
    for token in node.store().admin_tokens().await? {
        out.send(shown(token)).await?;
    }
    Ok(())
}

pub(super) async fn revoke(node: &Node, id: &str) -> Result<pb::AdminToken, Failure> {
    let unknown = || {
        Failure::new(Reason::UnknownToken, format!("there is no admin token {id:?}"))
            .hint("`opmesh admin tokens` lists them")
    };
    let number = id.parse().map_err(|_| unknown())?;
    node.store().revoke_admin_token(number).await?.map(shown).ok_or_else(unknown)
}

fn shown(token: AdminToken) -> pb::AdminToken {
    pb::AdminToken {
        id: token.id.to_string(),
        role: token.role,
        label: token.label,
        created_unix_ms: token.created.0,
        expires_unix_ms: token.expires.0,
        last_used_unix_ms: show::ms(token.used),
    }
}
