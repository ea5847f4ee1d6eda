//! Bringing the file of an older program up to this program's schema.
//!
//! First a copy of the file as it was, then everything in one transaction: whoever is cut off finds the old schema, and
//! perhaps a copy, and begins again. Called by `open`, under the lock of the data directory.

use std::path::Path;

use rusqlite::Connection;

use super::copy::{self, Occupied};
use super::schema::{self, SCHEMA};
use super::{StoreError, connection};

/// Copies the file to `<path>.pre-<from>`, then upgrades it.
pub(super) fn bring_up(connection: &Connection, path: &Path, from: i64) -> Result<(), StoreError> {
    let before = copy::beside(path, &format!("pre-{from}"));
    copy::write(connection, &before, Occupied::Replace)?;
    let change = || {
        let transaction = connection.unchecked_transaction()?;
        schema::upgrade(&transaction, from)?;
        transaction.commit()?;
        // The header in the file itself tells older programs that it is not theirs any more.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    change().map_err(|error: rusqlite::Error| connection::unusable(path, error))?;
    tracing::info!(from, to = SCHEMA, copy = %before.display(), "the store was upgraded");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use opmesh_core::model::{
        ChainEntry, Incarnation, Modno, OwnerHasher, Position, PublicKey, Record, SetDigest,
    };
    use rusqlite::params;
    use rusqlite::types::Value;

    use super::super::schema::{APPLICATION_ID, TABLES};
    use super::*;
    use crate::clock::Clock;
    use crate::store::{OpenOptions, Store};

    const OWN: PublicKey = PublicKey([1; 32]);
    const HOST: PublicKey = PublicKey([2; 32]);

    /// A store as the program of schema 1 left it: an operation of its own, one of a host, a parked one, a peer.
    fn first() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opmesh.db");
        connection::create_file(&path).unwrap();
        let db = connection::writer(&path).unwrap();
        db.execute_batch(TABLES).unwrap();
        db.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        let record = Record::for_tests("r", "p", "m");
        let own = row_of(OWN, &record);
        let incarnation = Incarnation::new(77).unwrap();
        let head = Position::ZERO.advance(incarnation, own.0.modno, own.0.id, ChainEntry::Stored(own.1));
        db.execute(
            "INSERT INTO meta VALUES (1, ?1, 'web', 77, 1, ?2, 1024, 1024, 5)",
            params![OWN.0, head.chain.0],
        )
        .unwrap();
        db.execute("INSERT INTO checkpoints VALUES (1, ?1)", [head.chain.0]).unwrap();
        for (number, key, name) in [(1, OWN, "web"), (2, HOST, "db")] {
            let hash = row_of(key, &record).1;
            let mut set = SetDigest::EMPTY;
            set.add(hash);
            db.execute(
                "INSERT INTO owners VALUES (?1, ?2, ?3, ?4)",
                params![number, key.key_id().as_bytes(), key.0, name],
            )
            .unwrap();
            db.execute(
                "INSERT INTO groups VALUES (?1, ?1, 'r', 'p', ?2, 1, 6)",
                params![number, set.sum_bytes()],
            )
            .unwrap();
            let columns = record.columns();
            db.execute(
                "INSERT INTO operations VALUES (?1, ?1, 1, 1, 1, ?1, ?1, ?2, ?3, ?4, ?5, 7, ?6, ?7)",
                params![
                    number,
                    columns.kind.field(),
                    columns.status.number(),
                    columns.start_unix_ms,
                    columns.end_unix_ms,
                    hash.0,
                    record.as_bytes()
                ],
            )
            .unwrap();
            db.execute("INSERT INTO ids VALUES (?1, 1, ?1, 1, ?1)", [number]).unwrap();
            db.execute("INSERT INTO flows VALUES (?1, 1, ?1)", [number]).unwrap();
        }
        db.execute_batch(
            "INSERT INTO parked SELECT 1, owner, 2, 2, 1, 9, 2, group_id, kind, status, start_unix_ms, end_unix_ms,
                 received_unix_ms, row_hash, record, 'fork', 8 FROM operations WHERE owner = 2;
             INSERT INTO tombstones VALUES (2, 5, 1);
             INSERT INTO taken VALUES (x'01');
             INSERT INTO tokens VALUES (3, x'02', '', 'l', 1, 2, 1);",
        )
        .unwrap();
        db.execute(
            "INSERT INTO peers (key_id, public_key, name, known_host, authorized_client, verified, urls, given,
                 received, accepts, added_unix_ms) VALUES (?1, ?2, 'db', 0, 1, 1, '', '', '', '*', 4)",
            params![HOST.key_id().as_bytes(), HOST.0],
        )
        .unwrap();
        (folder, path)
    }

    fn row_of(
        owner: PublicKey,
        record: &Record,
    ) -> (opmesh_core::model::Operation, opmesh_core::model::RowHash) {
        use opmesh_core::model::{FlowId, OpId, Operation};
        let operation = Operation {
            id: OpId::MIN,
            flow_id: FlowId::MIN,
            modno: Modno::ZERO.next().unwrap(),
            record: record.clone(),
        };
        let hash = OwnerHasher::new(&owner).row(&operation);
        (operation, hash)
    }

    fn open(path: &Path) -> Result<Store, StoreError> {
        Store::open(path, OpenOptions { own: OWN, clock: Clock::system(), cache_entries: 0 })
    }

    /// Every row of every table that schema 1 has, without the names of columns.
    fn all_rows(path: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
        let fresh = Connection::open_in_memory().unwrap();
        fresh.execute_batch(TABLES).unwrap();
        let mut tables = fresh
            .prepare("SELECT t.name, (SELECT count(*) FROM pragma_table_info(t.name)) FROM sqlite_schema AS t WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            .unwrap();
        let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let db = Connection::open(path).unwrap();
        tables
            .map(|table: rusqlite::Result<(String, u16)>| {
                let (table, columns) = table.unwrap();
                let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
                let rows = statement
                    .query_map([], |row| (0..usize::from(columns)).map(|at| row.get(at)).collect())
                    .unwrap()
                    .collect::<rusqlite::Result<Vec<Vec<Value>>>>()
                    .unwrap();
                (table, rows)
            })
            .collect()
    }

    fn version(path: &Path) -> i64 {
        Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    /// The store is whole, upgraded, and usable; the copy is what was there before.
    async fn assert_upgraded(path: &Path, before: &BTreeMap<String, Vec<Vec<Value>>>) {
        let store = open(path).unwrap();
        assert_eq!(store.facts().await.unwrap().schema, 2);
        for owner in [OWN, HOST] {
            let check = store.verify_host(&owner.key_id()).await.unwrap();
            assert_eq!((check.computed.count(), &check.bad_operations), (1, &Vec::new()));
            assert_eq!(check.computed, check.stored);
        }
        store.close().await;
        assert_eq!(&all_rows(path), before);
        let copy = copy::beside(path, "pre-1");
        assert_eq!(version(&copy), 1);
        assert_eq!(&all_rows(&copy), before);
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!copy::beside(&copy, copy::UNFINISHED).exists());
    }

    #[tokio::test]
    async fn a_store_of_schema_1_is_copied_and_upgraded_with_every_row() {
        let (_folder, path) = first();
        let before = all_rows(&path);
        assert!(before.values().map(Vec::len).sum::<usize>() > 12, "the fixture has rows: {before:?}");
        assert_upgraded(&path, &before).await;
        // The header alone tells an older program.
        assert_eq!(fs::read(&path).unwrap()[60..64], [0, 0, 0, 2]);
        assert_upgraded(&path, &before).await;
    }

    #[tokio::test]
    async fn an_upgrade_that_was_cut_off_anywhere_goes_on_at_the_next_start() {
        let (_folder, path) = first();
        let before = all_rows(&path);
        // Cut off while the copy was written: an unfinished one, or the finished one of an earlier attempt.
        for left in ["pre-1.unfinished", "pre-1"] {
            let (_folder, path) = first();
            fs::write(copy::beside(&path, left), b"half of a copy").unwrap();
            assert_upgraded(&path, &before).await;
        }
        // Cut off inside the transaction, and after its commit before the log was copied into the file.
        for committed in [false, true] {
            let (_folder, path) = first();
            let db = connection::writer(&path).unwrap();
            copy::write(&db, &copy::beside(&path, "pre-1"), Occupied::Replace).unwrap();
            let transaction = db.unchecked_transaction().unwrap();
            schema::upgrade(&transaction, 1).unwrap();
            if committed {
                transaction.commit().unwrap();
            } else {
                std::mem::forget(transaction);
                db.cache_flush().unwrap();
            }
            let stopped = tempfile::tempdir().unwrap();
            for name in ["opmesh.db", "opmesh.db-wal", "opmesh.db.pre-1"] {
                fs::copy(path.with_file_name(name), stopped.path().join(name)).unwrap();
            }
            let path = stopped.path().join("opmesh.db");
            assert_eq!(version(&path), if committed { 2 } else { 1 });
            assert_upgraded(&path, &before).await;
        }
    }

    #[test]
    fn a_store_of_somebody_else_is_not_upgraded() {
        let (_folder, path) = first();
        let options = OpenOptions { own: HOST, clock: Clock::system(), cache_entries: 0 };
        assert!(matches!(Store::open(&path, options), Err(StoreError::OtherIdentity { .. })));
        assert_eq!(version(&path), 1);
        assert!(!copy::beside(&path, "pre-1").exists());
    }

    #[test]
    fn without_a_copy_there_is_no_upgrade() {
        let (_folder, path) = first();
        fs::create_dir(copy::beside(&path, "pre-1")).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(&refused, StoreError::NotCopied { .. }), "{refused:?}");
        assert!(refused.to_string().contains("opmesh.db.pre-1"), "{refused}");
        assert_eq!(version(&path), 1);
    }
}
