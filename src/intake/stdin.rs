//! `opmesh record`: a tool's output comes through a pipe. The weaker way: the exit code and, unless it was joined to
//! the pipe, standard error are not seen.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use opmesh_core::model::{Kind, Status, UnixMs};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::{CommandLine, Tool};
use super::filter::Filter;
use super::ledger::{Recorder, RunResult, RunStep};
use super::observer::{Observer, Source};
use super::outcome::{Ending, Outcome};
use super::pass::{Flow, pass};
use super::run::{Book, Outputs, started};
use super::signals::Signals;
use super::spool::Spool;
use crate::clock::Clock;

/// What the pipe carries.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// The plan.
    pub plan: String,
    /// The repository.
    pub repo: String,
    /// Whose output it is.
    pub tool: String,
    /// Which step it is; none = told from the output.
    pub kind: Option<Kind>,
    /// The tool's exit code, if the caller knows it.
    pub exit_code: Option<i32>,
    /// When the tool began; none = when we began.
    pub start: Option<UnixMs>,
    /// The value of [`super::FLOW_VARIABLE`] that we were started with.
    pub flow: Option<OsString>,
}

/// Where the input is passed on to.
#[derive(Debug)]
pub enum Tee<W> {
    /// Nowhere.
    Off,
    /// Here, byte for byte.
    To(W),
}

/// Reads the input to its end and records it. Returns 0 when it is recorded or kept for later, 1 when it is lost,
/// 2 when the options name no operation.
pub async fn record<R: Recorder>(
    options: RecordOptions,
    input: impl AsyncRead + Unpin,
    tee: Tee<impl AsyncWrite + Unpin>,
    recorder: Option<&R>,
    spool: Option<&Spool>,
    clock: &Clock,
) -> u8 {
    let mut signals = Signals::catch();
    let line = CommandLine::new(&[], Some(&options.tool), options.kind);
    let start_unix_ms = options.start.unwrap_or_else(|| clock.wall()).0;
    let mut operation = started(&line, &options.repo, &options.plan, start_unix_ms);
    let mut book = Book::new(recorder, spool, clock, Outputs::own().stderr);
    if let Err(fault) = operation.encode() {
        book.warn(&fault.to_string());
        return 2;
    }
    let observer = Arc::new(Mutex::new(Observer::new(line.tool)));
    let to = match tee {
        Tee::Off => None,
        Tee::To(output) => Some(output),
    };
    let reading = pass(Source::Mixed, input, to, Filter::none(), observer.clone(), Arc::new(Flow::default()));
    read(reading, &mut signals).await;
    let ending = options.exit_code.map_or(Ending::Unknown, Ending::Exited);
    let outcome = observer.lock().unwrap_or_else(PoisonError::into_inner).finish(ending, signals.stopped());
    operation.kind = options.kind.unwrap_or_else(|| kind_of(line.tool, &outcome));
    let Some(start) = book.start(operation, options.flow) else { return 1 };
    let operations = outcome.operations(&start.operation, clock.wall().0);
    let kept = book.finish(RunResult { start, begun: None, step: RunStep::Ended, operations }).await;
    u8::from(!kept)
}

/// A success that shows no snapshot may be any command of the tool's; to take it for a backup would hide that the
/// backups stopped.
fn kind_of(tool: Tool, outcome: &Outcome) -> Kind {
    let went_well = matches!(outcome.status, Status::Success | Status::Warning);
    match tool {
        Tool::Other => Kind::Command,
        _ if went_well && outcome.snapshots.is_empty() => Kind::Command,
        _ => Kind::Backup,
    }
}

/// Reads until the input or somebody says that it is over. Ctrl-C stops the tool, whose end is then the input's; SIGTERM
/// is meant for us.
async fn read(reading: impl Future<Output = ()>, signals: &mut Signals) {
    let mut reading = std::pin::pin!(reading);
    std::future::poll_fn(|context| {
        let over = reading.as_mut().poll(context);
        if signals.take(context).contains(&Signal::TERM) { Poll::Ready(()) } else { over }
    })
    .await;
}
