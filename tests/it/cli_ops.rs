//! Operations through the real program: recorded, applied, listed, verified.

use std::fs;

use serde_json::{Value, json};

use crate::cli::{Lab, keys};

const CREATE: &str = r#"{"create":{"kind":"backup","status":"success","repo_id":"r","plan_id":"p","start_unix_ms":"1700000000000","end_unix_ms":1700000061000,"snapshot_id":"0123456789abcdef"}}"#;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn run_passes_everything_through_and_records_it() {
    let lab = Lab::with_alpha();
    let ran = lab.run_with(
        "alpha",
        &["run", "--plan", "p", "--repo", "r", "--", "sh", "-c", "cat; echo to-stderr >&2; exit 3"],
        "from-stdin",
    );
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "from-stdin", "to-stderr\n"));
    let operations = lab.json("alpha", &["ops", "list"]);
    assert_eq!(operations.as_array().unwrap().len(), 1);
    let operation = &operations[0];
    assert_eq!(
        keys(operation).join(" "),
        "id host owner_key_id original_id flow_id original_flow_id modno kind status repo_id repo_guid plan_id \
         snapshot_id start_unix_ms end_unix_ms message details"
    );
    assert_eq!(
        keys(&operation["details"]).join(" "),
        "tool tool_version exit_code argv summary errors error_count log_tail"
    );
    assert_eq!((&operation["status"], &operation["details"]["exit_code"]), (&json!("error"), &json!(3)));
    assert_eq!((&operation["id"], &operation["original_id"]), (&json!("1"), &json!("1")));
}

#[test]
fn run_without_an_instance_warns_once_and_runs_the_command_all_the_same() {
    let lab = Lab::new();
    let ran = lab.run("none", &["run", "--plan", "p", "--repo", "r", "--", "sh", "-c", "echo out; exit 7"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.lines().count()),
        (7, "out\n", 1),
        "{}",
        ran.stderr
    );
    // What waited in the spool is recorded by the instance that is made later.
    lab.init("none");
    assert_eq!(lab.run("none", &["run", "--plan", "p", "--repo", "r", "--", "true"]).code, 0);
    let operations = lab.json("none", &["ops", "list"]);
    assert_eq!(operations.as_array().unwrap().len(), 2, "{operations:#}");
}

#[test]
fn run_exits_as_a_shell_would() {
    let lab = Lab::with_alpha();
    let run = |words: &[&str]| {
        lab.run("alpha", &[&["run", "--plan", "p", "--repo", "r", "--"], words].concat()).code
    };
    assert_eq!(run(&["/nonexistent/tool"]), 127);
    assert_eq!(run(&["/etc/passwd"]), 126);
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]), 143);
}

#[test]
fn record_takes_a_tools_output_from_a_pipe() {
    let lab = Lab::with_alpha();
    let input = "{\"message_type\":\"summary\",\"files_new\":1,\"snapshot_id\":\"cafe0123\",\"total_duration\":1.5}\n";
    let words = ["record", "--tool", "restic", "--plan", "p", "--repo", "r", "--tee", "--exit-code", "0"];
    let recorded = lab.run_with("alpha", &words, input);
    assert_eq!((recorded.code, recorded.stdout.as_str()), (0, input), "{}", recorded.stderr);
    let operation = &lab.json("alpha", &["ops", "list"])[0];
    assert_eq!((&operation["snapshot_id"], &operation["status"]), (&json!("cafe0123"), &json!("success")));
}

#[test]
fn apply_answers_every_line_after_its_commit() {
    let lab = Lab::with_alpha();
    let input = format!(
        "{CREATE}\n{{\"update\":{{\"id\":1,\"status\":\"warning\"}}}}\n{{\"delete\":{{\"id\":\"1\"}}}}\n"
    );
    let applied = lab.run_with("alpha", &["ops", "apply", "-"], &input);
    assert_eq!(applied.code, 0, "{applied:?}");
    insta::assert_snapshot!(applied.stdout, @r#"
    {"line":1,"result":"created","id":"1","modno":"1"}
    {"line":2,"result":"updated","id":"1","modno":"2"}
    {"line":3,"result":"deleted","id":"1","modno":"3"}
    "#);
}

#[test]
fn a_bad_line_takes_its_transaction_with_it_and_says_which() {
    let lab = Lab::with_alpha();
    let nothing = lab.run_with("alpha", &["ops", "apply", "-"], &format!("{CREATE}\n{{\"create\":{{}}}}\n"));
    assert_eq!(nothing.code, 1);
    assert_eq!(lines(&nothing.stdout).len(), 1);
    assert_eq!(lines(&nothing.stdout)[0]["line"], json!(2));
    assert_eq!(lab.json("alpha", &["ops", "list"]), json!([]));

    let file = lab.path("changes.jsonl");
    let mut text = format!("{CREATE}\n").repeat(1_500);
    text.push_str("{\"delete\":{\"id\":999999}}\n");
    fs::write(&file, &text).unwrap();
    let file = file.display().to_string();
    let part = lab.run("alpha", &["ops", "apply", &file]);
    assert_eq!(part.code, 3, "{}", part.stderr);
    let results = lines(&part.stdout);
    assert_eq!((results.len(), &results[1_000]["line"]), (1_001, &json!(1_501)));
    assert_eq!(results[1_000]["result"], json!("error"));

    let atomic = lab.run("alpha", &["ops", "apply", "--atomic", &file]);
    assert_eq!((atomic.code, lines(&atomic.stdout).len()), (1, 1), "{}", atomic.stderr);
    assert_eq!(lab.json("alpha", &["ops", "list"]).as_array().unwrap().len(), 1_000);
}

#[test]
fn lists_are_newest_first_and_filters_are_anded() {
    let lab = Lab::with_alpha();
    let create = |kind: &str, status: &str, plan: &str| {
        let start = "\"start_unix_ms\":1700000000000";
        format!(
            "{{\"create\":{{\"kind\":\"{kind}\",\"status\":\"{status}\",\"repo_id\":\"r\",\"plan_id\":\"{plan}\",{start}}}}}"
        )
    };
    let creates =
        [create("backup", "success", "a"), create("backup", "error", "b"), create("forget", "success", "a")];
    let input = creates.join("\n");
    assert_eq!(lab.run_with("alpha", &["ops", "apply", "-"], &input).code, 0);
    let ids = |words: &[&str]| -> Vec<String> {
        let listed = lab.json("alpha", &[&["ops", "list"], words].concat());
        listed
            .as_array()
            .unwrap()
            .iter()
            .map(|operation| operation["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&[]), ["3", "2", "1"]);
    assert_eq!(ids(&["--limit", "2"]), ["3", "2"]);
    assert_eq!(ids(&["--plan", "a"]), ["3", "1"]);
    assert_eq!(ids(&["--plan", "a", "--kind", "backup"]), ["1"]);
    assert_eq!(ids(&["--status", "error,success", "--plan", "b", "--plan", "a"]), ["3", "2", "1"]);
    assert_eq!(ids(&["--since", "2023-11-15"]), [""; 0]);
    assert_eq!(ids(&["--until", "7d"]), ["3", "2", "1"]);
    assert_eq!(ids(&["--host", "alpha", "--since", "2023-11-14T22:13:20Z"]), ["3", "2", "1"]);
}

#[test]
fn a_table_has_local_times_and_the_start_of_a_snapshots_name() {
    let lab = Lab::with_alpha();
    assert_eq!(lab.run_with("alpha", &["ops", "apply", "-"], CREATE).code, 0);
    insta::assert_snapshot!(lab.run("alpha", &["ops", "list"]).stdout, @r"
    ID  HOST   PLAN  REPO  KIND    STATUS   START                TOOK   SNAPSHOT  MESSAGE
    1   alpha  p     r     backup  success  2023-11-14 22:13:20  1m01s  01234567
    ");
}

#[test]
fn deletes_are_all_or_none() {
    let lab = Lab::with_alpha();
    assert_eq!(lab.run_with("alpha", &["ops", "apply", "-"], &format!("{CREATE}\n{CREATE}\n")).code, 0);
    assert_eq!(lab.run("alpha", &["ops", "delete", "1", "99"]).code, 1);
    assert_eq!(lab.json("alpha", &["ops", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(lab.run("alpha", &["ops", "delete", "1", "2"]).code, 0);
    assert_eq!(lab.json("alpha", &["ops", "list"]), json!([]));
}

#[test]
fn watch_needs_a_daemon() {
    let lab = Lab::with_alpha();
    let refused = lab.run("alpha", &["ops", "watch"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (10, ""));
    assert!(refused.stderr.contains("opmesh serve"), "{}", refused.stderr);
}
