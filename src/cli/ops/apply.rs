//! `opmesh ops apply`: changes to the own log from JSON lines.
//!
//! Lines are gathered into transactions while earlier ones are written, and answered in order once durable. The first
//! bad line takes its transaction with it and ends the command.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::batch::{Bad, Batching, gather};
use super::lines;
use crate::admin::{Exit, Failure, Reason, Replies, pb};
use crate::cli::context::Context;

/// Create, update and delete own operations from JSON lines
///
/// Each line is one object with exactly one of create, update and delete. Up to 1,000 lines or 1 MiB are one
/// transaction; a result is printed for every line once it is durable. The first bad line rolls its transaction back
/// and stops: exit code 1 when nothing was kept, else 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  echo '{\"create\":{\"kind\":\"backup\",\"status\":\"success\",\"repo_id\":\"nas\",\"plan_id\":\"home\"}}' | opmesh ops apply -
  opmesh ops apply changes.jsonl
  opmesh ops apply --atomic changes.jsonl")]
pub(super) struct Apply {
    /// File with the lines, or - for stdin
    file: PathBuf,
    /// All lines in one transaction
    #[arg(long)]
    atomic: bool,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Answered {
    /// Something is durable.
    committed: bool,
    /// The instance refused a change.
    refused: bool,
}

/// Transactions read and parsed while one is being written.
const TRANSACTIONS_AHEAD: usize = 4;

impl Apply {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let client = context.client().await?;
        let lines = lines::open(&self.file)?;
        let batching = if self.atomic { Batching::Atomic } else { Batching::Grouped };
        let (transactions, sent) = mpsc::channel(TRANSACTIONS_AHEAD);
        let mut gathering = JoinSet::new();
        gathering.spawn(gather(lines, batching, transactions));
        let replies = client.apply_operations(ReceiverStream::new(sent)).await?;
        let answered = answer(context, replies).await?;
        if answered.refused {
            return Ok(answered.stopped());
        }
        match gathering.join_next().await.transpose()?.flatten() {
            None => Ok(ExitCode::SUCCESS),
            Some(Bad::Line(result)) => {
                context.output.json_line(&result)?;
                Ok(answered.stopped())
            }
            Some(Bad::Input(fault)) => {
                let message = format!("{} cannot be read: {fault}", self.file.display());
                Err(Failure::new(Reason::Io, message).into())
            }
        }
    }
}

impl Answered {
    /// The exit code of a command that a bad line stopped.
    fn stopped(self) -> ExitCode {
        ExitCode::from(if self.committed { Exit::Partly.code() } else { Exit::Error.code() })
    }
}

async fn answer(context: &mut Context, mut replies: Replies<pb::ApplyReply>) -> anyhow::Result<Answered> {
    let mut answered = Answered::default();
    while let Some(reply) = replies.next().await? {
        let refused = reply.results.iter().filter(|result| result.result == REFUSED).count();
        answered.refused |= refused > 0;
        answered.committed |= reply.results.len() > refused;
        context.output.json_lines(&reply.results)?;
    }
    Ok(answered)
}

/// The result of a change that was not made.
pub(super) const REFUSED: &str = "error";
