//! Intake: what a backup tool did becomes operations.
//!
//! `opmesh run -- restic …` owns the child's output and exit code ([`run`]); `… | opmesh record` reads a tool's output
//! from a pipe ([`record`]). Both feed an [`Observer`], which is pure: bytes in, [`Outcome`] out. What could not be
//! recorded waits in the [`Spool`]. Neither ever prevents, changes or fails the backup.
//!
//! Intake knows no daemon and no socket: whoever calls it hands in a [`Recorder`].

mod command;
mod dialect;
mod filter;
mod ledger;
mod observer;
mod outcome;
mod pass;
mod redact;
mod run;
mod scan;
mod signals;
mod spool;
mod stdin;
mod tail;

pub use command::{CommandLine, Tool};
pub use ledger::{Begun, RecordFault, Recorder, RunKey, RunKeyFault, RunResult, RunStart, RunStep, take_in};
pub use observer::{Observer, Source};
pub use outcome::{Ending, Outcome, Snapshot};
pub use run::{FLOW_VARIABLE, Outputs, Progress, RunOptions, run};
pub use spool::{Spool, SpoolFault};
pub use stdin::{RecordOptions, Tee, record};
