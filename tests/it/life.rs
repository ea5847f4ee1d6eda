//! What happens to an instance over the years, with real processes: it moves, gets another name, and forgets hosts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fleet::{Instance, create, held_rows, own_rows, until, until_equal};

const ANYWHERE: &str = "tls://127.0.0.1:0";

fn address(url: &str) -> String {
    url.trim_start_matches("https://").to_owned()
}

fn write(host: &Instance, count: usize) {
    let lines: String = (0..count).map(|n| create("r", "p", &format!("run {n}"))).collect();
    host.apply(&lines);
}

fn host_of(hub: &Instance, url: &str, name: &str) -> Instance {
    let mut host = Instance::new(name);
    host.serve("none");
    host.join(hub, url, &[]);
    host
}

fn backup(instance: &Instance, to: &Path) -> Value {
    instance.json(&["store", "backup", to.to_str().unwrap()])
}

#[test]
fn a_key_file_is_taken_over_by_a_new_instance() {
    let old = Instance::new("web");
    let key = old.dir.join("identity.key");
    let new = Instance::place("again");
    new.ok(&["init", "--instance-id", "web", "--import-key", key.to_str().unwrap()]);
    assert_eq!(new.json(&["key", "show"]), old.json(&["key", "show"]));
    let mode = std::fs::metadata(new.dir.join("identity.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(audited(&new, "initialized")[0].ends_with("the key was imported"));
}

/// Takes the instance's backup and key to another machine.
fn restored(name: &str, backup: &Path, key: &Path) -> Instance {
    let moved = Instance::place(name);
    let files = [backup, key].map(|path| path.to_str().unwrap());
    moved.ok(&["init", "--restore", files[0], "--import-key", files[1]]);
    moved
}

/// Operations that travelled in the sessions of this daemon, those included that are still under way when it is
/// stopped.
pub(crate) fn carried(log: &str) -> usize {
    let counted = |line: &str| {
        let (_, rest) = line.split_once("operations=")?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().ok()
    };
    log.lines().filter(|line| line.contains("travelled in this session")).filter_map(counted).sum()
}

/// Lets the daemon log how many operations travel.
pub(crate) fn talkative(instance: &Instance) {
    std::fs::write(instance.dir.join("opmesh.toml"), "[log]\nlevel = \"debug\"\n").unwrap();
}

pub(crate) fn audited(instance: &Instance, event: &str) -> Vec<String> {
    let records = instance.json(&["audit"]);
    let records = records.as_array().unwrap().iter().filter(|record| record["event"] == event);
    records.map(|record| record["detail"].as_str().unwrap().to_owned()).collect()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn a_hub_that_moved_to_another_machine_goes_on_with_its_hosts_without_a_resend() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let hosts = ["web", "db"].map(|name| host_of(&hub, &url, name));
    for host in &hosts {
        write(host, 500);
        until_equal(&hub, host);
    }
    let (_folder, away) = folder();
    let written = backup(&hub, &away.join("hub.db"));
    assert!(written["size_bytes"].as_str().unwrap().parse::<u64>().unwrap() > 200_000, "{written}");
    std::fs::copy(hub.dir.join("identity.key"), away.join("key")).unwrap();
    hub.kill();
    // Meanwhile one of them goes on backing up.
    write(&hosts[0], 7);

    let mut moved = restored("hub", &away.join("hub.db"), &away.join("key"));
    talkative(&moved);
    assert_eq!(moved.ok(&["key", "show"]), hub.ok(&["key", "show"]));
    assert_eq!(moved.serve_hub(&address(&url)), url);
    for host in &hosts {
        until_equal(&moved, host);
        until("the host is in sync", || host.peer("known_host")["in_sync"] == true);
        assert_eq!(own_rows(host), held_rows(&moved, host));
    }
    moved.stop("TERM");
    assert_eq!(carried(&moved.log()), 7, "{}", moved.log());
    assert_eq!(moved.code(&["hosts", "verify", "--all"]), 0);
    for host in &hosts {
        assert_eq!(moved.json(&["hosts", "parked", &host.name]), serde_json::json!([]));
    }
}

#[test]
fn a_backup_is_refused_over_a_file_and_a_restore_without_its_key_or_with_another() {
    let hub = Instance::new("hub");
    let token = hub.ok(&["pair", "token"]);
    let (_folder, away) = folder();
    let file = away.join("hub.db");
    // Without a daemon, too; then the command itself writes it.
    backup(&hub, &file);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap()) & 0o777, 0o600);
    let before = std::fs::read(&file).unwrap();
    assert_eq!(hub.code(&["store", "backup", file.to_str().unwrap()]), 1);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(std::fs::read_dir(&away).unwrap().count(), 1, "nothing is left beside it");

    let place = Instance::place("other");
    let restore = ["init", "--restore", file.to_str().unwrap()];
    let refused = place.run(&restore);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--import-key"), "{said}");
    let stranger = Instance::new("stranger");
    let key = stranger.dir.join("identity.key");
    let foreign = [&restore[..], &["--import-key", key.to_str().unwrap()]].concat();
    assert_eq!(place.code(&foreign), 12);
    assert!(!place.dir.join("identity.key").exists() && !place.dir.join("opmesh.db").exists());
    // What was copied while the daemon ran, by hand: its log lies beside it.
    std::fs::write(away.join("hub.db-wal"), "the last commits").unwrap();
    let own = hub.dir.join("identity.key");
    let good = [&restore[..], &["--import-key", own.to_str().unwrap()]].concat();
    let refused = String::from_utf8_lossy(&place.run(&good).stderr).into_owned();
    assert!(refused.contains("hub.db-wal"), "{refused}");
    std::fs::remove_file(away.join("hub.db-wal")).unwrap();

    // One page is damaged: the whole backup is refused.
    let mut damaged = before;
    damaged[3 * 4096..4 * 4096].fill(0xff);
    std::fs::write(away.join("damaged.db"), damaged).unwrap();
    let damaged = away.join("damaged.db");
    let words = ["init", "--restore", damaged.to_str().unwrap(), "--import-key", own.to_str().unwrap()];
    let refused = String::from_utf8_lossy(&place.run(&words).stderr).into_owned();
    assert!(refused.contains("damaged.db"), "{refused}");
    assert!(!place.dir.join("identity.key").exists() && !place.dir.join("opmesh.db").exists());

    place.ok(&good);
    assert_eq!(place.ok(&["key", "show"]), hub.ok(&["key", "show"]));
    assert_eq!(place.json(&["status"])["instance_id"], "hub");
    assert_eq!(audited(&place, "store_restored"), ["1 pairing tokens are void"]);
    assert_eq!(audited(&hub, "store_backed_up"), [file.to_str().unwrap()]);
    assert_eq!(place.json(&["pair", "tokens"]), serde_json::json!([]), "{token} may have been used since");
    assert_eq!(place.code(&good), 1, "an instance is never overwritten");
}

#[test]
fn a_restored_store_gives_out_no_number_that_the_old_one_may_have_given_out() {
    let old = Instance::new("old");
    write(&old, 3);
    let (_folder, away) = folder();
    backup(&old, &away.join("db"));
    write(&old, 2000);
    let restored = restored("new", &away.join("db"), &old.dir.join("identity.key"));
    write(&restored, 1);
    let ids = |instance: &Instance| -> Vec<u64> {
        let list = instance.json(&["ops", "list"]);
        list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().parse().unwrap()).collect()
    };
    let highest = ids(&old).into_iter().max().unwrap();
    assert!(ids(&restored).into_iter().max().unwrap() > highest);
}

#[test]
fn a_renamed_instance_is_learnt_in_the_next_session_and_both_sides_note_it() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let mut host = host_of(&hub, &url, "web");
    let other = host_of(&hub, &url, "db");
    assert_eq!(host.code(&["key", "rename", "two words"]), 2);
    host.ok(&["key", "rename", "web-2"]);
    assert_eq!(host.json(&["status"])["instance_id"], "web-2");
    assert_eq!(audited(&host, "own_instance_renamed"), ["web is now web-2"]);
    host.stop("TERM");
    host.serve("none");
    until("the hub knows", || hub.json(&["peer", "show", "web"])["instance_id"] == "web-2");
    assert_eq!(audited(&hub, "instance_renamed"), ["web is now web-2"]);
    // The hub's operator calls it what it was called before; a host of the same id is refused, and the hub says why.
    assert_eq!(hub.json(&["peer", "show", "web-2"])["name"], "web");
    other.ok(&["key", "rename", "web-2"]);
    hub.ok(&["peer", "grant", "db", "READ_CONFIG:*"]);
    until("the hub refuses it", || {
        let shown = hub.json(&["peer", "show", "db"]);
        let status = &shown["status"][0];
        status["state"] == "refused" && status["reason"].as_str().unwrap().contains("key rename")
    });
    assert!(hub.log().contains("another key has this instance id"), "{}", hub.log());
    other.ok(&["key", "rename", "db-2"]);
    until("it is let in again", || hub.json(&["peer", "show", "db"])["instance_id"] == "db-2");
}

#[test]
fn a_forgotten_host_leaves_nothing_and_its_numbers_are_never_given_out_again() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let host = host_of(&hub, &url, "web");
    let other = host_of(&hub, &url, "db");
    write(&host, 2500);
    write(&other, 10);
    until_equal(&hub, &host);
    until_equal(&hub, &other);
    host.ok(&["peer", "grant", "hub", "READ_OPERATIONS:plan:none"]);
    until("all is set aside", || held_rows(&hub, &host).is_empty());
    host.ok(&["peer", "grant", "hub", "READ_OPERATIONS:*"]);
    until_equal(&hub, &host);
    write(&host, 5);
    until_equal(&hub, &host);
    let highest = highest_id(&hub);

    let refused = hub.run(&["hosts", "forget", "web", "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("opmesh peer block web"));
    assert_eq!(hub.code(&["hosts", "forget", "web"]), 2, "without --yes somebody must be asked");
    assert_eq!(hub.code(&["hosts", "forget", "hub", "--yes"]), 1);
    hub.ok(&["peer", "remove", "web", "--yes"]);
    let forgotten = hub.json(&["hosts", "forget", "web", "--yes"]);
    assert_eq!(
        (&forgotten["name"], &forgotten["operations"]),
        (&"web".into(), &"2505".into()),
        "{forgotten}"
    );

    assert_eq!(hub.code(&["hosts", "show", "web"]), 1);
    let hosts = hub.json(&["hosts", "list"]);
    assert_eq!(hosts.as_array().unwrap().len(), 2, "{hosts}");
    assert_eq!(own_rows(&other), held_rows(&hub, &other));
    for event in ["host_forget_begun", "host_forgotten"] {
        assert_eq!(audited(&hub, event).len(), 1, "{event}");
    }
    hub.stop("TERM");
    assert_nothing_is_left(&hub);
    hub.serve_hub(&address(&url));

    // It may come back as a new host; no number stands for two operations.
    host.join(&hub, &url, &[]);
    until_equal(&hub, &host);
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
    let list = hub.json(&["ops", "list", "--host", "web"]);
    let ids = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().parse::<u64>().unwrap());
    assert!(ids.min().unwrap() > highest);
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
}

fn highest_id(hub: &Instance) -> u64 {
    let list = hub.json(&["ops", "list"]);
    let ids = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().parse::<u64>().unwrap());
    ids.max().unwrap()
}

/// Every table with a column for owners has only rows of owners that are there.
fn assert_nothing_is_left(hub: &Instance) {
    let db = rusqlite::Connection::open(hub.dir.join("opmesh.db")).unwrap();
    let mut tables = db
        .prepare(
            "SELECT t.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
             WHERE t.type = 'table' AND c.name = 'owner'",
        )
        .unwrap();
    let tables: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables {
        let left: i64 = db
            .query_row(
                &format!("SELECT count(*) FROM {table} WHERE owner NOT IN (SELECT owner FROM owners)"),
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[test]
fn a_forgetting_that_was_cut_off_goes_on_by_itself() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let host = host_of(&hub, &url, "web");
    write(&host, 3000);
    until_equal(&hub, &host);
    hub.ok(&["peer", "block", "web"]);
    hub.stop("TERM");
    // As a crash after the first steps would leave it.
    let db = rusqlite::Connection::open(hub.dir.join("opmesh.db")).unwrap();
    db.execute_batch("INSERT INTO forgetting SELECT owner, 40, 2 FROM owners WHERE name = 'web'").unwrap();
    drop(db);
    hub.serve_hub(&address(&url));
    until("the host is gone", || hub.json(&["hosts", "list"]).as_array().unwrap().len() == 1);
    assert_eq!(audited(&hub, "host_forgotten"), ["web: 3040 operations and 2 parked ones"]);
    // Its key stays refused.
    assert_eq!(hub.json(&["peer", "show", "web"])["blocked"], true);
    hub.stop("TERM");
    assert_nothing_is_left(&hub);
}
