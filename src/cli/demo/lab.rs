//! The demo's folder and processes. Every wait ends when the demo is interrupted; every process started here is ended
//! here, and no other.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::node::ServeFile;
use crate::places::Places;

/// How long a daemon has to say that it is ready.
const READY: Duration = Duration::from_secs(30);
/// How long one call of the program, or of the backup tool, may take.
const CALL: Duration = Duration::from_mins(2);
/// A daemon drains for ten seconds at most.
const STOP: Duration = Duration::from_secs(12);

/// The operator had enough.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// One demo. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Lab {
    program: PathBuf,
    folder: PathBuf,
    daemons: Arc<Mutex<Vec<Child>>>,
    stop: CancellationToken,
}

impl Lab {
    /// Makes the folder.
    pub(super) fn new() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program does not know where it lies")?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
        let name = format!("opmesh-demo-{:08x}", u32::from_be_bytes(random));
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self { program, folder, daemons: Arc::default(), stop: CancellationToken::new() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How an operator calls an instance of this demo.
    pub(super) fn call(&self, who: &str) -> String {
        format!("{} --data-dir {}", self.program.display(), self.folder.join(who).display())
    }

    /// Where an instance of this demo lies.
    pub(super) fn places(&self, who: &str) -> Places {
        Places::within(&self.folder.join(who))
    }

    /// INT, TERM and HUP end the demo; the set must live as long as that should be so.
    pub(super) fn listen_to_signals(&self) -> anyhow::Result<JoinSet<()>> {
        let mut listeners = JoinSet::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind).context("signals cannot be received")?;
            let stop = self.stop.clone();
            listeners.spawn(async move {
                if signals.recv().await.is_some() {
                    stop.cancel();
                }
            });
        }
        Ok(listeners)
    }

    /// Ends all waiting.
    pub(super) fn interrupt(&self) {
        self.stop.cancel();
    }

    /// Waits a moment.
    pub(super) async fn pause(&self, span: Duration) -> Result<(), Interrupted> {
        self.stop.run_until_cancelled(sleep(span)).await.ok_or(Interrupted)
    }

    /// Calls the program for an instance, as an operator would, and returns its stdout.
    pub(super) async fn opmesh(
        &self,
        who: &str,
        words: &[&str],
        input: Option<&str>,
    ) -> anyhow::Result<String> {
        let mut command = self.command(who, words)?;
        let (ended, stdout) = self.run(&mut command, input).await?;
        if ended {
            return Ok(stdout);
        }
        anyhow::bail!("`{} {}` failed; see {}", self.call(who), words.join(" "), self.log(who).display())
    }

    /// Runs a command to its end: whether it succeeded, and its stdout.
    pub(super) async fn run(
        &self,
        command: &mut Command,
        input: Option<&str>,
    ) -> anyhow::Result<(bool, String)> {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped());
        let mut child = command.spawn().context("a process cannot be started")?;
        let talk = async {
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                stdin.write_all(input.as_bytes()).await?;
            }
            let mut stdout = Vec::new();
            if let Some(mut from) = child.stdout.take() {
                from.read_to_end(&mut stdout).await?;
            }
            let status = child.wait().await?;
            Ok::<_, std::io::Error>((status.success(), String::from_utf8_lossy(&stdout).into_owned()))
        };
        match self.stop.run_until_cancelled(timeout(CALL, talk)).await {
            Some(Ok(talked)) => Ok(talked?),
            Some(Err(_)) => {
                end(&mut child).await;
                anyhow::bail!("a process took longer than {} s", CALL.as_secs())
            }
            None => {
                end(&mut child).await;
                Err(Interrupted.into())
            }
        }
    }

    /// Starts a daemon and waits until it is ready.
    pub(super) async fn serve(&self, who: &str, listen: &str) -> anyhow::Result<ServeFile> {
        let mut command = self.command(who, &["serve", "--listen", listen])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("no process")?;
        let stdout = child.stdout.take();
        self.daemons.lock().await.push(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            let mut stdout = BufReader::new(stdout);
            let ready = timeout(READY, stdout.read_line(&mut line));
            let read = self.stop.run_until_cancelled(ready).await.ok_or(Interrupted)?;
            read.with_context(|| format!("{who} was not ready in {} s", READY.as_secs()))??;
        }
        serde_json::from_str(&line)
            .with_context(|| format!("{who} did not start; see {}", self.log(who).display()))
    }

    /// Ends every daemon and waits for it.
    pub(super) async fn stop(&self) {
        let mut daemons = self.daemons.lock().await;
        for daemon in daemons.iter_mut().rev() {
            end(daemon).await;
        }
        daemons.clear();
    }

    /// Removes the folder.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.folder)
            .with_context(|| format!("{} cannot be removed", self.folder.display()))
    }

    /// A command with the demo's surroundings: what it says goes to a log, and signals come from here only.
    pub(super) fn tool(&self, who: &str, program: &OsStr) -> anyhow::Result<Command> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("OPMESH_") || name_text.starts_with("RESTIC_") {
                command.env_remove(&name);
            }
        }
        command.stderr(self.open_log(who)?).process_group(0).kill_on_drop(true);
        Ok(command)
    }

    /// The program, called for an instance.
    pub(super) fn command(&self, who: &str, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.tool(who, self.program.as_os_str())?;
        command.arg("--data-dir").arg(self.folder.join(who)).args(words);
        Ok(command)
    }

    fn log(&self, who: &str) -> PathBuf {
        self.folder.join(format!("{who}.log"))
    }

    fn open_log(&self, who: &str) -> anyhow::Result<File> {
        let path = self.log(who);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        log.with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Asks a process to end, and makes it end when it does not.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(fault) = kill_process(pid, Signal::TERM)
    {
        tracing::debug!(%fault, "a process was gone already");
    }
    if timeout(STOP, child.wait()).await.is_err()
        && let Err(fault) = child.kill().await
    {
        tracing::warn!(%fault, "a process of the demo could not be ended");
    }
}
