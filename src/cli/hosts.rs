//! `opmesh hosts`: the owners whose operations lie here.

use std::process::ExitCode;

use super::context::Context;
use super::ops;
use super::output::{Columns, confirmed};
use super::time;
use crate::admin::{Exit, pb};

/// The hosts whose operations lie here, this one included
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Hosts {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All hosts
    #[command(after_help = "Examples:
  opmesh hosts list
  opmesh hosts list --json | jq -r '.[] | select(.connected | not) | .name'")]
    List,
    /// One host
    #[command(after_help = "Examples:
  opmesh hosts show web-1
  opmesh hosts show ed25519.kA9b2c3d --json")]
    Show {
        /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
        host: String,
    },
    /// Recompute digests from the stored bytes; exit 20 when one differs
    ///
    /// Changes nothing. Every stored operation is read and hashed again, and the sum is compared with the one that the
    /// store keeps.
    #[command(after_help = "Examples:
  opmesh hosts verify --all
  opmesh hosts verify web-1 --json")]
    Verify {
        /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        host: Option<String>,
        /// Every host
        #[arg(long)]
        all: bool,
    },
    /// Operations of a host that were set aside, with the reason
    #[command(after_help = "Examples:
  opmesh hosts parked web-1
  opmesh hosts parked web-1 --json | jq length")]
    Parked {
        /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
        host: String,
    },
    /// Delete everything that is kept of a host: its operations, what was set aside, its history
    ///
    /// A host that may still connect would send it all again: remove or block its peer first. There is no way back.
    #[command(after_help = "Examples:
  opmesh peer block web-1 && opmesh hosts forget web-1 --yes
  opmesh hosts forget ed25519.kA9b2c3d --yes --json")]
    Forget {
        /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
        host: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// End the quarantine of a host
    #[command(after_help = "Examples:
  opmesh hosts release web-1")]
    Release {
        /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
        host: String,
    },
}

impl Hosts {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List => list(context).await,
            Command::Show { host } => {
                let host = context.client().await?.get_host(pb::GetHostRequest { host }).await?;
                show(context, &host)
            }
            Command::Verify { host, all: _ } => verify(context, host).await,
            Command::Parked { host } => parked(context, host).await,
            Command::Forget { host, yes } => forget(context, host, yes).await,
            Command::Release { host } => {
                let host = context.client().await?.release_host(pb::ReleaseHostRequest { host }).await?;
                context.output.note(format_args!("{} is no longer in quarantine", host.name));
                show(context, &host)
            }
        }
    }
}

async fn list(context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut hosts = context.client().await?.list_hosts(pb::ListHostsRequest {}).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(host) = hosts.next().await? {
            array.push(&host)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Columns::new([
        "HOST",
        "STATE",
        "CONNECTED",
        "LAST SUCCESS",
        "LAST RUN",
        "LAST SEEN",
        "OPERATIONS",
        "PARKED",
    ]);
    while let Some(host) = hosts.next().await? {
        table.row(host_row(&host));
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

fn host_row(host: &pb::Host) -> [String; 8] {
    let moment = |unix_ms: Option<i64>| unix_ms.map_or_else(|| "-".to_owned(), time::show_ms);
    [
        if host.is_self { format!("{} (this one)", host.name) } else { host.name.clone() },
        host.state.clone(),
        if host.connected { "yes".to_owned() } else { "no".to_owned() },
        moment(host.last_success_unix_ms),
        moment(host.last_run_unix_ms),
        moment(host.last_seen_unix_ms),
        (host.count + host.adopted.iter().map(|old| old.count).sum::<u64>()).to_string(),
        (host.parked + host.adopted.iter().map(|old| old.parked).sum::<u64>()).to_string(),
    ]
}

fn show(context: &mut Context, host: &pb::Host) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        context.output.object(host)?;
        return Ok(ExitCode::SUCCESS);
    }
    let [name, state, connected, success, run, seen, count, parked] = host_row(host);
    let position =
        host.position.as_ref().map_or_else(|| "-".to_owned(), |at| format!("{} {}", at.modno, at.chain));
    context.output.fields([
        ("host", name),
        ("instance", host.instance_id.clone()),
        ("key ID", host.key_id.clone()),
        ("state", state),
        ("connected", connected),
        ("last success", success),
        ("last run", run),
        ("last seen", seen),
        ("operations", count),
        ("digest", host.digest.clone()),
        ("position", position),
        ("version", host.version.clone()),
        ("parked", parked),
        ("stands for", host.adopted.iter().map(|old| old.key_id.as_str()).collect::<Vec<_>>().join(" ")),
    ])?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(context: &mut Context, host: Option<String>) -> anyhow::Result<ExitCode> {
    let request = pb::VerifyHostsRequest { hosts: host.into_iter().collect() };
    let client = context.client().await?;
    let progress = context.output.progress("hashing stored operations");
    let mut verifications = client.verify_hosts(request).await?;
    let mut found = Vec::new();
    while let Some(verification) = verifications.next().await? {
        progress.set(format!("hashing stored operations: {} is done", verification.host));
        found.push(verification);
    }
    drop(progress);
    let equal = found.iter().all(|verification| verification.equal);
    if context.output.is_json() {
        let mut array = context.output.array();
        found.iter().try_for_each(|verification| array.push(verification))?;
        array.finish()?;
    } else {
        show_verifications(context, &found)?;
    }
    Ok(ExitCode::from(if equal { Exit::Ok.code() } else { Exit::Found.code() }))
}

fn show_verifications(context: &mut Context, found: &[pb::HostVerification]) -> anyhow::Result<()> {
    let mut table = Columns::new(["HOST", "EQUAL", "OPERATIONS", "STORED COUNT", "DIGEST", "STORED DIGEST"]);
    for verification in found {
        table.row([
            verification.host.clone(),
            if verification.equal { "yes".to_owned() } else { "NO".to_owned() },
            verification.count.to_string(),
            verification.stored_count.to_string(),
            verification.digest.clone(),
            verification.stored_digest.clone(),
        ]);
    }
    context.output.table(&table)?;
    for verification in found {
        for bad in &verification.bad_operations {
            context
                .output
                .line(format_args!("{}: operation {}: {}", verification.host, bad.id, bad.fault))?;
        }
    }
    Ok(())
}

async fn forget(context: &mut Context, host: String, yes: bool) -> anyhow::Result<ExitCode> {
    let client = context.client().await?;
    let found = client.get_host(pb::GetHostRequest { host }).await?;
    let deed = format!(
        "delete {} operations and {} parked ones of {} ({})",
        found.count, found.parked, found.name, found.key_id
    );
    if !yes && !confirmed(&deed)? {
        context.output.note("nothing was deleted");
        return Ok(ExitCode::from(Exit::Error.code()));
    }
    let forgotten = client.forget_host(pb::ForgetHostRequest { host: found.key_id }).await?;
    if context.output.is_json() {
        context.output.object(&forgotten)?;
    } else {
        context.output.line(format_args!(
            "{} is forgotten: {} operations and {} parked ones are deleted",
            forgotten.name, forgotten.operations, forgotten.parked
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn parked(context: &mut Context, host: String) -> anyhow::Result<ExitCode> {
    let mut parked = context.client().await?.list_parked(pb::ListParkedRequest { host }).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(operation) = parked.next().await? {
            array.push(&operation)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Columns::new([
        "PARKED ID",
        "REASON",
        "PARKED",
        "PLAN",
        "REPO",
        "KIND",
        "STATUS",
        "START",
        "SNAPSHOT",
    ]);
    while let Some(row) = parked.next().await? {
        let operation = row.operation.unwrap_or_default();
        table.row([
            row.parked_id.to_string(),
            row.reason,
            time::show_ms(row.parked_unix_ms),
            operation.plan_id,
            operation.repo_id,
            operation.kind,
            operation.status,
            operation.start_unix_ms.map_or_else(|| "-".to_owned(), time::show_ms),
            ops::short_snapshot(&operation.snapshot_id),
        ]);
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}
