//! New keys and lost ones, with real processes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::fleet::{Instance, create, held_rows, own_rows, until, until_equal};
use super::life::{audited, carried, talkative};

const ANYWHERE: &str = "tls://127.0.0.1:0";

fn address(url: &str) -> String {
    url.trim_start_matches("https://").to_owned()
}

fn write(host: &Instance, count: usize) {
    let lines: String = (0..count).map(|n| create("r", "p", &format!("run {n}"))).collect();
    host.apply(&lines);
}

fn key(instance: &Instance) -> String {
    instance.ok(&["key", "show"]).trim().to_owned()
}

/// A hub that counts what travels, and its hosts, each with this many operations there.
fn fleet(names: &[&str], operations: usize) -> (Instance, String, Vec<Instance>) {
    let mut hub = Instance::new("hub");
    talkative(&hub);
    let url = hub.serve_hub(ANYWHERE);
    let hosts: Vec<Instance> = names
        .iter()
        .map(|name| {
            let mut host = Instance::new(name);
            host.serve("none");
            host.join(&hub, &url, &[]);
            write(&host, operations);
            until_equal(&hub, &host);
            host
        })
        .collect();
    (hub, url, hosts)
}

fn confirmed(instance: &Instance, peer: &str) -> bool {
    let rotation = instance.json(&["key", "rotate", "--status"]);
    rotation["peers"].as_array().unwrap().iter().any(|row| row["name"] == peer && row["confirmed"] == true)
}

fn state(instance: &Instance) -> Value {
    instance.json(&["key", "rotate", "--status"])["state"].clone()
}

/// The peer's entry: its key and the keys before it.
fn keys_of(instance: &Instance, peer: &str) -> (Value, Value) {
    let shown = instance.json(&["peer", "show", peer]);
    (shown["key_id"].clone(), shown["succeeds"].clone())
}

fn until_in_step(hub: &Instance, hosts: &[Instance]) {
    for host in hosts {
        until_equal(hub, host);
        until("the host is in sync", || host.peer("known_host")["in_sync"] == true);
        assert_eq!(own_rows(host), held_rows(hub, host));
        assert_eq!(hub.json(&["hosts", "parked", &host.name]), serde_json::json!([]));
    }
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
}

#[test]
fn a_hub_and_a_host_get_new_keys_while_a_laptop_sleeps_and_nothing_is_sent_again() {
    let (mut hub, url, mut hosts) = fleet(&["web", "laptop"], 300);
    let old = [key(&hub), key(&hosts[0]), key(&hosts[1])];
    hosts[1].stop("TERM");

    let begun = hub.json(&["key", "rotate"]);
    assert_eq!(begun["state"], "waiting", "{begun}");
    assert_eq!(hosts[0].json(&["key", "rotate"])["state"], "waiting");
    until("the host's new key took over", || state(&hosts[0]) == "none" && key(&hosts[0]) != old[1]);
    until("the host knows the hub's", || confirmed(&hub, "web"));
    assert!(!confirmed(&hub, "laptop"));
    assert_eq!((state(&hub), key(&hub)), ("waiting".into(), old[0].clone()));
    let waits = hub.json(&["status"]);
    assert_eq!(waits["next_key_id"], begun["next_key_id"]);
    let laptop = waits["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == "laptop").unwrap();
    assert!(laptop["reason"].as_str().unwrap().contains("has not confirmed"), "{laptop}");
    write(&hosts[0], 4);
    write(&hosts[1], 5);
    until_equal(&hub, &hosts[0]);

    // It wakes, learns, and the hub goes on with its new key.
    hosts[1].serve("none");
    until("the hub's new key took over", || state(&hub) == "none" && key(&hub) != old[0]);
    assert_eq!(key(&hub), begun["next_key_id"].as_str().unwrap());
    until_in_step(&hub, &hosts);
    let now = [key(&hub), key(&hosts[0]), key(&hosts[1])];
    assert_eq!(now[2], old[2]);
    for host in &hosts {
        assert_eq!(keys_of(host, "hub"), (now[0].clone().into(), serde_json::json!([old[0]])));
    }
    assert_eq!(keys_of(&hub, "web"), (now[1].clone().into(), serde_json::json!([old[1]])));
    assert_eq!(keys_of(&hub, "laptop"), (now[2].clone().into(), serde_json::json!([])));
    let rows = held_rows(&hub, &hosts[0]);
    assert!(rows.iter().all(|row| row["owner_key_id"] == now[1]));
    for (instance, event, count) in [
        (&hub, "key_rotated", 1),
        (&hub, "key_succeeded", 1),
        (&hosts[1], "key_announced", 1),
        (&hosts[1], "key_succeeded", 1),
    ] {
        assert_eq!(audited(instance, event).len(), count, "{event} at {}", instance.name);
    }

    // And it stays so, with everybody started again.
    hub.stop("TERM");
    assert_eq!(carried(&hub.log()), 609, "{}", hub.log());
    assert_eq!(hub.serve_hub(&address(&url)), url);
    for host in &mut hosts {
        host.stop("TERM");
        host.serve("none");
    }
    write(&hosts[0], 1);
    until_in_step(&hub, &hosts);
    hub.stop("TERM");
    assert_eq!(carried(&hub.log()), 1, "{}", hub.log());
    assert!(!hub.dir.join("identity.next.key").exists());
}

#[test]
fn a_new_key_can_be_given_up_and_asked_for_again() {
    let (hub, _url, mut hosts) = fleet(&["web"], 5);
    hosts[0].stop("TERM");
    let old = key(&hub);
    assert_eq!(hub.code(&["key", "rotate", "--abort"]), 1, "there is none");
    let first = hub.json(&["key", "rotate"]);
    assert_eq!(hub.json(&["key", "rotate"])["next_key_id"], first["next_key_id"], "again is the same one");
    hosts[0].serve("none");
    until("it took over", || state(&hub) == "none");
    let second = key(&hub);
    assert_ne!(second, old);

    hosts[0].stop("TERM");
    hub.ok(&["key", "rotate"]);
    assert_eq!(hub.json(&["key", "rotate", "--abort"])["state"], "aborted");
    assert_eq!((state(&hub), key(&hub)), ("none".into(), second.clone()));
    hub.ok(&["key", "rotate"]);
    hosts[0].serve("none");
    until("it took over", || state(&hub) == "none" && key(&hub) != second);
    until_in_step(&hub, &hosts);
    assert_eq!(keys_of(&hosts[0], "hub").1, serde_json::json!([old, second]));
    for (event, count) in [("key_rotation_begun", 3), ("key_rotation_aborted", 1), ("key_rotated", 2)] {
        assert_eq!(audited(&hub, event).len(), count, "{event}");
    }
}

#[test]
fn a_forced_key_is_verified_by_hand_where_nobody_heard_of_it() {
    let (mut hub, _url, mut hosts) = fleet(&["web"], 50);
    hosts[0].stop("TERM");
    hub.ok(&["key", "rotate"]);
    let forced = hub.run(&["key", "rotate", "--force"]);
    let said = String::from_utf8_lossy(&forced.stderr).into_owned();
    assert!(
        forced.status.success() && said.contains("web did not confirm") && said.contains(&key(&hub)),
        "{said}"
    );
    hosts[0].serve("none");
    until("the host refuses the strange key", || hosts[0].peer("known_host")["state"] == "refused");
    let new = key(&hub);
    assert_eq!(hosts[0].code(&["peer", "verify", "hub", "--key-id", &new]), 12);
    hosts[0].ok(&["peer", "verify", "hub", "--key-id", &new, "--new-key"]);
    until_in_step(&hub, &hosts);
    // The other way round: a host's.
    hub.ok(&["peer", "block", "web"]);
    hosts[0].ok(&["key", "rotate"]);
    hosts[0].ok(&["key", "rotate", "--force"]);
    hub.ok(&["peer", "unblock", "web"]);
    until("the hub refuses the strange key", || hosts[0].peer("known_host")["state"] == "refused");
    hub.ok(&["peer", "verify", "web", "--key-id", &key(&hosts[0]), "--new-key"]);
    until_in_step(&hub, &hosts);
    for instance in [&hub, &hosts[0]] {
        assert_eq!(audited(instance, "key_replaced").len(), 1, "{}", instance.name);
    }
    hub.stop("TERM");
    assert_eq!(carried(&hub.log()), 50, "{}", hub.log());
}

#[test]
fn a_key_file_that_was_replaced_is_the_key_whatever_the_store_says() {
    let (hub, _url, mut hosts) = fleet(&["web"], 5);
    let web = &mut hosts[0];
    web.stop("TERM");
    let next = web.json(&["key", "rotate"])["next_key_id"].clone();
    // As a crash in the middle of taking over leaves it; the hub has not even heard of the key.
    web.serve("none");
    until("the hub has heard", || audited(&hub, "key_announced").len() == 1);
    until("it took over", || state(web) == "none");
    web.stop("TERM");
    let db = rusqlite::Connection::open(web.dir.join("opmesh.db")).unwrap();
    let old: Vec<u8> = db.query_row("SELECT log_key FROM meta", [], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let old = opmesh_core::model::PublicKey(old.try_into().unwrap()).key_id();
    db.execute("UPDATE owners SET key_id = ?1 WHERE owner = 1", [old.as_bytes()]).unwrap();
    drop(db);
    web.serve("none");
    assert_eq!(key(web), next.as_str().unwrap());
    write(web, 3);
    until_in_step(&hub, &hosts);
}

#[test]
fn the_key_file_alone_tells_where_the_key_came_from() {
    let (hub, _url, mut hosts) = fleet(&["web"], 20);
    let old = key(&hosts[0]);
    hosts[0].ok(&["key", "rotate"]);
    until("it took over", || state(&hosts[0]) == "none" && key(&hosts[0]) != old);
    until_in_step(&hub, &hosts);
    // Another hub has never heard of the old key.
    let mut second = Instance::new("second");
    let url = second.serve_hub(ANYWHERE);
    hosts[0].join(&second, &url, &[]);
    until_equal(&second, &hosts[0]);
    assert_eq!(second.code(&["hosts", "verify", "--all"]), 0);
    // The store is lost, and only the key file is left.
    hosts[0].stop("TERM");
    for name in ["opmesh.db", "opmesh.db-wal", "opmesh.db-shm"] {
        std::fs::remove_file(hosts[0].dir.join(name)).unwrap_or_default();
    }
    hosts[0].ok(&["init", "--instance-id", "web"]);
    write(&hosts[0], 3);
    let hub_url =
        format!("https://{}", hub.json(&["status"])["daemon"]["listen"][0]["address"].as_str().unwrap());
    hosts[0].join(&hub, &hub_url, &[]);
    hosts[0].serve("none");
    until_equal(&hub, &hosts[0]);
    assert_eq!(hub.json(&["hosts", "parked", "web"]).as_array().unwrap().len(), 20);
}

#[test]
fn a_copy_of_an_instance_that_rotates_takes_nothing_of_the_instance() {
    let mut hub = Instance::new("hub");
    write(&hub, 5);
    let url = hub.serve_hub("127.0.0.1:0");
    let mut copy = Instance::place("copy");
    let key_file = hub.dir.join("identity.key");
    copy.ok(&["init", "--instance-id", "copy", "--import-key", key_file.to_str().unwrap()]);
    // It has no peer that could confirm, so that it does not wait.
    copy.ok(&["key", "rotate"]);
    assert_ne!(key(&copy), key(&hub));
    copy.serve("none");
    copy.join(&hub, &url, &[]);
    until("the hub has noticed", || audited(&hub, "identity_conflict").len() == 1);
    assert!(audited(&hub, "identity_conflict")[0].contains("own key"));
    hub.stop("TERM");
    hub.serve_hub(&address(&url));
    assert_eq!(own_rows(&hub).len(), 5);
    assert_eq!(hub.code(&["hosts", "verify", "hub"]), 0);
}

#[test]
fn a_key_that_was_replaced_is_never_let_in_again() {
    let (hub, _url, mut hosts) = fleet(&["web"], 5);
    hosts[0].stop("TERM");
    let thief = Instance::place("thief");
    copy_all(&hosts[0].dir, &thief.dir);
    hosts[0].serve("none");
    hosts[0].ok(&["key", "rotate"]);
    until("it took over", || state(&hosts[0]) == "none");
    until_in_step(&hub, &hosts);
    let mut thief = thief;
    thief.serve("none");
    until("the old key is refused", || thief.peer("known_host")["state"] == "refused");
    assert!(audited(&hub, "client_refused").iter().any(|detail| detail.ends_with("retired")));
    assert_eq!(hub.peer("authorized_client")["state"], "live");
    // Not even a token helps.
    let url =
        format!("https://{}", hub.json(&["status"])["daemon"]["listen"][0]["address"].as_str().unwrap());
    let token = hub.ok(&["pair", "token"]);
    thief.ok(&["peer", "remove", "hub", "--yes"]);
    assert_eq!(thief.code(&["pair", "join", token.trim(), "--url", &url]), 4);
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["identity.key", "opmesh.db", "opmesh.db-wal"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

#[test]
fn what_a_lost_key_wrote_is_listed_under_the_host_that_adopts_it_and_the_key_stays_out() {
    let (hub, url, mut hosts) = fleet(&["web"], 6);
    let lost = hosts.remove(0);
    let mut new = Instance::new("web-new");
    new.serve("none");
    new.join(&hub, &url, &[]);
    write(&new, 2);
    until_equal(&hub, &new);
    hub.ok(&["peer", "adopt", "web", "--by", "web-new"]);
    until("the lost key is refused", || lost.peer("known_host")["state"] == "refused");
    assert_eq!(hub.code(&["peer", "adopt", "web", "--by", "web-new"]), 1, "once is enough");

    let hosts = hub.json(&["hosts", "list"]);
    let names: Vec<&str> =
        hosts.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hub", "web-new"]);
    let row = &hosts[1];
    // Its own numbers stay its own, so that they can be compared with what it says itself.
    assert_eq!((&row["count"], &row["digest"]), (&"2".into(), &new.json(&["status"])["digest"]));
    let adopted = &row["adopted"][0];
    assert_eq!((&adopted["key_id"], &adopted["count"]), (&key(&lost).into(), &"6".into()), "{row}");
    let operations = hub.json(&["ops", "list", "--host", "web-new"]);
    let operations = operations.as_array().unwrap();
    assert_eq!(operations.len(), 8);
    assert!(operations.iter().all(|row| row["host"] == "web-new"));
    assert_eq!(operations.iter().filter(|row| row["owner_key_id"] == key(&lost)).count(), 6);
    assert_eq!(hub.json(&["ops", "list", "--host", "web"]).as_array().unwrap().len(), 6);
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);

    hub.ok(&["peer", "adopt", "web", "--undo"]);
    write(&lost, 1);
    until_equal(&hub, &lost);
    assert_eq!(hub.json(&["hosts", "list"]).as_array().unwrap().len(), 3);
    assert_eq!((audited(&hub, "host_adopted").len(), audited(&hub, "adoption_undone").len()), (1, 1));
}
