//! `opmesh audit`.

use std::process::ExitCode;

use super::context::Context;
use super::output::Columns;
use super::time::{self, When};
use crate::admin::{Exit, pb};

/// Security events: who was let in, refused, granted and blocked
///
/// Oldest first. Each record carries a hash of itself and all before it; `--verify` recomputes them, looks whether the
/// log ends where it should, and exits 20 when something does not fit. What the kinds of events mean is in
/// docs/operations.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh audit
  opmesh audit --since 7d --json
  opmesh audit --verify")]
pub(super) struct Audit {
    /// Only events since then: RFC 3339, YYYY-MM-DD or a span back (90m, 36h, 7d, 2w)
    #[arg(long, value_name = "T", conflicts_with = "verify")]
    since: Option<When>,
    /// Recompute the chain of hashes
    #[arg(long)]
    verify: bool,
}

impl Audit {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        if self.verify { verify(context).await } else { list(context, self.since).await }
    }
}

async fn list(context: &mut Context, since: Option<When>) -> anyhow::Result<ExitCode> {
    let now = context.clock.wall();
    let since_unix_ms = since.map(|when| when.resolve(now).0);
    let mut records = context.client().await?.list_audit(pb::ListAuditRequest { since_unix_ms }).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(record) = records.next().await? {
            array.push(&record)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Columns::new(["ID", "AT", "EVENT", "KEY ID", "DETAIL"]);
    while let Some(record) = records.next().await? {
        let at = time::show_ms(record.at_unix_ms);
        table.row([record.id.to_string(), at, record.event, record.key_id, record.detail]);
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

/// In words what the admin service says.
fn misfit(fault: &str) -> &'static str {
    match fault {
        "end" => "is not where the log ends: records were cut off, or added without this program",
        "beside" => {
            "is not what the file beside the database says: records were cut off, or this is an older copy"
        }
        _ => "does not fit the ones before it: something was changed, taken out or put in",
    }
}

async fn verify(context: &mut Context) -> anyhow::Result<ExitCode> {
    let found = context.client().await?.verify_audit(pb::VerifyAuditRequest {}).await?;
    if context.output.is_json() {
        context.output.object(&found)?;
    } else {
        match found.bad_id {
            None => {
                let (count, chain) = (found.count, &found.chain);
                context
                    .output
                    .line(format_args!("{count} records, all in order; the last one's hash is {chain}"))?;
            }
            Some(bad) => context.output.line(format_args!("record {bad} {}", misfit(&found.fault)))?,
        }
    }
    Ok(ExitCode::from(if found.equal { Exit::Ok.code() } else { Exit::Found.code() }))
}
