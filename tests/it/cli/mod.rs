//! What the tests of the command line share: the real program on data folders of their own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take that takes a moment; far more than a busy machine needs.
const PATIENCE: Duration = Duration::from_mins(1);

/// A data folder, with or without an instance.
pub(crate) struct Lab {
    folder: TempDir,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A daemon; ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) ready: Value,
}

impl Lab {
    /// An empty folder for several data folders.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The same with one instance called `alpha`.
    pub(crate) fn with_alpha() -> Self {
        let lab = Self::new();
        lab.init("alpha");
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn init(&self, name: &str) -> String {
        let made = self.run(name, &["init", "--instance-id", name]);
        assert_eq!(made.code, 0, "{made:?}");
        made.stdout.trim().to_owned()
    }

    /// A command for an instance, free of this process's surroundings.
    pub(crate) fn command(&self, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmesh"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("OPMESH_") {
                command.env_remove(variable);
            }
        }
        command
            .env_remove("STATE_DIRECTORY")
            .env("TZ", "UTC")
            .arg("--data-dir")
            .arg(self.path(name))
            .args(words);
        command
    }

    pub(crate) fn run(&self, name: &str, words: &[&str]) -> Ran {
        self.run_with(name, words, "")
    }

    /// Runs to the end with this on stdin.
    pub(crate) fn run_with(&self, name: &str, words: &[&str], input: &str) -> Ran {
        let mut command = self.command(name, words);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read its stdin may be gone by now.
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap_or_default();
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: self.neutral(&String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// Runs a command that must succeed, and reads its answer.
    pub(crate) fn json(&self, name: &str, words: &[&str]) -> Value {
        let ran = self.run(name, &[&["--json"], words].concat());
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    pub(crate) fn serve(&self, name: &str, words: &[&str]) -> Daemon {
        let mut child = self
            .command(name, &[&["-q", "serve"], words].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).expect("a readiness line");
        Daemon { child, ready }
    }

    /// Text without this folder's name.
    pub(crate) fn neutral(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "LAB")
    }
}

impl Daemon {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        eventually("the daemon ends", || self.child.try_wait().unwrap())
    }

    /// The address of its first listener.
    pub(crate) fn address(&self) -> String {
        self.ready["listen"][0]["address"].as_str().unwrap().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// Asks again and again until there is an answer.
#[expect(clippy::disallowed_methods, reason = "a test's deadline")]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The keys of an object, in order.
pub(crate) fn keys(object: &Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// Whether a file is there.
pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
