//! `opmesh run`.

use std::ffi::OsString;
use std::process::ExitCode;

use opmesh_core::model::Kind;

use super::context::Context;
use super::recorder::Way;
use crate::intake::{self, FLOW_VARIABLE, Outputs, Progress, RunOptions};

/// Run a backup tool and record what it did
///
/// The command, its output and its exit code are not altered, and nothing here prevents or fails it. Exit code: the
/// command's; 128+N when signal N killed it; 125 usage, 126 not executable, 127 not found.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh run --plan home --repo nas -- restic backup /home --json
  opmesh run --plan etc --repo offsite -- borg create --json --log-json ::{now} /etc
  opmesh run --plan db --repo nas --kind backup -- /usr/local/bin/dump-and-copy")]
pub(super) struct Run {
    /// Which plan this run belongs to
    #[arg(long, value_name = "P")]
    plan: String,
    /// Which repository it works on
    #[arg(long, value_name = "R")]
    repo: String,
    /// Whose output to expect [default: told from the command]
    #[arg(long, value_name = "T")]
    tool: Option<String>,
    /// What kind of step it is [default: told from the command]
    #[arg(long, value_name = "K", value_parser = parse_kind)]
    kind: Option<Kind>,
    /// Pass progress lines on even when the output is no terminal
    #[arg(long)]
    progress: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Run {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let options = RunOptions {
            plan: self.plan,
            repo: self.repo,
            tool: self.tool,
            kind: self.kind,
            flow: std::env::var_os(FLOW_VARIABLE),
            progress: if self.progress { Progress::Always } else { Progress::OnTerminals },
            command: self.command,
        };
        let way = Way::to_instance(context);
        let spool = way.spool();
        let code = intake::run(options, Outputs::own(), Some(&way), spool.as_ref(), &context.clock).await;
        Ok(ExitCode::from(code))
    }
}

/// Reads a kind of step by its name.
pub(super) fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::from_name(text)
        .ok_or_else(|| format!("expected one of {}", Kind::ALL.map(|(.., name)| name).join(", ")))
}
