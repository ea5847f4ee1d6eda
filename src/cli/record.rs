//! `opmesh record`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;

use opmesh_core::model::Kind;

use super::context::Context;
use super::recorder::Way;
use super::run::parse_kind;
use super::time::When;
use crate::intake::{self, FLOW_VARIABLE, RecordOptions, Tee};

/// Record what a backup tool did from its output on stdin
///
/// The weaker way: a pipe hides the tool's exit code and, unless it is joined with 2>&1, its errors. `opmesh run` sees
/// both.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  restic backup /home --json 2>&1 | opmesh record --tool restic --plan home --repo nas --tee
  opmesh record --tool borg --plan etc --repo offsite --exit-code 1 --start 2h < borg.log")]
pub(super) struct Record {
    /// Whose output it is: restic, borg, borgmatic or kopia
    #[arg(long, value_name = "T", value_parser = ["restic", "borg", "borgmatic", "kopia"], hide_possible_values = true)]
    tool: String,
    /// Which plan the run belongs to
    #[arg(long, value_name = "P")]
    plan: String,
    /// Which repository it works on
    #[arg(long, value_name = "R")]
    repo: String,
    /// What kind of step it is [default: backup]
    #[arg(long, value_name = "K", value_parser = parse_kind)]
    kind: Option<Kind>,
    /// The tool's exit code, if you know it
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    exit_code: Option<i32>,
    /// When the tool began: RFC 3339, YYYY-MM-DD or a span back [default: now]
    #[arg(long, value_name = "T")]
    start: Option<When>,
    /// Pass the input on to stdout
    #[arg(long)]
    tee: bool,
}

impl Record {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let now = context.clock.wall();
        let options = RecordOptions {
            plan: self.plan,
            repo: self.repo,
            tool: self.tool,
            kind: self.kind,
            exit_code: self.exit_code,
            start: self.start.map(|when| when.resolve(now)),
            flow: std::env::var_os(FLOW_VARIABLE),
        };
        let way = Way::to_instance(context);
        let spool = way.spool();
        let tee = if self.tee { Tee::To(stream(io::stdout().as_fd())?) } else { Tee::Off };
        let input = stream(io::stdin().as_fd())?;
        let code = intake::record(options, input, tee, Some(&way), spool.as_ref(), &context.clock).await;
        Ok(ExitCode::from(code))
    }
}

/// One of our own streams, unbuffered.
fn stream(descriptor: BorrowedFd<'_>) -> io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from(File::from(descriptor.try_clone_to_owned()?)))
}
