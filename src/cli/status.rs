//! `opmesh status`.

use std::process::ExitCode;

use super::context::Context;
use super::output::{Columns, Output};
use super::time;
use crate::admin::{Exit, pb};

/// Who this is, what it holds, and how it stands with every peer
///
/// Without a running daemon the answer is the same, with `running` false, and the exit code is 10.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh status
  opmesh status --json | jq -r '.peers[] | select(.in_sync == false) | .name'
  opmesh --data-dir /srv/opmesh status")]
pub(super) struct Status {}

impl Status {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let status = context.client().await?.status(pb::StatusRequest {}).await?;
        if context.output.is_json() {
            context.output.object(&status)?;
        } else {
            show(&mut context.output, &status)?;
        }
        let running = status.daemon.is_some_and(|daemon| daemon.running);
        Ok(ExitCode::from(if running { Exit::Ok.code() } else { Exit::Unreachable.code() }))
    }
}

fn show(output: &mut Output, status: &pb::StatusReply) -> anyhow::Result<()> {
    output.line(format_args!("instance    {} ({})", status.instance_id, status.key_id))?;
    output.line(format_args!("version     {}", status.version))?;
    output.line(format_args!("daemon      {}", daemon(status.daemon.as_ref())))?;
    if let Some(position) = &status.position {
        output.line(format_args!("own log     {} operations, change {}", status.count, position.modno))?;
    }
    if let Some(store) = &status.store {
        output.line(format_args!("store       {} schema {}, {}", store.engine, store.schema, store.path))?;
    }
    if status.peers.is_empty() {
        output.line("peers       none")?;
        return Ok(());
    }
    output.line("")?;
    let mut table = Columns::new(["PEER", "ROLE", "STATE", "IN SYNC", "LAG", "LAST SEEN", "GIVES", "WHY"]);
    for peer in &status.peers {
        table.row(peer_row(peer));
    }
    output.table(&table)
}

fn daemon(daemon: Option<&pb::Daemon>) -> String {
    let Some(daemon) = daemon.filter(|daemon| daemon.running) else {
        return "not running".to_owned();
    };
    let pid = daemon.pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
    let since =
        daemon.since_unix_ms.map(|since| format!(" since {}", time::show_ms(since))).unwrap_or_default();
    let listen: Vec<_> = daemon.listen.iter().map(|at| format!("{}://{}", at.channel, at.address)).collect();
    let listen = if listen.is_empty() {
        "listens nowhere".to_owned()
    } else {
        format!("listens on {}", listen.join(", "))
    };
    format!("running{pid}{since}, {listen}")
}

/// One line of the peers' table; `pair` and `peer` show the same.
pub(super) fn peer_row(peer: &pb::PeerStatus) -> [String; 8] {
    [
        peer.name.clone(),
        peer.role.replace('_', " "),
        peer.state.replace('_', " "),
        match peer.in_sync {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => "-".to_owned(),
        },
        peer.lag.as_ref().map_or_else(|| "-".to_owned(), lag),
        peer.last_seen_unix_ms.map_or_else(|| "-".to_owned(), time::show_ms),
        gives(peer.grants.as_ref()),
        peer.reason.clone(),
    ]
}

fn lag(lag: &pb::Lag) -> String {
    if lag.operations == 0 {
        "0".to_owned()
    } else {
        format!("{} ({})", lag.operations, time::show_span(lag.ms))
    }
}

/// What a peer may do with our things, in words.
pub(super) fn gives(grants: Option<&pb::Grants>) -> String {
    grants
        .map(|grants| grants.given.join(" "))
        .filter(|given| !given.is_empty())
        .unwrap_or_else(|| "grants nothing".to_owned())
}
