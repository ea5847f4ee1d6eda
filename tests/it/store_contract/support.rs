//! A store in a folder of its own, and how to look at all of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use opmesh::clock::Clock;
use opmesh::store::{
    Authorization, Epoch, NewToken, OpRow, OpenOptions, OpsQuery, ParkedRow, Roles, Store, StoreError,
};
use opmesh_core::handshake::Claim;
use opmesh_core::model::{KeyId, OpId, Operation, PublicKey, UnixMs};
use opmesh_core::permission::Grants;

/// Whose store it is.
pub(crate) const OWN: PublicKey = PublicKey([1; 32]);

/// A folder with a store in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    cache_entries: usize,
}

impl Place {
    /// A folder without a store.
    pub(crate) fn empty(cache_entries: usize) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cache_entries }
    }

    /// A folder with a new store, closed in good order.
    pub(crate) async fn new(cache_entries: usize) -> Self {
        let place = Self::empty(cache_entries);
        Store::create(&place.path(), OWN, Clock::system()).unwrap().close().await;
        place
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("opmesh.db")
    }

    pub(crate) fn try_open(&self) -> Result<Store, StoreError> {
        let options = OpenOptions { own: OWN, clock: Clock::system(), cache_entries: self.cache_entries };
        Store::open(&self.path(), options)
    }

    pub(crate) fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    /// What is found after the machine stopped at this moment: the file and its log as they are, without the process.
    pub(crate) fn after_a_crash(&self) -> Self {
        let copy = Self::empty(self.cache_entries);
        for name in ["opmesh.db", "opmesh.db-wal"] {
            let from = self.folder.path().join(name);
            if from.exists() {
                std::fs::copy(from, copy.folder.path().join(name)).unwrap();
            }
        }
        copy
    }

    /// Overwrites the first page of a table.
    pub(crate) fn damage(&self, table: &str) {
        let root: u32 = rusqlite::Connection::open(self.path())
            .unwrap()
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
            .unwrap();
        let file = std::fs::File::options().write(true).open(self.path()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], u64::from(root - 1) * 4096).unwrap();
    }

    /// Runs SQL behind the store's back.
    pub(crate) fn tamper(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

/// Some peer's key.
pub(crate) fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

/// A token for one peer.
pub(crate) fn token(number: u8) -> NewToken {
    NewToken {
        public_key: PublicKey([number; 32]),
        grants: Grants::default(),
        label: "test".to_owned(),
        expires: UnixMs(i64::MAX),
        uses: 1,
    }
}

pub(crate) fn claim(peer: u8, token: Option<u8>) -> Claim {
    Claim {
        key: key(peer),
        instance: format!("host-{peer}").parse().unwrap(),
        token: token.map(|number| PublicKey([number; 32])),
    }
}

/// Pairs a client and lets it take over.
pub(crate) async fn client(store: &Store, peer: u8) -> (KeyId, Epoch) {
    let number = 100 + peer;
    store.add_token(token(number)).await.unwrap();
    let granted = store.authorize(claim(peer, Some(number))).await.unwrap();
    assert!(matches!(granted, Authorization::Granted { paired: true, .. }));
    let key = key(peer).key_id();
    (key, store.take_over(&key).await.unwrap().epoch)
}

/// A known host that is no client.
pub(crate) fn known_host() -> Roles {
    Roles { known_host: true, authorized_client: false }
}

/// All live rows of an owner.
pub(crate) async fn rows(store: &Store, owner: KeyId) -> Vec<OpRow> {
    let mut query = OpsQuery { hosts: vec![owner], limit: 7, ..OpsQuery::default() };
    let mut rows = Vec::new();
    loop {
        let page = store.operations(query.clone()).await.unwrap();
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() {
            return rows;
        }
    }
}

/// All parked copies of an owner.
pub(crate) async fn parked(store: &Store, owner: KeyId) -> Vec<ParkedRow> {
    store.parked(&owner, 0).await.unwrap()
}

/// The row as its owner sees it.
pub(crate) fn as_sent(row: &OpRow) -> Operation {
    Operation {
        id: row.original_id,
        flow_id: row.original_flow_id,
        modno: row.modno,
        record: row.record.clone().unwrap(),
    }
}

/// From the owner's ids to local ones.
pub(crate) fn local_ids(rows: &[OpRow]) -> BTreeMap<OpId, OpId> {
    rows.iter().map(|row| (row.original_id, row.id)).collect()
}
