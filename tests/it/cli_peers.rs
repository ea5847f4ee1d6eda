//! Peers through the real program: who is named how, and what each may do.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cli::{Lab, keys};

/// A lab with `alpha` and an unverified hub called `hub` among its peers; the hub's key ID.
fn with_hub() -> (Lab, String) {
    let lab = Lab::with_alpha();
    let key = lab.init("hub");
    let words = ["peer", "add", "--key-id", &key, "--instance-id", "hub", "--url", "https://127.0.0.1:1"];
    lab.json("alpha", &words);
    (lab, key)
}

fn given(peer: &Value) -> &Value {
    &peer["grants"]["given"]
}

#[test]
fn an_added_peer_is_unverified_until_its_key_was_compared() {
    let (lab, key) = with_hub();
    assert_eq!(lab.json("alpha", &["peer", "show", "hub"])["verified"], json!(false));
    let stranger = lab.init("stranger");
    let wrong = lab.run("alpha", &["peer", "verify", "hub", "--key-id", &stranger]);
    assert_eq!(wrong.code, 12, "{}", wrong.stderr);
    assert_eq!(lab.json("alpha", &["peer", "verify", "hub", "--key-id", &key])["verified"], json!(true));
    assert_eq!(lab.json("alpha", &["peer", "unverify", "hub"])["verified"], json!(false));
}

#[test]
fn sixteen_tokens_can_be_used_at_a_time_and_a_cancelled_one_makes_room() {
    let lab = Lab::with_alpha();
    let tokens: Vec<_> = (0..16).map(|_| lab.json("alpha", &["pair", "token", "--ttl", "7d"])).collect();
    let refused = lab.run("alpha", &["--json", "pair", "token"]);
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!((refused.code, &error["error"]["reason"]), (1, &json!("limit")));
    lab.json("alpha", &["pair", "cancel", tokens[3]["id"].as_str().unwrap()]);
    lab.json("alpha", &["pair", "token"]);
}

#[test]
fn a_peer_is_found_by_name_key_and_the_start_of_its_key() {
    let (lab, key) = with_hub();
    for name in ["hub", &key, &key[..16]] {
        assert_eq!(lab.json("alpha", &["peer", "show", name])["key_id"], json!(key), "{name}");
    }
    for name in ["nobody", &key[..6]] {
        let unknown = lab.run("alpha", &["peer", "show", name, "--json"]);
        assert_eq!(unknown.code, 1);
        let error: Value = serde_json::from_str(&unknown.stderr).unwrap();
        assert_eq!(error["error"]["reason"], json!("unknown_peer"), "{name}");
    }
    lab.json("alpha", &["peer", "rename", "hub", "home"]);
    assert_eq!(lab.json("alpha", &["peer", "show", "home"])["key_id"], json!(key));
}

#[test]
fn grants_are_replaced_and_revoked_by_exactly_what_is_listed() {
    let (lab, _) = with_hub();
    let grant = |text: &str| lab.json("alpha", &["peer", "grant", "hub", text]);
    grant("READ_OPERATIONS:*");
    let narrowed = grant("READ_OPERATIONS:repo:a,repo:b");
    assert_eq!(given(&narrowed), &json!(["READ_OPERATIONS:repo:a,repo:b"]));

    let unlisted = lab.run("alpha", &["peer", "revoke", "hub", "READ_OPERATIONS:repo:c"]);
    assert_eq!(unlisted.code, 2);
    assert!(unlisted.stderr.contains("!repo:c"), "{}", unlisted.stderr);
    let less = lab.json("alpha", &["peer", "revoke", "hub", "READ_OPERATIONS:repo:a"]);
    assert_eq!(given(&less), &json!(["READ_OPERATIONS:repo:b"]));
    let none = lab.json("alpha", &["peer", "revoke", "hub", "READ_OPERATIONS:repo:b"]);
    assert_eq!(given(&none), &json!([]));
    assert_eq!(lab.run("alpha", &["peer", "grant", "hub", "READ_OPERATIONS:!plan:x"]).code, 2);
    assert!(lab.run("alpha", &["peer", "show", "hub"]).stdout.contains("grants nothing"));
}

#[test]
fn what_is_taken_in_from_a_peer_is_set_shown_and_kept_apart_from_how_it_is_reached() {
    let (lab, _) = with_hub();
    let set = |scopes: &str| lab.json("alpha", &["peer", "set", "hub", "--accept", scopes]);
    assert_eq!(set("repo:a,!plan:p")["accepted_scopes"], json!("repo:a,!plan:p"));
    let shown = lab.run("alpha", &["peer", "show", "hub"]).stdout;
    assert!(shown.contains("repo:a,!plan:p"), "{shown}");
    let moved = lab.json("alpha", &["peer", "set", "hub", "--url", "https://127.0.0.1:2"]);
    assert_eq!(moved["accepted_scopes"], json!("repo:a,!plan:p"));
    assert_eq!(set("*")["urls"], json!(["https://127.0.0.1:2"]));
    for wrong in ["", "!plan:p", "everything"] {
        assert_eq!(lab.run("alpha", &["peer", "set", "hub", "--accept", wrong]).code, 2, "{wrong:?}");
    }
    assert_eq!(lab.run("alpha", &["peer", "set", "hub"]).code, 2);
}

#[test]
fn a_blocked_peer_says_why_and_every_step_is_audited() {
    let (lab, key) = with_hub();
    let blocked = lab.json("alpha", &["peer", "block", "hub", "--reason", "stolen"]);
    assert_eq!((&blocked["blocked"], &blocked["blocked_reason"]), (&json!(true), &json!("stolen")));
    assert_eq!(lab.json("alpha", &["peer", "unblock", "hub"])["blocked"], json!(false));
    let unsure = lab.run("alpha", &["peer", "remove", "hub"]);
    assert_eq!(unsure.code, 2);
    assert!(unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    assert_eq!(lab.run("alpha", &["peer", "remove", "hub", "--yes"]).code, 0);
    assert_eq!(lab.json("alpha", &["peer", "list"]), json!([]));

    let audit = lab.json("alpha", &["audit"]);
    let records = audit.as_array().unwrap();
    assert_eq!(records[0]["event"], json!("initialized"));
    let about = records[1..].iter().all(|record| record["key_id"] == json!(key));
    assert!(records.len() >= 5 && about, "{audit:#}");
    assert_eq!(keys(&records[0]).join(" "), "id at_unix_ms event key_id detail chain");
    assert_eq!(lab.json("alpha", &["audit", "--verify"])["equal"], json!(true));
}

#[test]
fn a_conflict_that_does_not_exist_cannot_be_resolved() {
    let (lab, _) = with_hub();
    assert_eq!(lab.run("alpha", &["peer", "resolve", "hub"]).code, 2);
    assert_eq!(lab.run("alpha", &["peer", "resolve", "hub", "--refuse", "--accept-presented"]).code, 2);
    let nothing = lab.run("alpha", &["peer", "resolve", "hub", "--refuse"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (1, ""));
}

#[test]
fn tokens_are_listed_without_their_secret_and_can_be_cancelled() {
    let lab = Lab::with_alpha();
    let created = lab.json("alpha", &["pair", "token", "--label", "web", "--uses", "3", "--ttl", "1h"]);
    assert_eq!(keys(&created).join(" "), "token id expires_unix_ms grants");
    let tokens = lab.json("alpha", &["pair", "tokens"]);
    assert_eq!((&tokens[0]["label"], &tokens[0]["uses_left"]), (&json!("web"), &json!(3)));
    assert!(tokens[0].get("token").is_none());
    assert_eq!(lab.run("alpha", &["pair", "cancel", created["id"].as_str().unwrap()]).code, 0);
    assert_eq!(lab.json("alpha", &["pair", "tokens"]), json!([]));
    assert_eq!(lab.run("alpha", &["pair", "cancel", "99"]).code, 1);
}

#[test]
fn a_host_without_a_daemon_pairs_by_the_command_itself() {
    let lab = Lab::new();
    lab.init("hub");
    lab.init("web");
    let hub = lab.serve("hub", &["--listen", "127.0.0.1:0"]);
    let url = format!("https://{}", hub.address());
    let token = lab.path("token");
    std::fs::write(&token, lab.run("hub", &["pair", "token"]).stdout).unwrap();
    let from_file = format!("@{}", token.display());
    let joined = lab.json("web", &["pair", "join", &from_file, "--url", &url]);
    assert_eq!(joined["state"], json!("paired"));
    let again = lab.json("web", &["pair", "join", &from_file, "--url", &url]);
    assert_eq!(again["state"], json!("already_paired"));
    assert_eq!(lab.json("hub", &["peer", "list"])[0]["instance_id"], json!("web"));
}

#[test]
fn joining_without_waiting_pairs_when_the_daemon_reaches_the_hub() {
    let lab = Lab::new();
    lab.init("hub");
    lab.init("web");
    let hub = lab.serve("hub", &["--listen", "127.0.0.1:0"]);
    let url = format!("https://{}", hub.address());
    let token = lab.run("hub", &["pair", "token"]).stdout;
    let joined = lab.json("web", &["pair", "join", token.trim(), "--url", &url, "--no-wait"]);
    assert_eq!(joined["state"], json!("waiting"));
    let _web = lab.serve("web", &["--listen", "none"]);
    crate::cli::eventually("the hub knows the host", || {
        lab.json("hub", &["peer", "list"]).as_array().filter(|peers| peers.len() == 1).map(drop)
    });
}

#[test]
fn watching_needs_a_daemon_and_prints_a_line_for_each_change() {
    let (lab, key) = with_hub();
    let refused = lab.run("alpha", &["peer", "watch"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (10, ""));
    let _daemon = lab.serve("alpha", &["--listen", "none"]);
    let mut watch = lab.command("alpha", &["peer", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!(keys(&first), ["event", "peer"]);
    assert_eq!((&first["event"], &first["peer"]["state"]), (&json!("snapshot"), &json!("unverified")));
    assert_eq!(next(), json!({"event": "synced", "peer": null}));
    lab.json("alpha", &["peer", "block", "hub", "--reason", "not ours"]);
    let blocked = next();
    assert_eq!((&blocked["event"], &blocked["peer"]["state"]), (&json!("changed"), &json!("blocked")));
    lab.json("alpha", &["peer", "remove", "hub", "--yes"]);
    let removed = next();
    assert_eq!((&removed["event"], &removed["peer"]["key_id"]), (&json!("removed"), &json!(key)));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
