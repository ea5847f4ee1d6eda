//! Keys that take the place of others: announced by their owners, learnt by hand, or adopted for a lost one.
//!
//! A peer's entry and the rows kept for it belong to the peer, not to its key: when a new key takes over, both are
//! filed under it, and no row is touched. Rows stay hashed with the owner's first key.

use opmesh_core::model::{KeyId, OwnerHasher, PublicKey, UnixMs};
use opmesh_core::succession::{Succession, Tense};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::audit;
use super::peer_rows;
use super::peers::{fence, find_owner, note, tell};
use super::refusals::Refused;
use super::schema::OWN;
use super::tx::Tx;
use super::value::Columnar as _;
use crate::store::{
    AuditEvent, AuditKind, Learnt, Peer, PeerChange, PeerError, PeerKeys, Retired, RetiredHow, StoreError,
};

/// Schema 2: what peers said about their keys, and keys that were replaced.
pub(super) const SUCCESSION: &str = "
-- next_key is the public key that the peer announced, with the time of the announcement; knows_key the newest public
-- key of ours that it has confirmed.
ALTER TABLE peers ADD COLUMN next_key BLOB;
ALTER TABLE peers ADD COLUMN next_key_unix_ms INTEGER;
ALTER TABLE peers ADD COLUMN knows_key BLOB;
-- Keys that are let in no more because another one stands for them: how is succession or adoption.
CREATE TABLE retired (
    key_id BLOB PRIMARY KEY,
    heir BLOB NOT NULL,
    how TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX retired_by_heir ON retired (heir);
";

/// What is known about a peer's keys.
pub(in crate::store) fn keys(connection: &Connection, peer: &KeyId) -> Result<PeerKeys, StoreError> {
    let key = |row: &Row<'_>, at: usize| row.get::<_, Option<[u8; 32]>>(at).map(|key| key.map(PublicKey));
    let found = connection
        .prepare_cached("SELECT next_key, knows_key FROM peers WHERE key_id = ?1")?
        .query_row([peer.as_bytes()], |row| Ok((key(row, 0)?, key(row, 1)?)))
        .optional()?;
    let (next, knows) = found.unwrap_or_default();
    let mut statement = connection.prepare_cached(
        "SELECT key_id FROM retired WHERE heir = ?1 AND how = 'succession' ORDER BY at_unix_ms, key_id",
    )?;
    let mut rows = statement.query([peer.as_bytes()])?;
    let mut succeeds = Vec::new();
    while let Some(row) = rows.next()? {
        succeeds.push(row.key_id(0)?);
    }
    Ok(PeerKeys { next, knows, succeeds, retired: is_retired(connection, peer)? })
}

/// All keys that another one stands for, oldest first.
pub(in crate::store) fn retired(connection: &Connection) -> Result<Vec<Retired>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT key_id, heir, how FROM retired ORDER BY at_unix_ms, key_id")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let how: String = row.get(2)?;
        let how =
            if how == RetiredHow::Adoption.name() { RetiredHow::Adoption } else { RetiredHow::Succession };
        all.push(Retired { key: row.key_id(0)?, heir: row.key_id(1)?, how });
    }
    Ok(all)
}

/// Whether another key stands for this one.
pub(in crate::store) fn is_retired(connection: &Connection, key: &KeyId) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached("SELECT 1 FROM retired WHERE key_id = ?1")?.exists([key.as_bytes()])?)
}

/// The entry of the peer that announced this key.
pub(in crate::store) fn announcer(
    connection: &Connection,
    key: &PublicKey,
) -> Result<Option<Peer>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT key_id FROM peers WHERE next_key = ?1")?;
    let mut rows = statement.query([key.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    peer_rows::one(connection, &row.key_id(0)?)
}

/// A peer presents the key that it announced: from now on it is known by that one alone.
pub(in crate::store) fn take_announced(tx: &mut Tx<'_>, old: KeyId) -> Result<Option<Peer>, StoreError> {
    let Some(new) = keys(tx.connection, &old)?.next else { return Ok(None) };
    // A key that is let in no more does not come back by being announced.
    let is_blocked = peer_rows::one(tx.connection, &new.key_id())?.is_some_and(|peer| peer.blocked.is_some());
    if is_blocked || is_retired(tx.connection, &new.key_id())? {
        return Ok(None);
    }
    move_entry(tx, old, new.key_id(), Some(new), AuditKind::KeySucceeded)
}

/// The operator learnt by hand that a peer has another key.
pub(in crate::store) fn replace_by_hand(tx: &mut Tx<'_>, old: KeyId, new: KeyId) -> Result<Peer, PeerError> {
    if new == tx.memory.own.key_id() {
        return Err(PeerError::OwnKey(new));
    }
    if is_retired(tx.connection, &new)? {
        return Err(PeerError::IsRetired(new));
    }
    let moved = move_entry(tx, old, new, None, AuditKind::KeyReplaced)?;
    moved.ok_or_else(|| PeerError::Unknown(old.to_string()))
}

/// Files a peer's entry and its owner under another key, retires the old one, and ends what it was used for.
fn move_entry(
    tx: &mut Tx<'_>,
    old: KeyId,
    new: KeyId,
    public_key: Option<PublicKey>,
    event: AuditKind,
) -> Result<Option<Peer>, StoreError> {
    let Some(listed) = peer_rows::one(tx.connection, &old)? else { return Ok(None) };
    // Somebody may have added the new key by hand; the older entry has the name and the grants.
    tx.connection.prepare_cached("DELETE FROM peers WHERE key_id = ?1")?.execute([new.as_bytes()])?;
    tx.connection
        .prepare_cached(
            "UPDATE peers SET key_id = ?2, public_key = ?3, next_key = NULL, next_key_unix_ms = NULL,
                 refused = NULL, refused_unix_ms = NULL, verified = verified OR ?4
             WHERE key_id = ?1",
        )?
        .execute(params![
            old.as_bytes(),
            new.as_bytes(),
            public_key.map(|key| key.0),
            event == AuditKind::KeyReplaced
        ])?;
    move_owner(tx, &old, &new)?;
    move_config(tx.connection, &old, &new)?;
    retire(tx, &old, &new, RetiredHow::Succession)?;
    skip_epochs(tx, &new)?;
    note(tx, event, new, format!("{}: {old} is now {new}", listed.name))?;
    tell(tx, old, PeerChange::Removed);
    tell(tx, new, PeerChange::Grants);
    peer_rows::one(tx.connection, &new)
}

/// Notes that a key is let in no more; whoever it stood for is stood for by the new one, too.
fn retire(tx: &Tx<'_>, old: &KeyId, new: &KeyId, how: RetiredHow) -> Result<(), StoreError> {
    tx.connection
        .prepare_cached("UPDATE retired SET heir = ?2 WHERE heir = ?1")?
        .execute([old.as_bytes(), new.as_bytes()])?;
    tx.connection.prepare_cached("DELETE FROM retired WHERE key_id = ?1")?.execute([new.as_bytes()])?;
    tx.connection
        .prepare_cached(
            "INSERT OR REPLACE INTO retired (key_id, heir, how, at_unix_ms) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![old.as_bytes(), new.as_bytes(), how.name(), tx.now.0])?;
    Ok(())
}

/// Files the rows of one key under another, unless that one has rows of its own; whether they are there now.
fn move_owner(tx: &mut Tx<'_>, old: &KeyId, new: &KeyId) -> Result<bool, StoreError> {
    let Some(owner) = find_owner(tx.connection, old)? else { return Ok(true) };
    // The own log is nobody else's, whoever signs with a copy of its key.
    if owner == OWN {
        return Ok(false);
    }
    if let Some(other) = find_owner(tx.connection, new)? {
        if !is_empty(tx.connection, other)? {
            return Ok(false);
        }
        remove_empty(tx, other)?;
    }
    tx.connection
        .prepare_cached("UPDATE owners SET key_id = ?2 WHERE owner = ?1")?
        .execute(params![owner, new.as_bytes()])?;
    Ok(true)
}

/// Repositories that a peer shared, and what it showed of its config, are the same peer's under another key.
fn move_config(connection: &Connection, old: &KeyId, new: &KeyId) -> Result<(), StoreError> {
    for statement in [
        "UPDATE config_repos SET origin = ?2 WHERE origin = ?1",
        "UPDATE OR REPLACE peer_configs SET key_id = ?2 WHERE key_id = ?1",
    ] {
        connection.prepare_cached(statement)?.execute([old.as_bytes(), new.as_bytes()])?;
    }
    Ok(())
}

/// Whether nothing was ever stored for this owner.
fn is_empty(connection: &Connection, owner: i64) -> Result<bool, StoreError> {
    let stored = connection
        .prepare_cached(
            "SELECT 1 FROM ids WHERE owner = ?1 UNION ALL SELECT 1 FROM parked WHERE owner = ?1 LIMIT 1",
        )?
        .exists([owner])?;
    Ok(owner != OWN && !stored)
}

fn remove_empty(tx: &mut Tx<'_>, owner: i64) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM replicas WHERE owner = ?1",
        "DELETE FROM superseded WHERE owner = ?1",
        "DELETE FROM groups WHERE owner = ?1",
        "DELETE FROM owners WHERE owner = ?1",
    ] {
        tx.connection.prepare_cached(statement)?.execute([owner])?;
    }
    tx.memory.forget(owner);
    Ok(())
}

/// Stores what a peer says about its keys, told under the key of its session; and how its rows are hashed.
pub(in crate::store) fn learn(
    tx: &mut Tx<'_>,
    key: KeyId,
    succession: &Succession,
) -> Result<(Learnt, Option<OwnerHasher>), StoreError> {
    let peer = peer_rows::one(tx.connection, &key)?.filter(Peer::is_trusted).ok_or(StoreError::Fenced)?;
    let own = tx.memory.own.key_id();
    if succession.newest().key_id() == own || succession.before().any(|key| key.key_id() == own) {
        let detail = format!("{} signs with this instance's own key: the identity was copied", peer.name);
        let event = AuditEvent { event: AuditKind::IdentityConflict, peer: Some(key), detail };
        audit::refuse(tx, Refused::Listed(key), &event)?;
        return Ok((Learnt::NotItsOwn, None));
    }
    match succession.told_by(&key) {
        None => return Ok((Learnt::NotItsOwn, None)),
        Some(Tense::Announced) => announce(tx, &peer, succession)?,
        Some(Tense::Past) => absorb(tx, &peer, succession)?,
    }
    let Some(owner) = find_owner(tx.connection, &key)? else { return Ok((Learnt::Known, None)) };
    let log_key: [u8; 32] = tx
        .connection
        .prepare_cached("SELECT log_key FROM owners WHERE owner = ?1")?
        .query_row([owner], |row| row.get(0))?;
    if log_key != succession.first().0 {
        if !is_empty(tx.connection, owner)? {
            return Ok((Learnt::OtherFirstKey, None));
        }
        tx.connection
            .prepare_cached("UPDATE owners SET log_key = ?2 WHERE owner = ?1")?
            .execute(params![owner, succession.first().0])?;
        tx.memory.forget(owner);
    }
    Ok((Learnt::Known, Some(tx.memory.hasher(owner, tx.connection)?)))
}

/// Until it is used, a later announcement takes the place of an earlier one: the peer may have given up the first.
fn announce(tx: &mut Tx<'_>, peer: &Peer, succession: &Succession) -> Result<(), StoreError> {
    let at: Option<i64> = tx
        .connection
        .prepare_cached("SELECT next_key_unix_ms FROM peers WHERE key_id = ?1")?
        .query_row([peer.key.as_bytes()], |row| row.get(0))?;
    let newest = succession.newest();
    if peer.keys.next == Some(newest) || at.is_some_and(|at| UnixMs(at) > succession.announced_at()) {
        return Ok(());
    }
    tx.connection
        .prepare_cached("UPDATE peers SET next_key = ?2, next_key_unix_ms = ?3 WHERE key_id = ?1")?
        .execute(params![peer.key.as_bytes(), newest.0, succession.announced_at().0])?;
    note(tx, AuditKind::KeyAnnounced, peer.key, format!("{}: {}", peer.name, newest.key_id()))?;
    tell(tx, peer.key, PeerChange::Shown);
    Ok(())
}

/// A peer that is listed under its new key tells of older ones: what lies here under them is its own.
fn absorb(tx: &mut Tx<'_>, peer: &Peer, succession: &Succession) -> Result<(), StoreError> {
    for old in succession.before() {
        let old = old.key_id();
        let listed = peer_rows::one(tx.connection, &old)?;
        let has_rows = find_owner(tx.connection, &old)?.is_some();
        if listed.is_none() && !has_rows {
            continue;
        }
        // What an operator has decided about the older key stands.
        let is_blocked = listed.is_some_and(|listed| listed.blocked.is_some());
        if is_blocked || is_retired(tx.connection, &old)? {
            continue;
        }
        if !move_owner(tx, &old, &peer.key)? {
            continue;
        }
        tx.connection.prepare_cached("DELETE FROM peers WHERE key_id = ?1")?.execute([old.as_bytes()])?;
        move_config(tx.connection, &old, &peer.key)?;
        retire(tx, &old, &peer.key, RetiredHow::Succession)?;
        // The session that tells this speaks for an owner that had nothing; the next one speaks for this one.
        skip_epochs(tx, &peer.key)?;
        note(tx, AuditKind::KeySucceeded, peer.key, format!("{}: {old} is now {}", peer.name, peer.key))?;
        tell(tx, old, PeerChange::Removed);
        tell(tx, peer.key, PeerChange::Grants);
    }
    Ok(())
}

/// More than a new owner's sessions can have counted.
const EPOCHS_SKIPPED: i64 = 1_000_000;

/// No session counts any more that spoke for this key while another owner, or none, was filed under it.
fn skip_epochs(tx: &Tx<'_>, key: &KeyId) -> Result<(), StoreError> {
    tx.connection
        .prepare_cached(
            "UPDATE replicas SET epoch = epoch + ?2 WHERE owner = (SELECT owner FROM owners WHERE key_id = ?1)",
        )?
        .execute(params![key.as_bytes(), EPOCHS_SKIPPED])?;
    Ok(())
}

/// A peer has confirmed the newest key that we told it.
pub(in crate::store) fn confirm(tx: &mut Tx<'_>, peer: KeyId, key: PublicKey) -> Result<(), StoreError> {
    if !peer_rows::one(tx.connection, &peer)?.is_some_and(|peer| peer.is_trusted()) {
        return Err(StoreError::Fenced);
    }
    tx.connection
        .prepare_cached("UPDATE peers SET knows_key = ?2 WHERE key_id = ?1")?
        .execute(params![peer.as_bytes(), key.0])?;
    tell(tx, peer, PeerChange::KeyConfirmed);
    Ok(())
}

/// This instance's key changes: the own log stays, and stays hashed as it was. Tokens name the old key.
pub(in crate::store) fn take_own_key(tx: &mut Tx<'_>, key: PublicKey, why: &str) -> Result<(), StoreError> {
    let old = tx.memory.own.key_id();
    if old == key.key_id() {
        return Ok(());
    }
    rename_own(tx.connection, &key)?;
    let tokens =
        tx.connection.prepare_cached("UPDATE tokens SET uses_left = 0 WHERE uses_left > 0")?.execute([])?;
    tx.memory.own = key;
    let detail = format!("{old} is now {}; {why}{tokens} pairing tokens are void", key.key_id());
    audit::write(tx, &AuditEvent { event: AuditKind::KeyRotated, peer: None, detail })
}

/// The store is filed under this key.
pub(super) fn rename_own(connection: &Connection, key: &PublicKey) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE owners SET key_id = ?2 WHERE owner = ?1")?
        .execute(params![OWN, key.key_id().as_bytes()])?;
    Ok(())
}

/// A lost key's operations are shown as another host's, and the lost key is let in no more. Nothing is rewritten.
pub(in crate::store) fn adopt(tx: &mut Tx<'_>, old: KeyId, by: KeyId) -> Result<(), PeerError> {
    let own = tx.memory.own.key_id();
    if old == own || by == own {
        return Err(PeerError::OwnKey(own));
    }
    if old == by || is_retired(tx.connection, &by)? {
        return Err(PeerError::IsRetired(by));
    }
    if is_retired(tx.connection, &old)? {
        return Err(PeerError::IsRetired(old));
    }
    retire(tx, &old, &by, RetiredHow::Adoption)?;
    fence(tx, &old)?;
    note(tx, AuditKind::HostAdopted, by, format!("{by} stands for {old}"))?;
    tell(tx, old, PeerChange::Revoked);
    Ok(())
}

/// Takes an adoption back: the old key may come again, as far as its entry lets it.
pub(in crate::store) fn release_adopted(tx: &mut Tx<'_>, old: KeyId) -> Result<(), PeerError> {
    let undone = tx
        .connection
        .prepare_cached("DELETE FROM retired WHERE key_id = ?1 AND how = 'adoption'")
        .and_then(|mut statement| statement.execute([old.as_bytes()]))
        .map_err(StoreError::from)?;
    if undone == 0 {
        return Err(PeerError::NotAdopted(old));
    }
    note(tx, AuditKind::AdoptionUndone, old, String::new())?;
    tell(tx, old, PeerChange::Reachable);
    Ok(())
}
