//! The tables, and whether a file has them.
//!
//! Numbers are signed 64-bit integers, hashes and keys are blobs, wall times are milliseconds since 1970. The owner
//! with number 1 is this instance; its operations lie in the same table as everyone's.

use rusqlite::Connection;

/// `opms` in ASCII: tells our files from other SQLite files.
pub(super) const APPLICATION_ID: i64 = 0x6f70_6d73;

/// The schema that this program writes and the newest that it reads.
pub(super) const SCHEMA: i64 = 2;

/// This instance's number in `owners`.
pub(super) const OWN: i64 = 1;

/// The oldest schema that this program can bring up to [`SCHEMA`].
pub(super) const OLDEST: i64 = 1;

/// What schema 2 adds to schema 1, each part in the file that reads and writes it.
const SECOND: &[&str] = &[
    super::memory::LOG_KEYS,
    super::admin_tokens::TABLE,
    super::audit::AUDIT_HEAD,
    super::config::TABLES,
    super::forget::FORGETTING,
    super::pairing::TOKEN_EXPIRY,
    super::succession::SUCCESSION,
];

/// Creates all tables in an empty database. `application_id` and `user_version` are set with them.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    upgrade(connection, 1)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)
}

/// Brings tables of an older schema to [`SCHEMA`]; the caller holds a transaction.
pub(super) fn upgrade(connection: &Connection, from: i64) -> rusqlite::Result<()> {
    if from < 2 {
        for part in SECOND {
            connection.execute_batch(part)?;
        }
    }
    connection.pragma_update(None, "user_version", SCHEMA)
}

/// Schema 1, frozen: what came later stands in [`SECOND`].
pub(super) const TABLES: &str = "
-- One row: whose store it is and where its own log stands. op_ids and flow_ids are the highest numbers that may have
-- been given out; blocks are reserved here before a number of them is used.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    public_key BLOB NOT NULL,
    instance TEXT,
    incarnation INTEGER NOT NULL,
    head_modno INTEGER NOT NULL,
    head_chain BLOB NOT NULL,
    op_ids INTEGER NOT NULL,
    flow_ids INTEGER NOT NULL,
    created_unix_ms INTEGER NOT NULL
) STRICT;

-- Whose operations lie here. A row stays when its peer is removed; name is what the peer was last called.
CREATE TABLE owners (
    owner INTEGER PRIMARY KEY,
    key_id BLOB NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    name TEXT NOT NULL
) STRICT;

-- The digest of the live operations of one owner, repository and plan, changed in the transaction of each row.
CREATE TABLE groups (
    group_id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL REFERENCES owners,
    repo_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    sum BLOB NOT NULL,
    count INTEGER NOT NULL,
    first_seen_unix_ms INTEGER NOT NULL,
    UNIQUE (owner, repo_id, plan_id)
) STRICT;

-- All live operations. modno, original_id and original_flow_id are the owner's numbers.
CREATE TABLE operations (
    local_id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL,
    original_id INTEGER NOT NULL,
    modno INTEGER NOT NULL,
    original_flow_id INTEGER NOT NULL,
    flow_id INTEGER NOT NULL,
    group_id INTEGER NOT NULL REFERENCES groups,
    kind INTEGER NOT NULL,
    status INTEGER NOT NULL,
    start_unix_ms INTEGER NOT NULL,
    end_unix_ms INTEGER NOT NULL,
    received_unix_ms INTEGER NOT NULL,
    row_hash BLOB NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX operations_newest ON operations (start_unix_ms);
CREATE INDEX operations_by_group ON operations (group_id, kind, status, start_unix_ms);
CREATE UNIQUE INDEX own_changes ON operations (modno) WHERE owner = 1;
CREATE INDEX own_unfinished ON operations (local_id) WHERE owner = 1 AND status = 2;

-- The truth of the id remap and the sorted vector of manifests. modno is NULL while no live row has the id: the local
-- id belongs to (owner, original id) for ever.
CREATE TABLE ids (
    owner INTEGER NOT NULL,
    original_id INTEGER NOT NULL,
    local_id INTEGER NOT NULL,
    modno INTEGER,
    group_id INTEGER NOT NULL,
    PRIMARY KEY (owner, original_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE flows (
    owner INTEGER NOT NULL,
    original_flow_id INTEGER NOT NULL,
    local_flow_id INTEGER NOT NULL,
    PRIMARY KEY (owner, original_flow_id)
) STRICT, WITHOUT ROWID;

-- The own log's deletes and history.
CREATE TABLE tombstones (
    modno INTEGER PRIMARY KEY,
    id INTEGER NOT NULL,
    group_id INTEGER NOT NULL REFERENCES groups
) STRICT;
CREATE TABLE checkpoints (
    modno INTEGER PRIMARY KEY,
    chain BLOB NOT NULL
) STRICT;
-- Results that were taken in from the spool.
CREATE TABLE taken (
    once_key BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What the hub keeps about one owner besides its rows. Positions are two columns; lists are fixed-width blobs.
CREATE TABLE replicas (
    owner INTEGER PRIMARY KEY REFERENCES owners,
    epoch INTEGER NOT NULL,
    incarnation INTEGER,
    granted TEXT,
    accepted TEXT,
    cursor_modno INTEGER NOT NULL,
    cursor_chain BLOB NOT NULL,
    newest_modno INTEGER NOT NULL,
    newest_chain BLOB NOT NULL,
    trail BLOB NOT NULL,
    diff_done INTEGER,
    diff_start_modno INTEGER,
    diff_start_chain BLOB,
    diff_changed INTEGER NOT NULL,
    rung TEXT,
    unequal_repairs BLOB NOT NULL,
    quarantined_unix_ms INTEGER,
    guard BLOB NOT NULL,
    conflict INTEGER
) STRICT;
CREATE TABLE superseded (
    owner INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    PRIMARY KEY (owner, incarnation)
) STRICT, WITHOUT ROWID;
CREATE TABLE staged (
    owner INTEGER NOT NULL,
    original_id INTEGER NOT NULL,
    modno INTEGER NOT NULL,
    PRIMARY KEY (owner, original_id)
) STRICT, WITHOUT ROWID;

-- Rows that were set aside; several copies of one id may lie here.
CREATE TABLE parked (
    parked_id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL,
    original_id INTEGER NOT NULL,
    modno INTEGER NOT NULL,
    original_flow_id INTEGER NOT NULL,
    local_id INTEGER NOT NULL,
    flow_id INTEGER NOT NULL,
    group_id INTEGER NOT NULL REFERENCES groups,
    kind INTEGER NOT NULL,
    status INTEGER NOT NULL,
    start_unix_ms INTEGER NOT NULL,
    end_unix_ms INTEGER NOT NULL,
    received_unix_ms INTEGER NOT NULL,
    row_hash BLOB NOT NULL,
    record BLOB NOT NULL,
    reason TEXT NOT NULL,
    parked_unix_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX parked_by_id ON parked (owner, original_id);
CREATE INDEX parked_by_reason ON parked (owner, reason);

-- Lists in text are one entry a line.
CREATE TABLE peers (
    key_id BLOB PRIMARY KEY,
    public_key BLOB,
    name TEXT NOT NULL UNIQUE,
    instance TEXT,
    known_host INTEGER NOT NULL,
    authorized_client INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    blocked TEXT,
    urls TEXT NOT NULL,
    channel TEXT,
    given TEXT NOT NULL,
    received TEXT NOT NULL,
    accepts TEXT NOT NULL,
    join_seed BLOB,
    join_expires_unix_ms INTEGER,
    last_seen_unix_ms INTEGER,
    refused TEXT,
    refused_unix_ms INTEGER,
    acked_modno INTEGER,
    acked_chain BLOB,
    proved_modno INTEGER,
    proved_chain BLOB,
    proved_sum BLOB,
    proved_count INTEGER,
    added_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_key BLOB NOT NULL UNIQUE,
    grants TEXT NOT NULL,
    label TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    expires_unix_ms INTEGER NOT NULL,
    uses_left INTEGER NOT NULL
) STRICT;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at_unix_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    peer BLOB,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
";
