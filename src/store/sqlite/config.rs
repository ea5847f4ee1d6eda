//! Repositories and plans as rows, and what peers show of theirs.
//!
//! The rules are `opmesh_core::config`'s; they run here inside the writer's transaction, over what it reads in the same
//! one: the config, the peer's grants, its epoch. Whoever was revoked before commits nothing. Own and received
//! repositories are one table, so that an id or a guid is unique among both.

use std::collections::BTreeMap;

use opmesh_core::config::{
    self, Allowed, Applied, Authority, Change, Config, Guid, GuidSeed, How, Origin, Plan,
    Refusal as ConfigRefusal, RefusedShare, Repo, Resources, SharedRepo, Shown, Standing, Taken, Touched,
};
use opmesh_core::model::{ConfigModno, KeyId, UnixMs};
use opmesh_core::permission::{GrantType, Grants};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::audit;
use super::peer_rows;
use super::peers::{note, tell, unfenced};
use super::refusals::Refused;
use super::tx::Tx;
use super::value::stored;
use crate::config_doc;
use crate::store::{AuditEvent, AuditKind, Epoch, Peer, PeerChange, PeerConfig, Role, StoreError};

/// Part of schema 2.
pub(super) const TABLES: &str = "
-- One row: how often repositories and plans were changed.
CREATE TABLE config (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    modno INTEGER NOT NULL
) STRICT;
INSERT INTO config (one, modno) VALUES (1, 0);
-- origin is the key ID of the peer that shares it, NULL for an own one; withdrawn: it shares it no longer.
CREATE TABLE config_repos (
    guid BLOB PRIMARY KEY,
    origin BLOB,
    withdrawn INTEGER NOT NULL,
    document BLOB NOT NULL
) STRICT;
CREATE TABLE config_plans (
    id TEXT PRIMARY KEY,
    document BLOB NOT NULL
) STRICT;
-- What peers last showed of theirs, and the hash of what was last refused of the repositories that they share.
CREATE TABLE peer_configs (
    key_id BLOB PRIMARY KEY,
    shown BLOB,
    shown_unix_ms INTEGER,
    resources BLOB,
    refused BLOB
) STRICT;
";

/// Objects that an audit record names; the rest is a number.
const NAMED_OBJECTS: usize = 10;

/// Longest text of an audit record about a refusal, in characters.
const DETAIL_CHARS: usize = 1_000;

/// The whole config.
pub(in crate::store) fn load(connection: &Connection) -> Result<Config, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT guid, origin, withdrawn, document FROM config_repos")?;
    let mut rows = statement.query([])?;
    let mut repos = Vec::new();
    while let Some(row) = rows.next()? {
        let standing = if row.get(2)? { Standing::Withdrawn } else { Standing::Shared };
        let from = row.get::<_, Option<[u8; 32]>>(1)?.map(KeyId::from_bytes);
        let document: Vec<u8> = row.get(3)?;
        let repo = stored("repository", config_doc::decode_repo(&document))?;
        let guid = Guid::from_bytes(row.get(0)?);
        repos.push(Repo { guid, origin: from.map(|from| Origin { from, standing }), ..repo });
    }
    let mut statement = connection.prepare_cached("SELECT document FROM config_plans")?;
    let mut rows = statement.query([])?;
    let mut plans = Vec::new();
    while let Some(row) = rows.next()? {
        let document: Vec<u8> = row.get(0)?;
        plans.push(stored("plan", config_doc::decode_plan(&document))?);
    }
    stored("config", Config::new(modno(connection)?, repos, plans))
}

/// How often it was changed.
pub(super) fn modno(connection: &Connection) -> Result<ConfigModno, StoreError> {
    let modno: i64 = connection
        .prepare_cached("SELECT modno FROM config WHERE one = 1")?
        .query_row([], |row| row.get(0))?;
    stored("config modno", ConfigModno::from_i64(modno))
}

/// The operator of this instance changes the config.
pub(in crate::store) fn apply(
    tx: &mut Tx<'_>,
    change: Change,
    seed: GuidSeed,
) -> Result<Result<Applied, ConfigRefusal>, StoreError> {
    let config = load(tx.connection)?;
    let applied = match config::apply(&config, change, Authority::Operator, seed) {
        Ok(applied) => applied,
        Err(refusal) => return Ok(Err(refusal)),
    };
    save(tx, &config, &applied.config)?;
    note_changed(tx, None, &applied)?;
    Ok(Ok(applied))
}

/// A peer asks for a change, in a session with this role of it and, if it is a client, this epoch.
pub(in crate::store) fn write(
    tx: &mut Tx<'_>,
    key: KeyId,
    session: (Role, Option<Epoch>),
    change: Change,
    allowed: &Allowed,
    seed: GuidSeed,
) -> Result<Result<Applied, ConfigRefusal>, StoreError> {
    let peer = in_session(tx, &key, session)?;
    let config = load(tx.connection)?;
    let by = Authority::Peer { grants: &peer.given, allowed };
    let applied = match config::apply(&config, change, by, seed) {
        Ok(applied) => applied,
        // To be late is no attempt at anything.
        Err(stale @ ConfigRefusal::Stale { .. }) => return Ok(Err(stale)),
        Err(refusal) => {
            let detail = detail(refusal.rule(), &refusal.to_string());
            let event = AuditEvent { event: AuditKind::ConfigRefused, peer: Some(key), detail };
            audit::refuse(tx, Refused::Listed(key), &event)?;
            return Ok(Err(refusal));
        }
    };
    save(tx, &config, &applied.config)?;
    note_changed(tx, Some(key), &applied)?;
    Ok(Ok(applied))
}

/// A hub offers all the repositories that it shares with us.
pub(in crate::store) fn take(
    tx: &mut Tx<'_>,
    key: KeyId,
    offered: &[SharedRepo],
    allowed: &Allowed,
) -> Result<Taken, StoreError> {
    let peer = in_session(tx, &key, (Role::KnownHost, None))?;
    let config = load(tx.connection)?;
    let taken = stored("config", config::take_shared(&config, key, &peer.given, offered, allowed))?;
    save(tx, &config, &taken.config)?;
    if !taken.touched.is_empty() {
        note(tx, AuditKind::SharedReposTaken, key, changes(taken.config.modno(), &taken.touched))?;
    }
    note_refused(tx, key, &taken.refused)?;
    Ok(taken)
}

/// A peer was removed, which grants of nothing say, or may share less than before. Nothing of what it shared goes.
pub(super) fn narrow(tx: &mut Tx<'_>, key: KeyId, grants: &Grants) -> Result<(), StoreError> {
    let config = load(tx.connection)?;
    let left = stored("config", config::withdraw(&config, key, grants))?;
    if !left.touched.is_empty() {
        save(tx, &config, &left.config)?;
        note(tx, AuditKind::SharedReposWithdrawn, key, changes(left.config.modno(), &left.touched))?;
    }
    Ok(())
}

/// A peer has said in a handshake what it lets us see and what it shares: what it does not speak of any more is
/// forgotten or withdrawn, because no message about it will come.
pub(super) fn heard_grants(
    tx: &mut Tx<'_>,
    key: KeyId,
    role: Role,
    received: &[String],
) -> Result<(), StoreError> {
    let grants = Grants::understood(received);
    let shows = grants.names(GrantType::ReadConfig) || grants.names(GrantType::ReadWriteConfig);
    let names = shows || grants.names(GrantType::ReadOperations);
    tx.connection
        .prepare_cached(
            "UPDATE peer_configs SET shown = iif(?2, shown, NULL), shown_unix_ms = iif(?2, shown_unix_ms, NULL),
                 resources = iif(?3, resources, NULL)
             WHERE key_id = ?1 AND (shown IS NOT NULL AND NOT ?2 OR resources IS NOT NULL AND NOT ?3)",
        )?
        .execute(params![key.as_bytes(), shows, names])?;
    if role == Role::KnownHost && !grants.names(GrantType::ReceiveSharedRepos) {
        narrow(tx, key, &Grants::default())?;
    }
    Ok(())
}

/// Forgets what a removed peer showed.
pub(super) fn forget_peer(tx: &Tx<'_>, key: &KeyId) -> Result<(), StoreError> {
    tx.connection.prepare_cached("DELETE FROM peer_configs WHERE key_id = ?1")?.execute([key.as_bytes()])?;
    Ok(())
}

/// Keeps what a peer shows of its config in the place of what it showed before; the same again writes nothing.
pub(in crate::store) fn keep_shown(tx: &mut Tx<'_>, key: KeyId, shown: &Shown) -> Result<(), StoreError> {
    listed(tx, &key)?;
    let document = config_doc::encode_shown(shown);
    let written = tx
        .connection
        .prepare_cached(
            "INSERT INTO peer_configs (key_id, shown, shown_unix_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (key_id) DO UPDATE SET shown = excluded.shown, shown_unix_ms = excluded.shown_unix_ms
             WHERE shown IS NOT excluded.shown",
        )?
        .execute(params![key.as_bytes(), document, tx.now.0])?;
    if written > 0 {
        tell(tx, key, PeerChange::Shown);
    }
    Ok(())
}

/// The same of the repositories and plans that it names.
pub(in crate::store) fn keep_resources(
    tx: &mut Tx<'_>,
    key: KeyId,
    resources: &Resources,
) -> Result<(), StoreError> {
    listed(tx, &key)?;
    let document = config_doc::encode_resources(resources);
    let written = tx
        .connection
        .prepare_cached(
            "INSERT INTO peer_configs (key_id, resources) VALUES (?1, ?2)
             ON CONFLICT (key_id) DO UPDATE SET resources = excluded.resources
             WHERE resources IS NOT excluded.resources",
        )?
        .execute(params![key.as_bytes(), document])?;
    if written > 0 {
        tell(tx, key, PeerChange::Shown);
    }
    Ok(())
}

/// What a peer last showed.
pub(in crate::store) fn of_peer(connection: &Connection, key: &KeyId) -> Result<PeerConfig, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT shown, shown_unix_ms, resources FROM peer_configs WHERE key_id = ?1")?;
    let mut rows = statement.query([key.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(PeerConfig::default()) };
    let shown: Option<Vec<u8>> = row.get(0)?;
    let resources: Option<Vec<u8>> = row.get(2)?;
    Ok(PeerConfig {
        shown: shown.map(|bytes| stored("shown config", config_doc::decode_shown(&bytes))).transpose()?,
        shown_at: row.get::<_, Option<i64>>(1)?.map(UnixMs),
        resources: resources
            .map(|bytes| stored("resources", config_doc::decode_resources(&bytes)))
            .transpose()?,
    })
}

/// The peer, if it is let in right now in this role and its session is not over.
fn in_session(tx: &Tx<'_>, key: &KeyId, (role, epoch): (Role, Option<Epoch>)) -> Result<Peer, StoreError> {
    let peer = listed(tx, key)?;
    let has_role = match role {
        Role::KnownHost => peer.roles.known_host,
        Role::AuthorizedClient => peer.roles.authorized_client,
    };
    if !has_role || !peer.is_trusted() {
        return Err(StoreError::Fenced);
    }
    if let Some(epoch) = epoch {
        unfenced(tx, key, epoch)?;
    }
    Ok(peer)
}

/// The peer, if it is listed and not blocked.
fn listed(tx: &Tx<'_>, key: &KeyId) -> Result<Peer, StoreError> {
    peer_rows::one(tx.connection, key)?.filter(Peer::is_trusted).ok_or(StoreError::Fenced)
}

/// Writes what is different.
fn save(tx: &mut Tx<'_>, old: &Config, new: &Config) -> Result<(), StoreError> {
    if old.modno() == new.modno() {
        return Ok(());
    }
    save_repos(tx.connection, old.repos(), new.repos())?;
    save_plans(tx.connection, old.plans(), new.plans())?;
    tx.connection
        .prepare_cached("UPDATE config SET modno = ?1 WHERE one = 1")?
        .execute([new.modno().to_i64()])?;
    tx.effects.config = Some(new.modno());
    Ok(())
}

fn save_repos(connection: &Connection, old: &[Repo], new: &[Repo]) -> Result<(), StoreError> {
    let mut left: BTreeMap<Guid, &Repo> = old.iter().map(|repo| (repo.guid, repo)).collect();
    for repo in new {
        if left.remove(&repo.guid) == Some(repo) {
            continue;
        }
        let origin = repo.origin.map(|origin| *origin.from.as_bytes());
        let withdrawn = repo.origin.is_some_and(|origin| origin.standing == Standing::Withdrawn);
        // The columns say where it comes from.
        let document = config_doc::encode_repo(&Repo { origin: None, ..repo.clone() });
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO config_repos (guid, origin, withdrawn, document) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![repo.guid.as_bytes(), origin, withdrawn, document])?;
    }
    for guid in left.keys() {
        connection.prepare_cached("DELETE FROM config_repos WHERE guid = ?1")?.execute([guid.as_bytes()])?;
    }
    Ok(())
}

fn save_plans(connection: &Connection, old: &[Plan], new: &[Plan]) -> Result<(), StoreError> {
    let mut left: BTreeMap<&str, &Plan> = old.iter().map(|plan| (plan.id.as_str(), plan)).collect();
    for plan in new {
        if left.remove(plan.id.as_str()) == Some(plan) {
            continue;
        }
        connection
            .prepare_cached("INSERT OR REPLACE INTO config_plans (id, document) VALUES (?1, ?2)")?
            .execute(params![plan.id, config_doc::encode_plan(plan)])?;
    }
    for id in left.keys() {
        connection.prepare_cached("DELETE FROM config_plans WHERE id = ?1")?.execute([id])?;
    }
    Ok(())
}

fn note_changed(tx: &Tx<'_>, peer: Option<KeyId>, applied: &Applied) -> Result<(), StoreError> {
    if applied.touched.is_empty() {
        return Ok(());
    }
    let detail = changes(applied.config.modno(), &applied.touched);
    audit::write(tx, &AuditEvent { event: AuditKind::ConfigChanged, peer, detail })
}

/// One record for what is refused of an offer, unless the same was refused of the last one.
fn note_refused(tx: &Tx<'_>, key: KeyId, refused: &[RefusedShare]) -> Result<(), StoreError> {
    let mut hasher = blake3::Hasher::new();
    for share in refused {
        hasher.update(share.guid.as_bytes()).update(share.rule.name().as_bytes()).update(&[0]);
    }
    let hash = (!refused.is_empty()).then(|| *hasher.finalize().as_bytes());
    let last: Option<Option<[u8; 32]>> = tx
        .connection
        .prepare_cached("SELECT refused FROM peer_configs WHERE key_id = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0))
        .optional()?;
    if last.unwrap_or_default() == hash {
        return Ok(());
    }
    tx.connection
        .prepare_cached(
            "INSERT INTO peer_configs (key_id, refused) VALUES (?1, ?2)
             ON CONFLICT (key_id) DO UPDATE SET refused = excluded.refused",
        )?
        .execute(params![key.as_bytes(), hash])?;
    if refused.is_empty() {
        return Ok(());
    }
    let named = refused.iter().map(|share| format!("{}: {share}", share.rule.name()));
    note(tx, AuditKind::SharedRepoRefused, key, cut(&counted(named, refused.len())))
}

fn changes(modno: ConfigModno, touched: &[Touched]) -> String {
    let how = |how| match how {
        How::Created => "created",
        How::Changed => "changed",
        How::Deleted => "deleted",
        How::Withdrawn => "no longer shared:",
    };
    let named = touched.iter().map(|touched| format!("{} {}", how(touched.how), touched.object));
    format!("modno {modno}: {}", counted(named, touched.len()))
}

/// The first few, and how many more there are.
fn counted(named: impl Iterator<Item = String>, all: usize) -> String {
    let text = named.take(NAMED_OBJECTS).collect::<Vec<_>>().join(", ");
    match all.saturating_sub(NAMED_OBJECTS) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn detail(rule: &str, text: &str) -> String {
    cut(&format!("{rule}: {text}"))
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS).collect()
}
