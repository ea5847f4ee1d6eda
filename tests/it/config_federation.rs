//! Repositories and plans between real processes: shown, pushed and shared, and what Backrest gets wrong about it.
//!
//! Numbers like #31 are those of Backrest's list of defects at HEAD.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fleet::{Instance, until};

/// Stands in every secret; nobody but its owner may have it.
const CANARY: &str = "canary-7f3e9a";

/// What a command said.
struct Said {
    code: i32,
    verdict: Value,
    stderr: String,
}

/// Runs `config apply` or `config push` with this document.
fn give(instance: &Instance, words: &[&str], document: &Value) -> Said {
    let mut all = vec!["--json", "config"];
    all.extend_from_slice(words);
    all.extend_from_slice(&["-f", "-"]);
    let mut child = instance
        .command(&all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        verdict: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn apply(instance: &Instance, document: &Value) {
    let said = give(instance, &["apply"], document);
    assert_eq!(said.code, 0, "{}{}", said.verdict, said.stderr);
}

fn push(hub: &Instance, host: &Instance, document: &Value) -> Said {
    give(hub, &["push", &host.name], document)
}

fn repo(id: &str) -> Value {
    json!({
        "id": id, "uri": format!("rest:https://user:{CANARY}@nas.example/{id}"), "password": format!("{CANARY}-{id}"),
        "env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": CANARY}],
        "hooks": [{"name": "mail", "condition": "error", "command": format!("mail -s {CANARY} root")}],
        "schedule": "weekly", "retention": {"daily": 7},
    })
}

fn plan(id: &str, repo: &str) -> Value {
    json!({"id": id, "repo": repo, "paths": ["/home"], "schedule": "daily",
        "hooks": [{"name": "done", "command": format!("curl https://x/{CANARY}")}]})
}

/// The ids of what a document lists.
fn ids(document: &Value, kind: &str) -> Vec<String> {
    let listed = document[kind].as_array().cloned().unwrap_or_default();
    listed.iter().map(|object| object["id"].as_str().unwrap().to_owned()).collect()
}

/// What the hub is shown of the host; null when nothing.
fn shown(hub: &Instance, host: &Instance) -> Value {
    let output = hub.run(&["--json", "config", "get", "--host", &host.name]);
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn until_shown(hub: &Instance, host: &Instance, repos: &[&str], plans: &[&str]) -> Value {
    until(&format!("{} shows {repos:?} and {plans:?}", host.name), || {
        let document = shown(hub, host);
        ids(&document, "repos") == repos && ids(&document, "plans") == plans
    });
    shown(hub, host)
}

fn find<'a>(document: &'a Value, kind: &str, id: &str) -> &'a Value {
    document[kind].as_array().unwrap().iter().find(|object| object["id"] == id).unwrap_or(&Value::Null)
}

#[test]
fn an_expected_modno_is_exact() {
    let host = Instance::new("web");
    let document = json!({"repos": [repo("nas")]});
    assert_eq!(give(&host, &["apply", "--expect-modno", "0"], &document).code, 0);
    let stale = give(&host, &["apply", "--expect-modno", "0"], &json!({"repos": [repo("other")]}));
    assert_eq!(
        (stale.code, &stale.verdict["verdict"]),
        (1, &json!("stale")),
        "{}{}",
        stale.verdict,
        stale.stderr
    );
    let now = host.json(&["config", "get"]);
    assert_eq!((ids(&now, "repos"), &now["modno"]), (vec!["nas".to_owned()], &json!("1")));
    assert_eq!(give(&host, &["apply", "--expect-modno", "1"], &json!({"repos": [repo("other")]})).code, 0);
}

/// The details of the audit records of one kind.
fn audited(instance: &Instance, event: &str) -> Vec<String> {
    let records = instance.json(&["audit"]);
    let records = records.as_array().unwrap().iter().filter(|record| record["event"] == event);
    records.map(|record| record["detail"].as_str().unwrap().to_owned()).collect()
}

/// Whether the stored bytes of a stopped instance hold a text.
fn stored(instance: &Instance, text: &str) -> bool {
    let files = ["opmesh.db", "opmesh.db-wal"].map(|name| std::fs::read(instance.dir.join(name)));
    files.into_iter().flatten().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

/// A hub that serves, and a host that is paired with it and serves.
fn pair(grants: &[&str]) -> (Instance, Instance) {
    let (mut hub, mut host) = (Instance::new("hub"), Instance::new("web"));
    let url = hub.serve_hub("127.0.0.1:0");
    host.join(&hub, &url, grants);
    host.serve("none");
    until("they are connected", || host.peer("known_host")["state"] == "live");
    (hub, host)
}

#[test]
fn what_is_shown_follows_the_grants_and_each_change_and_never_has_a_secret() {
    let (mut hub, mut host) = pair(&["READ_OPERATIONS:*", "READ_CONFIG:repo:nas,!plan:private"]);
    let objects = json!({"repos": [repo("nas"), repo("usb")],
        "plans": [plan("home", "nas"), plan("private", "nas"), plan("music", "usb")]});
    apply(&host, &objects);
    let first = until_shown(&hub, &host, &["nas"], &["home"]);
    assert_eq!(first["modno"], "1");
    let nas = find(&first, "repos", "nas");
    assert_eq!(nas["uri"], "rest:https://***@nas.example/nas");
    assert_eq!(nas["password"], json!({"redacted": true}));
    assert_eq!(nas["retention"]["daily"], 7);

    apply(&host, &json!({"plans": [plan("etc", "nas")]}));
    let second = until_shown(&hub, &host, &["nas"], &["etc", "home"]);
    assert_eq!(second["modno"], "2");
    apply(&host, &json!({"delete": {"plans": ["home"]}}));
    until_shown(&hub, &host, &["nas"], &["etc"]);

    // Grants that change while the session lives.
    host.ok(&["peer", "grant", "hub", "READ_CONFIG:*"]);
    until_shown(&hub, &host, &["nas", "usb"], &["etc", "music", "private"]);
    let view = hub.json(&["peer", "show", "web"]);
    assert_eq!(ids(&view["config"]["shows"], "repos"), ["nas", "usb"]);
    let view = host.json(&["peer", "show", "hub"]);
    assert_eq!(ids(&view["config"]["shown"], "plans"), ["etc", "music", "private"]);
    host.ok(&["peer", "revoke", "hub", "READ_CONFIG"]);
    until("nothing is shown any more", || shown(&hub, &host) == Value::Null);
    assert_eq!(hub.code(&["config", "get", "--host", "web"]), 1);

    hub.stop("TERM");
    host.stop("TERM");
    assert!(stored(&host, CANARY) && stored(&host, "music"), "the search finds what is there");
    assert!(!stored(&hub, CANARY) && !hub.log().contains(CANARY) && !host.log().contains(CANARY));
}

#[test]
fn what_changed_while_apart_is_shown_after_the_next_connect() {
    let (mut hub, mut host) = pair(&["READ_CONFIG:*"]);
    apply(&host, &json!({"repos": [repo("nas")], "plans": [plan("home", "nas")]}));
    until_shown(&hub, &host, &["nas"], &["home"]);
    host.stop("TERM");
    apply(&host, &json!({"delete": {"repos": ["nas"], "plans": ["home"]}}));
    assert_eq!(ids(&shown(&hub, &host), "repos"), ["nas"], "what was shown last stays while apart");
    host.serve("none");
    until("an empty config is shown, too", || shown(&hub, &host)["modno"] == "2");
    assert_eq!(ids(&shown(&hub, &host), "repos"), Vec::<String>::new());
    hub.stop("TERM");
}

#[test]
fn a_push_is_applied_unchanged_stale_or_refused_and_both_sides_have_it_in_their_audit() {
    let (hub, mut host) = pair(&["READ_OPERATIONS:*", "READ_WRITE_CONFIG:repo:nas,!plan:private"]);
    apply(
        &host,
        &json!({"repos": [repo("nas"), repo("usb")], "plans": [plan("home", "nas"), plan("private", "nas")]}),
    );
    let mut document = until_shown(&hub, &host, &["nas"], &["home"]);
    document["plans"][0]["schedule"] = json!("hourly");
    let said = push(&hub, &host, &document);
    assert_eq!(
        (said.code, &said.verdict["verdict"], &said.verdict["modno"]),
        (0, &json!("applied"), &json!("2"))
    );
    let own = host.json(&["config", "get", "--secrets"]);
    assert_eq!(find(&own, "plans", "home")["schedule"], "hourly");
    assert_eq!(find(&own, "repos", "nas")["password"], format!("{CANARY}-nas"), "what was not shown is kept");
    assert!(!find(&own, "repos", "usb").is_null() && !find(&own, "plans", "private").is_null());

    let said = push(&hub, &host, &document);
    assert_eq!((said.code, &said.verdict["verdict"]), (1, &json!("stale")));
    assert_eq!((&said.verdict["modno"], &said.verdict["base_modno"]), (&json!("2"), &json!("1")));
    let said = hub.command(&["config", "push", "web", "-f", "-"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(said.status.code(), Some(2), "nothing is no document");

    until("the new state is shown", || shown(&hub, &host)["modno"] == "2");
    let said = push(&hub, &host, &shown(&hub, &host));
    assert_eq!(
        (said.code, &said.verdict["verdict"], &said.verdict["modno"]),
        (0, &json!("unchanged"), &json!("2"))
    );

    let mut hook = shown(&hub, &host);
    hook["plans"][0]["hooks"] = json!([{"name": "evil", "command": "rm -rf /"}]);
    let said = push(&hub, &host, &hook);
    assert_eq!((said.code, &said.verdict["rule"]), (4, &json!("executable")), "{}", said.verdict);
    assert!(said.verdict["reason"].as_str().unwrap().contains("sharing.allow_hooks"), "{}", said.verdict);
    let said = push(&hub, &host, &json!({"plans": [{"id": "new", "repo": "usb"}]}));
    assert_eq!((said.code, &said.verdict["rule"]), (4, &json!("out_of_scope")), "{}", said.verdict);
    assert_eq!(host.json(&["config", "get"])["modno"], "2");

    // #37: a trail on both sides.
    let asked = audited(&hub, "config_pushed");
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked[0].contains("applied") && asked[1].contains("stale") && asked[3].contains("executable"));
    let judged = audited(&host, "config_changed");
    assert!(judged.iter().any(|detail| detail.contains("home")), "{judged:?}");
    let refused = audited(&host, "config_refused");
    assert!(refused.iter().any(|detail| detail.contains("executable")), "{refused:?}");

    host.stop("TERM");
    let said = push(&hub, &host, &document);
    assert_eq!(said.code, 10, "{}", said.stderr);
    assert!(said.stderr.contains("peer show"), "{}", said.stderr);
}

/// #31: Backrest checks the permission on the id that comes in, and overwrites what the guid names.
#[test]
fn a_push_that_names_another_repository_by_its_guid_is_judged_by_that_one() {
    let (hub, host) = pair(&["READ_OPERATIONS:*", "READ_WRITE_CONFIG:repo:nas"]);
    apply(&host, &json!({"repos": [repo("nas"), repo("usb")]}));
    until_shown(&hub, &host, &["nas"], &[]);
    let before = host.json(&["config", "get", "--secrets"]);
    let guid = &find(&before, "repos", "usb")["guid"];
    for id in ["nas", "usb", "nas-2"] {
        let attack = json!({"repos": [{"id": id, "guid": guid, "uri": "rest:https://evil.example/x"}]});
        let said = push(&hub, &host, &attack);
        assert_eq!((said.code, &said.verdict["rule"]), (4, &json!("out_of_scope")), "{id}: {}", said.verdict);
    }
    assert_eq!(host.json(&["config", "get", "--secrets"]), before);
}

#[test]
fn a_peer_that_may_only_read_changes_nothing() {
    let (hub, host) = pair(&["READ_CONFIG:*"]);
    apply(&host, &json!({"repos": [repo("nas")], "plans": [plan("home", "nas")]}));
    let mut document = until_shown(&hub, &host, &["nas"], &["home"]);
    document["plans"][0]["schedule"] = json!("hourly");
    let said = push(&hub, &host, &document);
    assert_eq!((said.code, &said.verdict["rule"]), (4, &json!("out_of_scope")), "{}", said.verdict);
    host.ok(&["peer", "grant", "hub", "READ_WRITE_CONFIG:*"]);
    until("the hub may write", || {
        let said = push(&hub, &host, &document);
        said.code == 0 && said.verdict["verdict"] == "applied"
    });
    host.ok(&["peer", "revoke", "hub", "READ_WRITE_CONFIG"]);
    document["modno"] = json!("2");
    document["plans"][0]["schedule"] = json!("weekly");
    // Ended or refused, in whatever order the two commands arrive.
    let said = push(&hub, &host, &document);
    assert!(said.code == 4 || said.code == 10, "{}{}", said.verdict, said.stderr);
    let own = host.json(&["config", "get"]);
    assert_eq!((&own["modno"], &own["plans"][0]["schedule"]), (&json!("2"), &json!("hourly")));
}

/// Of the received repositories of a host: id and whether they are withdrawn.
fn received(host: &Instance) -> Vec<(String, bool)> {
    let own = host.json(&["config", "get"]);
    let repos = own["repos"].as_array().unwrap().iter().filter(|repo| !repo["origin"].is_null());
    repos.map(|repo| (repo["id"].as_str().unwrap().to_owned(), repo["origin"]["withdrawn"] == true)).collect()
}

fn until_received(host: &Instance, expected: &[(&str, bool)]) {
    let expected: Vec<_> = expected.iter().map(|(id, withdrawn)| ((*id).to_owned(), *withdrawn)).collect();
    until(&format!("{} has {expected:?}", host.name), || received(host) == expected);
}

fn shareable(id: &str) -> Value {
    json!({"id": id, "uri": format!("rest:https://nas.example/{id}"), "password": format!("{CANARY}-{id}"), "shared": true})
}

/// #32: what Backrest lets a host run, and what it shares onward.
#[test]
fn shared_repositories_come_to_whoever_wants_them_without_anything_that_runs_and_go_no_further() {
    let (hub, mut host) = pair(&["READ_OPERATIONS:*"]);
    let mut hooked = shareable("hooked");
    hooked["hooks"] = json!([{"name": "evil", "command": "rm -rf /"}]);
    hooked["command_prefix"] = json!(["sh", "-c"]);
    let mut env = shareable("env");
    env["env"] = json!([{"name": "RESTIC_PASSWORD_COMMAND", "value": "rm -rf /"}]);
    apply(&hub, &json!({"repos": [shareable("vault"), hooked, env, repo("own")]}));
    hub.ok(&["peer", "grant", "web", "RECEIVE_SHARED_REPOS:*"]);
    host.ok(&["peer", "grant", "hub", "RECEIVE_SHARED_REPOS:repo:vault"]);
    until_received(&host, &[("vault", false)]);
    host.ok(&["peer", "grant", "hub", "RECEIVE_SHARED_REPOS:*"]);
    until_received(&host, &[("hooked", false), ("vault", false)]);

    let own = host.json(&["config", "get", "--secrets"]);
    let hooked = find(&own, "repos", "hooked");
    assert_eq!((&hooked["hooks"], &hooked["command_prefix"]), (&json!([]), &json!([])));
    assert_eq!(find(&own, "repos", "vault")["password"], format!("{CANARY}-vault"));
    assert_eq!(find(&own, "repos", "vault")["shared"], false);
    until("the hub knows what was refused", || {
        let refused = &hub.json(&["peer", "show", "web"])["config"]["offered"]["refused"];
        refused[0]["rule"] == "executable" && refused[0]["reason"].as_str().unwrap().contains("allow_env")
    });

    // Read-only here.
    let mut vault = find(&own, "repos", "vault").clone();
    vault["uri"] = json!("/elsewhere");
    let said = give(&host, &["apply"], &json!({"repos": [vault]}));
    assert_eq!(
        (said.code, &said.verdict["rule"]),
        (1, &json!("read_only")),
        "{}{}",
        said.verdict,
        said.stderr
    );

    // Shared onward: never, even by an instance that is a hub itself.
    let mut vault = find(&own, "repos", "vault").clone();
    vault["shared"] = json!(true);
    assert_eq!(give(&host, &["apply"], &json!({"repos": [vault]})).verdict["rule"], "read_only");
    host.stop("TERM");
    // What runs programs comes only by name.
    let allowed = "[sharing]\nallow_env = [\"RESTIC_PASSWORD_COMMAND\"]\n";
    std::fs::write(host.dir.join("opmesh.toml"), allowed).unwrap();
    let url = host.serve_hub("127.0.0.1:0");
    until_received(&host, &[("env", false), ("hooked", false), ("vault", false)]);
    let mut far = Instance::new("far");
    far.join(&host, &url, &["RECEIVE_SHARED_REPOS:*"]);
    far.serve("none");
    host.ok(&["peer", "grant", "far", "RECEIVE_SHARED_REPOS:*"]);
    apply(&host, &json!({"repos": [shareable("mine")]}));
    until_received(&far, &[("mine", false)]);
}

/// #36: what Backrest deletes silently.
#[test]
fn unsharing_or_removing_the_hub_deletes_no_repository_and_no_plan() {
    let (hub, host) = pair(&["READ_OPERATIONS:*", "RECEIVE_SHARED_REPOS:*"]);
    apply(&hub, &json!({"repos": [shareable("a"), shareable("b")]}));
    hub.ok(&["peer", "grant", "web", "RECEIVE_SHARED_REPOS:*"]);
    until_received(&host, &[("a", false), ("b", false)]);
    apply(&host, &json!({"plans": [plan("home", "a"), plan("etc", "b")]}));
    let mut unshared = shareable("a");
    unshared["shared"] = json!(false);
    apply(&hub, &json!({"repos": [unshared]}));
    until_received(&host, &[("a", true), ("b", false)]);
    let view = host.json(&["peer", "show", "hub"]);
    assert_eq!(view["config"]["received"][0]["withdrawn"], true);
    apply(&hub, &json!({"repos": [shareable("a")]}));
    until_received(&host, &[("a", false), ("b", false)]);

    // Un-shared by taking the grant back while connected.
    hub.ok(&["peer", "revoke", "web", "RECEIVE_SHARED_REPOS"]);
    until_received(&host, &[("a", true), ("b", true)]);
    host.ok(&["peer", "remove", "hub", "--yes"]);
    let own = host.json(&["config", "get"]);
    assert_eq!(
        (ids(&own, "repos"), ids(&own, "plans")),
        (vec!["a".into(), "b".into()], vec!["etc".into(), "home".into()])
    );
    assert_eq!(received(&host), [("a".to_owned(), true), ("b".to_owned(), true)]);
    assert!(!find(&host.json(&["config", "get", "--secrets"]), "repos", "a")["password"].is_null());

    // Deleting is the operator's.
    let said = give(&host, &["apply"], &json!({"delete": {"repos": ["a"]}}));
    assert_eq!((said.code, &said.verdict["rule"]), (1, &json!("repo_in_use")), "{}", said.verdict);
    apply(&host, &json!({"delete": {"repos": ["a"], "plans": ["home"]}}));
    assert_eq!(received(&host), [("b".to_owned(), true)]);
}
