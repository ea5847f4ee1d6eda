//! The audit log under attack: whatever is done to it behind the store's back is found.

use opmesh::clock::Clock;
use opmesh::store::{AuditEvent, AuditFault, AuditKind, AuditVerdict, OpenOptions, Store};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::support::{OWN, Place, claim, key};

const RECORDS: u64 = 40;
const TAMPERINGS: u32 = 1000;

/// A store with records of many shapes, closed in good order.
async fn filled() -> Place {
    let place = Place::new(10).await;
    let store = place.open();
    for n in 0..u8::try_from(RECORDS).unwrap() {
        let kinds = AuditKind::ALL;
        let event = AuditEvent {
            event: kinds[usize::from(n) % kinds.len()],
            peer: (n % 3 > 0).then(|| key(n).key_id()),
            detail: "d".repeat(usize::from(n % 5)),
        };
        store.note_audit(event).await.unwrap();
    }
    store.close().await;
    place
}

async fn verdict(store: &Store) -> AuditVerdict {
    store.audit_verify().await.unwrap()
}

async fn reopened(place: &Place) -> AuditVerdict {
    let store = place.open();
    let verdict = verdict(&store).await;
    store.close().await;
    verdict
}

/// A random source whose seed is all that a failure needs to come back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }
}

/// The log as its rows.
type Log = Vec<Vec<Value>>;

const COLUMNS: usize = 6;

fn read(connection: &Connection) -> Log {
    let mut statement = connection.prepare("SELECT * FROM audit ORDER BY number").unwrap();
    let rows = statement.query_map([], |row| (0..COLUMNS).map(|at| row.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn write(connection: &Connection, log: &Log) {
    connection.execute("DELETE FROM audit", []).unwrap();
    for row in log {
        let sql = "INSERT INTO audit VALUES (?1, ?2, CAST(?3 AS TEXT), ?4, CAST(?5 AS TEXT), ?6)";
        connection.execute(sql, rusqlite::params_from_iter(row)).unwrap();
    }
}

/// Turns one bit over; a text becomes the bytes of one, since it may be none afterwards.
fn flip(value: &mut Value, random: &mut Random) -> bool {
    match value {
        Value::Integer(number) => *number ^= 1 << random.below(62),
        Value::Text(text) if !text.is_empty() => {
            let mut bytes = text.clone().into_bytes();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            *value = Value::Blob(bytes);
        }
        Value::Blob(bytes) if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_) => return false,
    }
    true
}

/// One tampering; false when the dice chose one that changes nothing.
fn tamper(log: &mut Log, random: &mut Random) -> bool {
    let before = log.clone();
    let (one, other) = (random.below(log.len()), random.below(log.len()));
    match random.below(7) {
        0 | 1 => {
            let column = random.below(COLUMNS);
            if !flip(&mut log[one][column], random) {
                return false;
            }
        }
        2 => drop(log.remove(one)),
        3 => log.truncate(one),
        // Two records change places, numbers and all but their numbers.
        4 => {
            log.swap(one, other);
            let number = log[one][0].clone();
            log[one][0] = std::mem::replace(&mut log[other][0], number);
        }
        // A record is taken out and those behind it move up.
        5 => {
            log.remove(one);
            for (number, row) in (1..).zip(log.iter_mut()) {
                row[0] = Value::Integer(number);
            }
        }
        // A record is put in: a copy of another one, behind the end or with those behind it moved down.
        _ => {
            let copy = log[other].clone();
            log.insert(one + 1, copy);
            for (number, row) in (1..).zip(log.iter_mut()) {
                row[0] = Value::Integer(number);
            }
        }
    }
    let mut numbers: Vec<_> = log.iter().map(|row| format!("{:?}", row[0])).collect();
    numbers.sort_unstable();
    numbers.dedup();
    *log != before && numbers.len() == log.len()
}

#[tokio::test]
async fn a_thousand_random_tamperings_are_found() {
    let place = filled().await;
    let store = place.open();
    let connection = Connection::open(place.path()).unwrap();
    let good = read(&connection);
    assert!(matches!(verdict(&store).await, AuditVerdict::Whole { records: RECORDS, .. }));
    let (mut done, mut seed) = (0, 0);
    while done < TAMPERINGS {
        seed += 1;
        let mut log = good.clone();
        if !tamper(&mut log, &mut Random(seed)) {
            continue;
        }
        done += 1;
        connection.execute_batch("BEGIN").unwrap();
        write(&connection, &log);
        connection.execute_batch("COMMIT").unwrap();
        let found = verdict(&store).await;
        assert!(matches!(found, AuditVerdict::Broken { .. }), "seed {seed}: {found:?}");
        // What was tampered with can still be read.
        assert!(store.audit(None, 0).await.is_ok(), "seed {seed}");
    }
    connection.execute_batch("BEGIN").unwrap();
    write(&connection, &good);
    connection.execute_batch("COMMIT").unwrap();
    assert!(matches!(verdict(&store).await, AuditVerdict::Whole { records: RECORDS, .. }));
}

#[tokio::test]
async fn the_first_bad_record_is_named_and_what_it_does_not_fit() {
    for (sql, number, fault) in [
        ("UPDATE audit SET detail = 'nothing' WHERE number = 3", 3, AuditFault::Chain),
        ("UPDATE audit SET at_unix_ms = at_unix_ms - 1 WHERE number = 2", 2, AuditFault::Chain),
        ("UPDATE audit SET peer = x'00' WHERE number = 5", 5, AuditFault::Chain),
        ("DELETE FROM audit WHERE number = 1", 1, AuditFault::Chain),
        ("DELETE FROM audit WHERE number > 30", 31, AuditFault::End),
        ("DELETE FROM audit", 1, AuditFault::End),
        ("UPDATE audit_head SET hash = zeroblob(32)", RECORDS + 1, AuditFault::End),
        ("DELETE FROM audit_head", RECORDS + 1, AuditFault::End),
    ] {
        let place = filled().await;
        let store = place.open();
        place.tamper(sql);
        assert_eq!(verdict(&store).await, AuditVerdict::Broken { number, fault }, "{sql}");
    }
}

/// Somebody who knows how records are chained, and can write the whole database.
fn rewrite(place: &Place, log: &mut Log) {
    let connection = Connection::open(place.path()).unwrap();
    let mut last = [0; 32];
    for (number, row) in (1_i64..).zip(log.iter_mut()) {
        let Value::Integer(at) = row[1] else { panic!("a time") };
        let mut hasher = blake3::Hasher::new_derive_key("opmesh audit 1");
        hasher.update(&last).update(&number.to_le_bytes()).update(&at.to_le_bytes());
        match &row[3] {
            Value::Blob(peer) => hasher.update(&[1]).update(peer),
            _ => hasher.update(&[0]),
        };
        for column in [2, 4] {
            let Value::Text(text) = &row[column] else { panic!("a text") };
            hasher.update(&u64::try_from(text.len()).unwrap().to_le_bytes()).update(text.as_bytes());
        }
        last = hasher.finalize().into();
        (row[0], row[5]) = (Value::Integer(number), Value::Blob(last.to_vec()));
    }
    write(&connection, log);
    let records = i64::try_from(log.len()).unwrap();
    connection.execute("UPDATE audit_head SET records = ?1, hash = ?2", params![records, last]).unwrap();
}

fn log_of(place: &Place) -> Log {
    read(&Connection::open(place.path()).unwrap())
}

#[tokio::test]
async fn a_chain_that_was_rewritten_as_a_whole_is_found_by_the_file_beside_the_database() {
    let beside = |number| AuditVerdict::Broken { number, fault: AuditFault::Beside };
    let place = filled().await;
    let mut log = log_of(&place);
    rewrite(&place, &mut log);
    assert!(matches!(reopened(&place).await, AuditVerdict::Whole { .. }), "the rewriting itself is right");
    log[7][4] = Value::Text("nothing happened".to_owned());
    rewrite(&place, &mut log);
    assert_eq!(reopened(&place).await, beside(RECORDS));

    let place = filled().await;
    let mut log = log_of(&place);
    log.truncate(20);
    rewrite(&place, &mut log);
    assert_eq!(reopened(&place).await, beside(21));
    // More records do not make it fit, nor does another orderly end: the file stays until somebody removes it.
    let store = place.open();
    for _ in 0..RECORDS {
        let event = AuditEvent { event: AuditKind::PeerRemoved, peer: None, detail: String::new() };
        store.note_audit(event).await.unwrap();
    }
    store.close().await;
    assert_eq!(reopened(&place).await, beside(RECORDS));
    std::fs::remove_file(place.path().with_extension("audit-head")).unwrap();
    assert!(matches!(reopened(&place).await, AuditVerdict::Whole { records: 60, .. }));
    assert!(place.path().with_extension("audit-head").exists(), "a new one is written");
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_found_by_the_file_beside_it() {
    let place = filled().await;
    let older = std::fs::read(place.path()).unwrap();
    let store = place.open();
    let event = AuditEvent { event: AuditKind::PeerBlocked, peer: None, detail: String::new() };
    store.note_audit(event).await.unwrap();
    store.close().await;
    std::fs::write(place.path(), older).unwrap();
    let missing = AuditVerdict::Broken { number: RECORDS + 1, fault: AuditFault::Beside };
    assert_eq!(reopened(&place).await, missing);
}

#[tokio::test]
async fn a_crash_breaks_nothing_and_a_new_database_begins_a_new_log() {
    let place = filled().await;
    let store = place.open();
    let event = AuditEvent { event: AuditKind::PeerBlocked, peer: None, detail: String::new() };
    store.note_audit(event).await.unwrap();
    drop(store);
    assert!(
        matches!(reopened(&place).await, AuditVerdict::Whole { records: 41, .. }),
        "the file lags, and fits"
    );
    std::fs::remove_file(place.path()).unwrap();
    Store::create(&place.path(), OWN, Clock::system()).unwrap().close().await;
    assert!(matches!(reopened(&place).await, AuditVerdict::Whole { records: 0, .. }));
}

#[tokio::test]
async fn refusals_that_were_counted_before_a_crash_are_not_forgotten() {
    let place = Place::new(10).await;
    let store = place.open();
    for _ in 0..80 {
        store.authorize(claim(3, None)).await.unwrap();
    }
    // As many as were durable when the machine stopped.
    let crashed = place.after_a_crash();
    let store = crashed.open();
    store.close().await;
    let store = crashed.open();
    let records = store.audit(None, 0).await.unwrap();
    let last = records.last().unwrap();
    assert_eq!(last.event, AuditKind::StrangersRefused.name());
    assert!(last.detail.starts_with("at least 64 more"), "{}", last.detail);
    assert_eq!(records.len(), 11);
    store.close().await;
    assert_eq!(crashed.open().audit(None, 0).await.unwrap().len(), 11, "once");
}

#[tokio::test]
async fn a_record_that_cannot_be_written_keeps_its_effect_from_happening() {
    let place = Place::new(10).await;
    place.tamper("CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no'); END");
    let options = OpenOptions { own: OWN, clock: Clock::system(), cache_entries: 10 };
    let store = Store::open(&place.path(), options).unwrap();
    assert!(store.add_token(super::support::token(90)).await.is_err());
    assert!(store.authorize(claim(2, Some(90))).await.is_err());
    assert!(store.tokens().await.unwrap().is_empty());
}
