//! The main job on real processes: hosts federate to a hub, and nothing that happens to either side loses a row.

use std::fmt::Write as _;

use serde_json::Value;

use crate::fleet::{Instance, create, held_rows, own_rows, until, until_equal};

const ANYWHERE: &str = "127.0.0.1:0";

/// A hub that serves, and a host that is paired with it and serves.
fn pair(name: &str, grants: &[&str]) -> (Instance, Instance, String) {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let mut host = Instance::new(name);
    host.serve("none");
    host.join(&hub, &url, grants);
    (hub, host, url)
}

fn address(url: &str) -> String {
    url.trim_start_matches("https://").to_owned()
}

fn write(host: &Instance, count: usize) -> Vec<String> {
    let lines: String = (0..count).map(|n| create("r", "p", &format!("run {n}"))).collect();
    host.apply(&lines).iter().map(|result| result["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn creates_updates_and_deletes_arrive_and_a_replica_keeps_its_local_id() {
    let (mut hub, host, url) = pair("web", &[]);
    let ids = write(&host, 5);
    until_equal(&hub, &host);
    let local = |hub: &Instance| -> Vec<(Value, Value)> {
        let list = hub.json(&["ops", "list", "--host", "web"]);
        let mut ids: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["original_id"].clone(), row["id"].clone()))
            .collect();
        ids.sort_by_key(|(original, _)| original.to_string());
        ids
    };
    let before = local(&hub);
    host.apply(&format!(
        "{}\n",
        serde_json::json!({"update": {"id": ids[1], "status": "error", "message": "now failed"}})
    ));
    until_equal(&hub, &host);
    hub.stop("TERM");
    assert_eq!(hub.serve_hub(&address(&url)), url);
    host.ok(&["ops", "delete", &ids[4]]);
    until_equal(&hub, &host);
    let after = local(&hub);
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|pair| before.contains(pair)), "{before:?} {after:?}");
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
}

#[test]
fn five_hosts_that_use_equal_ids_never_land_on_one_anothers_rows() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let hosts: Vec<Instance> = (1..=5)
        .map(|n| {
            let mut host = Instance::new(&format!("host{n}"));
            host.serve("none");
            host.join(&hub, &url, &[]);
            let lines: String = (0..20).map(|i| create("r", "p", &format!("{n}/{i}"))).collect();
            host.apply(&lines);
            host
        })
        .collect();
    for host in &hosts {
        until_equal(&hub, host);
        assert_eq!(own_rows(host), held_rows(&hub, host));
    }
    let all = hub.json(&["ops", "list"]);
    let mut local: Vec<_> = all.as_array().unwrap().iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(local.len(), 100);
    local.sort();
    local.dedup();
    assert_eq!(local.len(), 100);
}

#[test]
fn kill_9_of_either_side_loses_and_doubles_nothing() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub(ANYWHERE);
    let mut host = Instance::new("busy");
    host.serve("none");
    host.join(&hub, &url, &[]);
    hub.kill();
    let mut lines = String::new();
    for n in 0..100_000 {
        lines.push_str(&create("r", ["p", "q"][n % 2], &format!("run {n}")));
    }
    host.apply(&lines);
    hub.serve_hub(&address(&url));
    for round in 0..10 {
        let held = || hub_count(&hub, "busy");
        let before = held();
        until("rows arrive", || held() > before || held() == 100_000);
        if round % 2 == 0 {
            hub.kill();
            hub.serve_hub(&address(&url));
        } else {
            host.kill();
            host.serve("none");
        }
    }
    until_equal(&hub, &host);
    let all = hub.json(&["ops", "list"]);
    let mut local: Vec<_> = all.as_array().unwrap().iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(local.len(), 100_000);
    local.sort_unstable();
    local.dedup();
    assert_eq!(local.len(), 100_000, "duplicate local ids");
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
}

fn hub_count(hub: &Instance, host: &str) -> u64 {
    let hosts = hub.json(&["hosts", "list"]);
    hosts
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == host)
        .map_or(0, |row| row["count"].as_str().unwrap().parse().unwrap())
}

#[test]
fn a_host_that_goes_back_in_time_and_counts_past_the_hub_forks_and_erases_nothing() {
    let (hub, mut host, _url) = pair("timid", &[]);
    write(&host, 20);
    until_equal(&hub, &host);
    host.stop("TERM");
    let copy = tempfile::tempdir().unwrap();
    host.copy_database(copy.path());
    host.serve("none");
    host.apply(&(0..10).map(|n| create("r", "p", &format!("dead branch {n}"))).collect::<String>());
    until_equal(&hub, &host);
    host.stop("TERM");
    host.restore_database(copy.path());
    host.apply(&(0..40).map(|n| create("r", "p", &format!("new branch {n}"))).collect::<String>());
    host.serve("none");
    until_equal(&hub, &host);
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
    let parked = hub.json(&["hosts", "parked", "timid"]);
    let messages: Vec<&str> =
        parked.as_array().unwrap().iter().map(|row| row["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 10, "{messages:?}");
    assert!(messages.iter().all(|message| message.starts_with("dead branch")));
    assert!(parked.as_array().unwrap().iter().all(|row| row["reason"] == "fork"));
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
}

#[test]
fn a_wiped_hub_is_filled_again() {
    let (mut hub, host, url) = pair("steady", &[]);
    write(&host, 30);
    until_equal(&hub, &host);
    hub.stop("TERM");
    // The database is gone; key and pairing survive only in what the administrator kept: the key.
    for name in ["opmesh.db", "opmesh.db-wal", "opmesh.db-shm"] {
        std::fs::remove_file(hub.dir.join(name)).ok();
    }
    hub.ok(&["init", "--instance-id", "hub"]);
    hub.ok(&["peer", "add", "--key-id", host.ok(&["key", "show"]).trim(), "--instance-id", "steady"]);
    hub.ok(&["peer", "verify", "steady", "--key-id", host.ok(&["key", "show"]).trim()]);
    hub.serve_hub(&address(&url));
    until_equal(&hub, &host);
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
}

#[test]
fn a_hub_restored_from_an_older_copy_gets_what_it_lacks() {
    let (mut hub, host, url) = pair("steady", &[]);
    let ids = write(&host, 30);
    until_equal(&hub, &host);
    hub.stop("TERM");
    let copy = tempfile::tempdir().unwrap();
    hub.copy_database(copy.path());
    hub.serve_hub(&address(&url));
    host.ok(&["ops", "delete", &ids[3]]);
    write(&host, 10);
    until_equal(&hub, &host);
    hub.stop("TERM");
    hub.restore_database(copy.path());
    hub.serve_hub(&address(&url));
    until_equal(&hub, &host);
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
}

#[test]
fn a_wiped_host_with_its_old_key_erases_nothing_at_the_hub() {
    let (hub, mut host, url) = pair("phoenix", &[]);
    write(&host, 30);
    until_equal(&hub, &host);
    host.stop("TERM");
    for name in ["opmesh.db", "opmesh.db-wal", "opmesh.db-shm"] {
        std::fs::remove_file(host.dir.join(name)).unwrap_or_default();
    }
    host.ok(&["init", "--instance-id", "phoenix"]);
    host.join(&hub, &url, &[]);
    host.serve("none");
    write(&host, 3);
    until_equal(&hub, &host);
    assert_eq!(held_rows(&hub, &host).len(), 3);
    let parked = hub.json(&["hosts", "parked", "phoenix"]);
    assert_eq!(parked.as_array().unwrap().len(), 30, "all of the old life is kept");
}

#[test]
fn a_local_write_does_not_wait_for_a_hub_that_has_stopped_reading() {
    let (hub, host, _url) = pair("patient", &[]);
    write(&host, 10);
    until_equal(&hub, &host);
    hub.signal("STOP");
    write(&host, 20_000);
    assert_eq!(own_rows(&host).len(), 20_010);
    hub.signal("CONT");
    until_equal(&hub, &host);
}

#[test]
fn only_what_is_granted_is_sent_and_narrowing_and_widening_follow_at_once() {
    let (hub, host, _url) = pair("shy", &["READ_OPERATIONS:repo:a,!plan:secret"]);
    let mut lines = String::new();
    for (repo, plan) in [("a", "open"), ("a", "secret"), ("b", "open"), ("b", "secret")] {
        for n in 0..3 {
            write!(lines, "{}", create(repo, plan, &format!("{repo}/{plan}/{n}"))).unwrap();
        }
    }
    host.apply(&lines);
    let held = || -> Vec<String> {
        let mut held: Vec<String> = held_rows(&hub, &host)
            .iter()
            .map(|row| format!("{}/{}", row["repo_id"].as_str().unwrap(), row["plan_id"].as_str().unwrap()))
            .collect();
        held.sort();
        held.dedup();
        held
    };
    until("the granted rows arrive", || held() == ["a/open"] && held_rows(&hub, &host).len() == 3);
    host.ok(&["peer", "grant", "hub", "READ_OPERATIONS:*"]);
    until_equal(&hub, &host);
    assert_eq!(held(), ["a/open", "a/secret", "b/open", "b/secret"]);
    host.ok(&["peer", "grant", "hub", "READ_OPERATIONS:repo:b"]);
    until("what left the view is set aside", || held() == ["b/open", "b/secret"]);
    let parked = hub.json(&["hosts", "parked", "shy"]);
    assert_eq!(parked.as_array().unwrap().len(), 6);
    assert!(parked.as_array().unwrap().iter().all(|row| row["reason"] == "view"));
}

#[test]
fn what_a_hub_no_longer_accepts_is_set_aside_there_and_not_sent_any_more() {
    let (hub, host, _url) = pair("chatty", &[]);
    let both = |n: u32| format!("{}{}", create("r", "open", &n.to_string()), create("r", "secret", "x"));
    host.apply(&both(1));
    until_equal(&hub, &host);
    hub.ok(&["peer", "set", "chatty", "--accept", "*,!plan:secret"]);
    let plans =
        || -> Vec<Value> { held_rows(&hub, &host).iter().map(|row| row["plan_id"].clone()).collect() };
    until("what is not accepted is set aside", || plans() == ["open"]);
    host.apply(&both(2));
    until("what is accepted still arrives", || plans() == ["open", "open"]);
    until("the host is in sync", || host.peer("known_host")["in_sync"] == true);
    assert_eq!(hub.peer("authorized_client")["state"], "live");
    // The count that both sides proved equal has nothing of what is not accepted: it was not sent.
    assert_eq!(host.peer("known_host")["count"], "2");
    let parked = hub.json(&["hosts", "parked", "chatty"]);
    let reasons: Vec<_> = parked.as_array().unwrap().iter().map(|row| &row["reason"]).collect();
    assert_eq!(reasons, ["view"]);
    hub.ok(&["peer", "set", "chatty", "--accept", "*"]);
    until_equal(&hub, &host);
}

#[test]
fn sigterm_and_sigint_drain_and_leave_no_readiness_file() {
    for signal in ["TERM", "INT"] {
        let (mut hub, mut host, _url) = pair("brief", &[]);
        write(&host, 100);
        assert!(hub.dir.join("serve.json").exists());
        assert_eq!(hub.stop(signal), Some(0), "{}", hub.log());
        assert_eq!(host.stop(signal), Some(0), "{}", host.log());
        assert!(!hub.dir.join("serve.json").exists());
        assert!(!host.dir.join("serve.json").exists());
    }
}

#[test]
fn blocking_a_host_ends_its_session_and_the_reason_shows_on_the_hub_only() {
    let (hub, host, _url) = pair("rogue", &[]);
    write(&host, 3);
    until_equal(&hub, &host);
    hub.ok(&["peer", "block", "rogue", "--reason", "stolen laptop"]);
    write(&host, 3);
    until("the hub shows it blocked", || hub.peer("authorized_client")["state"] == "blocked");
    until("the host is refused", || host.peer("known_host")["state"] == "refused");
    assert_eq!(held_rows(&hub, &host).len(), 3);
    assert!(!host.json(&["status"]).to_string().contains("stolen laptop"));
    hub.ok(&["peer", "unblock", "rogue"]);
}

#[test]
fn a_host_hears_that_it_was_removed_or_blocked_and_nothing_about_why() {
    for words in [["peer", "remove", "rogue", "--yes"], ["peer", "block", "rogue", "--reason=stolen laptop"]]
    {
        let (hub, host, _url) = pair("rogue", &[]);
        write(&host, 3);
        until_equal(&hub, &host);
        hub.ok(&words);
        until("the host is refused", || host.peer("known_host")["state"] == "refused");
        assert!(!host.log().contains("UNAVAILABLE") && !host.log().contains("Unavailable"), "{}", host.log());
        assert!(!host.log().contains("stolen laptop"), "{}", host.log());
    }
}

#[test]
fn a_peer_that_was_removed_and_added_again_begins_anew() {
    let (hub, host, url) = pair("again", &[]);
    write(&host, 3);
    until_equal(&hub, &host);
    let key = hub.ok(&["key", "show"]);
    hub.ok(&["peer", "block", "again"]);
    until("the host is refused", || host.peer("known_host")["state"] == "refused");
    host.ok(&["peer", "remove", "hub", "--yes"]);
    host.ok(&["peer", "add", "--key-id", key.trim(), "--instance-id", "hub", "--url", &url]);
    let fresh = host.peer("known_host");
    assert_eq!((&fresh["state"], &fresh["in_sync"]), (&"unverified".into(), &Value::Null), "{fresh}");
    assert_eq!((&fresh["position"], &fresh["lag"]), (&Value::Null, &Value::Null), "{fresh}");
}

#[test]
fn a_superseded_history_is_an_identity_conflict_on_both_sides_until_an_operator_decides() {
    let (hub, mut host, _url) = pair("twin", &[]);
    write(&host, 5);
    until_equal(&hub, &host);
    host.stop("TERM");
    let copy = tempfile::tempdir().unwrap();
    host.copy_database(copy.path());
    for _ in 0..2 {
        host.serve("none");
        write(&host, 5);
        until_equal(&hub, &host);
        host.stop("TERM");
        host.restore_database(copy.path());
    }
    // Once the copy went on as a new life; now somebody starts it again as the old one.
    host.serve("none");
    until("the hub shows it", || hub.peer("authorized_client")["state"] == "identity_conflict");
    until("the host shows it", || host.peer("known_host")["state"] == "identity_conflict");
    host.stop("TERM");
    let resolved = hub.json(&["peer", "resolve", "twin", "--accept-presented"]);
    let status = &resolved["status"][0];
    assert_eq!((&status["state"], &status["reason"]), (&"offline".into(), &"".into()), "{status}");
    host.serve("none");
    until_equal(&hub, &host);
}

#[test]
fn a_superseded_history_that_is_refused_stays_out_and_the_right_one_goes_on() {
    let (hub, mut host, _url) = pair("twin", &[]);
    write(&host, 5);
    until_equal(&hub, &host);
    host.stop("TERM");
    let (old, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    host.copy_database(old.path());
    host.serve("none");
    write(&host, 5);
    until_equal(&hub, &host);
    host.stop("TERM");
    host.restore_database(old.path());
    host.serve("none");
    write(&host, 2);
    until_equal(&hub, &host);
    host.stop("TERM");
    host.copy_database(right.path());
    host.restore_database(old.path());
    for _ in 0..2 {
        host.serve("none");
        until("the hub shows it", || hub.peer("authorized_client")["state"] == "identity_conflict");
        hub.ok(&["peer", "resolve", "twin", "--refuse"]);
        assert_eq!(held_rows(&hub, &host).len(), 7, "nothing of it was applied");
        host.stop("TERM");
    }
    host.restore_database(right.path());
    host.serve("none");
    write(&host, 1);
    until_equal(&hub, &host);
    assert_eq!(own_rows(&host), held_rows(&hub, &host));
}

/// Two daemons with one identity and one history that keep displacing each other, until the hub holds both off.
fn rivals() -> (Instance, [Instance; 2]) {
    let (hub, mut first, _url) = pair("twin", &[]);
    write(&first, 5);
    until_equal(&hub, &first);
    first.stop("TERM");
    let mut second = Instance::place("twin");
    std::fs::create_dir(&second.dir).unwrap();
    std::fs::set_permissions(&second.dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for name in ["identity.key", "opmesh.db"] {
        std::fs::copy(first.dir.join(name), second.dir.join(name)).unwrap();
    }
    first.serve("none");
    second.serve("none");
    until("the hub holds both off", || hub.peer("authorized_client")["state"] == "identity_conflict");
    let why = hub.peer("authorized_client")["reason"].clone();
    assert!(why.as_str().unwrap().contains("displacing each other"), "{why}");
    (hub, [first, second])
}

#[test]
fn of_two_processes_with_one_identity_the_operator_says_which_goes_on() {
    for decision in ["--accept-presented", "--refuse"] {
        let (hub, twins) = rivals();
        hub.ok(&["peer", "resolve", "twin", decision]);
        let states = || [0, 1].map(|n: usize| twins[n].peer("known_host")["state"].clone());
        let right = std::cell::Cell::new(None);
        until("one is let in and the other is not", || {
            let states = states();
            right.set(states.iter().position(|state| state == "live"));
            right.get().is_some() && states.contains(&"identity_conflict".into())
        });
        let right: usize = right.get().unwrap();
        write(&twins[right], 1);
        until_equal(&hub, &twins[right]);
        assert_eq!(hub.code(&["peer", "resolve", "twin", decision]), 1, "there is nothing left to decide");
        let audit = hub.json(&["audit"]);
        let event = if decision == "--refuse" { "conflict_refused" } else { "conflict_accepted" };
        assert_eq!(audit.as_array().unwrap().iter().filter(|record| record["event"] == event).count(), 1);
    }
}

#[test]
fn a_bit_flipped_in_a_stored_record_makes_verify_exit_20_and_name_it() {
    let (mut hub, host, _url) = pair("victim", &[]);
    write(&host, 10);
    until_equal(&hub, &host);
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
    hub.stop("TERM");
    let database = rusqlite::Connection::open(hub.dir.join("opmesh.db")).unwrap();
    let (id, mut record): (i64, Vec<u8>) = database
        .query_row("SELECT local_id, record FROM operations WHERE owner <> 1 LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let last = record.len() - 1;
    record[last] ^= 1;
    database.execute("UPDATE operations SET record = ?1 WHERE local_id = ?2", (&record, id)).unwrap();
    drop(database);
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 20);
    let checks = hub.json(&["hosts", "verify", "victim"]);
    let bad = checks[0]["bad_operations"].as_array().unwrap();
    assert_eq!(bad.len(), 1, "{checks}");
    assert_eq!(bad[0]["id"], id.to_string());
}
