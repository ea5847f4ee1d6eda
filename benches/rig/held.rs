//! What a hub that is being served has made durable for its one owner, seen from outside.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(5);
/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_mins(20);

/// Waits until a number that a query finds in the hub's file is the wanted one.
pub(crate) async fn until(store: &Path, query: &str, wanted: i64) {
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(EVERY).unwrap();
    let arrived = async {
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tick.tick().await;
            let found = connection.query_row(query, [], |row| row.get::<_, i64>(0));
            if found.is_ok_and(|found| found == wanted) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.unwrap();
}
