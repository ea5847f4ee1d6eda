//! `opmesh config show` and `check`, with the real program.

use serde_json::Value;

use super::cli::Lab;

fn of<'a>(settings: &'a Value, key: &str) -> &'a Value {
    settings.as_array().unwrap().iter().find(|line| line["key"] == key).unwrap()
}

#[test]
fn every_key_is_shown_with_what_holds_and_where_it_comes_from() {
    let lab = Lab::with_alpha();
    let file = lab.path("alpha").join("opmesh.toml");
    std::fs::write(&file, "[cache]\nentries = 7\n\n[log]\nlevel = \"warn\"\nformat = \"json\"\n").unwrap();
    let mut command = lab.command("alpha", &["--json", "config", "show"]);
    let shown = command.env("OPMESH_LOG", "opmesh=trace").output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let path = file.display().to_string();
    let line = |key: &str, value: &str, line: u32| serde_json::json!({"key": key, "value": value, "origin": "file", "file": path, "line": line, "variable": null});
    assert_eq!(*of(&shown, "cache.entries"), line("cache.entries", "7", 2));
    assert_eq!(*of(&shown, "log.format"), line("log.format", "json", 6));
    let level = of(&shown, "log.level");
    assert_eq!((&level["value"], &level["origin"]), (&"opmesh=trace".into(), &"environment".into()));
    assert_eq!(level["variable"], "OPMESH_LOG");
    let usual = of(&shown, "limits.session_age");
    assert_eq!((&usual["value"], &usual["origin"]), (&"1d".into(), &"default".into()));
    assert_eq!(of(&shown, "admin.group")["value"], Value::Null);
    let table = lab.run("alpha", &["config", "show"]);
    assert!(table.stdout.contains("log.level") && table.stdout.contains("opmesh.toml:5"), "{table:?}");
}

#[test]
fn a_mistake_is_named_by_file_line_and_column_and_a_good_file_passes() {
    let lab = Lab::new();
    // Before there is an instance, too: the file may come first.
    assert_eq!(lab.run("alpha", &["config", "check"]).code, 0);
    let file = lab.path("mine.toml");
    let named = file.display().to_string();
    std::fs::write(&file, "[log]\nlevel = \"info\"\n").unwrap();
    let good = lab.run("alpha", &["--config", &named, "config", "check"]);
    assert_eq!(good.code, 0, "{good:?}");
    std::fs::write(&file, "[log]\nlevle = \"info\"\n").unwrap();
    for words in [["config", "check"], ["config", "show"]] {
        let bad = lab.run("alpha", &[&["--config", &named][..], &words].concat());
        assert_eq!(bad.code, 1, "{bad:?}");
        assert!(bad.stderr.contains("mine.toml:2:1") && bad.stderr.contains("log.level"), "{bad:?}");
    }
}
