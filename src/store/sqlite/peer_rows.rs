//! Peers as rows: reading, writing back, finding by what people type.

use opmesh_core::model::{KeyId, PublicKey, UnixMs};
use opmesh_core::permission::{Grants, Scopes};
use opmesh_core::replica::ParkReason;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::lists::parked_count;
use super::memory::stored_total;
use super::replica_row;
use super::succession;
use super::value::{Columnar as _, stored};
use crate::store::{Dial, HubProgress, Joining, Peer, PeerError, Refusal, ReplicaFacts, Roles, StoreError};

/// A key ID may be shortened to so many characters.
const SHORTEST_KEY_ID: usize = 8;
const KEY_ID_PREFIX: &str = "ed25519.";

macro_rules! peer_columns {
    () => {
        "p.key_id, p.public_key, p.name, p.instance, p.known_host, p.authorized_client, p.verified, p.blocked,
         p.urls, p.channel, p.given, p.received, p.accepts, p.join_seed, p.join_expires_unix_ms,
         p.last_seen_unix_ms, p.refused, p.refused_unix_ms, p.acked_modno, p.acked_chain, p.proved_modno,
         p.proved_chain, p.proved_sum, p.proved_count"
    };
}

/// All peers, by name.
pub(in crate::store) fn all(connection: &Connection) -> Result<Vec<Peer>, StoreError> {
    let mut statement =
        connection.prepare_cached(concat!("SELECT ", peer_columns!(), " FROM peers AS p ORDER BY p.name"))?;
    let mut rows = statement.query([])?;
    let mut peers = Vec::new();
    while let Some(row) = rows.next()? {
        peers.push(peer(connection, row)?);
    }
    Ok(peers)
}

/// One peer.
pub(in crate::store) fn one(connection: &Connection, key: &KeyId) -> Result<Option<Peer>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        peer_columns!(),
        " FROM peers AS p WHERE p.key_id = ?1"
    ))?;
    let mut rows = statement.query([key.as_bytes()])?;
    rows.next()?.map(|row| peer(connection, row)).transpose()
}

fn peer(connection: &Connection, row: &Row<'_>) -> Result<Peer, StoreError> {
    let key = row.key_id(0)?;
    let refused: Option<String> = row.get(16)?;
    Ok(Peer {
        key,
        public_key: row.get::<_, Option<[u8; 32]>>(1)?.map(PublicKey),
        name: row.get(2)?,
        instance: row.get::<_, Option<String>>(3)?.and_then(|text| text.parse().ok()),
        roles: Roles { known_host: row.get(4)?, authorized_client: row.get(5)? },
        verified: row.get(6)?,
        blocked: row.get(7)?,
        dial: Dial { urls: lines(&row.get::<_, String>(8)?), channel: row.get(9)? },
        given: stored("grants", Grants::parse(lines(&row.get::<_, String>(10)?)))?,
        received: lines(&row.get::<_, String>(11)?),
        accepts: stored("scope list", Scopes::from_wire(&row.get::<_, String>(12)?))?,
        joining: joining(row)?,
        last_seen: row.get::<_, Option<i64>>(15)?.map(UnixMs),
        refused: refused
            .as_deref()
            .and_then(Refusal::from_name)
            .zip(row.get::<_, Option<i64>>(17)?.map(UnixMs)),
        progress: progress(row)?,
        replica: replica(connection, &key)?,
        keys: succession::keys(connection, &key)?,
    })
}

fn joining(row: &Row<'_>) -> Result<Option<Joining>, StoreError> {
    let seed = row.get::<_, Option<[u8; 32]>>(13)?;
    let expires = row.get::<_, Option<i64>>(14)?.map(UnixMs);
    Ok(seed.zip(expires).map(|(seed, expires)| Joining { seed, expires }))
}

fn progress(row: &Row<'_>) -> Result<Option<HubProgress>, StoreError> {
    if row.get::<_, Option<i64>>(18)?.is_none() {
        return Ok(None);
    }
    let proved = match row.get::<_, Option<i64>>(20)? {
        Some(_) => Some((row.position(20)?, row.digest(22)?)),
        None => None,
    };
    Ok(Some(HubProgress { acked: row.position(18)?, proved }))
}

fn replica(connection: &Connection, key: &KeyId) -> Result<Option<ReplicaFacts>, StoreError> {
    let owner: Option<i64> = connection
        .prepare_cached(
            "SELECT w.owner FROM owners AS w JOIN replicas AS r ON r.owner = w.owner WHERE w.key_id = ?1",
        )?
        .query_row([key.as_bytes()], |row| row.get(0))
        .optional()?;
    let Some(owner) = owner else { return Ok(None) };
    let replica = replica_row::load(connection, owner)?;
    Ok(Some(ReplicaFacts {
        cursor: replica.cursor,
        set: stored_total(connection, owner)?,
        guarded: parked_count(connection, owner, Some(ParkReason::Guard))?,
        quarantined: replica.quarantined,
        conflict: replica.conflict.is_some(),
        catching_up: replica.diff.is_some(),
    }))
}

/// Writes everything that edits and pairings change; inserts the row when it is new.
pub(in crate::store) fn store(connection: &Connection, peer: &Peer, now: UnixMs) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO peers (key_id, public_key, name, instance, known_host, authorized_client, verified, blocked,
                 urls, channel, given, received, accepts, join_seed, join_expires_unix_ms, refused, refused_unix_ms,
                 added_unix_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
             ON CONFLICT (key_id) DO UPDATE SET public_key = ?2, name = ?3, instance = ?4, known_host = ?5,
                 authorized_client = ?6, verified = ?7, blocked = ?8, urls = ?9, channel = ?10, given = ?11,
                 received = ?12, accepts = ?13, join_seed = ?14, join_expires_unix_ms = ?15, refused = ?16,
                 refused_unix_ms = ?17",
        )?
        .execute(params![
            peer.key.as_bytes(),
            peer.public_key.map(|key| key.0),
            peer.name,
            peer.instance.as_ref().map(opmesh_core::model::InstanceId::as_str),
            peer.roles.known_host,
            peer.roles.authorized_client,
            peer.verified,
            peer.blocked,
            peer.dial.urls.join("\n"),
            peer.dial.channel,
            peer.given.to_strings().join("\n"),
            peer.received.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n"),
            peer.accepts.to_string(),
            peer.joining.as_ref().map(|joining| joining.seed),
            peer.joining.as_ref().map(|joining| joining.expires.0),
            peer.refused.map(|(refusal, _)| refusal.name()),
            peer.refused.map(|(_, at)| at.0),
            now.0,
        ])?;
    connection
        .prepare_cached("UPDATE owners SET name = ?2 WHERE key_id = ?1 AND owner > 1")?
        .execute(params![peer.key.as_bytes(), peer.name])?;
    Ok(())
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// This name, or the first of `name-2`, `name-3`, … that no other peer has.
pub(in crate::store) fn free_name(connection: &Connection, wanted: &str) -> Result<String, StoreError> {
    let mut taken = connection.prepare_cached("SELECT 1 FROM peers WHERE name = ?1")?;
    let mut name = wanted.to_owned();
    for number in 2_u32.. {
        if !taken.exists([&name])? {
            break;
        }
        name = format!("{wanted}-{number}");
    }
    Ok(name)
}

/// Something that a text may mean.
#[derive(Debug, Clone)]
pub(in crate::store) struct Candidate {
    pub(in crate::store) key: KeyId,
    pub(in crate::store) name: String,
    pub(in crate::store) instance: Option<String>,
}

/// The one candidate that the text means: a whole key ID, else a name, an instance id or the beginning of a key ID.
/// A peer chooses its own instance id, so that one's name and another's instance id may be the same: then neither is
/// meant.
pub(in crate::store) fn find(text: &str, candidates: &[Candidate]) -> Result<KeyId, PeerError> {
    if let Some(exact) = candidates.iter().find(|candidate| candidate.key.to_string() == text) {
        return Ok(exact.key);
    }
    let bare = text.strip_prefix(KEY_ID_PREFIX).unwrap_or(text);
    let means = |candidate: &&Candidate| {
        let key = candidate.key.to_string();
        let key = key.strip_prefix(KEY_ID_PREFIX).unwrap_or(&key);
        candidate.name == text
            || candidate.instance.as_deref() == Some(text)
            || (bare.chars().count() >= SHORTEST_KEY_ID && key.starts_with(bare))
    };
    let found: Vec<&Candidate> = candidates.iter().filter(means).collect();
    match found.as_slice() {
        [] => Err(PeerError::Unknown(text.to_owned())),
        [one] => Ok(one.key),
        several => Err(PeerError::Ambiguous {
            text: text.to_owned(),
            candidates: several.iter().map(|one| format!("{} ({})", one.name, one.key)).collect(),
        }),
    }
}

/// Peers as candidates.
pub(in crate::store) fn peer_candidates(connection: &Connection) -> Result<Vec<Candidate>, StoreError> {
    candidates(connection, "SELECT key_id, name, instance FROM peers ORDER BY name")
}

/// Owners as candidates, this instance included.
pub(in crate::store) fn host_candidates(connection: &Connection) -> Result<Vec<Candidate>, StoreError> {
    candidates(
        connection,
        "SELECT w.key_id, w.name, coalesce(p.instance, m.instance) FROM owners AS w
         LEFT JOIN peers AS p ON p.key_id = w.key_id LEFT JOIN meta AS m ON w.owner = 1
         ORDER BY w.owner",
    )
}

fn candidates(connection: &Connection, sql: &str) -> Result<Vec<Candidate>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut candidates = Vec::new();
    while let Some(row) = rows.next()? {
        candidates.push(Candidate { key: row.key_id(0)?, name: row.get(1)?, instance: row.get(2)? });
    }
    Ok(candidates)
}
