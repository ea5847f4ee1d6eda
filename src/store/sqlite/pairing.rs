//! Who is let in, and pairing tokens. A token is used up, the peer added and the audit record written in one
//! transaction: of two that race with one token, one wins.

use opmesh_core::handshake::Claim;
use opmesh_core::model::{KeyId, UnixMs};
use opmesh_core::permission::Grants;
use rusqlite::{Connection, Row, params};

use super::audit;
use super::peer_rows::{self, free_name};
use super::peers::{blank, fence, note, note_refused, owner, tell};
use super::refusals::Refused;
use super::succession;
use super::tx::Tx;
use super::value::{count, counted, stored};
use crate::store::{
    AuditEvent, AuditKind, Authorization, NewToken, Peer, PeerChange, PeerError, Refusal, StoreError, Token,
};

/// How long a token that can no longer be used is remembered, so that its user is told why.
const REMEMBER_TOKENS_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// What schema 2 adds: whether the audit log says already that the token expired.
pub(super) const TOKEN_EXPIRY: &str = "
ALTER TABLE tokens ADD COLUMN expiry_noted INTEGER NOT NULL DEFAULT 0;
";

/// Decides whether a dialer is let in.
pub(in crate::store) fn authorize(tx: &mut Tx<'_>, claim: &Claim) -> Result<Authorization, StoreError> {
    let decided = match decide(tx, claim)? {
        Ok(granted) => granted,
        Err(refusal) => {
            let key = claim.key.key_id();
            note_refused(tx, key, refusal)?;
            let who = if is_known(tx, &key)? { Refused::Listed(key) } else { Refused::Stranger };
            let detail = format!("{}: {}", claim.instance, refusal.name());
            let event = AuditEvent { event: AuditKind::ClientRefused, peer: Some(key), detail };
            audit::refuse(tx, who, &event)?;
            Authorization::Refused(refusal)
        }
    };
    Ok(decided)
}

fn is_known(tx: &Tx<'_>, key: &KeyId) -> Result<bool, StoreError> {
    Ok(*key == tx.memory.own.key_id() || peer_rows::one(tx.connection, key)?.is_some())
}

fn decide(tx: &mut Tx<'_>, claim: &Claim) -> Result<Result<Authorization, Refusal>, StoreError> {
    if claim.key == tx.memory.own {
        return Ok(Err(Refusal::OwnKey));
    }
    let key = claim.key.key_id();
    if succession::is_retired(tx.connection, &key)? {
        return Ok(Err(Refusal::Retired));
    }
    let listed = match peer_rows::one(tx.connection, &key)? {
        Some(listed) => Some(listed),
        None => announced(tx, claim)?,
    };
    match listed {
        Some(peer) if peer.blocked.is_some() => Ok(Err(Refusal::Blocked)),
        Some(peer) if peer.may_deliver() => admit(tx, claim, peer),
        listed => pair(tx, claim, listed),
    }
}

/// The entry of a client that comes with the key that it announced; filed under that key, unless it is blocked.
fn announced(tx: &mut Tx<'_>, claim: &Claim) -> Result<Option<Peer>, StoreError> {
    match succession::announcer(tx.connection, &claim.key)? {
        Some(peer) if peer.blocked.is_none() => succession::take_announced(tx, peer.key),
        other => Ok(other),
    }
}

/// A client that is listed; a token that it presents is not used up.
fn admit(
    tx: &mut Tx<'_>,
    claim: &Claim,
    mut peer: Peer,
) -> Result<Result<Authorization, Refusal>, StoreError> {
    let renamed = peer.instance.as_ref() != Some(&claim.instance);
    if renamed && instance_taken(tx.connection, claim)? {
        return Ok(Err(Refusal::InstanceTaken));
    }
    let granted =
        Authorization::Granted { grants: peer.given.clone(), accepted: peer.accepts.clone(), paired: false };
    if renamed || peer.public_key != Some(claim.key) || peer.refused.is_some() {
        if renamed {
            let old = peer.instance.as_ref().map_or_else(|| "nameless".to_owned(), ToString::to_string);
            note(tx, AuditKind::InstanceRenamed, peer.key, format!("{old} is now {}", claim.instance))?;
        }
        peer.instance = Some(claim.instance.clone());
        peer.public_key = Some(claim.key);
        peer.refused = None;
        peer_rows::store(tx.connection, &peer, tx.now)?;
    }
    Ok(Ok(granted))
}

/// Whether another key that is not blocked has this instance id.
fn instance_taken(connection: &Connection, claim: &Claim) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM peers WHERE instance = ?1 AND key_id <> ?2 AND blocked IS NULL")?
        .exists(params![claim.instance.as_str(), claim.key.key_id().as_bytes()])?)
}

/// A key that may not come in as it is: a good token makes it a client.
fn pair(
    tx: &mut Tx<'_>,
    claim: &Claim,
    listed: Option<Peer>,
) -> Result<Result<Authorization, Refusal>, StoreError> {
    let Some(token) = claim.token else {
        return Ok(Err(match listed {
            None => Refusal::Unknown,
            Some(peer) if !peer.roles.authorized_client => Refusal::NotAClient,
            Some(_) => Refusal::Unverified,
        }));
    };
    let token = match use_token(tx, &token.0)? {
        Ok(token) => token,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let key = claim.key.key_id();
    let mut peer = match listed {
        Some(listed) => listed,
        None => blank(key, free_name(tx.connection, claim.instance.as_str())?),
    };
    peer.public_key = Some(claim.key);
    peer.instance = Some(claim.instance.clone());
    peer.roles.authorized_client = true;
    peer.verified = true;
    peer.refused = None;
    token.grants.iter().for_each(|grant| peer.given.replace(grant));
    peer_rows::store(tx.connection, &peer, tx.now)?;
    owner(tx, &claim.key, &peer.name)?;
    fence(tx, &key)?;
    note(tx, AuditKind::ClientPaired, key, format!("{} by token {}", peer.name, token.id))?;
    tell(tx, key, PeerChange::Reachable);
    Ok(Ok(Authorization::Granted { grants: peer.given, accepted: peer.accepts, paired: true }))
}

fn use_token(tx: &Tx<'_>, public_key: &[u8; 32]) -> Result<Result<Token, Refusal>, StoreError> {
    let mut statement = tx.connection.prepare_cached(
        "SELECT id, grants, label, created_unix_ms, expires_unix_ms, uses_left FROM tokens WHERE public_key = ?1",
    )?;
    let mut rows = statement.query([public_key])?;
    let Some(row) = rows.next()? else { return Ok(Err(Refusal::TokenUnknown)) };
    let token = token(row)?;
    drop(rows);
    if token.uses_left == 0 {
        return Ok(Err(Refusal::TokenSpent));
    }
    if token.expires <= tx.now {
        return Ok(Err(Refusal::TokenExpired));
    }
    tx.connection
        .prepare_cached("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1")?
        .execute([count(token.id)])?;
    Ok(Ok(token))
}

fn token(row: &Row<'_>) -> Result<Token, StoreError> {
    Ok(Token {
        id: counted(row.get(0)?),
        grants: stored("grants", Grants::parse(row.get::<_, String>(1)?.lines()))?,
        label: row.get(2)?,
        created: UnixMs(row.get(3)?),
        expires: UnixMs(row.get(4)?),
        uses_left: row.get(5)?,
    })
}

/// Remembers a token; forgets those that were useless for long.
pub(in crate::store) fn add_token(tx: &mut Tx<'_>, new: NewToken) -> Result<Token, StoreError> {
    let forget = tx.now.0.saturating_sub(REMEMBER_TOKENS_MS);
    tx.connection.prepare_cached("DELETE FROM tokens WHERE expires_unix_ms < ?1")?.execute([forget])?;
    let id = tx
        .connection
        .prepare_cached(
            "INSERT INTO tokens (public_key, grants, label, created_unix_ms, expires_unix_ms, uses_left)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .insert(params![
            new.public_key.0,
            new.grants.to_strings().join("\n"),
            new.label,
            tx.now.0,
            new.expires.0,
            new.uses
        ])?;
    let detail = format!(
        "token {id} {:?}, {} uses, grants {}",
        new.label,
        new.uses,
        new.grants.to_strings().join(" ")
    );
    audit::write(tx, &AuditEvent { event: AuditKind::TokenMade, peer: None, detail })?;
    Ok(Token {
        id: counted(id),
        grants: new.grants,
        label: new.label,
        created: tx.now,
        expires: new.expires,
        uses_left: new.uses,
    })
}

/// Tokens that can still be used.
pub(in crate::store) fn tokens(connection: &Connection, now: UnixMs) -> Result<Vec<Token>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, grants, label, created_unix_ms, expires_unix_ms, uses_left FROM tokens
         WHERE expires_unix_ms > ?1 AND uses_left > 0 ORDER BY id",
    )?;
    let mut rows = statement.query([now.0])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(token(row)?);
    }
    Ok(tokens)
}

/// Records each token that expired with uses left, once.
pub(in crate::store) fn note_expired_tokens(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let mut statement = tx.connection.prepare_cached(
        "UPDATE tokens SET expiry_noted = 1
         WHERE expires_unix_ms <= ?1 AND uses_left > 0 AND expiry_noted = 0 RETURNING id",
    )?;
    let expired = statement.query_map([tx.now.0], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for id in expired {
        let detail = format!("token {id}");
        audit::write(tx, &AuditEvent { event: AuditKind::TokenExpired, peer: None, detail })?;
    }
    Ok(())
}

/// Makes a token useless.
pub(in crate::store) fn cancel_token(tx: &mut Tx<'_>, id: u64) -> Result<(), PeerError> {
    let deleted = tx
        .connection
        .prepare_cached("DELETE FROM tokens WHERE id = ?1")
        .and_then(|mut statement| statement.execute([count(id)]))
        .map_err(StoreError::from)?;
    if deleted == 0 {
        return Err(PeerError::NoSuchToken(id));
    }
    audit::write(
        tx,
        &AuditEvent { event: AuditKind::TokenCancelled, peer: None, detail: format!("token {id}") },
    )?;
    Ok(())
}
