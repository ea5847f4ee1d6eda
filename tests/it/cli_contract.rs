//! What scripts rely on: exit codes, what goes to stdout and stderr, and the shape of JSON.

use std::fs;
use std::io;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cli::{Lab, exists, keys};

#[test]
fn init_answers_with_the_key_id_alone_and_is_repeatable() {
    let lab = Lab::new();
    let made = lab.run("a", &["init", "--instance-id", "alpha"]);
    assert_eq!((made.code, made.stdout.lines().count(), made.stdout.len()), (0, 1, 52));
    for again in [lab.run("a", &["init"]), lab.run("a", &["init", "--instance-id", "alpha"])] {
        assert_eq!((again.code, &again.stdout), (0, &made.stdout));
    }
    let object = lab.json("a", &["init"]);
    assert_eq!(object, json!({"key_id": made.stdout.trim(), "instance_id": "alpha"}));

    let other = lab.run("a", &["init", "--instance-id", "beta"]);
    assert_eq!((other.code, other.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(other.stderr, @r"
    error: this instance is called alpha, not beta; nothing was changed
     hint: name another folder with --data-dir
    ");
}

#[test]
fn init_leaves_a_folder_of_somebody_else_alone() {
    let lab = Lab::new();
    fs::create_dir(lab.path("home")).unwrap();
    fs::write(lab.path("home").join("letter.txt"), "dear").unwrap();
    let refused = lab.run("home", &["init"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("letter.txt"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(lab.path("home")).unwrap().count(), 1);
}

#[test]
fn before_init_every_command_says_how_to_begin() {
    let lab = Lab::new();
    for words in [
        &["status"][..],
        &["serve", "--listen", "none"],
        &["ops", "list"],
        &["hosts", "verify", "--all"],
        &["key", "show"],
        &["pair", "token"],
        &["peer", "list"],
        &["audit"],
    ] {
        let refused = lab.run("none", words);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{words:?}");
        assert!(refused.stderr.contains("opmesh --data-dir LAB/none init"), "{words:?}: {}", refused.stderr);
    }
    assert!(!exists(&lab.path("none")), "nothing is made by asking");
    let line = lab.run("none", &["status", "--json"]).stderr;
    insta::assert_snapshot!(line, @r#"{"error":{"exit_code":1,"reason":"not_initialized","message":"there is no instance in LAB/none","hint":"make one with `opmesh --data-dir LAB/none init`, or name another folder"}}"#);
}

#[test]
fn usage_errors_exit_2_and_those_of_run_125() {
    let lab = Lab::new();
    for words in
        [&["bogus"][..], &["ops"], &["ops", "list", "--since", "yesterday"], &["ops", "list", "--kind", "x"]]
    {
        let refused = lab.run("a", words);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{words:?}");
    }
    for words in [
        &["run"][..],
        &["run", "--plan", "p", "true"],
        &["run", "--plan", "p", "--repo", "r", "--bogus", "true"],
    ] {
        assert_eq!(lab.run("a", words).code, 125, "{words:?}");
    }
    let line = lab.run("a", &["--json", "peer", "bogus"]).stderr;
    let error: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(keys(&error["error"]), ["exit_code", "reason", "message", "hint"]);
    assert_eq!(
        (&error["error"]["exit_code"], &error["error"]["reason"]),
        (&json!(2), &json!("invalid_argument"))
    );
}

#[test]
fn status_without_a_daemon_is_the_same_object_and_exit_10() {
    let lab = Lab::with_alpha();
    let asked = lab.run("alpha", &["status", "--json"]);
    assert_eq!(asked.code, 10);
    let status: Value = serde_json::from_str(&asked.stdout).unwrap();
    let expected = "instance_id key_id version daemon position digest count store peers next_key_id";
    assert_eq!(keys(&status).join(" "), expected);
    assert_eq!(status["daemon"]["running"], json!(false));
    assert_eq!((&status["count"], &status["peers"]), (&json!("0"), &json!([])));
}

#[test]
fn lists_are_one_array_and_tables_stay_silent_when_empty() {
    let lab = Lab::with_alpha();
    for words in [&["ops", "list"][..], &["peer", "list"], &["pair", "tokens"], &["hosts", "parked", "alpha"]]
    {
        assert_eq!(lab.json("alpha", words), json!([]), "{words:?}");
        let table = lab.run("alpha", words);
        assert_eq!((table.code, table.stdout.as_str()), (0, ""), "{words:?}");
    }
    assert_eq!(lab.json("alpha", &["hosts", "list"])[0]["is_self"], json!(true));
}

#[test]
fn a_closed_stdout_ends_a_command_quietly_with_141() {
    let lab = Lab::with_alpha();
    for words in [&["version"][..], &["help"], &["ops", "list", "--json"], &["completion", "bash"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let ran = lab.command("alpha", words).stdin(Stdio::null()).stdout(writer).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!((ran.status.code(), said.as_str()), (Some(141), ""), "{words:?}");
    }
}

#[test]
fn completion_knows_every_shell() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lab.run("a", &["completion", shell]);
        assert_eq!(script.code, 0);
        assert!(script.stdout.contains("opmesh"), "{shell}");
    }
}

#[test]
fn a_named_configuration_that_is_missing_or_wrong_is_an_error_that_names_it() {
    let lab = Lab::with_alpha();
    let missing = lab.run("alpha", &["--config", "/nonexistent/o.toml", "status"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("/nonexistent/o.toml"), "{}", missing.stderr);
    fs::write(lab.path("alpha").join("opmesh.toml"), "[cache]\nentires = 1\n").unwrap();
    let wrong = lab.run("alpha", &["status", "--json"]);
    assert_eq!(wrong.code, 1);
    let error: Value = serde_json::from_str(&wrong.stderr).unwrap();
    assert_eq!(error["error"]["reason"], json!("config"));
    assert!(error["error"]["message"].as_str().unwrap().contains("opmesh.toml:2:1"));
}

#[test]
fn colour_appears_only_where_it_is_asked_for() {
    let lab = Lab::with_alpha();
    assert_eq!(lab.run("alpha", &["run", "--plan", "p", "--repo", "r", "--", "true"]).code, 0);
    for words in [&["--help"][..], &["ops", "list"], &["--color", "never", "ops", "list"]] {
        assert!(!lab.run("alpha", words).stdout.contains('\u{1b}'), "{words:?}");
    }
    assert!(lab.run("alpha", &["--color", "always", "ops", "list"]).stdout.contains('\u{1b}'));
    let forced = |no_color: &str| {
        let mut command = lab.command("alpha", &["ops", "list"]);
        let listed = command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", no_color).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().contains('\u{1b}')
    };
    assert!(forced("") && !forced("1"));
}
