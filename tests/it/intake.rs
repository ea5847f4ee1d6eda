//! What the tools' real output comes to. The files in `tests/fixtures` were printed by the versions in their names.

use opmesh::intake::{Ending, Observer, Outcome, Source, Tool};
use opmesh_core::model::Status;

/// A file of what a tool printed.
macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/", $name)).as_slice()
    };
}

const RESTIC_BACKUP: &[u8] = fixture!("restic-0.14-backup.jsonl");
const RESTIC_FORGET: &[u8] = fixture!("restic-0.14-forget-prune.mixed");
const RESTIC_CHECK: &[u8] = fixture!("restic-0.14-check.txt");
const BORG_CREATE: &[u8] = fixture!("borg-1.4.5-create.json");
const BORG_PROGRESS: &[u8] = fixture!("borg-1.4.5-create.stderr.jsonl");
const BORG_ERROR: &[u8] = fixture!("borg-1.4.5-error.stderr.jsonl");
const BORG_WARNING: &[u8] = fixture!("borg-1.4.5-create-warning.stderr.jsonl");
const BORG_PRUNE: &[u8] = fixture!("borg-1.4.5-prune.stderr.jsonl");
const BORGMATIC: &[u8] = fixture!("borgmatic-2.1.10-create-with-hook-noise.mixed");

const ALL: [(Tool, &[u8]); 18] = [
    (Tool::Borg, fixture!("borg-1.2.4-create.json")),
    (Tool::Borg, fixture!("borg-1.4.5-check.stderr.jsonl")),
    (Tool::Borg, BORG_WARNING),
    (Tool::Borg, BORG_CREATE),
    (Tool::Borg, BORG_PROGRESS),
    (Tool::Borg, BORG_ERROR),
    (Tool::Borg, fixture!("borg-1.4.5-info.json")),
    (Tool::Borg, fixture!("borg-1.4.5-list.json")),
    (Tool::Borg, BORG_PRUNE),
    (Tool::Borgmatic, BORGMATIC),
    (Tool::Restic, RESTIC_BACKUP),
    (Tool::Restic, fixture!("restic-0.14-backup.stderr")),
    (Tool::Restic, fixture!("restic-0.14-backup2.jsonl")),
    (Tool::Restic, RESTIC_CHECK),
    (Tool::Restic, RESTIC_FORGET),
    (Tool::Restic, fixture!("restic-0.14-snapshots.json")),
    (Tool::Restic, fixture!("restic-0.14-stats.json")),
    (Tool::Other, RESTIC_BACKUP),
];

fn outcome(tool: Tool, stdout: &[u8], stderr: &[u8], ending: Ending) -> Outcome {
    let mut observer = Observer::new(tool);
    observer.feed(Source::Stdout, stdout);
    observer.feed(Source::Stderr, stderr);
    observer.finish(ending, false)
}

fn from_pipe(tool: Tool, output: &[u8]) -> Outcome {
    let mut observer = Observer::new(tool);
    observer.feed(Source::Mixed, output);
    observer.finish(Ending::Unknown, false)
}

fn summary(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_restic_backup_has_its_snapshot_and_its_summary() {
    let seen = outcome(Tool::Restic, RESTIC_BACKUP, b"", Ending::Exited(0));
    assert_eq!((seen.status, seen.message.as_str(), seen.error_count), (Status::Success, "", 0));
    assert_eq!(seen.snapshots.len(), 1);
    assert_eq!(seen.snapshots[0].snapshot_id, "19ab90e9");
    assert_eq!(summary(&seen.snapshots[0].summary_json)["data_added"], 613_120);
    assert_eq!(seen.log_tail, "", "progress and the summary are not logged twice");
    assert_eq!(from_pipe(Tool::Restic, RESTIC_BACKUP).status, Status::Success);
}

#[test]
fn a_missing_source_makes_restic_0_14_a_warning_although_it_exits_0() {
    let seen =
        outcome(Tool::Restic, RESTIC_BACKUP, b"/nonexist does not exist, skipping\n", Ending::Exited(0));
    assert_eq!(seen.status, Status::Warning);
    assert_eq!(seen.message, "/nonexist does not exist, skipping");
    assert_eq!((seen.errors.len(), seen.error_count), (1, 1));
    assert_eq!(seen.snapshots.len(), 1);
}

#[test]
fn restic_errors_of_every_version_are_read_from_stderr() {
    let errors = br#"plain text
{"message_type":"error","error":{},"during":"archival","item":"/src/a"}
{"message_type":"error","error":{"message":"open /src/b: permission denied"},"during":"scan","item":"/src/b"}
{"message_type":"error","message":"pack 12: not found"}
{"message_type":"a type from the future","x":[1]}
"#;
    let seen = outcome(Tool::Restic, RESTIC_BACKUP, errors, Ending::Exited(3));
    assert_eq!(seen.status, Status::Warning);
    assert_eq!(
        seen.errors,
        ["/src/a: error during archival", "open /src/b: permission denied", "pack 12: not found"]
    );
    assert_eq!(seen.message, "pack 12: not found");
    assert!(seen.log_tail.starts_with("plain text\n{\"message_type\":\"error\""));
    assert!(seen.log_tail.contains("from the future"));
}

#[test]
fn the_exit_error_of_restic_0_18_is_the_message_and_stands_in_for_a_code_that_nobody_saw() {
    let fatal =
        br#"{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}"#;
    let seen = outcome(Tool::Restic, b"", fatal, Ending::Exited(12));
    assert_eq!((seen.status, seen.exit_code), (Status::Error, Some(12)));
    assert_eq!(seen.message, "Fatal: wrong password or no key found");
    let seen = from_pipe(Tool::Restic, fatal);
    assert_eq!((seen.status, seen.exit_code), (Status::Error, Some(12)));
}

#[test]
fn a_fatal_line_of_older_restic_is_the_message() {
    let fatal =
        b"Fatal: unable to open config file: stat /r: no such file\nIs there a repository there?\n/r\n";
    let seen = outcome(Tool::Restic, b"", fatal, Ending::Exited(1));
    assert_eq!(seen.message, "Fatal: unable to open config file: stat /r: no such file");
    assert_eq!(from_pipe(Tool::Restic, fatal).status, Status::Error);
}

#[test]
fn a_forget_prints_its_array_and_then_the_text_of_prune() {
    let seen = outcome(Tool::Restic, RESTIC_FORGET, b"", Ending::Exited(0));
    assert_eq!((seen.status, seen.snapshots.len()), (Status::Success, 0));
    assert_eq!(summary(&seen.summary_json)[0]["remove"].as_array().unwrap().len(), 1);
    assert!(seen.log_tail.starts_with("loading indexes...\n") && seen.log_tail.ends_with("done\n"));
    assert_eq!(from_pipe(Tool::Restic, RESTIC_FORGET).status, Status::Success);
}

#[test]
fn a_forget_list_that_is_too_long_is_kept_as_counts() {
    let group = r#"{"tags":null,"keep":[{"id":"x"}],"remove":[{"id":"y"},{"id":"z"}]}"#;
    let groups = vec![group; 2_000].join(",");
    let seen = outcome(Tool::Restic, format!("[{groups}]\n").as_bytes(), b"", Ending::Exited(0));
    assert_eq!(
        summary(&seen.summary_json),
        serde_json::json!({"groups": 2_000, "keep": 2_000, "remove": 4_000})
    );
}

#[test]
fn a_check_is_read_as_text_and_as_json() {
    let seen = from_pipe(Tool::Restic, RESTIC_CHECK);
    assert_eq!((seen.status, seen.summary_json.as_str()), (Status::Success, ""));
    assert!(seen.log_tail.ends_with("no errors were found\n"));
    let bad =
        br#"{"message_type":"summary","num_errors":2,"broken_packs":["a"],"suggest_repair_index":true}"#;
    assert_eq!(outcome(Tool::Restic, bad, b"", Ending::Exited(0)).status, Status::Warning);
    assert_eq!(outcome(Tool::Restic, bad, b"", Ending::Exited(1)).status, Status::Error);
}

#[test]
fn restic_without_json_still_tells_its_snapshot() {
    let text = b"Files: 1 new\nsnapshot e99d5a65 saved\n";
    let seen = outcome(Tool::Restic, text, b"", Ending::Exited(0));
    assert_eq!(seen.snapshots[0].snapshot_id, "e99d5a65");
}

#[test]
fn borgs_printed_object_is_found_over_many_lines() {
    for create in [BORG_CREATE, fixture!("borg-1.2.4-create.json")] {
        let seen = outcome(Tool::Borg, create, BORG_PROGRESS, Ending::Exited(0));
        assert_eq!((seen.status, seen.snapshots.len(), seen.error_count), (Status::Success, 1, 0));
        let kept = summary(&seen.snapshots[0].summary_json);
        assert_eq!(kept, summary(std::str::from_utf8(create).unwrap()));
        assert_eq!(seen.snapshots[0].snapshot_id, kept["archive"]["id"].as_str().unwrap());
        assert_eq!(seen.snapshots[0].repo_guid, kept["repository"]["id"].as_str().unwrap());
        assert_eq!(seen.log_tail.lines().count(), 1, "only the line that is no progress: {}", seen.log_tail);
    }
}

#[test]
fn borgs_codes_above_99_are_warnings_and_the_message_is_the_warning() {
    let seen = outcome(Tool::Borg, BORG_CREATE, BORG_WARNING, Ending::Exited(107));
    assert_eq!(seen.status, Status::Warning);
    assert!(seen.message.contains("No such file or directory"), "{}", seen.message);
    assert_eq!(seen.error_count, 1);
    let seen = from_pipe(Tool::Borg, BORG_WARNING);
    assert_eq!((seen.status, seen.exit_code), (Status::Warning, Some(107)), "by --show-rc");
}

#[test]
fn borgs_error_is_the_message() {
    let seen = outcome(Tool::Borg, b"", BORG_ERROR, Ending::Exited(31));
    assert_eq!((seen.status, seen.message.as_str()), (Status::Error, "Archive nope does not exist"));
    assert_eq!(from_pipe(Tool::Borg, BORG_ERROR).exit_code, Some(31));
}

#[test]
fn borgs_plain_text_tells_the_code_the_archive_and_the_message() {
    let text = b"Archive fingerprint: e2e74250\nterminating with success status, rc 0\n";
    let seen = from_pipe(Tool::Borg, text);
    assert_eq!((seen.status, seen.snapshots[0].snapshot_id.as_str()), (Status::Success, "e2e74250"));
    let seen = outcome(Tool::Borg, b"", b"Archive a5 already exists\n", Ending::Exited(2));
    assert_eq!(seen.message, "Archive a5 already exists");
}

#[test]
fn listings_of_borg_are_summaries_and_no_snapshots() {
    for listing in [fixture!("borg-1.4.5-info.json"), fixture!("borg-1.4.5-list.json")] {
        let seen = outcome(Tool::Borg, listing, b"", Ending::Exited(0));
        assert_eq!((seen.status, seen.snapshots.len()), (Status::Success, 0));
        assert!(seen.repo_guid.starts_with("ca760a7a"));
        assert_eq!(summary(&seen.summary_json), summary(std::str::from_utf8(listing).unwrap()));
    }
    let seen = outcome(Tool::Borg, b"", BORG_PRUNE, Ending::Exited(0));
    assert!(seen.status == Status::Success && seen.log_tail.contains("Keeping archive"));
}

#[test]
fn borgmatics_array_is_found_behind_the_output_of_hooks() {
    let seen = outcome(Tool::Borgmatic, BORGMATIC, b"", Ending::Exited(0));
    assert_eq!((seen.status, seen.snapshots.len()), (Status::Success, 1));
    assert!(seen.snapshots[0].snapshot_id.starts_with("e9f6a0a055fe"));
    assert!(seen.log_tail.starts_with("_=/srv/data\nBEFORE-EVERYTHING"));
    let twice = String::from_utf8_lossy(BORGMATIC).replace("}}]", "}},{\"archive\":{\"id\":\"second\"}}]");
    let seen = outcome(Tool::Borgmatic, twice.as_bytes(), b"", Ending::Exited(0));
    assert_eq!(seen.snapshots.len(), 2);
}

#[test]
fn kopia_tells_a_snapshot_for_each_source_and_what_failed() {
    let one = br#"{"id":"k1","source":{"host":"h","path":"/a"},"rootEntry":{"summ":{"files":3}}}"#;
    let two = br#"{"id":"k2","source":{"host":"h","path":"/b"},"rootEntry":{"summ":{"numFailed":1,"errors":[{"path":"/b/x","error":"denied"}]}}}"#;
    let both = [one.as_slice(), b"\n", two, b"\n"].concat();
    let seen = outcome(Tool::Kopia, &both, b"Snapshotting...\n", Ending::Exited(1));
    assert_eq!((seen.status, seen.snapshots.len()), (Status::Error, 2));
    assert_eq!(seen.message, "/b/x: denied");
    assert_eq!(outcome(Tool::Kopia, one, b"", Ending::Exited(0)).status, Status::Success);
    let incomplete = br#"{"id":"k3","source":{"path":"/c"},"incomplete":"canceled"}"#;
    assert_eq!(outcome(Tool::Kopia, incomplete, b"", Ending::Exited(0)).status, Status::Warning);
}

#[test]
fn any_other_command_is_judged_by_its_code_and_its_last_line() {
    let seen = outcome(Tool::Other, b"{\"message_type\":\"error\"}\n", b"first\nlast\n", Ending::Exited(4));
    assert_eq!((seen.status, seen.message.as_str(), seen.error_count), (Status::Error, "last", 0));
    assert_eq!(seen.log_tail, "{\"message_type\":\"error\"}\nfirst\nlast\n");
}

#[test]
fn what_is_cut_off_anywhere_still_comes_to_an_outcome() {
    for (tool, output) in ALL {
        for cut in 0..=output.len() {
            for source in [Source::Stdout, Source::Stderr, Source::Mixed] {
                let mut observer = Observer::new(tool);
                observer.feed(source, &output[..cut]);
                let seen = observer.finish(Ending::Exited(0), false);
                assert!(matches!(seen.status, Status::Success | Status::Warning));
            }
        }
    }
    for cut in 0..BORG_CREATE.len() - 3 {
        assert_eq!(from_pipe(Tool::Borg, &BORG_CREATE[..cut]).status, Status::Error, "cut at {cut}");
    }
    let seen = from_pipe(Tool::Restic, &RESTIC_BACKUP[..200]);
    assert!(seen.message.starts_with("ended without summary"), "{}", seen.message);
}

#[test]
fn the_size_of_the_chunks_does_not_matter() {
    for (tool, output) in ALL {
        let whole = outcome(tool, output, output, Ending::Exited(0));
        for size in [1, 7, 1000] {
            let mut observer = Observer::new(tool);
            output.chunks(size).for_each(|chunk| observer.feed(Source::Stdout, chunk));
            output.chunks(size).for_each(|chunk| observer.feed(Source::Stderr, chunk));
            assert_eq!(observer.finish(Ending::Exited(0), false), whole);
        }
    }
}

#[test]
fn every_byte_may_be_broken_without_a_panic() {
    for (tool, output) in ALL {
        for at in 0..output.len() {
            let mut broken = output.to_vec();
            broken[at] = 0xff;
            outcome(tool, &broken, b"", Ending::Exited(0));
        }
    }
    let seen = outcome(Tool::Other, b"", b"caf\xe9\n", Ending::Exited(1));
    assert_eq!(seen.message, "caf\u{fffd}");
}

#[test]
fn secrets_in_urls_do_not_reach_any_part_of_the_outcome() {
    let summary = br#"{"archive":{"id":"a","command_line":["borg","ssh://u:hunter2@h/r"]}}"#;
    let errors = b"cannot reach https://u:hunter2@h/r\n";
    for tool in [Tool::Borg, Tool::Restic, Tool::Other] {
        let seen = format!("{:?}", outcome(tool, summary, errors, Ending::Exited(2)));
        assert!(!seen.contains("hunter2"), "{seen}");
    }
}

#[test]
fn output_without_end_comes_to_an_outcome_of_bounded_size() {
    let mut observer = Observer::new(Tool::Restic);
    let line = br#"{"message_type":"error","error":{"message":"no"},"item":"/x"}"#;
    let lines = [line.as_slice(), b"\n"].concat().repeat(100);
    for _ in 0..500 {
        observer.feed(Source::Stderr, &lines);
        observer.feed(Source::Stdout, &[b'x'; 4096]);
    }
    let seen = observer.finish(Ending::Killed(15), true);
    assert_eq!((seen.errors.len(), seen.error_count), (100, 50_000));
    assert!(seen.log_tail.len() <= 64 * 1024);
    assert_eq!(seen.status, Status::UserCancelled);
}
