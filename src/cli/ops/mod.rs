//! `opmesh ops`: operations, this instance's own and those it holds for others.

mod apply;
mod batch;
mod change;
mod filter;
mod lines;

use std::process::ExitCode;

pub(super) use self::filter::Filter;
use super::context::Context;
use super::output::{Columns, Output};
use super::time;
use crate::admin::{Client, pb};

/// Operations: list, show, watch, delete, apply
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Ops {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Operations, newest first
    #[command(after_help = "Filters that are given all hold; the same one given twice means either.

Examples:
  opmesh ops list --since 7d --status error,warning
  opmesh ops list --host web-1 --kind backup --limit 10
  opmesh ops list --json | jq -r '.[] | select(.status == \"error\") | .message'")]
    List {
        /// At most so many [default: all]
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[command(flatten)]
        filter: Filter,
    },
    /// One operation with everything known about it
    #[command(after_help = "Examples:
  opmesh ops show 42
  opmesh ops show 42 --json | jq .details.summary")]
    Show {
        /// Its number here
        id: u64,
    },
    /// What happens from now on, one JSON object a line; needs a running daemon
    #[command(after_help = "Examples:
  opmesh ops watch
  opmesh ops watch --status error | while read -r line; do notify \"$line\"; done")]
    Watch {
        #[command(flatten)]
        filter: Filter,
    },
    /// Delete own operations; all of them or none
    #[command(after_help = "Examples:
  opmesh ops delete 42
  opmesh ops delete 42 43 44")]
    Delete {
        /// Their numbers here
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
    },
    Apply(apply::Apply),
}

impl Ops {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List { filter, limit } => list(context, filter, limit).await,
            Command::Show { id } => show(context, id).await,
            Command::Watch { filter } => watch(context, filter).await,
            Command::Delete { ids } => delete(context, ids).await,
            Command::Apply(apply) => apply.execute(context).await,
        }
    }
}

async fn list(context: &mut Context, filter: Filter, limit: Option<u64>) -> anyhow::Result<ExitCode> {
    let filter = Some(filter.resolve(context.clock.wall()));
    let mut operations =
        context.client().await?.list_operations(pb::ListOperationsRequest { filter, limit }).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(operation) = operations.next().await? {
            array.push(&operation)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = columns();
    let mut rows = 0_usize;
    while let Some(operation) = operations.next().await? {
        if rows == TABLE_ROWS {
            context.output.table(&std::mem::replace(&mut table, columns()))?;
            rows = 0;
        }
        table.row(row(&operation));
        rows += 1;
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

/// An empty table of operations.
pub(super) fn columns() -> Columns {
    Columns::new(["ID", "HOST", "PLAN", "REPO", "KIND", "STATUS", "START", "TOOK", "SNAPSHOT", "MESSAGE"])
}

/// One line of a table of operations.
pub(super) fn row(operation: &pb::Operation) -> [String; 10] {
    let took =
        operation.start_unix_ms.zip(operation.end_unix_ms).map(|(start, end)| end.saturating_sub(start));
    let message = operation.message.lines().next().unwrap_or_default();
    [
        operation.id.to_string(),
        operation.host.clone(),
        operation.plan_id.clone(),
        operation.repo_id.clone(),
        operation.kind.clone(),
        operation.status.clone(),
        operation.start_unix_ms.map_or_else(|| "-".to_owned(), time::show_ms),
        took.map_or_else(|| "-".to_owned(), time::show_span),
        short_snapshot(&operation.snapshot_id),
        message.chars().take(MESSAGE_CHARS).collect(),
    ]
}

/// As much of a snapshot's name as tells it from others at a glance.
pub(super) fn short_snapshot(snapshot_id: &str) -> String {
    if snapshot_id.is_empty() { "-".to_owned() } else { snapshot_id.chars().take(SNAPSHOT_CHARS).collect() }
}

async fn show(context: &mut Context, id: u64) -> anyhow::Result<ExitCode> {
    let operation = context.client().await?.get_operation(pb::GetOperationRequest { id }).await?;
    if context.output.is_json() {
        context.output.object(&operation)?;
    } else {
        show_text(&mut context.output, &operation)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_text(output: &mut Output, operation: &pb::Operation) -> anyhow::Result<()> {
    let moment = |unix_ms: Option<i64>| unix_ms.map(time::show_ms).unwrap_or_default();
    output.fields([
        ("operation", operation.id.to_string()),
        ("host", format!("{} ({})", operation.host, operation.owner_key_id)),
        ("number there", operation.original_id.to_string()),
        ("flow", operation.flow_id.to_string()),
        ("change", operation.modno.to_string()),
        ("kind", operation.kind.clone()),
        ("status", operation.status.clone()),
        ("plan", operation.plan_id.clone()),
        ("repo", operation.repo_id.clone()),
        ("repo GUID", operation.repo_guid.clone()),
        ("snapshot", operation.snapshot_id.clone()),
        ("start", moment(operation.start_unix_ms)),
        ("end", moment(operation.end_unix_ms)),
        ("message", operation.message.clone()),
    ])?;
    let Some(details) = &operation.details else {
        return Ok(());
    };
    output.fields([
        ("tool", format!("{} {}", details.tool, details.tool_version).trim().to_owned()),
        ("command", details.argv.join(" ")),
        ("exit code", details.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("errors", if details.error_count == 0 { String::new() } else { details.error_count.to_string() }),
        ("summary", details.summary_json.clone()),
    ])?;
    for error in &details.errors {
        output.line(format_args!("  {}", super::output::visible(error)))?;
    }
    if !details.log_tail.is_empty() {
        output.line("log")?;
        for line in details.log_tail.lines() {
            output.line(format_args!("  {}", super::output::visible(line)))?;
        }
    }
    Ok(())
}

async fn watch(context: &mut Context, filter: Filter) -> anyhow::Result<ExitCode> {
    let filter = Some(filter.resolve(context.clock.wall()));
    let mut events = context.daemon().await?.watch_operations(pb::WatchOperationsRequest { filter }).await?;
    while let Some(event) = events.next().await? {
        context.output.json_line(&event)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(context: &mut Context, ids: Vec<u64>) -> anyhow::Result<ExitCode> {
    let client: Client = context.client().await?;
    let reply = client.delete_operations(pb::DeleteOperationsRequest { ids }).await?;
    if context.output.is_json() {
        context.output.object(&reply)?;
    } else {
        let deleted: Vec<_> = reply.deleted.iter().map(|deleted| deleted.id.to_string()).collect();
        context.output.note(format_args!("deleted {}", deleted.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows whose columns are aligned with each other; more than this are several tables, so that memory stays flat.
const TABLE_ROWS: usize = 1_000;
/// restic shows as many.
const SNAPSHOT_CHARS: usize = 8;
/// A message in a table; `ops show` has all of it.
const MESSAGE_CHARS: usize = 80;
