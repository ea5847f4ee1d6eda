//! `opmesh config get`, `apply` and `push`: the document that is shown is the one that is edited and given back.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::admin::{Exit, Failure, Reason, pb};
use crate::cli::context::Context;
use crate::cli::time::parse_span;

/// Print the repositories and plans of this instance, or those that a peer shows it
///
/// What is printed can be edited and given to `config apply` or `config push`. Secrets are left out unless asked for; in
/// their place stands {"redacted": true}, which keeps the value that is there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh config get > config.json
  opmesh config get --host web-1 | jq '.plans[].id'
  opmesh config get --secrets > backup-of-config.json")]
pub(super) struct Get {
    /// What this peer shows, instead of what is here
    #[arg(long, value_name = "H", conflicts_with = "secrets")]
    host: Option<String>,
    /// With passwords, environment and hooks
    #[arg(long)]
    secrets: bool,
}

/// Change the repositories and plans of this instance
///
/// The document's repos and plans are created or replaced whole; what its `delete` names is deleted; what it does not
/// name stays. All of it happens or nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh config apply -f config.json
  opmesh config get | jq '.plans[0].schedule = \"daily\"' | opmesh config apply -f -
  echo '{\"delete\": {\"plans\": [\"old\"]}}' | opmesh config apply -f - --expect-modno 12")]
pub(super) struct Apply {
    /// File with the document, or - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only if the config is at this modno [default: the document's modno, if it has one]
    #[arg(long, value_name = "N")]
    expect_modno: Option<u64>,
}

/// Ask a connected peer to change its repositories and plans, and print its verdict
///
/// The peer decides: its operator has granted `READ_WRITE_CONFIG` with scopes, and its own rules hold. The document is as
/// for `config apply`, made from `config get --host`. Exit code 0: applied, or so already; 1: the peer's config has
/// changed since; 4: refused; 10: not connected, or no answer in time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh config get --host web-1 > web-1.json
  opmesh config push web-1 -f web-1.json")]
pub(super) struct Push {
    /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
    host: String,
    /// File with the document, or - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// How long to wait for the verdict [default: 30s]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    timeout: Option<std::time::Duration>,
}

/// The largest document that is read; what can be applied is smaller.
const DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;

impl Get {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let client = context.client().await?;
        let reply = if self.secrets {
            client.reveal_config(pb::RevealConfigRequest {}).await?
        } else {
            client.get_config(pb::GetConfigRequest { host: self.host }).await?
        };
        if context.output.is_json() {
            let document: serde_json::Value = serde_json::from_str(&reply.document_json)?;
            context.output.object(&document)?;
        } else {
            context.output.line(reply.document_json)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Apply {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let document = read(&self.file)?;
        let client = context.client().await?;
        let request = pb::ApplyConfigRequest { document, expect_modno: self.expect_modno };
        let verdict = client.apply_config(request).await?;
        answer(context, &verdict, Exit::Error, "opmesh config get")
    }
}

impl Push {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let document = read(&self.file)?;
        // Only a daemon has sessions.
        let client = context.daemon().await?;
        let timeout_ms = self.timeout.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        let request = pb::PushConfigRequest { host: self.host, document, timeout_ms };
        let verdict = client.push_config(request).await?;
        let look = format!("opmesh config get --host {}", verdict.host);
        answer(context, &verdict, Exit::Refused, &look)
    }
}

/// Prints the verdict; the exit code follows from it. `refused` is what a refusal is.
fn answer(
    context: &mut Context,
    verdict: &pb::ConfigVerdict,
    refused: Exit,
    look: &str,
) -> anyhow::Result<ExitCode> {
    let now = verdict.modno.map(|modno| modno.to_string()).unwrap_or_default();
    let (exit, text) = match verdict.verdict.as_str() {
        "applied" => (Exit::Ok, format!("applied: {} is at modno {now}", verdict.host)),
        "unchanged" => (Exit::Ok, format!("unchanged: {} is at modno {now}", verdict.host)),
        "stale" => (
            Exit::Error,
            format!(
                "stale: {} is at modno {now}, the change was made for {}; look again with `{look}` and repeat the change",
                verdict.host, verdict.base_modno
            ),
        ),
        _ => (refused, format!("refused by {} ({}): {}", verdict.host, verdict.rule, verdict.reason)),
    };
    if context.output.is_json() {
        context.output.object(verdict)?;
    } else {
        context.output.line(crate::cli::output::visible(&text))?;
    }
    Ok(ExitCode::from(exit.code()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let place = path.display();
    let read = if path == Path::new("-") {
        std::io::stdin().take(DOCUMENT_BYTES + 1).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("{place} cannot be opened"))?;
        file.take(DOCUMENT_BYTES + 1).read_to_string(&mut text)
    };
    read.with_context(|| format!("{place} cannot be read"))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > DOCUMENT_BYTES {
        let message = format!("{place} is longer than {DOCUMENT_BYTES} bytes");
        return Err(Failure::new(Reason::Limit, message).into());
    }
    Ok(text)
}
