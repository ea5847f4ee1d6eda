//! Real processes of the real program, each with a data folder of its own, on loopback.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use opmesh::clock::Clock;
use opmesh::identity::Identity;
use opmesh::places::Places;
use opmesh::store::{DEFAULT_CACHE_ENTRIES, OpenOptions, Store};

/// One instance: a data folder, and maybe a daemon.
pub(crate) struct Instance {
    pub(crate) places: Places,
    daemon: Option<Child>,
}

impl Instance {
    /// A fresh instance after `opmesh init`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let instance = Self { places: Places::within(&folder.join(name)), daemon: None };
        instance.ok(&["init", "--instance-id", name]);
        instance
    }

    /// This host becomes one of that hub's, which is serving at the URL.
    pub(crate) fn join(&self, hub: &Self, url: &str) {
        let token = hub.ok(&["pair", "token"]);
        self.ok(&["pair", "join", token.trim(), "--url", url]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmesh"));
        command.arg("--data-dir").arg(self.places.data_dir()).args(arguments).stdin(Stdio::null());
        command.env_remove("OPMESH_DATA_DIR").env_remove("OPMESH_CONFIG");
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "opmesh {arguments:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the daemon and waits until it is ready; where it listens.
    pub(crate) fn serve(&mut self, listen: &str) -> String {
        let log = std::fs::File::create(self.places.data_dir().with_extension("log")).unwrap();
        let mut command = self.command(&["serve", "--listen", listen]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        self.daemon = Some(child);
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        format!("https://{}", ready["listen"][0]["address"].as_str().unwrap_or_default())
    }

    /// Asks the daemon to stop and waits for it.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.daemon.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    /// The daemon's memory in MiB: a line of `/proc/PID/status`, such as `VmHWM` for its peak.
    pub(crate) fn memory_mib(&self, line: &str) -> u64 {
        let path: PathBuf = format!("/proc/{}/status", self.daemon.as_ref().unwrap().id()).into();
        let status = std::fs::read_to_string(path).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
    }

    /// The store, while no daemon runs.
    pub(crate) fn store(&self) -> Store {
        let own = Identity::load(&self.places.key()).unwrap().public_key();
        let options = OpenOptions { own, clock: Clock::system(), cache_entries: DEFAULT_CACHE_ENTRIES };
        Store::open(&self.places.store(), options).unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(child) = &mut self.daemon {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
