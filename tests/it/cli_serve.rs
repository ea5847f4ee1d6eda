//! Daemons through the real program: readiness, signals, pairing, and what arrives at a hub.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli::{Lab, eventually, exists, keys};

#[test]
fn serve_says_once_that_it_is_ready_and_drains_on_both_signals() {
    let lab = Lab::with_alpha();
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = lab.serve("alpha", &["--listen", "127.0.0.1:0", "--listen", "plain://127.0.0.1:0"]);
        assert_eq!(keys(&daemon.ready).join(" "), "ready pid listen web admin_socket admin_listen");
        assert_eq!((&daemon.ready["ready"], &daemon.ready["web"]), (&json!(true), &Value::Null));
        assert!(
            daemon.ready["listen"].as_array().unwrap().iter().all(|at| at["address"] != json!("127.0.0.1:0"))
        );
        let file = lab.path("alpha").join("serve.json");
        let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(written, daemon.ready);
        let status = lab.json("alpha", &["status"]);
        assert_eq!(
            (&status["daemon"]["running"], &status["daemon"]["pid"]),
            (&json!(true), &daemon.ready["pid"])
        );
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(!exists(&file));
    }
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_with_11() {
    let lab = Lab::with_alpha();
    let _first = lab.serve("alpha", &["--listen", "none"]);
    let second = lab.run("alpha", &["serve", "--listen", "none"]);
    assert_eq!((second.code, second.stdout.as_str()), (11, ""), "{}", second.stderr);
}

#[test]
fn answers_are_the_same_with_and_without_a_daemon() {
    let lab = Lab::with_alpha();
    assert_eq!(lab.run("alpha", &["run", "--plan", "p", "--repo", "r", "--", "true"]).code, 0);
    let lists: [&[&str]; 3] = [&["ops", "list"], &["hosts", "verify", "--all"], &["peer", "list"]];
    let without = lists.map(|words| lab.json("alpha", words));
    let _daemon = lab.serve("alpha", &["--listen", "none"]);
    assert_eq!(lists.map(|words| lab.json("alpha", words)), without);
}

#[test]
fn a_socket_elsewhere_is_found_through_the_data_folder() {
    let lab = Lab::with_alpha();
    let socket = lab.path("s.sock").display().to_string();
    let daemon = lab.serve("alpha", &["--listen", "none", "--admin-socket", &socket]);
    assert_eq!(daemon.ready["admin_socket"], json!(socket));
    assert_eq!(lab.json("alpha", &["status"])["daemon"]["running"], json!(true));
}

#[test]
fn a_host_pairs_and_its_operations_arrive_at_the_hub_with_equal_digests() {
    let lab = Lab::new();
    let hub_key = lab.init("hub");
    lab.init("web");
    let hub = lab.serve("hub", &["--listen", "127.0.0.1:0"]);
    let web = lab.serve("web", &["--listen", "none"]);
    let url = format!("https://{}", hub.address());

    let token = lab.run("hub", &["pair", "token"]);
    assert_eq!((token.code, token.stdout.lines().count()), (0, 1));
    assert!(token.stdout.starts_with("opmesh1.") && token.stderr.contains("granted nothing"), "{token:?}");
    let joined = lab.run_with("web", &["pair", "join", "-", "--url", &url, "--json"], &token.stdout);
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    let answer: Value = serde_json::from_str(&joined.stdout).unwrap();
    assert_eq!(keys(&answer).join(" "), "hub state grants_given grants_received");
    assert_eq!(answer["hub"], json!({"key_id": hub_key, "instance_id": "hub"}));
    assert_eq!(
        (&answer["state"], &answer["grants_given"]),
        (&json!("paired"), &json!(["READ_OPERATIONS:*"]))
    );

    for code in ["0", "1"] {
        lab.run("web", &["run", "--plan", "p", "--repo", "r", "--", "sh", "-c", &format!("exit {code}")]);
    }
    let arrived = eventually("both operations at the hub", || {
        let listed = lab.json("hub", &["ops", "list", "--host", "web"]);
        listed
            .as_array()
            .filter(|all| all.len() == 2 && all.iter().all(|op| op["status"] != "inprogress"))
            .cloned()
    });
    let sent = lab.json("web", &["ops", "list"]);
    for (here, there) in arrived.iter().zip(sent.as_array().unwrap()) {
        for field in
            ["original_id", "modno", "status", "start_unix_ms", "end_unix_ms", "details", "owner_key_id"]
        {
            assert_eq!(here[field], there[field], "{field}");
        }
    }
    eventually("in sync", || {
        let status = lab.json("web", &["status"]);
        status["peers"].as_array().unwrap().iter().any(|peer| peer["in_sync"] == json!(true)).then_some(())
    });
    assert_eq!(lab.run("hub", &["hosts", "verify", "--all"]).code, 0);
    web.signal(Signal::TERM);
    assert_eq!(web.wait().code(), Some(0));
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_spent_token_is_refused_with_4_and_leaves_no_entry() {
    let lab = Lab::new();
    lab.init("hub");
    lab.init("one");
    lab.init("two");
    let hub = lab.serve("hub", &["--listen", "127.0.0.1:0"]);
    let url = format!("https://{}", hub.address());
    let token = lab.run("hub", &["pair", "token"]).stdout;
    assert_eq!(lab.run_with("one", &["pair", "join", "-", "--url", &url], &token).code, 0);
    let refused = lab.run_with("two", &["pair", "join", "-", "--url", &url], &token);
    assert_eq!((refused.code, refused.stdout.as_str()), (4, ""), "{}", refused.stderr);
    assert_eq!(lab.json("two", &["peer", "list"]), json!([]));
}

#[test]
fn another_key_at_the_url_is_12_and_nobody_there_10() {
    let lab = Lab::new();
    lab.init("hub");
    lab.init("impostor");
    lab.init("web");
    let impostor = lab.serve("impostor", &["--listen", "127.0.0.1:0"]);
    let token = lab.run("hub", &["pair", "token"]).stdout;
    let url = format!("https://{}", impostor.address());
    let other = lab.run_with("web", &["pair", "join", "-", "--url", &url], &token);
    assert_eq!(other.code, 12, "{}", other.stderr);

    let nobody = "https://127.0.0.1:1";
    let words = ["pair", "join", "-", "--url", nobody, "--timeout", "300ms"];
    let late = lab.run_with("web", &words, &token);
    assert_eq!(late.code, 10, "{}", late.stderr);
}

#[test]
fn a_url_with_a_path_is_a_usage_error_that_names_it() {
    let lab = Lab::with_alpha();
    let token = lab.run("alpha", &["pair", "token"]).stdout;
    lab.init("web");
    let refused = lab.run_with("web", &["pair", "join", "-", "--url", "https://hub.example/sync"], &token);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("path"), "{}", refused.stderr);
}

#[test]
fn watch_prints_json_lines_in_commit_order() {
    let lab = Lab::with_alpha();
    let _daemon = lab.serve("alpha", &["--listen", "none"]);
    let mut watch = lab.command("alpha", &["ops", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // A run every now and then until the watch has begun.
    let first = std::thread::scope(|scope| {
        let reader = scope.spawn(|| lines.next().unwrap().unwrap());
        eventually("the first event", || {
            lab.run("alpha", &["run", "--plan", "p", "--repo", "r", "--", "true"]);
            reader.is_finished().then_some(())
        });
        reader.join().unwrap()
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
    let event: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(keys(&event), ["event", "operation"]);
    assert_eq!(event["operation"]["host"], json!("alpha"));
}

#[test]
fn a_flipped_bit_in_a_stored_record_is_found_with_exit_20() {
    let lab = Lab::with_alpha();
    let marked = ["run", "--plan", "plan-with-a-name", "--repo", "r", "--", "echo", "a-mark-to-be-found"];
    assert_eq!(lab.run("alpha", &marked).code, 0);
    let path = lab.path("alpha").join("opmesh.db");
    let bytes = std::fs::read(&path).unwrap();
    let mark = b"a-mark-to-be-found\n";
    let places: Vec<_> =
        bytes.windows(mark.len()).enumerate().filter(|(_, w)| w == mark).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the record lies in the database file once the store is closed");
    let file = File::options().write(true).open(&path).unwrap();
    for at in places {
        file.write_all_at(&[mark[0] ^ 1], u64::try_from(at).unwrap()).unwrap();
    }
    let found = lab.run("alpha", &["hosts", "verify", "--all", "--json"]);
    assert_eq!(found.code, 20, "{found:?}");
    let verdict: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(
        keys(&verdict[0]).join(" "),
        "host equal count stored_count digest stored_digest bad_operations"
    );
    assert_eq!(verdict[0]["equal"], json!(false));
}

#[test]
fn the_demo_shows_every_backup_and_leaves_nothing_behind() {
    let lab = Lab::new();
    // Without restic: the built-in commands do.
    let tools = lab.path("tools");
    std::fs::create_dir(&tools).unwrap();
    let cp = Command::new("sh").args(["-c", "command -v cp"]).output().unwrap();
    std::os::unix::fs::symlink(String::from_utf8(cp.stdout).unwrap().trim(), tools.join("cp")).unwrap();
    let temp = lab.path("t");
    std::fs::create_dir(&temp).unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_opmesh"));
    demo.arg("demo").env("PATH", &tools).env("TMPDIR", &temp).stdin(Stdio::null());
    let ran = demo.output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("restic is not on PATH"), "{said}");
    for host in ["web-1", "db-1"] {
        let rows: Vec<_> =
            said.lines().filter(|line| line.contains(host) && line.contains(" backup ")).collect();
        assert_eq!(rows.len(), 4, "{said}");
        assert_eq!(rows.iter().filter(|row| row.contains(" error ")).count(), 1, "{said}");
    }
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "the folder is removed");
}

#[test]
fn an_interrupted_demo_stops_what_it_started() {
    let lab = Lab::new();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_opmesh"));
    demo.arg("demo")
        .env("TMPDIR", lab.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = demo.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening = said.by_ref().map(Result::unwrap).find(|line| line.starts_with("hub listens on "));
    let address = listening.unwrap().replace("hub listens on ", "");
    std::net::TcpStream::connect(&address).unwrap();
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let ended = eventually("the demo ends", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(130));
    assert!(std::net::TcpStream::connect(&address).is_err(), "the hub is gone");
}
