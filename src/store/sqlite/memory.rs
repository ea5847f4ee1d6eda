//! What the writer remembers between transactions: where numbers stand, and what rows say that it would otherwise
//! look up again for every operation.
//!
//! Filled when a row is written, dropped when it is deleted or set aside and when the savepoint that wrote it is
//! rolled back. Never trusted over the tables: who updates by a remembered local id checks that a row was there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::num::NonZeroUsize;

use lru::LruCache;
use opmesh_core::model::{FlowId, Incarnation, OpId, OwnerHasher, Position, PublicKey, Scope, SetDigest};
use opmesh_core::replica::Held;
use rusqlite::{Connection, OptionalExtension as _};

use super::refusals::Refusals;
use super::schema::OWN;
use super::value::{Columnar as _, stored};
use crate::store::StoreError;

/// Schema 2: rows are hashed with an owner's first key for ever; which key it has now is `owners.key_id`.
pub(super) const LOG_KEYS: &str = "
ALTER TABLE meta RENAME COLUMN public_key TO log_key;
ALTER TABLE owners RENAME COLUMN public_key TO log_key;
";

/// Groups remembered at most; beyond it the map starts afresh.
const GROUPS: usize = 65_536;

/// What is known about one (owner, original id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Its local id, for ever.
    pub(super) local_id: OpId,
    /// Where its row is or last was filed.
    pub(super) group: i64,
    /// The live row.
    pub(super) live: Option<Held>,
}

/// A map of limited size in front of a table; capacity 0 remembers nothing.
struct Cache<K, V> {
    entries: Option<LruCache<K, V>>,
    /// What the running savepoint has put in.
    fresh: Vec<K>,
}

impl<K: std::hash::Hash + Eq + Copy, V> Cache<K, V> {
    fn new(capacity: usize) -> Self {
        Self { entries: NonZeroUsize::new(capacity).map(LruCache::new), fresh: Vec::new() }
    }

    fn recall(&mut self, key: K) -> Option<&V> {
        self.entries.as_mut()?.get(&key)
    }

    fn keep(&mut self, key: K, value: V) {
        if let Some(entries) = &mut self.entries {
            entries.put(key, value);
            self.fresh.push(key);
        }
    }

    fn drop_entry(&mut self, key: K) {
        if let Some(entries) = &mut self.entries {
            entries.pop(&key);
        }
    }

    fn clear(&mut self) {
        if let Some(entries) = &mut self.entries {
            entries.clear();
        }
    }

    fn undo(&mut self) {
        for key in std::mem::take(&mut self.fresh) {
            self.drop_entry(key);
        }
    }
}

/// The writer's memory.
pub(in crate::store) struct Memory {
    ids: Cache<(i64, OpId), Known>,
    flows: Cache<(i64, FlowId), FlowId>,
    groups: HashMap<i64, HashMap<Scope, i64>>,
    group_count: usize,
    totals: HashMap<i64, SetDigest>,
    highest: HashMap<i64, Highest>,
    hashers: HashMap<i64, OwnerHasher>,
    /// Numbers for operations, own and others'.
    pub(super) op_ids: Block,
    /// Numbers for flows, own and others'.
    pub(super) flow_ids: Block,
    /// The own log's last change.
    pub(super) head: Position,
    /// This life of the own log.
    pub(super) incarnation: Incarnation,
    /// Whose store it is.
    pub(super) own: PublicKey,
    /// Refused lately.
    pub(super) refusals: Refusals,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("head", &self.head).finish_non_exhaustive()
    }
}

/// The highest numbers of one owner that the tables hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Highest {
    pub(super) id: i64,
    pub(super) flow: i64,
}

/// Numbers given out from a reserved block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// The last number given out.
    pub(super) used: i64,
    /// The last number that may be given out before another block is reserved.
    pub(super) reserved: i64,
}

impl Block {
    /// After an open every reserved number counts as used.
    fn after(reserved: i64) -> Self {
        Self { used: reserved, reserved }
    }
}

impl Memory {
    /// Reads where things stand.
    pub(super) fn load(
        connection: &Connection,
        own: PublicKey,
        cache_entries: usize,
    ) -> Result<Self, StoreError> {
        let mut statement = connection.prepare(
            "SELECT log_key, incarnation, head_modno, head_chain, op_ids, flow_ids FROM meta WHERE one = 1",
        )?;
        let mut rows = statement.query([])?;
        let row = rows.next()?.ok_or(StoreError::BadValue { what: "meta", reason: "no row".to_owned() })?;
        Ok(Self {
            ids: Cache::new(cache_entries),
            flows: Cache::new(cache_entries),
            groups: HashMap::new(),
            group_count: 0,
            totals: HashMap::new(),
            highest: HashMap::new(),
            hashers: HashMap::from([(OWN, OwnerHasher::new(&PublicKey(row.get(0)?)))]),
            op_ids: Block::after(row.get(4)?),
            flow_ids: Block::after(row.get(5)?),
            head: row.position(2)?,
            incarnation: stored("incarnation", Incarnation::from_i64(row.get(1)?))?,
            own,
            refusals: Refusals::after(super::audit::lost_count(connection)?),
        })
    }

    /// A savepoint begins.
    pub(super) fn begin(&mut self) -> Mark {
        self.ids.fresh.clear();
        self.flows.fresh.clear();
        Mark { head: self.head, incarnation: self.incarnation }
    }

    /// A savepoint was rolled back: forget what it brought, and read again how far numbers are reserved. Numbers that
    /// it gave out are not given out again.
    pub(super) fn undo(&mut self, mark: Mark, connection: &Connection) -> Result<(), StoreError> {
        self.ids.undo();
        self.flows.undo();
        self.groups.clear();
        self.group_count = 0;
        self.totals.clear();
        self.highest.clear();
        self.head = mark.head;
        self.incarnation = mark.incarnation;
        let mut statement = connection.prepare_cached("SELECT op_ids, flow_ids FROM meta WHERE one = 1")?;
        (self.op_ids.reserved, self.flow_ids.reserved) =
            statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(())
    }

    /// The owner is gone, and its number may become another's.
    pub(super) fn forget(&mut self, owner: i64) {
        self.ids.clear();
        self.flows.clear();
        self.groups.clear();
        self.group_count = 0;
        self.totals.remove(&owner);
        self.highest.remove(&owner);
        self.hashers.remove(&owner);
    }

    /// The highest numbers of an owner in the tables: whatever lies above is new, and needs no look-up.
    pub(super) fn highest(
        &mut self,
        owner: i64,
        connection: &Connection,
    ) -> Result<&mut Highest, StoreError> {
        match self.highest.entry(owner) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let id = connection
                    .prepare_cached("SELECT coalesce(max(original_id), 0) FROM ids WHERE owner = ?1")?
                    .query_row([owner], |row| row.get(0))?;
                let flow = connection
                    .prepare_cached("SELECT coalesce(max(original_flow_id), 0) FROM flows WHERE owner = ?1")?
                    .query_row([owner], |row| row.get(0))?;
                Ok(unknown.insert(Highest { id, flow }))
            }
        }
    }

    pub(super) fn id(&mut self, owner: i64, id: OpId) -> Option<Known> {
        self.ids.recall((owner, id)).copied()
    }

    pub(super) fn keep_id(&mut self, owner: i64, id: OpId, known: Known) {
        self.ids.keep((owner, id), known);
    }

    pub(super) fn drop_id(&mut self, owner: i64, id: OpId) {
        self.ids.drop_entry((owner, id));
    }

    pub(super) fn flow(&mut self, owner: i64, flow: FlowId) -> Option<FlowId> {
        self.flows.recall((owner, flow)).copied()
    }

    pub(super) fn keep_flow(&mut self, owner: i64, flow: FlowId, local: FlowId) {
        self.flows.keep((owner, flow), local);
    }

    pub(super) fn group(&self, owner: i64, scope: &Scope) -> Option<i64> {
        self.groups.get(&owner)?.get(scope).copied()
    }

    pub(super) fn keep_group(&mut self, owner: i64, scope: Scope, group: i64) {
        if self.group_count >= GROUPS {
            self.groups.clear();
            self.group_count = 0;
        }
        self.groups.entry(owner).or_default().insert(scope, group);
        self.group_count += 1;
    }

    /// The digest of an owner's live rows, including what the running savepoint has changed.
    pub(super) fn total(&mut self, owner: i64, connection: &Connection) -> Result<SetDigest, StoreError> {
        if let Some(total) = self.totals.get(&owner) {
            return Ok(*total);
        }
        let total = stored_total(connection, owner)?;
        self.totals.insert(owner, total);
        Ok(total)
    }

    /// That digest, if it is remembered.
    pub(super) fn remembered_total(&self, owner: i64) -> Option<SetDigest> {
        self.totals.get(&owner).copied()
    }

    /// Applies a change to a total that is remembered.
    pub(super) fn change_total(&mut self, owner: i64, change: impl FnOnce(&mut SetDigest)) {
        if let Some(total) = self.totals.get_mut(&owner) {
            change(total);
        }
    }

    /// Hashes the rows of an owner.
    pub(super) fn hasher(&mut self, owner: i64, connection: &Connection) -> Result<OwnerHasher, StoreError> {
        if let Some(hasher) = self.hashers.get(&owner) {
            return Ok(*hasher);
        }
        let mut statement = connection.prepare_cached("SELECT log_key FROM owners WHERE owner = ?1")?;
        let key: Option<[u8; 32]> = statement.query_row([owner], |row| row.get(0)).optional()?;
        let key = key.ok_or_else(|| StoreError::BadValue { what: "owner", reason: owner.to_string() })?;
        let hasher = OwnerHasher::new(&PublicKey(key));
        self.hashers.insert(owner, hasher);
        Ok(hasher)
    }
}

/// What a rollback returns to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    head: Position,
    incarnation: Incarnation,
}

/// The sum of an owner's groups as they are stored.
pub(super) fn stored_total(connection: &Connection, owner: i64) -> Result<SetDigest, StoreError> {
    let mut statement = connection.prepare_cached("SELECT sum, count FROM groups WHERE owner = ?1")?;
    let mut rows = statement.query([owner])?;
    let mut total = SetDigest::EMPTY;
    while let Some(row) = rows.next()? {
        total = total.union(row.digest(0)?);
    }
    Ok(total)
}
