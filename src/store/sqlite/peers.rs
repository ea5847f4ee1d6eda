//! What changes peers: edits by an operator, handshakes, sessions that take over. Each with its audit record, and a new
//! epoch where it changes what the peer may do.

use opmesh_core::model::{KeyId, OwnerHasher, PublicKey};
use opmesh_core::permission::{Grants, Scopes};
use opmesh_core::replica;
use rusqlite::{OptionalExtension as _, params};

use super::audit;
use super::config;
use super::events;
use super::forget;
use super::peer_rows::{self, free_name};
use super::replica_row;
use super::rows::{HashedRows, OwnerRows};
use super::tx::Tx;
use super::value::{count, counted};
use super::writer::SubmitError;
use crate::store::{
    AuditEvent, AuditKind, Epoch, Greeting, NewPeer, Peer, PeerChange, PeerEdit, PeerError, PeerEvent,
    Refusal, Resolution, Role, Roles, StoreError, Takeover,
};

/// Writes an audit record about a peer.
pub(in crate::store) fn note(
    tx: &Tx<'_>,
    event: AuditKind,
    peer: KeyId,
    detail: String,
) -> Result<(), StoreError> {
    audit::write(tx, &AuditEvent { event, peer: Some(peer), detail })
}

/// Tells the node once the transaction is durable.
pub(in crate::store) fn tell(tx: &mut Tx<'_>, key: KeyId, change: PeerChange) {
    tx.effects.peers.push(PeerEvent { key, change });
}

/// Live sessions of this peer may commit nothing more.
pub(in crate::store) fn fence(tx: &Tx<'_>, key: &KeyId) -> Result<(), StoreError> {
    tx.connection
        .prepare_cached(
            "UPDATE replicas SET epoch = epoch + 1 WHERE owner = (SELECT owner FROM owners WHERE key_id = ?1)",
        )?
        .execute([key.as_bytes()])?;
    Ok(())
}

/// An entry with nothing but a key and a name.
pub(in crate::store) fn blank(key: KeyId, name: String) -> Peer {
    Peer {
        key,
        public_key: None,
        name,
        instance: None,
        roles: Roles::default(),
        verified: false,
        blocked: None,
        dial: crate::store::Dial::default(),
        given: Grants::default(),
        received: Vec::new(),
        accepts: Scopes::everything(),
        last_seen: None,
        refused: None,
        progress: None,
        replica: None,
        joining: None,
        keys: crate::store::PeerKeys::default(),
    }
}

/// Adds a peer, or makes a listed one a known host.
pub(in crate::store) fn add(tx: &mut Tx<'_>, new: NewPeer) -> Result<Peer, PeerError> {
    if new.key == tx.memory.own.key_id() {
        return Err(PeerError::OwnKey(new.key));
    }
    let listed = peer_rows::one(tx.connection, &new.key)?;
    let peer = match listed {
        Some(listed) if listed.roles.known_host || !new.roles.known_host => {
            return Err(PeerError::Exists { name: listed.name, key: new.key });
        }
        Some(mut listed) => {
            listed.roles.known_host = true;
            listed.verified |= new.verified;
            listed.dial = new.dial;
            listed.joining = new.joining;
            new.given.iter().for_each(|grant| listed.given.replace(grant));
            listed
        }
        None => {
            let wanted = new.instance.as_ref().map_or_else(|| short(&new.key), ToString::to_string);
            let mut peer = blank(new.key, free_name(tx.connection, &wanted)?);
            peer.instance = new.instance;
            peer.roles = new.roles;
            peer.verified = new.verified;
            peer.dial = new.dial;
            peer.given = new.given;
            peer.joining = new.joining;
            peer
        }
    };
    peer_rows::store(tx.connection, &peer, tx.now)?;
    fence(tx, &peer.key)?;
    let detail = format!("{}; grants given: {}", peer.name, shown(&peer.given));
    note(tx, AuditKind::PeerAdded, peer.key, detail)?;
    tell(tx, peer.key, PeerChange::Reachable);
    Ok(peer)
}

/// A name for a peer that has not told its own: the first characters of its key ID.
fn short(key: &KeyId) -> String {
    key.to_string().chars().skip("ed25519.".len()).take(8).collect()
}

/// Whether the peer is still called by its key ID, because nobody has named it and it had not told its name.
fn is_stopgap(peer: &Peer) -> bool {
    let short = short(&peer.key);
    peer.name.strip_prefix(&short).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn shown(grants: &Grants) -> String {
    if grants.is_empty() { "nothing".to_owned() } else { grants.to_strings().join(" ") }
}

/// Performs the edits in order.
pub(in crate::store) fn edit(tx: &mut Tx<'_>, key: KeyId, edits: Vec<PeerEdit>) -> Result<Peer, PeerError> {
    let mut peer = peer_rows::one(tx.connection, &key)?.ok_or_else(|| PeerError::Unknown(key.to_string()))?;
    for edit in edits {
        let (change, event, detail) = edit_one(tx, &mut peer, edit)?;
        peer_rows::store(tx.connection, &peer, tx.now)?;
        if matches!(change, PeerChange::Grants | PeerChange::Revoked) {
            fence(tx, &key)?;
        }
        note(tx, event, key, detail)?;
        let may_share = if peer.roles.known_host { peer.given.clone() } else { Grants::default() };
        config::narrow(tx, key, &may_share)?;
        tell(tx, key, change);
    }
    Ok(peer)
}

fn edit_one(
    tx: &Tx<'_>,
    peer: &mut Peer,
    edit: PeerEdit,
) -> Result<(PeerChange, AuditKind, String), PeerError> {
    Ok(match edit {
        PeerEdit::Rename(name) => {
            if name != peer.name && free_name(tx.connection, &name)? != name {
                return Err(PeerError::NameTaken(name));
            }
            let detail = format!("{} is now called {name}", peer.name);
            peer.name = name;
            (PeerChange::Shown, AuditKind::PeerRenamed, detail)
        }
        PeerEdit::Verify(given) => {
            if given != peer.key {
                return Err(PeerError::OtherKey { name: peer.name.clone(), stored: peer.key, given });
            }
            peer.verified = true;
            peer.refused = None;
            (PeerChange::Reachable, AuditKind::PeerVerified, peer.name.clone())
        }
        PeerEdit::Unverify => {
            peer.verified = false;
            (PeerChange::Revoked, AuditKind::PeerUnverified, peer.name.clone())
        }
        PeerEdit::Grant(grant) => {
            peer.given.replace(grant);
            (PeerChange::Grants, AuditKind::GrantsChanged, shown(&peer.given))
        }
        PeerEdit::Revoke(grants) => {
            for text in grants {
                peer.given.revoke(&text).map_err(|fault| PeerError::Grants(fault.to_string()))?;
            }
            (PeerChange::Grants, AuditKind::GrantsChanged, shown(&peer.given))
        }
        PeerEdit::Block { reason } => {
            peer.blocked = Some(reason.clone());
            (PeerChange::Revoked, AuditKind::PeerBlocked, reason)
        }
        PeerEdit::Unblock => {
            peer.blocked = None;
            peer.refused = None;
            (PeerChange::Reachable, AuditKind::PeerUnblocked, peer.name.clone())
        }
        PeerEdit::SetDial(dial) => {
            peer.roles.known_host = !dial.urls.is_empty();
            peer.dial = dial;
            (PeerChange::Reachable, AuditKind::PeerDialChanged, peer.dial.urls.join(" "))
        }
        PeerEdit::SetAccepts(scopes) => {
            peer.accepts = scopes;
            (PeerChange::Grants, AuditKind::AcceptsChanged, peer.accepts.to_string())
        }
        PeerEdit::SetRoles(roles) => {
            peer.roles = roles;
            (PeerChange::Revoked, AuditKind::RolesChanged, format!("{roles:?}"))
        }
        PeerEdit::SetJoining(joining) => {
            peer.joining = joining;
            (PeerChange::Reachable, AuditKind::PairingChanged, peer.name.clone())
        }
    })
}

/// Removes a peer. What lies here for it stays.
pub(in crate::store) fn remove(tx: &mut Tx<'_>, key: KeyId) -> Result<(), PeerError> {
    let peer = peer_rows::one(tx.connection, &key)?.ok_or_else(|| PeerError::Unknown(key.to_string()))?;
    tx.connection
        .prepare_cached("DELETE FROM peers WHERE key_id = ?1")
        .and_then(|mut statement| statement.execute([key.as_bytes()]))
        .map_err(StoreError::from)?;
    fence(tx, &key)?;
    note(tx, AuditKind::PeerRemoved, key, peer.name)?;
    config::forget_peer(tx, &key)?;
    config::narrow(tx, key, &Grants::default())?;
    tell(tx, key, PeerChange::Removed);
    Ok(())
}

/// Stores what a completed handshake has shown.
pub(in crate::store) fn greet(tx: &mut Tx<'_>, greeting: Greeting) -> Result<(), StoreError> {
    let key = greeting.public_key.key_id();
    let Some(mut peer) = peer_rows::one(tx.connection, &key)? else { return Err(StoreError::Fenced) };
    let before = peer.clone();
    if greeting.role == Role::KnownHost {
        if peer.joining.take().is_some() {
            note(tx, AuditKind::PairedWithHub, key, greeting.instance.to_string())?;
        }
        note(tx, AuditKind::HubConnected, key, String::new())?;
    }
    peer.public_key = Some(greeting.public_key);
    peer.received = greeting.received;
    peer.refused = None;
    config::heard_grants(tx, key, greeting.role, &peer.received)?;
    if let Some(old) =
        peer.instance.replace(greeting.instance.clone()).filter(|old| *old != greeting.instance)
    {
        note(tx, AuditKind::InstanceRenamed, key, format!("{old} is now {}", greeting.instance))?;
    }
    if is_stopgap(&peer) {
        let name = free_name(tx.connection, greeting.instance.as_str())?;
        note(tx, AuditKind::PeerRenamed, key, format!("{} is now called {name}", peer.name))?;
        peer.name = name;
    }
    if peer != before {
        peer_rows::store(tx.connection, &peer, tx.now)?;
        tell(tx, key, PeerChange::Shown);
    }
    Ok(())
}

/// Notes why a peer was turned away, or turned us away.
pub(in crate::store) fn note_refused(
    tx: &mut Tx<'_>,
    key: KeyId,
    refusal: Refusal,
) -> Result<(), StoreError> {
    tx.connection
        .prepare_cached("UPDATE peers SET refused = ?2, refused_unix_ms = ?3 WHERE key_id = ?1")?
        .execute(params![key.as_bytes(), refusal.name(), tx.now.0])?;
    Ok(())
}

/// The number of an owner, made when it is new.
pub(in crate::store) fn owner(tx: &Tx<'_>, key: &PublicKey, name: &str) -> Result<i64, StoreError> {
    let key_id = key.key_id();
    if let Some(owner) = find_owner(tx.connection, &key_id)? {
        return Ok(owner);
    }
    Ok(tx
        .connection
        .prepare_cached("INSERT INTO owners (key_id, log_key, name) VALUES (?1, ?2, ?3)")?
        .insert(params![key_id.as_bytes(), key.0, name])?)
}

/// The number of an owner whose operations lie here.
pub(in crate::store) fn find_owner(
    connection: &rusqlite::Connection,
    key: &KeyId,
) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT owner FROM owners WHERE key_id = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0))
        .optional()?)
}

/// The caller's session speaks for the owner from now on.
pub(in crate::store) fn take_over(
    tx: &mut Tx<'_>,
    key: KeyId,
) -> Result<(Takeover, OwnerHasher), StoreError> {
    let peer = peer_rows::one(tx.connection, &key)?.ok_or(StoreError::Fenced)?;
    let public_key = peer.public_key.ok_or(StoreError::Fenced)?;
    if !peer.may_deliver() {
        return Err(StoreError::Fenced);
    }
    let owner = owner(tx, &public_key, &peer.name)?;
    if forget::is_under_way(tx.connection, owner)? {
        return Err(StoreError::Fenced);
    }
    tx.connection
        .prepare_cached(
            "INSERT INTO replicas (owner, epoch, cursor_modno, cursor_chain, newest_modno, newest_chain, trail,
                 diff_changed, unequal_repairs, guard)
             VALUES (?1, 1, 0, zeroblob(16), 0, zeroblob(16), x'', 0, x'', x'')
             ON CONFLICT (owner) DO UPDATE SET epoch = epoch + 1",
        )?
        .execute([owner])?;
    let epoch: i64 = tx
        .connection
        .prepare_cached("SELECT epoch FROM replicas WHERE owner = ?1")?
        .query_row([owner], |row| row.get(0))?;
    let cursor = replica_row::load(tx.connection, owner)?.cursor;
    note(tx, AuditKind::ClientConnected, key, String::new())?;
    let takeover =
        Takeover { epoch: Epoch(counted(epoch)), accepted: peer.accepts, given: peer.given, cursor };
    Ok((takeover, tx.memory.hasher(owner, tx.connection)?))
}

/// Performs a session's transaction, if the session still speaks for its peer.
pub(in crate::store) fn submit(
    tx: &mut Tx<'_>,
    key: &KeyId,
    epoch: Epoch,
    transaction: replica::Transaction,
    hashed: HashedRows,
) -> Result<replica::Committed, SubmitError> {
    let owner = unfenced(tx, key, epoch)?;
    let now = tx.now;
    let before = events::before(tx, owner, &transaction)?;
    let presented = match &transaction {
        replica::Transaction::State { state, .. } => Some(state.incarnation),
        _ => None,
    };
    let mut rows = OwnerRows::with_hashes(tx, owner, hashed)?;
    let committed = replica::apply(&mut rows, transaction, now).map_err(|fault| match fault {
        replica::Fault::Violation(violation) => SubmitError::Violation(violation),
        replica::Fault::Store(error) => SubmitError::Store(error),
    })?;
    events::committed(tx, *key, before, presented, &committed)?;
    Ok(committed)
}

/// The owner's number, if this epoch is the current one and the peer is still let in.
pub(super) fn unfenced(tx: &Tx<'_>, key: &KeyId, epoch: Epoch) -> Result<i64, StoreError> {
    tx.connection
        .prepare_cached(
            "SELECT r.owner FROM owners AS w JOIN replicas AS r ON r.owner = w.owner
             JOIN peers AS p ON p.key_id = w.key_id
             WHERE w.key_id = ?1 AND r.epoch = ?2 AND p.authorized_client AND p.verified AND p.blocked IS NULL",
        )?
        .query_row(params![key.as_bytes(), count(epoch.0)], |row| row.get(0))
        .optional()?
        .ok_or(StoreError::Fenced)
}

/// The operator lets a quarantined owner be repaired again.
pub(in crate::store) fn release(tx: &mut Tx<'_>, key: KeyId) -> Result<(), PeerError> {
    let owner = find_owner(tx.connection, &key)?.ok_or(StoreError::UnknownOwner(key))?;
    replica::release(&mut OwnerRows::new(tx, owner)?)?;
    fence(tx, &key)?;
    note(tx, AuditKind::OwnerReleased, key, String::new())?;
    tell(tx, key, PeerChange::Released);
    Ok(())
}

/// The operator decides about a superseded incarnation that was presented.
pub(in crate::store) fn resolve(
    tx: &mut Tx<'_>,
    key: KeyId,
    resolution: Resolution,
) -> Result<(), PeerError> {
    let owner = find_owner(tx.connection, &key)?.ok_or(PeerError::NothingToResolve(key))?;
    let mut rows = OwnerRows::new(tx, owner)?;
    let (noted, event) = match resolution {
        Resolution::AcceptPresented => (replica::accept_presented(&mut rows)?, AuditKind::ConflictAccepted),
        Resolution::Refuse => (replica::refuse_presented(&mut rows)?, AuditKind::ConflictRefused),
    };
    if !noted {
        return Err(PeerError::NothingToResolve(key));
    }
    fence(tx, &key)?;
    note(tx, event, key, String::new())?;
    tell(tx, key, PeerChange::Released);
    Ok(())
}
