//! `opmesh run`: starts a command, passes everything through, and records what came of it.
//!
//! The command's words and environment are not touched, except for [`FLOW_VARIABLE`]. Nothing here may prevent, delay
//! for long, or fail the command; what goes wrong is one line on standard error.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opmesh_core::model::{Kind, Status};
use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::command::CommandLine;
use super::filter::Filter;
use super::ledger::{Begun, RecordFault, Recorder, RunKey, RunResult, RunStart, RunStep, take_in};
use super::observer::{Observer, Source};
use super::outcome::{Ending, Outcome};
use super::pass::{Flow, pass};
use super::signals::Signals;
use super::spool::{Running, Spool};
use crate::clock::Clock;
use crate::record::{Details, Draft};

/// Names the flow that nested runs join: a decimal number.
pub const FLOW_VARIABLE: &str = "OPMESH_FLOW_ID";

/// How long the command waits for its beginning to be recorded.
const BEGIN_WAIT: Duration = Duration::from_secs(5);
/// How long a result may take to be recorded before it goes to the spool.
const FINISH_WAIT: Duration = Duration::from_secs(30);
/// How long a stream may be silent after the command has ended: something that it left behind holds it open.
const SILENCE: Duration = Duration::from_secs(1);
/// What may still come after the command has ended: the most that a pipe holds.
const LEFT_IN_PIPES: u64 = 2 * 1024 * 1024;

const USAGE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What is to be run, and how it is called.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The plan.
    pub plan: String,
    /// The repository.
    pub repo: String,
    /// Whose output to expect; none = told from the command.
    pub tool: Option<String>,
    /// Which step it is; none = told from the command.
    pub kind: Option<Kind>,
    /// The value of [`FLOW_VARIABLE`] that we were started with.
    pub flow: Option<OsString>,
    /// Whether progress lines pass to an output that is no terminal.
    pub progress: Progress,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// What becomes of restic's and borg's progress lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// They pass to terminals only.
    OnTerminals,
    /// They always pass.
    Always,
}

/// What the command's output passes to; none = nowhere, it is read all the same.
#[derive(Debug)]
pub struct Outputs {
    /// Its standard output.
    pub stdout: Option<File>,
    /// Its standard error, and our warning.
    pub stderr: Option<File>,
}

impl Outputs {
    /// Our own, unbuffered. One that we were started without stays away.
    pub fn own() -> Self {
        let own = |descriptor: BorrowedFd<'_>| descriptor.try_clone_to_owned().ok().map(File::from);
        Self { stdout: own(io::stdout().as_fd()), stderr: own(io::stderr().as_fd()) }
    }
}

/// Runs the command to its end and returns the exit code for our own process: the command's, 128+N when signal N
/// killed it, 125 usage, 126 not executable, 127 not found. Without a recorder, or when it fails, the result goes to
/// the spool.
pub async fn run<R: Recorder>(
    options: RunOptions,
    outputs: Outputs,
    recorder: Option<&R>,
    spool: Option<&Spool>,
    clock: &Clock,
) -> u8 {
    let mut signals = Signals::catch();
    let line = CommandLine::new(&options.command, options.tool.as_deref(), options.kind);
    let started = started(&line, &options.repo, &options.plan, clock.wall().0);
    let Outputs { stdout, stderr } = outputs;
    let for_warnings = stderr.as_ref().and_then(|output| output.try_clone().ok());
    let mut book = Book::new(recorder, spool, clock, for_warnings);
    if let Err(fault) = started.encode() {
        book.warn(&fault.to_string());
        return USAGE;
    }
    let Some((program, arguments)) = options.command.split_first() else {
        book.warn("no command: say what to run after `--`");
        return USAGE;
    };
    let noted = book.begin(started, options.flow).await;

    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(Begun { flow_id, .. }) = noted.begun {
        command.env(FLOW_VARIABLE, flow_id.to_string());
    }
    let mut observer = Observer::new(line.tool);
    let (ending, outcome) = match signals.already().await {
        Some(signal) => (Ending::Killed(signal), observer.finish(Ending::Killed(signal), true)),
        None => match command.spawn() {
            Ok(child) => {
                watch(child, &line, options.progress, Outputs { stdout, stderr }, &mut signals, observer)
                    .await
            }
            Err(fault) => {
                let code = if fault.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
                let text = format!("{}: {fault}", program.display());
                book.say(&text);
                observer.feed(Source::Stderr, text.as_bytes());
                let ending = Ending::NotStarted(i32::from(code));
                (ending, observer.finish(ending, false))
            }
        },
    };
    book.end(noted, |start, now| outcome.operations(start, now)).await;
    ending.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The operation at its beginning.
pub(super) fn started(line: &CommandLine, repo: &str, plan: &str, start_unix_ms: i64) -> Draft {
    Draft {
        details: Details { tool: line.name.clone(), argv: line.argv.clone(), ..Details::default() },
        ..Draft::new(line.kind, Status::InProgress, repo, plan, start_unix_ms)
    }
}

/// Sees the child through to its end.
async fn watch(
    mut child: Child,
    line: &CommandLine,
    progress: Progress,
    outputs: Outputs,
    signals: &mut Signals,
    observer: Observer,
) -> (Ending, Outcome) {
    let observer = Arc::new(Mutex::new(observer));
    let flow = Arc::new(Flow::default());
    let mut streams = JoinSet::new();
    let filter = |to: Option<&File>| match progress {
        Progress::OnTerminals if !to.is_some_and(File::is_terminal) => Filter::without_progress(line.tool),
        _ => Filter::none(),
    };
    if let Some(from) = child.stdout.take() {
        let (filter, to) = (filter(outputs.stdout.as_ref()), outputs.stdout.map(tokio::fs::File::from));
        streams.spawn(pass(Source::Stdout, from, to, filter, observer.clone(), flow.clone()));
    }
    if let Some(from) = child.stderr.take() {
        let (filter, to) = (filter(outputs.stderr.as_ref()), outputs.stderr.map(tokio::fs::File::from));
        streams.spawn(pass(Source::Stderr, from, to, filter, observer.clone(), flow.clone()));
    }
    let ending = ending(wait(&mut child, signals).await);
    drain(&mut streams, &flow).await;
    drop(streams);
    // What ended the child may have reached us, too, and not been looked at yet.
    signals.already().await;
    let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
    (ending, observer.finish(ending, signals.stopped()))
}

/// Waits for the child and passes signals to it meanwhile.
async fn wait(child: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut exit = std::pin::pin!(child.wait());
    std::future::poll_fn(|context| {
        // In this order: once the wait is over, the number may belong to another process.
        let status = exit.as_mut().poll(context);
        if status.is_pending()
            && let Some(pid) = pid
        {
            signals.pass_to(pid, context);
        }
        status
    })
    .await
}

fn ending(status: io::Result<ExitStatus>) -> Ending {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, Some(signal)) => Ending::Killed(signal),
            (None, None) => Ending::Unknown,
        },
        Err(_) => Ending::Unknown,
    }
}

/// Reads what the streams still hold. They may never end: a process that the command left behind holds them, too.
async fn drain(streams: &mut JoinSet<()>, flow: &Flow) {
    let at_exit = flow.bytes.load(Ordering::Relaxed);
    let mut before = at_exit;
    loop {
        match timeout(SILENCE, streams.join_next()).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) => {
                let now = flow.bytes.load(Ordering::Relaxed);
                let silent = now == before && !flow.writing.load(Ordering::Relaxed);
                if silent || now - at_exit > LEFT_IN_PIPES {
                    return;
                }
                before = now;
            }
        }
    }
}

/// A run that is noted in the spool as under way.
pub(super) struct Noted {
    start: Option<RunStart>,
    begun: Option<Begun>,
    /// Its lock tells others that we live.
    running: Option<Running>,
}

/// Writes the beginning and the end of one run to wherever it can. Warns once.
pub(super) struct Book<'a, R> {
    recorder: Option<&'a R>,
    spool: Option<&'a Spool>,
    clock: &'a Clock,
    errors: Option<File>,
    warned: bool,
}

impl<'a, R: Recorder> Book<'a, R> {
    /// `errors` is where the warning goes.
    pub(super) fn new(
        recorder: Option<&'a R>,
        spool: Option<&'a Spool>,
        clock: &'a Clock,
        errors: Option<File>,
    ) -> Self {
        Self { recorder, spool, clock, errors, warned: false }
    }

    /// Records the beginning of a run.
    pub(super) async fn begin(&mut self, operation: Draft, flow: Option<OsString>) -> Noted {
        let Some(start) = self.start(operation, flow) else {
            return Noted { start: None, begun: None, running: None };
        };
        let running = self.spool.map(|spool| spool.running(&start)).transpose();
        let running = running.unwrap_or_else(|fault| {
            tracing::debug!(%fault, "the run is not noted as under way");
            None
        });
        let begun = match self.recorder {
            Some(recorder) => {
                timeout(BEGIN_WAIT, recorder.begin(&start)).await.unwrap_or_else(|_| Err(too_slow()))
            }
            None => Err(RecordFault::Unavailable("there is no identity here: run `opmesh init`".to_owned())),
        };
        // Whether the run is lost, kept, or recorded after all is known at its end; the user is told then.
        let begun = begun.inspect_err(|fault| tracing::debug!(%fault, "the beginning is not recorded")).ok();
        Noted { start: Some(start), begun, running }
    }

    /// Names a run without recording its beginning.
    pub(super) fn start(&mut self, operation: Draft, flow: Option<OsString>) -> Option<RunStart> {
        let flow = flow.and_then(|text| text.to_str().and_then(|text| text.parse().ok()));
        match RunKey::random() {
            Ok(key) => Some(RunStart { key, flow, operation, pid: std::process::id() }),
            Err(fault) => {
                self.warn(&format!("this run is not recorded: the system gives no random bytes ({fault})"));
                None
            }
        }
    }

    /// Records the end of a run, or keeps it in the spool; then takes in what waits there.
    async fn end(&mut self, noted: Noted, operations: impl FnOnce(&Draft, i64) -> Vec<Draft>) {
        let Noted { start: Some(start), begun, running } = noted else { return };
        let operations = operations(&start.operation, self.clock.wall().0);
        self.finish(RunResult { start, begun, step: RunStep::Ended, operations }).await;
        drop(running);
    }

    /// Returns whether the result is recorded or kept.
    pub(super) async fn finish(&mut self, result: RunResult) -> bool {
        let recorded = match self.recorder {
            Some(recorder) => {
                timeout(FINISH_WAIT, recorder.finish(&result)).await.unwrap_or_else(|_| Err(too_slow()))
            }
            None => Err(RecordFault::Unavailable("there is no identity here: run `opmesh init`".to_owned())),
        };
        let Err(fault) = recorded else {
            self.take_in(result.start.key).await;
            return true;
        };
        match self.spool.map(|spool| spool.put(&result)) {
            Some(Ok(())) => {
                self.warn(&format!("this run cannot be recorded now: {fault}; the result is kept for later"));
            }
            Some(Err(full)) => self.warn(&format!("this run is not recorded: {fault}; and {full}")),
            None => self.warn(&format!("this run is not recorded: {fault}")),
        }
        self.spool.is_some_and(|spool| spool.has(result.start.key))
    }

    async fn take_in(&mut self, done: RunKey) {
        let (Some(spool), Some(recorder)) = (self.spool, self.recorder) else { return };
        spool.remove(done);
        match timeout(FINISH_WAIT, take_in(spool, recorder, self.clock)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(taken)) => tracing::info!(taken, "results that waited in the spool were recorded"),
            Ok(Err(fault)) => tracing::debug!(%fault, "the spool could not be taken in"),
            Err(_) => tracing::debug!("the spool could not be taken in within {FINISH_WAIT:?}"),
        }
    }

    /// Tells the user, once; the command is more important than we are.
    pub(super) fn warn(&mut self, text: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            self.say(text);
        }
    }

    fn say(&self, text: &str) {
        // A closed standard error is no reason to stop.
        if let Some(Err(fault)) = self.errors.as_ref().map(|mut errors| writeln!(errors, "opmesh: {text}")) {
            tracing::debug!(text, %fault, "standard error is closed");
        }
    }
}

fn too_slow() -> RecordFault {
    RecordFault::Unavailable("the store or the daemon did not answer in time".to_owned())
}
