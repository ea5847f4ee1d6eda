//! The yardstick: the rows that a hub holds, inserted into the same tables of a new file by nothing but SQLite, in
//! transactions of 1,024 that are as durable as the hub's.

use std::path::Path;
use std::time::Duration;

use opmesh::clock::Clock;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

/// Operations in one transaction.
const BATCH: i64 = 1024;

/// The tables that gain rows with each operation, with the column by which a batch of operations finds its rows.
const TABLES: [(&str, &str); 3] = [
    ("operations", "SELECT * FROM operations WHERE local_id > ?1 AND local_id <= ?2"),
    (
        "ids",
        "SELECT ids.* FROM operations AS o CROSS JOIN ids ON ids.owner = o.owner AND ids.original_id = o.original_id
         WHERE o.local_id > ?1 AND o.local_id <= ?2",
    ),
    (
        "flows",
        "SELECT DISTINCT flows.* FROM operations AS o
         CROSS JOIN flows ON flows.owner = o.owner AND flows.original_flow_id = o.original_flow_id
         WHERE o.local_id > ?1 AND o.local_id <= ?2",
    ),
];

/// How long the inserts and their commits took; reading the rows is not counted.
pub(crate) fn insert_all(hub: &Path, folder: &Path) -> Duration {
    let source = Connection::open_with_flags(hub, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let copy = folder.join("raw.db");
    let target = Connection::open(&copy).unwrap();
    let setting = |name: &str| source.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    target.pragma_update(None, "page_size", setting("page_size")).unwrap();
    target.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    target.pragma_update(None, "synchronous", "FULL").unwrap();
    target.pragma_update(None, "cache_size", -64 * 1024).unwrap();
    target.pragma_update_and_check(None, "wal_autocheckpoint", 4000, |_| Ok(())).unwrap();
    let mut schema = source
        .prepare(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid",
        )
        .unwrap();
    let statements = schema.query_map([], |row| row.get::<_, String>(0)).unwrap();
    statements.for_each(|sql| target.execute_batch(&sql.unwrap()).unwrap());
    target.pragma_update(None, "foreign_keys", false).unwrap();
    let took = insert(&source, &target);
    drop(target);
    std::fs::remove_file(copy).unwrap();
    took
}

fn insert(source: &Connection, target: &Connection) -> Duration {
    let clock = Clock::system();
    let mut took = Duration::ZERO;
    let last: i64 = source.query_row("SELECT max(local_id) FROM operations", [], |row| row.get(0)).unwrap();
    let mut done = 0;
    while done < last {
        let batch = TABLES.map(|(_, sql)| rows(source, sql, done));
        let began = clock.monotonic();
        target.execute_batch("BEGIN IMMEDIATE").unwrap();
        for ((table, _), rows) in TABLES.iter().zip(&batch) {
            let Some(first) = rows.first() else { continue };
            let places = vec!["?"; first.len()].join(", ");
            let mut insert =
                target.prepare_cached(&format!("INSERT INTO {table} VALUES ({places})")).unwrap();
            for row in rows {
                insert.execute(rusqlite::params_from_iter(row)).unwrap();
            }
        }
        target.execute_batch("COMMIT").unwrap();
        took += clock.monotonic() - began;
        done += BATCH;
    }
    took
}

fn rows(source: &Connection, sql: &str, done: i64) -> Vec<Vec<Value>> {
    let mut statement = source.prepare_cached(sql).unwrap();
    let columns = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    statement.query_map([done, done + BATCH], read).unwrap().map(Result::unwrap).collect()
}
