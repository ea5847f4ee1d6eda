//! What scripts rely on across commands: the rules of JSON, errors that stand alone, what lies on the disk and cannot
//! be used, pairing again, and runs that cannot be recorded at once. Commands one by one: `cli_*.rs`.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::process::Output;

use serde_json::{Value, json};

use crate::fleet::{Instance, create, until, until_equal};

/// An exit code, stdout, and the error object on stderr, which must be the only line there.
fn failed(instance: &Instance, words: &[&str]) -> (i32, String, Value) {
    let output = instance.run(&[&["--json"], words].concat());
    let (stdout, stderr) = texts(&output);
    let error = serde_json::from_str(&stderr).unwrap_or_else(|fault| panic!("{words:?}: {fault}: {stderr}"));
    (output.status.code().unwrap(), stdout, error)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_error_is_one_line_of_json_on_stderr_and_stdout_stays_empty() {
    let host = Instance::new("host");
    for (words, exit, reason) in [
        (&["ops", "list", "--host", "nobody"][..], 1, "unknown_host"),
        (&["ops", "show", "77"], 1, "unknown_operation"),
        (&["ops", "delete", "77"], 1, "unknown_operation"),
        (&["ops", "list", "--since", "5"], 2, "invalid_argument"),
        (&["ops", "watch"], 10, "unreachable"),
        (&["hosts", "show", "nobody"], 1, "unknown_host"),
        (&["hosts", "verify", "nobody"], 1, "unknown_host"),
        (&["hosts", "parked", "nobody"], 1, "unknown_host"),
        (&["peer", "show", "ed25519."], 1, "unknown_peer"),
        (&["pair", "cancel", "9"], 1, "unknown_token"),
        (&["pair", "token", "--ttl", "8d"], 2, "invalid_argument"),
        (&["pair", "token", "--grant", "READ_OPERATIONS:!plan:x"], 2, "grant"),
        (&["pair", "join", "nonsense", "--url", "https://h"], 2, "invalid_argument"),
    ] {
        let (code, stdout, error) = failed(&host, words);
        assert_eq!((code, stdout.as_str()), (exit, ""), "{words:?}");
        assert_eq!((&error["error"]["exit_code"], &error["error"]["reason"]), (&json!(exit), &json!(reason)));
    }
}

#[test]
fn json_answers_keep_the_rules_of_numbers_digests_and_presence() {
    let (mut hub, mut host) = (Instance::new("hub"), Instance::new("host"));
    let url = hub.serve_hub("127.0.0.1:0");
    host.serve("none");
    host.join(&hub, &url, &[]);
    host.ok(&["run", "--plan", "p", "--repo", "r", "--kind", "backup", "--", "true"]);
    host.apply(&create("r", "p", "by hand"));
    until_equal(&hub, &host);
    hub.ok(&["pair", "token", "--label", "spare"]);
    let operation = "id host owner_key_id original_id flow_id original_flow_id modno kind status repo_id repo_guid \
                     plan_id snapshot_id start_unix_ms end_unix_ms message details";
    let peer = "key_id instance_id name role verified state reason last_seen_unix_ms grants position digest count lag \
                in_sync";
    let row = "name instance_id key_id is_self connected state last_success_unix_ms last_run_unix_ms \
               last_seen_unix_ms count digest position version parked";
    for at in [&hub, &host] {
        let status = at.json(&["status"]);
        holds(&status["peers"][0], peer);
        assert!(status["peers"][0]["last_seen_unix_ms"].is_string(), "{status}");
        holds(&at.json(&["ops", "list"])[0], operation);
        holds(&at.json(&["hosts", "list"])[0], row);
        holds(
            &at.json(&["hosts", "verify", "--all"])[0],
            "host equal count stored_count digest stored_digest bad_operations",
        );
        for words in [
            &["status"][..],
            &["ops", "list"],
            &["hosts", "list"],
            &["hosts", "verify", "--all"],
            &["peer", "list"],
            &["pair", "tokens"],
            &["audit"],
            &["audit", "--verify"],
        ] {
            keeps_the_rules(&at.json(words), "");
        }
    }
    assert_eq!(host.json(&["ops", "list"])[0]["end_unix_ms"], Value::Null);
    let details = &host.json(&["ops", "list"])[1]["details"];
    assert_eq!(details["exit_code"], json!(0), "32 bits are a number");
    assert_eq!(host.json(&["peer", "show", "hub"])["name"], "hub");
}

/// Named fields are always there, in this order; more may follow.
fn holds(object: &Value, fields: &str) {
    let found: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let expected: Vec<&str> = fields.split_whitespace().collect();
    assert_eq!(found.get(..expected.len()), Some(expected.as_slice()));
}

fn keeps_the_rules(value: &Value, name: &str) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| keeps_the_rules(value, name)),
        Value::Array(items) => items.iter().for_each(|item| keeps_the_rules(item, name)),
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            assert!(["exit_code", "pid", "schema", "uses_left"].contains(&name), "{name}: {number}");
        }
        Value::String(text) => {
            let wide = ["id", "flow_id", "modno", "count", "parked", "lag", "operations"].contains(&name)
                || ["_unix_ms", "_ms", "_bytes", "_count"].iter().any(|end| name.ends_with(end));
            assert!(!wide || text.parse::<i64>().is_ok(), "{name}: {text}");
            let hex = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
            assert!(!name.ends_with("digest") || (text.len() == 32 && hex(text)), "{name}: {text}");
        }
    }
}

#[test]
fn a_host_that_its_hub_has_forgotten_is_paired_again_by_a_new_token() {
    let (mut hub, mut host) = (Instance::new("hub"), Instance::new("host"));
    let url = hub.serve_hub("127.0.0.1:0");
    let join = |host: &Instance| {
        let token = hub.ok(&["pair", "token"]);
        host.json(&["pair", "join", token.trim(), "--url", &url])["state"].clone()
    };
    host.serve("none");
    assert_eq!(join(&host), "paired");
    assert_eq!(join(&host), "already_paired");
    host.ok(&["peer", "grant", "hub", "READ_OPERATIONS:plan:p"]);
    hub.ok(&["peer", "remove", "host", "--yes"]);
    until("the host knows that it is refused", || host.peer("known_host")["state"] == "refused");
    assert_eq!(join(&host), "paired");
    assert_eq!(
        host.peer("known_host")["grants"]["given"],
        json!(["READ_OPERATIONS:plan:p"]),
        "kept as narrowed"
    );

    // Without a daemon the command itself tries.
    assert_eq!(host.stop("TERM"), Some(0));
    hub.ok(&["peer", "remove", "host", "--yes"]);
    join(&host);
    assert_eq!(hub.json(&["peer", "list"])[0]["name"], "host");
    hub.ok(&["peer", "block", "host"]);
    let token = hub.ok(&["pair", "token"]);
    let (code, _, error) = failed(&host, &["pair", "join", token.trim(), "--url", &url]);
    assert_eq!((code, &error["error"]["reason"]), (4, &json!("refused")));
    assert_eq!(host.json(&["peer", "show", "hub"])["urls"], json!([url]), "an entry from before stays");
}

#[test]
fn what_cannot_be_used_on_the_disk_is_named_and_left_alone() {
    let host = Instance::new("host");
    host.apply(&create("r", "p", "m"));
    let store = host.dir.join("opmesh.db");
    let good = fs::read(&store).unwrap();
    let (mut newer, mut foreign) = (good.clone(), good.clone());
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    foreign[..8].copy_from_slice(b"whatever");
    let cases = [
        (newer, "version", "schema 99"),
        (foreign, "store", "not an opmesh store"),
        (good[..5000].to_vec(), "store", "restore"),
        (Vec::new(), "store", "not an opmesh store"),
    ];
    for (bytes, reason, says) in cases {
        fs::write(&store, &bytes).unwrap();
        for words in [&["status"][..], &["ops", "list"], &["serve", "--listen", "none"], &["init"]] {
            let (code, stdout, error) = failed(&host, &[&["-q"], words].concat());
            assert_eq!(
                (code, stdout.as_str(), &error["error"]["reason"]),
                (1, "", &json!(reason)),
                "{words:?}"
            );
            assert!(error["error"]["message"].as_str().unwrap().contains(says), "{error}");
        }
        assert!(fs::read(&store).unwrap() == bytes, "{says}: touched");
    }
    fs::write(&store, &good).unwrap();
    let key = host.dir.join("identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let (code, _, error) = failed(&host, &["key", "show"]);
    assert_eq!((code, &error["error"]["reason"]), (1, &json!("identity")));
    assert!(error["error"]["message"].as_str().unwrap().contains("chmod 600"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let long = host.dir.join("x".repeat(108));
    let (code, _, error) =
        failed(&host, &["-q", "serve", "--listen", "none", "--admin-socket", long.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(error["error"]["message"].as_str().unwrap().contains("107"), "{error}");
    assert_eq!(host.json(&["ops", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_run_that_cannot_be_recorded_runs_and_is_taken_in_once_later() {
    let host = Instance::new("host");
    let key = host.dir.join("identity.key");
    let run = |script: &str| host.run(&["run", "--plan", "p", "--repo", "r", "--", "sh", "-c", script]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run("echo said; exit 9");
    let (stdout, stderr) = texts(&output);
    assert_eq!(
        (output.status.code(), stdout.as_str(), stderr.lines().count()),
        (Some(9), "said\n", 1),
        "{stderr}"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run("exit 0").status.code(), Some(0));
    assert_eq!(run("kill -9 $$").status.code(), Some(137));
    let list = host.json(&["ops", "list"]);
    let mut codes: Vec<_> =
        list.as_array().unwrap().iter().map(|row| row["details"]["exit_code"].clone()).collect();
    codes.sort_by_key(Value::to_string);
    assert_eq!(codes, [json!(0), json!(137), json!(9)]);
    let left = fs::read_dir(host.dir.join("spool")).unwrap().count();
    assert_eq!(left, 0, "nothing waits any more");
}

#[test]
fn a_daemon_whose_store_stops_ends_with_an_error_and_leaves_no_readiness_file() {
    let mut host = Instance::new("host");
    for number in 0..3 {
        host.apply(&create("r", "p", &number.to_string()));
    }
    // The root page of the operations, as a bad sector would leave it.
    let store = host.dir.join("opmesh.db");
    let root: u64 = {
        let connection = rusqlite::Connection::open(&store).unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'operations'";
        connection.query_row(root, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    };
    let file = fs::OpenOptions::new().write(true).open(&store).unwrap();
    file.write_all_at(&[0xff; 4096], (root - 1) * 4096).unwrap();
    host.serve("none");
    let lines = host.dir.with_extension("jsonl");
    fs::write(&lines, create("r", "p", "m")).unwrap();
    let (code, _, error) = failed(&host, &["ops", "apply", lines.to_str().unwrap()]);
    assert_eq!((code, &error["error"]["reason"]), (1, &json!("store")), "{error}");
    assert_eq!(host.wait(), Some(1));
    assert!(host.log().contains("error: the store stopped"), "{}", host.log());
    assert!(!host.dir.join("serve.json").exists());
}
