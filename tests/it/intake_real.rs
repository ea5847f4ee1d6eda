//! Real commands under `intake::run`: restic, borg, and small scripts. A missing restic or borg is a failed test: hosts
//! without them would learn nothing from a green one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use opmesh::clock::Clock;
use opmesh::intake::{
    Begun, FLOW_VARIABLE, Outputs, Progress, RecordFault, RecordOptions, Recorder, RunOptions, RunResult,
    RunStart, RunStep, Spool, Tee, record, run, take_in,
};
use opmesh::record::Draft;
use opmesh_core::model::{FlowId, Kind, OpId, Status};
use rustix::process::{Pid, Signal, kill_process};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// A recorder that keeps what it is given, or is out of reach.
#[derive(Default)]
struct Notes {
    starts: Mutex<Vec<RunStart>>,
    results: Mutex<Vec<RunResult>>,
    out_of_reach: bool,
}

impl Recorder for Notes {
    async fn begin(&self, start: &RunStart) -> Result<Begun, RecordFault> {
        self.reachable()?;
        self.starts.lock().unwrap().push(start.clone());
        Ok(Begun { id: OpId::new(7).unwrap(), flow_id: FlowId::new(77).unwrap() })
    }

    async fn finish(&self, result: &RunResult) -> Result<(), RecordFault> {
        self.reachable()?;
        self.results.lock().unwrap().push(result.clone());
        Ok(())
    }
}

impl Notes {
    fn reachable(&self) -> Result<(), RecordFault> {
        if self.out_of_reach { Err(RecordFault::Unavailable("out of reach".to_owned())) } else { Ok(()) }
    }
}

/// A folder of one test, with what its commands print.
struct Bench {
    folder: tempfile::TempDir,
    notes: Notes,
    clock: Clock,
}

/// What one run left behind.
struct Seen {
    code: u8,
    stdout: Vec<u8>,
    stderr: String,
    operation: Draft,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/file"), "content").unwrap();
        Self { folder, notes: Notes::default(), clock: Clock::system() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spool(&self) -> Spool {
        Spool::new(&self.path("spool"))
    }

    async fn run(&self, command: &[&str]) -> Seen {
        let code = self.start(command, Progress::OnTerminals).await;
        let operation = self.notes.results.lock().unwrap().pop().unwrap().operations.remove(0);
        self.seen(code, operation)
    }

    async fn start(&self, command: &[&str], progress: Progress) -> u8 {
        let output = |name| Some(File::create(self.path(name)).unwrap());
        let outputs = Outputs { stdout: output("stdout"), stderr: output("stderr") };
        run(options(command, progress), outputs, Some(&self.notes), Some(&self.spool()), &self.clock).await
    }

    fn seen(&self, code: u8, operation: Draft) -> Seen {
        let stdout = fs::read(self.path("stdout")).unwrap();
        let stderr = fs::read_to_string(self.path("stderr")).unwrap();
        Seen { code, stdout, stderr, operation }
    }

    /// restic with a repository in this folder.
    async fn restic(&self, password: &str, arguments: &[&str]) -> Seen {
        let password = format!("RESTIC_PASSWORD={password}");
        let (repo, cache) = (self.path("repo"), self.path("cache"));
        let mut command = vec!["env", &password, "restic", "-r", text(&repo), "--cache-dir", text(&cache)];
        command.extend(arguments);
        self.run(&command).await
    }

    /// borg with a repository in this folder.
    async fn borg(&self, passphrase: &str, arguments: &[&str]) -> Seen {
        let passphrase = format!("BORG_PASSPHRASE={passphrase}");
        let base = format!("BORG_BASE_DIR={}", text(self.folder.path()));
        let mut command = vec!["env", &passphrase, &base, "borg"];
        command.extend(arguments);
        self.run(&command).await
    }

    fn spooled(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("spool")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn options(command: &[&str], progress: Progress) -> RunOptions {
    RunOptions {
        plan: "plan".to_owned(),
        repo: "repo".to_owned(),
        tool: None,
        kind: None,
        flow: None,
        progress,
        command: command.iter().map(OsString::from).collect(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(clock.monotonic() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restic_repository_through_its_life() {
    let bench = Bench::new();
    let source = bench.path("src");
    let seen = bench.restic("x", &["init"]).await;
    assert_eq!(
        (seen.code, seen.operation.kind),
        (0, Kind::Command),
        "restic must be installed: {}",
        seen.stderr
    );

    let seen = bench.restic("x", &["backup", text(&source), "--json"]).await;
    assert_eq!((seen.code, seen.operation.status), (0, Status::Success), "{}", seen.stderr);
    assert_eq!((seen.operation.kind, seen.operation.details.tool.as_str()), (Kind::Backup, "restic"));
    let printed: Vec<serde_json::Value> =
        String::from_utf8(seen.stdout).unwrap().lines().map(parsed).collect();
    assert!(printed.iter().all(|line| line["message_type"] != "status"), "{printed:?}");
    let summary = printed.iter().find(|line| line["message_type"] == "summary").unwrap();
    assert_eq!(parsed(&seen.operation.details.summary_json), *summary);
    assert_eq!(summary["snapshot_id"], seen.operation.snapshot_id.as_str());
    assert!(seen.operation.end_unix_ms.unwrap() >= seen.operation.start_unix_ms);
    assert_eq!(seen.operation.details.exit_code, Some(0));
    assert_eq!(seen.operation.details.argv[1], "RESTIC_PASSWORD=***");

    let missing = bench.path("missing");
    let seen = bench.restic("x", &["backup", text(&source), text(&missing), "--json"]).await;
    assert_eq!(seen.operation.status, Status::Warning);
    assert!(seen.operation.message.contains("missing"), "{}", seen.operation.message);
    assert_ne!(seen.operation.snapshot_id, "");

    let seen = bench.restic("x", &["forget", "--keep-last", "1", "--prune", "--json"]).await;
    assert_eq!((seen.operation.kind, seen.operation.status), (Kind::Forget, Status::Success));
    assert!(parsed(&seen.operation.details.summary_json).is_array());
    let seen = bench.restic("x", &["check", "--json"]).await;
    assert_eq!((seen.operation.kind, seen.operation.status), (Kind::Check, Status::Success));

    let seen = bench.restic("wrong", &["backup", text(&source), "--json"]).await;
    assert_eq!(seen.operation.status, Status::Error);
    assert!(seen.code != 0 && seen.operation.message.contains("password"), "{}", seen.operation.message);
}

fn parsed(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_borg_repository_through_its_life() {
    let bench = Bench::new();
    let (source, repo) = (bench.path("src"), bench.path("repo"));
    let (source, repo) = (text(&source), text(&repo));
    let archive = |name: &str| format!("{repo}::{name}");
    let seen = bench.borg("x", &["init", "-e", "repokey", repo]).await;
    assert_eq!(seen.code, 0, "borg must be installed: {}", seen.stderr);

    let create = ["--log-json", "--progress", "create", "--show-rc", "--json", &archive("a1"), source];
    let seen = bench.borg("x", &create).await;
    assert_eq!((seen.code, seen.operation.status, seen.operation.kind), (0, Status::Success, Kind::Backup));
    let printed = parsed(std::str::from_utf8(&seen.stdout).unwrap());
    assert_eq!(seen.operation.snapshot_id, printed["archive"]["id"].as_str().unwrap());
    assert_eq!(seen.operation.repo_guid, printed["repository"]["id"].as_str().unwrap());
    assert!(!seen.stderr.contains("progress"), "{}", seen.stderr);

    let missing = bench.path("missing");
    let seen = bench.borg("x", &["create", "--json", &archive("a2"), source, text(&missing)]).await;
    assert_eq!(seen.operation.status, Status::Warning);
    assert!(seen.operation.message.contains("missing"), "{}", seen.operation.message);

    let seen = bench.borg("x", &["prune", "--keep-last", "1", "--list", repo]).await;
    assert_eq!((seen.operation.kind, seen.operation.status), (Kind::Prune, Status::Success));
    let seen = bench.borg("x", &["check", repo]).await;
    assert_eq!((seen.operation.kind, seen.operation.status), (Kind::Check, Status::Success));
    let seen = bench.borg("wrong", &["create", "--json", &archive("a3"), source]).await;
    assert_eq!((seen.code, seen.operation.status), (2, Status::Error));
    assert!(seen.operation.message.to_lowercase().contains("passphrase"), "{}", seen.operation.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_code_pass_byte_for_byte() {
    let bench = Bench::new();
    let mut bytes = vec![0; 3_000_000];
    getrandom::fill(&mut bytes).unwrap();
    fs::write(bench.path("bytes"), &bytes).unwrap();
    let bytes_path = bench.path("bytes");
    let script = format!("cat {} ; echo oops >&2 ; exit 42", text(&bytes_path));
    let seen = bench.run(&["sh", "-c", &script]).await;
    assert_eq!((seen.code, seen.stderr.as_str()), (42, "oops\n"));
    assert!(seen.stdout == bytes, "the bytes differ");
    let Draft { status, message, kind, details, .. } = seen.operation;
    assert_eq!((status, message.as_str(), kind), (Status::Error, "oops", Kind::Command));
    assert_eq!((details.exit_code, details.tool.as_str()), (Some(42), "sh"));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_passes_when_it_is_asked_for() {
    let bench = Bench::new();
    let line = r#"{"message_type":"status","percent_done":1}"#;
    let command = ["sh", "-c", "printf '%s\\n' \"$1\"", "restic", line];
    assert_eq!(bench.start(&command, Progress::OnTerminals).await, 0);
    assert_eq!(fs::read(bench.path("stdout")).unwrap(), b"");
    assert_eq!(bench.start(&command, Progress::Always).await, 0);
    assert_eq!(fs::read_to_string(bench.path("stdout")).unwrap(), format!("{line}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_gains_the_flow_and_nothing_else() {
    let bench = Bench::new();
    let seen = bench.run(&["env", "-0"]).await;
    let mut expected: Vec<String> = std::env::vars()
        .filter(|(name, _)| name != FLOW_VARIABLE)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    expected.push(format!("{FLOW_VARIABLE}=77"));
    let mut seen: Vec<String> =
        String::from_utf8(seen.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_we_were_started_in_is_joined() {
    let bench = Bench::new();
    let options = RunOptions { flow: Some("1234".into()), ..options(&["true"], Progress::Always) };
    let outputs = Outputs { stdout: None, stderr: None };
    assert_eq!(run(options, outputs, Some(&bench.notes), None, &bench.clock).await, 0);
    assert_eq!(bench.notes.starts.lock().unwrap()[0].flow, Some(1234));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_start_is_recorded_with_the_code_of_a_shell() {
    let bench = Bench::new();
    let seen = bench.run(&["./no-such-command"]).await;
    assert_eq!((seen.code, seen.operation.status), (127, Status::Error));
    assert_eq!(seen.operation.details.exit_code, Some(127));
    assert!(seen.operation.message.contains("no-such-command"), "{}", seen.operation.message);
    assert!(seen.stderr.starts_with("opmesh: ./no-such-command: "));
    fs::write(bench.path("plain"), "text").unwrap();
    let plain = bench.path("plain");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(bench.run(&[text(&plain)]).await.code, 126);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_killed_gives_128_and_the_signal() {
    let bench = Bench::new();
    let seen = bench.run(&["sh", "-c", "kill -9 $$"]).await;
    assert_eq!((seen.code, seen.operation.status), (137, Status::Error));
    assert_eq!(seen.operation.message, "killed by signal 9");
    let seen = bench.run(&["sh", "-c", "kill -15 $$"]).await;
    assert_eq!((seen.code, seen.operation.status), (143, Status::UserCancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_of_ours_does_not_stop_the_child() {
    let bench = Bench::new();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let outputs = Outputs { stdout: Some(File::from(std::os::fd::OwnedFd::from(writer))), stderr: None };
    let options = options(&["sh", "-c", "head -c 5000000 /dev/zero && exit 3"], Progress::Always);
    assert_eq!(run(options, outputs, Some(&bench.notes), None, &bench.clock).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn something_left_behind_that_holds_the_output_open_does_not_hold_us() {
    let bench = Bench::new();
    let seen = bench.run(&["sh", "-c", "sleep 25 & echo $! && exit 5"]).await;
    assert!(bench.clock.monotonic() < Duration::from_secs(20));
    assert_eq!(seen.code, 5);
    let left = String::from_utf8(seen.stdout).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(left).unwrap(), Signal::TERM).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_recorded_waits_in_the_spool_and_is_taken_in_later() {
    let mut bench = Bench::new();
    bench.notes.out_of_reach = true;
    assert_eq!(bench.start(&["sh", "-c", "exit 9"], Progress::Always).await, 9);
    let warning = fs::read_to_string(bench.path("stderr")).unwrap();
    assert_eq!(warning.lines().count(), 1, "one warning: {warning}");
    assert!(warning.contains("out of reach") && warning.contains("later"), "{warning}");
    assert!(bench.spooled().iter().any(|name| Path::new(name).extension() == Some("json".as_ref())));

    bench.notes.out_of_reach = false;
    assert_eq!(take_in(&bench.spool(), &bench.notes, &bench.clock).await, Ok(1));
    assert_eq!(bench.spooled(), Vec::<String>::new());
    let taken = bench.notes.results.lock().unwrap().pop().unwrap();
    assert_eq!((taken.step, taken.operations[0].details.exit_code), (RunStep::Ended, Some(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_takes_in_what_waits() {
    let mut bench = Bench::new();
    bench.notes.out_of_reach = true;
    bench.start(&["false"], Progress::Always).await;
    bench.notes.out_of_reach = false;
    bench.start(&["true"], Progress::Always).await;
    let codes = bench
        .notes
        .results
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.operations[0].details.exit_code)
        .collect::<Vec<_>>();
    assert_eq!(codes, [Some(0), Some(1)]);
    assert_eq!(bench.spooled(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_identity_and_without_a_place_for_the_spool_the_command_runs_all_the_same() {
    let bench = Bench::new();
    let file = bench.path("src/file");
    let spool = Spool::new(&file.join("spool"));
    for spool in [None, Some(&spool)] {
        let outputs = Outputs { stdout: None, stderr: Some(File::create(bench.path("stderr")).unwrap()) };
        let options = options(&["sh", "-c", "exit 4"], Progress::Always);
        assert_eq!(run(options, outputs, None::<&Notes>, spool, &bench.clock).await, 4);
        let warning = fs::read_to_string(bench.path("stderr")).unwrap();
        assert_eq!(warning.lines().count(), 1, "{warning}");
        assert!(warning.contains("opmesh init") && !warning.contains("later"), "{warning}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_in_the_spool_is_set_aside() {
    let bench = Bench::new();
    fs::create_dir(bench.path("spool")).unwrap();
    let name = "00112233445566778899aabbccddeeff";
    fs::write(bench.path("spool").join(format!("{name}.json")), b"{\"cut").unwrap();
    fs::write(bench.path("spool").join("README"), b"not ours").unwrap();
    assert_eq!(take_in(&bench.spool(), &bench.notes, &bench.clock).await, Ok(0));
    let mut left = bench.spooled();
    left.sort();
    assert_eq!(left, [format!("{name}.bad"), "README".to_owned()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_plan_or_command_is_a_usage_error() {
    let bench = Bench::new();
    assert_eq!(bench.start(&[], Progress::Always).await, 125);
    let options = RunOptions { plan: String::new(), ..options(&["true"], Progress::Always) };
    let outputs = Outputs { stdout: None, stderr: None };
    assert_eq!(run(options, outputs, Some(&bench.notes), None, &bench.clock).await, 125);
    assert!(bench.notes.starts.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_recorded_with_its_code_and_start_and_passed_on() {
    let bench = Bench::new();
    let input = include_bytes!("../fixtures/restic-0.14-backup.jsonl").as_slice();
    let options = RecordOptions {
        plan: "plan".to_owned(),
        repo: "repo".to_owned(),
        tool: "restic".to_owned(),
        kind: None,
        exit_code: Some(3),
        start: Some(opmesh_core::model::UnixMs(5)),
        flow: None,
    };
    let mut passed = Vec::new();
    let code =
        record(options.clone(), input, Tee::To(&mut passed), Some(&bench.notes), None, &bench.clock).await;
    assert_eq!((code, passed.as_slice()), (0, input));
    let operation = bench.notes.results.lock().unwrap().pop().unwrap().operations.remove(0);
    assert_eq!((operation.kind, operation.status), (Kind::Backup, Status::Warning));
    assert_eq!((operation.start_unix_ms, operation.snapshot_id.as_str()), (5, "19ab90e9"));
    assert_eq!(operation.details.argv, Vec::<String>::new());

    let forget = include_bytes!("../fixtures/restic-0.14-forget-prune.mixed").as_slice();
    let cut = RecordOptions { exit_code: None, ..options };
    record(cut.clone(), forget, Tee::<Vec<u8>>::Off, Some(&bench.notes), None, &bench.clock).await;
    let operation = bench.notes.results.lock().unwrap().pop().unwrap().operations.remove(0);
    assert_eq!((operation.kind, operation.status), (Kind::Command, Status::Success), "no backup is made up");
    let code = record(cut, &input[..100], Tee::<Vec<u8>>::Off, Some(&bench.notes), None, &bench.clock).await;
    assert_eq!(code, 0, "an operation that failed is not a failed command");
    let operation = bench.notes.results.lock().unwrap().pop().unwrap().operations.remove(0);
    assert_eq!(operation.status, Status::Error);
    assert!(operation.message.starts_with("ended without summary"), "{}", operation.message);
}

/// Where the process of the next test finds its folder and its script.
const RUN_FOLDER: &str = "OPMESH_TEST_RUN_FOLDER";
const RUN_SCRIPT: &str = "OPMESH_TEST_RUN_SCRIPT";

/// Not a claim of its own: the process under `opmesh run` that the tests below send signals to. It does nothing when
/// it is not started by them.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::exit, reason = "this process stands for `opmesh run`")]
async fn the_process_that_the_signal_tests_start() {
    let (Ok(folder), Ok(script)) = (std::env::var(RUN_FOLDER), std::env::var(RUN_SCRIPT)) else { return };
    let options = options(&["sh", "-c", &script, "sh", &folder], Progress::Always);
    let spool = Spool::new(&Path::new(&folder).join("spool"));
    std::process::exit(
        run(options, Outputs::own(), None::<&Notes>, Some(&spool), &Clock::system()).await.into(),
    );
}

fn start_process(bench: &Bench, script: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["intake_real::the_process_that_the_signal_tests_start", "--exact", "--nocapture"])
        .env(RUN_FOLDER, bench.folder.path())
        .env(RUN_SCRIPT, script)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap(), signal).unwrap();
}

fn code_of(process: &mut Child) -> Option<i32> {
    wait_for("the end of the run", || process.try_wait().unwrap()).code()
}

const READY: &str = "echo $$ > $1/pid.tmp && mv $1/pid.tmp $1/pid; while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_child_and_its_answer_is_ours() {
    for (name, sent, status) in [
        ("TERM", Signal::TERM, Status::UserCancelled),
        ("HUP", Signal::HUP, Status::Error),
        ("USR1", Signal::USR1, Status::Error),
    ] {
        let bench = Bench::new();
        let mut process = start_process(&bench, &format!("trap 'exit 7' {name}; {READY}"));
        wait_for("the child", || bench.path("pid").exists().then_some(()));
        signal(&process, sent);
        assert_eq!(code_of(&mut process), Some(7), "{name}");
        assert_eq!(take_in(&bench.spool(), &bench.notes, &bench.clock).await, Ok(1));
        assert_eq!(bench.notes.results.lock().unwrap()[0].operations[0].status, status, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_heed_a_signal_is_left_alone() {
    let bench = Bench::new();
    let mut process =
        start_process(&bench, &format!("trap 'touch $1/heard' TERM; trap 'exit 8' USR1; {READY}"));
    wait_for("the child", || bench.path("pid").exists().then_some(()));
    signal(&process, Signal::TERM);
    wait_for("the signal", || bench.path("heard").exists().then_some(()));
    assert_eq!(process.try_wait().unwrap(), None);
    signal(&process, Signal::USR1);
    assert_eq!(code_of(&mut process), Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_process_is_gone_becomes_system_cancelled_and_one_that_lives_does_not() {
    let bench = Bench::new();
    let mut process = start_process(&bench, READY);
    let child = wait_for("the child", || fs::read_to_string(bench.path("pid")).ok());
    assert_eq!(take_in(&bench.spool(), &bench.notes, &bench.clock).await, Ok(0), "it lives");
    signal(&process, Signal::KILL);
    process.wait().unwrap();
    kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(take_in(&bench.spool(), &bench.notes, &bench.clock).await, Ok(1));
    let taken = bench.notes.results.lock().unwrap().pop().unwrap();
    assert_eq!((taken.step, taken.operations[0].status), (RunStep::Gone, Status::SystemCancelled));
    assert!(taken.operations[0].message.contains(&process.id().to_string()));
    assert_eq!(take_in(&bench.spool(), &bench.notes, &bench.clock).await, Ok(0), "once");
}

#[test]
fn what_we_were_told_to_ignore_the_child_ignores_too() {
    let bench = Bench::new();
    let script = "grep SigIgn /proc/self/status > $1/ignored.tmp; mv $1/ignored.tmp $1/ignored";
    let mut process = Command::new("nohup")
        .arg(std::env::current_exe().unwrap())
        .args(["intake_real::the_process_that_the_signal_tests_start", "--exact", "--nocapture"])
        .env(RUN_FOLDER, bench.folder.path())
        .env(RUN_SCRIPT, script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = String::new();
    process.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(code_of(&mut process), Some(0), "{output}");
    let ignored = fs::read_to_string(bench.path("ignored")).unwrap();
    let mask = u64::from_str_radix(ignored.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(mask & 1, 1, "SIGHUP stays ignored: {ignored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_at_the_terminal_reaches_the_child_once() {
    let bench = Bench::new();
    // A shell would make one of two signals that come close together.
    let script = r#"exec perl -e '
        $SIG{INT} = sub { open my $f, ">>", "$ARGV[0]/heard"; print $f "int\n"; close $f };
        $SIG{USR1} = sub { exit 6 };
        open my $p, ">", "$ARGV[0]/pid"; close $p;
        sleep 1 while 1;' "$1""#;
    let test = std::env::current_exe().unwrap();
    let command = format!(
        "echo $$ > {0}/run.tmp; mv {0}/run.tmp {0}/run; exec {1} intake_real::the_process_that_the_signal_tests_start --exact --nocapture",
        text(bench.folder.path()),
        text(&test)
    );
    let mut terminal = Command::new("script")
        .args(["-qefc", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env(RUN_FOLDER, bench.folder.path())
        .env(RUN_SCRIPT, script)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the child", || bench.path("pid").exists().then_some(()));
    let mut keys = terminal.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    keys.flush().unwrap();
    wait_for("the key", || bench.path("heard").exists().then_some(()));
    let watcher = fs::read_to_string(bench.path("run")).unwrap();
    kill_process(Pid::from_raw(watcher.trim().parse().unwrap()).unwrap(), Signal::USR1).unwrap();
    assert_eq!(code_of(&mut terminal), Some(6));
    assert_eq!(fs::read_to_string(bench.path("heard")).unwrap(), "int\n");
    take_in(&bench.spool(), &bench.notes, &bench.clock).await.unwrap();
    let status = bench.notes.results.lock().unwrap()[0].operations[0].status;
    assert_eq!(status, Status::UserCancelled);
}
