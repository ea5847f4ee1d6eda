//! `opmesh doctor` on real processes and sockets: each fault is provoked, and its cause must be named.

mod between;
mod hubs;
mod machine;

use std::process::Output;
use std::time::Duration;

use opmesh_core::protocol::Room;
use serde_json::Value;

use crate::fleet::{Instance, create, until, until_equal};
use between::{Cut, Nginx, relay, service};
use hubs::{Act, Hub};

/// What a doctor found.
struct Found {
    code: Option<i32>,
    diagnosis: Value,
}

impl Found {
    fn of(output: Output) -> Self {
        let diagnosis = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        });
        Self { code: output.status.code(), diagnosis }
    }

    /// The cause is this check on this side, with these words in what was seen and in the next step.
    #[track_caller]
    fn names(&self, cause: &str, side: &str, seen: &str, next: &str) {
        let all = &self.diagnosis;
        assert_eq!(
            (all["verdict"].as_str(), all["cause"].as_str(), all["side"].as_str(), self.code),
            (Some("fail"), Some(cause), Some(side), Some(20)),
            "{all:#}"
        );
        let check = self.check(cause);
        assert!(check["seen"].as_str().unwrap().contains(seen), "{check:#}");
        assert!(all["next"].as_str().unwrap().contains(next), "{all:#}");
    }

    /// The check with this name that is worst.
    fn check(&self, id: &str) -> &Value {
        let all = self.diagnosis["checks"].as_array().unwrap();
        let of = |state: &str| all.iter().find(|check| check["id"] == id && check["state"] == state);
        ["fail", "warning", "ok", "skipped"]
            .into_iter()
            .find_map(of)
            .unwrap_or_else(|| panic!("no {id} in {:#}", self.diagnosis))
    }

    fn state(&self, id: &str) -> &str {
        self.check(id)["state"].as_str().unwrap()
    }
}

fn doctor(instance: &Instance, patient: &[&str]) -> Found {
    Found::of(instance.run(&[&["--json", "doctor"], patient].concat()))
}

/// A host whose list has this hub, vouched for, and nothing more.
fn host_of(key: impl ToString, url: &str) -> Instance {
    let host = Instance::new("web");
    let key = key.to_string();
    let mut add = vec!["peer", "add", "--key-id", &key, "--instance-id", "hub", "--url", url];
    add.extend_from_slice(&["--grant", "READ_OPERATIONS:*"]);
    if url.starts_with("http://") {
        add.extend_from_slice(&["--channel", "plain"]);
    }
    host.ok(&add);
    host.ok(&["peer", "verify", &key, "--key-id", &key]);
    host
}

fn key(instance: &Instance) -> String {
    instance.json(&["status"])["key_id"].as_str().unwrap().to_owned()
}

/// A hub that serves, and a host that is paired with it and has no daemon.
fn pair() -> (Instance, Instance, String) {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("127.0.0.1:0");
    let web = Instance::new("web");
    web.join(&hub, &url, &[]);
    (hub, web, url)
}

fn authority(url: &str) -> &str {
    url.split_once("://").unwrap().1
}

#[test]
fn a_healthy_pair_is_well_on_both_sides_and_no_session_is_disturbed() {
    let (hub, mut web, _) = pair();
    web.serve("none");
    web.apply(&create("nas", "home", "one"));
    until_equal(&hub, &web);
    until("the host is live", || web.peer("known_host")["state"] == "live");
    let ended = |instance, peer| doctor(instance, &[peer]).check("cuts")["seen"].clone();
    let before = (ended(&hub, "web"), ended(&web, "hub"));
    for _ in 0..3 {
        for (instance, patient) in [(&web, &["hub"][..]), (&hub, &["web"]), (&web, &[]), (&hub, &[])] {
            let found = doctor(instance, patient);
            assert_eq!(
                (found.code, found.diagnosis["verdict"].as_str()),
                (Some(0), Some("ok")),
                "{:#}",
                found.diagnosis
            );
        }
    }
    assert_eq!((ended(&hub, "web"), ended(&web, "hub")), before, "no session has ended meanwhile");
    assert_eq!(doctor(&web, &["hub"]).check("connection")["seen"], "connected, nothing is missing");
}

#[test]
fn without_a_daemon_the_same_is_looked_at_and_its_absence_pointed_out() {
    let (_hub, web, _) = pair();
    let found = doctor(&web, &["hub"]);
    assert_eq!((found.code, found.diagnosis["cause"].as_str()), (Some(0), Some("connection")));
    assert_eq!((found.state("admission"), found.state("peer_clock")), ("ok", "ok"));
    let found = doctor(&web, &[]);
    assert_eq!((found.code, found.diagnosis["cause"].as_str()), (Some(0), Some("daemon")));
    let text = web.run(&["doctor", "hub"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("ok       hub         admission     this instance is let in by hub\n"), "{text}");
    assert!(text.contains("The cause: connection (this side)\n"), "{text}");
}

#[test]
fn a_port_where_nothing_listens_is_named() {
    let (mut hub, web, _) = pair();
    hub.stop("TERM");
    doctor(&web, &["hub"]).names("tcp", "peer", "nothing listens on port", "opmesh serve");
}

#[test]
fn a_name_that_does_not_exist_is_named() {
    let web = host_of(key(&Instance::new("hub")), "https://no-such-hub.invalid:9850");
    doctor(&web, &["hub"]).names("name", "network", "no-such-hub.invalid", "correct the name");
}

#[test]
fn a_port_that_a_web_server_has_is_named() {
    let nginx = Nginx::web_server();
    let web = host_of(key(&Instance::new("hub")), &format!("https://{}", nginx.address));
    doctor(&web, &["hub"]).names("channel", "peer", "a web server answers", "something else has this port");
}

#[test]
fn a_port_that_another_service_has_is_named_by_its_own_words() {
    let ssh = service(b"SSH-2.0-OpenSSH_9.2\r\n");
    let web = host_of(key(&Instance::new("hub")), &format!("https://{ssh}"));
    doctor(&web, &["hub"]).names("channel", "peer", "SSH-2.0-OpenSSH_9.2", "peer set hub --url");
}

#[test]
fn a_plain_port_dialled_with_tls_is_named() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("plain://127.0.0.1:0");
    let web = host_of(key(&hub), &url);
    doctor(&web, &["hub"]).names("channel", "peer", "HTTP/2 without TLS", "--listen tls://");
}

#[test]
fn a_tls_port_dialled_as_plain_is_named() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("127.0.0.1:0").replace("https://", "http://");
    let web = host_of(key(&hub), &url);
    doctor(&web, &["hub"]).names("channel", "peer", "answers with TLS", "--channel tls");
}

#[test]
fn a_proxy_that_ends_tls_in_front_of_the_hub_is_named() {
    let (_hub, web, url) = pair();
    for (versions, seen) in [
        (
            "TLSv1.3",
            "TLS ends before the hub: TLS 1.3, ALPN h2, with a certificate that carries no key of opmesh",
        ),
        (
            "TLSv1.2",
            "TLS ends before the hub: TLS 1.2, ALPN h2, with a certificate that carries no key of opmesh",
        ),
    ] {
        let nginx = Nginx::ending_tls(authority(&url), versions);
        web.ok(&["peer", "set", "hub", "--url", &format!("https://{}", nginx.address)]);
        doctor(&web, &["hub"]).names("channel", "network", seen, "use the sealed channel");
    }
}

#[test]
fn a_sealed_hub_behind_a_proxy_is_well_and_another_channel_is_named() {
    let mut hub = Instance::new("hub");
    let direct = hub.serve_hub("sealed://127.0.0.1:0");
    let nginx = Nginx::before_sealed(authority(&direct));
    let url = format!("https://{}", nginx.address);
    let web = Instance::new("web");
    let token = hub.ok(&["pair", "token"]);
    web.ok(&["pair", "join", token.trim(), "--url", &url, "--channel", "sealed"]);
    let found = doctor(&web, &["hub"]);
    assert_eq!(found.diagnosis["cause"], "connection", "{:#}", found.diagnosis);
    assert!(found.check("channel")["seen"].as_str().unwrap().contains("sealed inside"));
    assert_eq!(
        (found.state("stream"), found.state("admission"), found.state("peer_clock")),
        ("ok", "ok", "ok")
    );

    let (_open, web, url) = pair();
    web.ok(&["peer", "set", "hub", "--url", &url, "--channel", "sealed"]);
    doctor(&web, &["hub"]).names(
        "channel",
        "peer",
        "the channel of this listener is tls",
        "peer set hub --channel",
    );
}

#[test]
fn a_wrong_pin_is_named_with_both_keys() {
    let mut other = Instance::new("other");
    let url = other.serve_hub("127.0.0.1:0");
    let expected = key(&Instance::new("hub"));
    let web = host_of(&expected, &url);
    let found = doctor(&web, &["hub"]);
    found.names("key_pin", "here", &key(&other), "opmesh key show");
    assert!(found.check("key_pin")["seen"].as_str().unwrap().contains(&expected));
    assert_eq!(found.state("channel"), "ok");
}

#[test]
fn an_unknown_key_is_turned_away_and_the_hub_says_why() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("127.0.0.1:0");
    let web = host_of(key(&hub), &url);
    let own = key(&web);
    let nobody = doctor(&hub, &[&own]);
    nobody.names("entry", "here", "no refusal of it is recorded", "opmesh pair token");
    doctor(&web, &["hub"]).names("admission", "peer", "tells no dialer why", &format!("opmesh doctor {own}"));
    doctor(&hub, &[&own]).names(
        "refusal",
        "here",
        "under the name web: its key is not listed",
        "opmesh pair token",
    );
}

#[test]
fn an_unverified_key_is_named_on_the_hub_and_on_the_host() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("127.0.0.1:0");
    let web = host_of(key(&hub), &url);
    let own = key(&web);
    hub.ok(&["peer", "add", "--key-id", &own, "--instance-id", "web"]);
    doctor(&web, &["hub"]).names("admission", "peer", "turns us away", &format!("opmesh doctor {own}"));
    let next = format!("opmesh peer verify web --key-id {own}");
    doctor(&hub, &["web"]).names("verified", "here", "nobody here has vouched", &next);
    hub.ok(&["peer", "verify", "web", "--key-id", &own]);
    assert_eq!(doctor(&web, &["hub"]).state("admission"), "ok");

    let unverified = Instance::new("web2");
    unverified.ok(&["peer", "add", "--key-id", &key(&hub), "--instance-id", "hub", "--url", &url]);
    let found = doctor(&unverified, &["hub"]);
    found.names("verified", "here", "nobody here has vouched", "opmesh peer verify hub");
    assert_eq!(found.state("name"), "skipped", "nothing is said to a key that nobody vouched for");
}

#[test]
fn a_blocked_key_is_named_on_the_hub_with_the_reason_and_on_the_host_that_blocked() {
    let (hub, web, _) = pair();
    hub.ok(&["peer", "block", "web", "--reason", "stolen laptop"]);
    doctor(&web, &["hub"]).names(
        "admission",
        "peer",
        "turns us away",
        &format!("opmesh doctor {}", key(&web)),
    );
    doctor(&hub, &["web"]).names("blocked", "here", "stolen laptop", "opmesh peer unblock web");
    doctor(&hub, &[]).names("blocked", "here", "stolen laptop", "opmesh peer unblock web");
    hub.ok(&["peer", "unblock", "web"]);
    web.ok(&["peer", "block", "hub"]);
    doctor(&web, &["hub"]).names("blocked", "here", "blocked here", "opmesh peer unblock hub");
}

#[test]
fn an_expired_token_is_named_on_the_host_that_never_used_it_and_on_the_hub_that_refused_it() {
    let mut hub = Instance::new("hub");
    let token = hub.ok(&["pair", "token", "--ttl", "1s"]);
    let web = Instance::new("web");
    web.ok(&["pair", "join", token.trim(), "--url", "https://127.0.0.1:1", "--no-wait"]);
    until("the token has expired", || hub.json(&["pair", "tokens"]).as_array().unwrap().is_empty());
    doctor(&web, &["hub"]).names("pairing", "here", "token expired", "opmesh pair token");

    let url = hub.serve_hub("127.0.0.1:0");
    let late = Instance::new("late");
    let join = ["pair", "join", token.trim(), "--url", &url];
    let refused = machine::with_clock(&late, "-1h", &join).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let own = key(&late);
    doctor(&hub, &[&own]).names("refusal", "here", "its pairing token has expired", "opmesh pair token");
}

#[test]
fn a_host_that_grants_nothing_is_named_on_both_sides() {
    let (hub, mut web, _) = pair();
    web.ok(&["peer", "revoke", "hub", "READ_OPERATIONS"]);
    web.serve("none");
    until("they are connected", || web.peer("known_host")["state"] == "live");
    doctor(&web, &["hub"]).names("grants", "here", "we do not grant it", "peer grant hub READ_OPERATIONS:*");
    let next = format!("peer grant {} READ_OPERATIONS:*", key(&hub));
    doctor(&hub, &["web"]).names("grants", "peer", "it does not grant it", &next);
}

#[test]
fn grants_that_do_not_meet_are_named_on_both_sides_with_both_lists() {
    let (hub, mut web, _) = pair();
    web.ok(&["peer", "grant", "hub", "READ_OPERATIONS:repo:laptop"]);
    hub.ok(&["peer", "set", "web", "--accept", "repo:nas"]);
    web.serve("none");
    until("they are connected", || web.peer("known_host")["state"] == "live");
    let found = doctor(&web, &["hub"]);
    found.names(
        "grants",
        "peer",
        "we grant repo:laptop, it accepts repo:nas; nothing is in both",
        "--accept",
    );
    let found = doctor(&hub, &["web"]);
    found.names(
        "grants",
        "here",
        "it grants repo:laptop, we accept repo:nas; nothing is in both",
        "peer set web --accept",
    );
}

#[test]
fn a_clock_an_hour_off_is_named_by_the_peer_and_by_what_was_written() {
    let (_hub, web, _) = pair();
    for (moved, words) in [("-1h", "ahead of this one"), ("+1h", "behind this one")] {
        let output = machine::with_clock(&web, moved, &["--json", "doctor", "hub"]).output().unwrap();
        let found = Found::of(output);
        found.names("peer_clock", "peer", words, "NTP");
        let seen = found.check("peer_clock")["seen"].as_str().unwrap().to_owned();
        assert!(seen.contains("1 h 0 min") || seen.contains("59 min"), "{seen}");
    }
    let alone = machine::with_clock(&web, "-1h", &["--json", "doctor"]).output().unwrap();
    Found::of(alone).names("clock", "here", "before the last record", "NTP");
}

#[test]
fn a_hub_that_shares_no_version_is_named_and_says_itself_what_was_offered() {
    let old = Hub::new(Act::SharesNoVersion);
    let web = host_of(old.key, &old.url());
    let found = doctor(&web, &["hub"]);
    found.names("protocol", "peer", "no version of the protocol that this program", "hubs first");
    let newer = Hub::new(Act::Chooses(9));
    let web = host_of(newer.key, &newer.url());
    doctor(&web, &["hub"]).names("protocol", "peer", "the hub chose protocol 9", "hubs first");

    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("plain://127.0.0.1:0");
    let refused = hubs::greet(authority(&url), key(&hub).parse().unwrap(), &[7, 8]);
    assert_eq!(refused.message(), opmesh::transport::STRANGER, "a stranger learns nothing");
    let found = doctor(&hub, &[]);
    assert_eq!(found.diagnosis["cause"], "dialers", "{:#}", found.diagnosis);
    let seen = found.check("dialers")["seen"].as_str().unwrap();
    assert!(seen.contains("speaks protocol versions [7, 8], this program [1]"), "{seen}");
    assert!(found.diagnosis["next"].as_str().unwrap().contains("hubs first"));
}

#[test]
fn a_hub_whose_program_is_older_is_pointed_out_with_both_versions() {
    let act = Act::Answers { clock_ahead_ms: 0, version: "0.0.9", room: Room::Enough };
    let hub = Hub::new(act);
    let found = doctor(&host_of(hub.key, &hub.url()), &["hub"]);
    assert_eq!((found.diagnosis["cause"].as_str(), found.code), (Some("peer_version"), Some(0)));
    let seen = found.check("peer_version")["seen"].as_str().unwrap();
    assert!(seen.contains("0.0.9") && seen.contains(env!("CARGO_PKG_VERSION")), "{seen}");
    let silent = Hub::new(Act::CannotBeAsked);
    let found = doctor(&host_of(silent.key, &silent.url()), &["hub"]);
    assert_eq!(found.diagnosis["cause"], "peer_version", "{:#}", found.diagnosis);
    assert_eq!(found.state("admission"), "ok");
}

#[test]
fn what_a_hub_says_of_its_clock_and_its_disk_is_judged() {
    let act = Act::Answers { clock_ahead_ms: 600_000, version: "9.0.0", room: Room::Full };
    let hub = Hub::new(act);
    let found = doctor(&host_of(hub.key, &hub.url()), &["hub"]);
    found.names("peer_store", "peer", "a full disk", "make room on the hub's disk");
    assert_eq!(found.state("peer_clock"), "warning");
    assert!(
        found.check("peer_clock")["seen"].as_str().unwrap().contains("10 min ahead")
            || found.check("peer_clock")["seen"].as_str().unwrap().contains("9 min ahead")
    );
}

#[test]
fn a_proxy_that_collects_the_request_is_named() {
    let hub = Hub::new(Act::Collects);
    let web = host_of(hub.key, &hub.url());
    doctor(&web, &["hub"]).names("stream", "network", "nothing came back", "buffering off");
}

#[test]
fn a_hub_that_stands_still_is_named() {
    let (hub, web, _) = pair();
    hub.signal("STOP");
    let found = doctor(&web, &["hub"]);
    hub.signal("CONT");
    found.names("channel", "peer", "answers nothing", "peer set hub");
}

#[test]
fn streams_that_are_cut_after_a_time_are_named_with_the_time() {
    let (hub, mut web, url) = pair();
    let address = relay(authority(&url), Cut::After(Duration::from_millis(2500)));
    web.ok(&["peer", "set", "hub", "--url", &format!("https://{address}")]);
    web.serve("none");
    until("three sessions were cut", || doctor(&web, &["hub"]).state("cuts") == "fail");
    let found = doctor(&web, &["hub"]);
    found.names("cuts", "network", "were cut after about 2 s", "raise its timeouts");
    until("the hub noticed it, too", || doctor(&hub, &["web"]).state("cuts") == "fail");
}

#[test]
fn streams_that_are_cut_after_so_many_bytes_are_named_with_the_size() {
    let (hub, mut web, url) = pair();
    let address = relay(authority(&url), Cut::AfterBytes(64 * 1024));
    web.ok(&["peer", "set", "hub", "--url", &format!("https://{address}")]);
    let long = "x".repeat(16 * 1024);
    let lines: String = (0..60).map(|_| create("nas", "home", &long)).collect();
    web.apply(&lines);
    web.serve("none");
    until("three sessions were cut", || doctor(&hub, &["web"]).state("cuts") == "fail");
    let found = doctor(&hub, &["web"]);
    found.names(
        "cuts",
        "network",
        "were cut after about 64.0 KiB to this side",
        "limit on the size of a request",
    );
    assert_eq!(doctor(&web, &["hub"]).state("cuts"), "fail");
}

#[test]
fn whoever_is_nobody_is_an_error_and_no_diagnosis() {
    let web = Instance::new("web");
    let output = web.run(&["--json", "doctor", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["error"]["reason"], "unknown_peer");
}

#[test]
fn every_check_stands_in_the_manual_with_its_next_step() {
    let manual = include_str!("../../docs/operations.md");
    let section = manual.split("## What `opmesh doctor` looks at").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let listed: Vec<_> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let known: Vec<_> = opmesh::doctor::CheckId::ALL.iter().map(|(_, name)| *name).collect();
    assert_eq!(listed, known);
}
