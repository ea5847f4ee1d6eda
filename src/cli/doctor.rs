//! `opmesh doctor`.

use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use super::output::Output;
use crate::admin::{Client, Exit, Failure, Reason, pb};
use crate::doctor;

/// Find out what is wrong, which side refuses, and what to do next; exit 20 when something was found
///
/// Without PEER: this instance itself, then each peer in short. With PEER: every step of the way to it, without
/// disturbing a session. With the key ID of a host that this hub turns away: why. Works with and without a daemon;
/// changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh doctor
  opmesh doctor hub
  opmesh doctor ed25519.kA9b2c3d… --json | jq -r .next")]
pub(super) struct Doctor {
    /// Name, instance id, key ID, or the start of the key ID (8 characters or more)
    peer: Option<String>,
}

/// The whole answer as JSON.
#[derive(Debug, Serialize)]
struct Diagnosis<'a> {
    peer: Option<&'a str>,
    verdict: &'a str,
    cause: Option<&'a str>,
    side: Option<&'a str>,
    next: &'a str,
    checks: &'a [pb::Check],
}

impl Doctor {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let checks = match context.client().await {
            Ok(client) => examine(&mut context.output, client, self.peer.as_deref()).await?,
            Err(failure) if is_about_this_instance(&failure) => unopened(context, &failure).await?,
            Err(failure) => return Err(failure.into()),
        };
        conclude(&mut context.output, self.peer.as_deref(), &checks)
    }
}

/// Whether the failure is what a doctor is asked about, and not a fault of the question.
fn is_about_this_instance(failure: &Failure) -> bool {
    matches!(
        failure.reason,
        Reason::Locked
            | Reason::Identity
            | Reason::OtherIdentity
            | Reason::Config
            | Reason::Store
            | Reason::Io
            | Reason::Version
    )
}

async fn examine(output: &mut Output, client: Client, peer: Option<&str>) -> anyhow::Result<Vec<pb::Check>> {
    let request = pb::DiagnoseRequest { peer: peer.unwrap_or_default().to_owned() };
    let mut made = client.diagnose(request).await?;
    let mut checks = Vec::new();
    loop {
        let progress = output.progress("looking");
        let check = made.next().await?;
        drop(progress);
        let Some(check) = check else { return Ok(checks) };
        show(output, &check)?;
        checks.push(check);
    }
}

/// Not even the store can be opened: what can be seen without it.
async fn unopened(context: &mut Context, failure: &Failure) -> anyhow::Result<Vec<pb::Check>> {
    let places = context.places()?;
    let found = doctor::unopened(&places, &failure.message).await;
    let checks: Vec<_> = found.into_iter().map(pb::Check::from).collect();
    checks.iter().try_for_each(|check| show(&mut context.output, check))?;
    Ok(checks)
}

fn show(output: &mut Output, check: &pb::Check) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(());
    }
    let peer = if check.peer.is_empty() { "-" } else { &check.peer };
    // A stranger's key would push everything else away.
    let peer: String = peer.chars().take(PEER_CHARS).collect();
    output.row([(&check.state, STATE_WIDTH), (&peer, PEER_WIDTH), (&check.id, ID_WIDTH), (&check.seen, 0)])
}

const STATE_WIDTH: usize = 7;
const PEER_WIDTH: usize = 10;
const PEER_CHARS: usize = 24;
const ID_WIDTH: usize = 12;

fn conclude(output: &mut Output, peer: Option<&str>, checks: &[pb::Check]) -> anyhow::Result<ExitCode> {
    let cause = cause(checks);
    let verdict = cause.map_or("ok", |cause| cause.state.as_str());
    if output.is_json() {
        output.object(&Diagnosis {
            peer,
            verdict,
            cause: cause.map(|cause| cause.id.as_str()),
            side: cause.map(|cause| cause.side.as_str()),
            next: cause.map_or("", |cause| &cause.next),
            checks,
        })?;
    } else {
        conclude_for_people(output, cause, checks)?;
    }
    Ok(ExitCode::from(if verdict == "fail" { Exit::Found.code() } else { Exit::Ok.code() }))
}

/// The one check that explains the others: the first that failed, else the first that somebody should look at. What is
/// looked at later depends on what is looked at earlier.
fn cause(checks: &[pb::Check]) -> Option<&pb::Check> {
    let first = |state: &str| checks.iter().find(|check| check.state == state);
    first("fail").or_else(|| first("warning"))
}

fn conclude_for_people(
    output: &mut Output,
    cause: Option<&pb::Check>,
    checks: &[pb::Check],
) -> anyhow::Result<()> {
    output.line("")?;
    let Some(cause) = cause else { return output.line("Nothing is wrong.") };
    let whose = match cause.side.as_str() {
        "here" => "this side",
        "peer" => "the other side",
        _ => "between the two sides",
    };
    output.line(format_args!("The cause: {} ({whose})", cause.id))?;
    let worth_a_step = |check: &&pb::Check| ["fail", "warning"].contains(&check.state.as_str());
    for check in checks.iter().filter(worth_a_step).filter(|check| !check.next.is_empty()) {
        output.line(format_args!("  {}: {}", check.id, super::output::visible(&check.next)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, state: &str) -> pb::Check {
        pb::Check { id: id.to_owned(), state: state.to_owned(), ..pb::Check::default() }
    }

    #[test]
    fn the_first_fault_explains_the_others_and_comes_before_any_warning() {
        let of = |checks: &[pb::Check]| cause(checks).map(|check| check.id.clone());
        let all =
            [check("daemon", "warning"), check("name", "ok"), check("tcp", "fail"), check("grants", "fail")];
        assert_eq!(of(&all).as_deref(), Some("tcp"));
        assert_eq!(of(&all[..2]).as_deref(), Some("daemon"));
        assert_eq!(of(&all[1..2]), None);
    }
}
