//! An instance elsewhere, administered by the real program: its key pinned, a token shown.

use serde_json::{Value, json};

use crate::cli::{Daemon, Lab};

/// A lab with a daemon of `alpha` that listens for administrators; and its key ID.
fn listening() -> (Lab, Daemon, String) {
    let lab = Lab::new();
    let key = lab.init("alpha");
    let daemon = lab.serve("alpha", &["--listen", "none", "--admin-listen", "127.0.0.1:0"]);
    (lab, daemon, key)
}

/// The options for this daemon, with a token of this role from a file.
fn elsewhere(lab: &Lab, daemon: &Daemon, key: &str, role: &str) -> [String; 6] {
    let made = lab.run("alpha", &["admin", "token", "create", "--role", role]);
    assert_eq!((made.code, made.stdout.lines().count()), (0, 1), "{made:?}");
    let file = lab.path(role);
    std::fs::write(&file, made.stdout).unwrap();
    let url = format!("https://{}", daemon.ready["admin_listen"].as_str().unwrap());
    let file = file.display().to_string();
    ["--admin-url", &url, "--admin-key-id", key, "--admin-token-file", &file].map(str::to_owned)
}

fn words<'a>(options: &'a [String], command: &[&'a str]) -> Vec<&'a str> {
    options.iter().map(String::as_str).chain(command.iter().copied()).collect()
}

fn reason(stderr: &str) -> Value {
    serde_json::from_str::<Value>(stderr).unwrap()["error"]["reason"].clone()
}

#[test]
fn commands_work_on_an_instance_elsewhere_as_far_as_the_role_goes() {
    let (lab, daemon, key) = listening();
    let reader = elsewhere(&lab, &daemon, &key, "read");
    // No instance of its own is needed: the folder `nowhere` does not exist.
    let status = lab.json("nowhere", &words(&reader, &["status"]));
    assert_eq!(
        (&status["key_id"], &status["daemon"]["admin_listen"]),
        (&json!(key), &daemon.ready["admin_listen"])
    );
    assert_eq!(lab.json("nowhere", &words(&reader, &["ops", "list"])), json!([]));
    let refused = lab.run("nowhere", &words(&reader, &["--json", "ops", "delete", "1"]));
    assert_eq!((refused.code, reason(&refused.stderr)), (1, json!("permission_denied")));
    let operator = elsewhere(&lab, &daemon, &key, "operate");
    let line = r#"{"create":{"kind":"backup","status":"success","repo_id":"r","plan_id":"p"}}"#;
    let applied = lab.run_with("nowhere", &words(&operator, &["ops", "apply", "-"]), line);
    assert_eq!(applied.code, 0, "{applied:?}");
    assert_eq!(lab.json("nowhere", &words(&reader, &["ops", "list"])).as_array().unwrap().len(), 1);
    let refused = lab.run("nowhere", &words(&operator, &["--json", "pair", "token"]));
    assert_eq!((refused.code, reason(&refused.stderr)), (1, json!("permission_denied")));
    let security = elsewhere(&lab, &daemon, &key, "security");
    assert_eq!(lab.run("nowhere", &words(&security, &["pair", "token"])).code, 0);
    let tokens = lab.json("nowhere", &words(&security, &["admin", "tokens"]));
    let roles: Vec<_> = tokens.as_array().unwrap().iter().map(|token| &token["role"]).collect();
    assert_eq!(roles, ["read", "operate", "security"]);
    assert_eq!(lab.run("nowhere", &words(&security, &["admin", "revoke", "1"])).code, 0);
    let refused = lab.run("nowhere", &words(&reader, &["--json", "status"]));
    assert_eq!((refused.code, reason(&refused.stderr)), (1, json!("unauthenticated")));
}

#[test]
fn another_key_nobody_and_half_the_options_are_told_apart() {
    let (lab, daemon, key) = listening();
    let other = lab.init("beta");
    let wrong = elsewhere(&lab, &daemon, &other, "read");
    let refused = lab.run("nowhere", &words(&wrong, &["--json", "status"]));
    assert_eq!((refused.code, reason(&refused.stderr)), (12, json!("other_identity")));
    let mut nobody = elsewhere(&lab, &daemon, &key, "read");
    nobody[1] = "https://127.0.0.1:1".to_owned();
    let unreachable = lab.run("nowhere", &words(&nobody, &["--json", "status"]));
    assert_eq!((unreachable.code, reason(&unreachable.stderr)), (10, json!("unreachable")));
    let half = lab.run("nowhere", &["--admin-url", "https://127.0.0.1:1", "status"]);
    assert_eq!(half.code, 2, "{half:?}");
    for (url, named) in [("http://127.0.0.1:1", "https"), ("https://127.0.0.1", "no port")] {
        nobody[1] = url.to_owned();
        let refused = lab.run("nowhere", &words(&nobody, &["status"]));
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(named), "{refused:?}");
    }
    let here = elsewhere(&lab, &daemon, &key, "security");
    for local in [&["init"][..], &["serve", "--listen", "none"], &["key", "certificate"]] {
        let refused = lab.run("nowhere", &words(&here, local));
        assert_eq!(refused.code, 2, "{local:?}: {refused:?}");
        assert!(refused.stderr.contains("on the machine of the instance"), "{refused:?}");
    }
    assert!(!lab.path("nowhere").exists());
}

#[test]
fn the_certificate_is_printed_as_pem() {
    let (lab, _daemon, _) = listening();
    let printed = lab.run("alpha", &["key", "certificate"]);
    assert_eq!(printed.code, 0);
    let lines: Vec<_> = printed.stdout.lines().collect();
    assert_eq!(
        (lines[0], lines[lines.len() - 1]),
        ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
    );
    assert!(lines.iter().all(|line| line.len() <= 64));
    assert_eq!(lab.json("alpha", &["key", "certificate"])["certificate"], json!(printed.stdout));
}
