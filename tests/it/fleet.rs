//! Real processes of the real binary, each with a data folder of its own, on loopback ports that the system picks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for what must happen; far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One instance: a data folder, and maybe a daemon.
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// What it logs, in the words of `OPMESH_LOG`; none: as its configuration says.
    pub(crate) log_filter: Option<&'static str>,
    daemon: Option<Child>,
    _home: TempDir,
}

impl Instance {
    /// A place for an instance, with nothing in it.
    pub(crate) fn place(name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("om").tempdir().unwrap();
        let dir = home.path().join(name);
        Self { name: name.to_owned(), dir, log_filter: None, daemon: None, _home: home }
    }

    /// A fresh instance after `opmesh init`.
    pub(crate) fn new(name: &str) -> Self {
        let instance = Self::place(name);
        instance.ok(&["init", "--instance-id", name]);
        instance
    }

    /// The command, with this instance's data folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmesh"));
        command.arg("--data-dir").arg(&self.dir).args(arguments);
        command.env_remove("OPMESH_DATA_DIR").env_remove("OPMESH_CONFIG").env_remove("OPMESH_FLOW_ID");
        if let Some(filter) = self.log_filter {
            command.env("OPMESH_LOG", filter);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{}: opmesh {arguments:?}: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `--json` whatever its exit code; its standard output parsed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend_from_slice(arguments);
        let output = self.run(&all);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{}: opmesh {arguments:?}: {error}\n{}{}",
                self.name,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// The exit code of a command.
    pub(crate) fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().unwrap()
    }

    /// Starts the daemon and waits for its readiness line.
    pub(crate) fn serve(&mut self, listen: &str) -> Value {
        let log = std::fs::File::create(self.dir.with_extension("log")).unwrap();
        let mut child = self
            .command(&["serve", "--listen", listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        self.daemon = Some(child);
        let (line_out, line_in) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            if let Some(Ok(line)) = lines.next() {
                line_out.send(line).ok();
            }
            lines.for_each(drop);
        });
        let line = line_in.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("not ready: {}", self.log()));
        serde_json::from_str(&line).unwrap()
    }

    /// As [`Instance::serve`], for a hub: the URL that hosts dial.
    pub(crate) fn serve_hub(&mut self, listen: &str) -> String {
        let ready = self.serve(listen);
        format!("https://{}", ready["listen"][0]["address"].as_str().unwrap())
    }

    /// What the daemon logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to the daemon.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Asks the daemon to stop, and waits for it; its exit code.
    pub(crate) fn stop(&mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the daemon's end; its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut child = self.daemon.take().unwrap();
        child.wait().unwrap().code()
    }

    /// Feeds lines to `ops apply`; the result lines.
    pub(crate) fn apply(&self, lines: &str) -> Vec<Value> {
        let mut child = self
            .command(&["--json", "ops", "apply", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines = lines.to_owned();
        let feeder = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).ok());
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// Pairs this instance with a hub at a URL, with these grants.
    pub(crate) fn join(&self, hub: &Self, url: &str, grants: &[&str]) {
        let token = hub.ok(&["pair", "token"]);
        let mut arguments = vec!["pair", "join", token.trim(), "--url", url];
        for grant in grants {
            arguments.extend_from_slice(&["--grant", grant]);
        }
        self.ok(&arguments);
    }

    /// Copies the data folder's database, as an administrator would with the daemon stopped.
    pub(crate) fn copy_database(&self, to: &Path) {
        assert!(self.daemon.is_none());
        for name in ["opmesh.db", "opmesh.db-wal"] {
            let (from, to) = (self.dir.join(name), to.join(name));
            if from.exists() {
                std::fs::copy(from, to).unwrap();
            }
        }
    }

    /// Puts a copied database in the place of the present one.
    pub(crate) fn restore_database(&self, from: &Path) {
        assert!(self.daemon.is_none());
        for name in ["opmesh.db", "opmesh.db-wal", "opmesh.db-shm"] {
            std::fs::remove_file(self.dir.join(name)).ok();
            if from.join(name).exists() {
                std::fs::copy(from.join(name), self.dir.join(name)).unwrap();
            }
        }
    }

    /// What this instance knows of another as its hub or host.
    pub(crate) fn peer(&self, role: &str) -> Value {
        let status = self.json(&["status"]);
        let peers = status["peers"].as_array().unwrap();
        peers.iter().find(|peer| peer["role"] == role).cloned().unwrap_or(Value::Null)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let tick = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / tick.as_millis() {
        if condition() {
            return;
        }
        std::thread::sleep(tick);
    }
    panic!("never: {what}");
}

/// The own operations of an instance, as what identifies them everywhere.
pub(crate) fn own_rows(host: &Instance) -> Vec<Value> {
    rows(&host.json(&["ops", "list", "--host", &host.name]))
}

/// What a hub holds of a host.
pub(crate) fn held_rows(hub: &Instance, host: &Instance) -> Vec<Value> {
    rows(&hub.json(&["ops", "list", "--host", &host.name]))
}

fn rows(list: &Value) -> Vec<Value> {
    let mut rows: Vec<Value> = list.as_array().unwrap().iter().map(without_local_names).collect();
    rows.sort_by_key(|row| row["original_id"].as_str().unwrap().parse::<u64>().unwrap());
    rows
}

/// An operation without what each side numbers and names for itself.
fn without_local_names(row: &Value) -> Value {
    let mut row = row.clone();
    for field in ["id", "flow_id", "host"] {
        row.as_object_mut().unwrap().remove(field);
    }
    row
}

/// Waits until the hub holds exactly what the host has.
pub(crate) fn until_equal(hub: &Instance, host: &Instance) {
    until(&format!("{} holds what {} has", hub.name, host.name), || {
        let status = host.json(&["status"]);
        let hosts = hub.json(&["hosts", "list"]);
        let row = hosts.as_array().unwrap().iter().find(|row| row["key_id"] == status["key_id"]).cloned();
        row.is_some_and(|row| row["digest"] == status["digest"] && row["count"] == status["count"])
    });
}

/// A line for `ops apply`.
pub(crate) fn create(repo: &str, plan: &str, message: &str) -> String {
    format!(
        "{}\n",
        serde_json::json!({"create": {"kind": "backup", "status": "success", "repo_id": repo, "plan_id": plan, "message": message}})
    )
}
