//! `opmesh demo`: a hub and two hosts as real processes in a folder of their own, fed by real backups.
//!
//! `lab` owns the folder and every process, `backups` knows what the hosts do, `screen` shows what the hub holds. The
//! processes are this same program, called as an operator would call it.

mod backups;
mod lab;
mod screen;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;

use self::backups::{Job, Tool};
use self::lab::{Interrupted, Lab};
use self::screen::Screen;
use super::context::Context;
use crate::admin::{Client, Failure, Reason, pb};

/// The whole thing on this machine: a hub, two hosts, real backups
///
/// Works in a folder of its own and on free loopback ports; nothing else on this machine is touched. Uses restic when it
/// is installed. On a terminal it keeps running until Ctrl-C, which stops everything and removes the folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh demo
  opmesh demo --keep
  opmesh demo --once")]
pub(super) struct Demo {
    /// End as soon as the hub has every backup; the default when stdout is no terminal
    #[arg(long)]
    once: bool,
    /// Leave the folder behind
    #[arg(long)]
    keep: bool,
}

/// The hub's name.
const HUB: &str = "hub";
/// The hosts' names.
const HOSTS: [&str; 2] = ["web-1", "db-1"];
/// By then the hub must hold everything that the hosts did.
const ARRIVAL: Duration = Duration::from_mins(1);
/// How often the hub is asked.
const REFRESH: Duration = Duration::from_millis(300);
/// SIGINT ended the demo before it was done.
const INTERRUPTED: u8 = 130;

impl Demo {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let lab = Lab::new()?;
        let mut signals = lab.listen_to_signals()?;
        context.output.line(format_args!("demo in {}", lab.folder().display()))?;
        let stay = !self.once && io::stdout().is_terminal();
        let played = play(context, &lab, stay).await;
        context.output.note("stopping all processes");
        lab.stop().await;
        signals.shutdown().await;
        let interrupted = played.as_ref().is_err_and(anyhow::Error::is::<Interrupted>);
        if self.keep || (played.is_err() && !interrupted) {
            context.output.note(format_args!("the folder stays: {}", lab.folder().display()));
        } else {
            lab.remove()?;
        }
        match played {
            Err(_) if interrupted => Ok(ExitCode::from(INTERRUPTED)),
            Err(fault) => Err(fault),
            Ok(()) => Ok(ExitCode::SUCCESS),
        }
    }
}

async fn play(context: &mut Context, lab: &Lab, stay: bool) -> anyhow::Result<()> {
    let url = start(context, lab).await?;
    let tool = Tool::find();
    context.output.line(match &tool {
        Tool::Restic(path) => format!("backups by {}", path.display()),
        Tool::Copy => {
            "restic is not on PATH: backups are made by cp, and their snapshots have no ids".to_owned()
        }
    })?;
    context.output.line("")?;
    let hub = Client::connect(&lab.places(HUB).socket()).await?;
    let mut screen = Screen::new();
    let mut hosts = JoinSet::new();
    let mut expected = 0_usize;
    for (host, jobs) in HOSTS.into_iter().zip(backups::prepare(lab, &tool, HOSTS).await?) {
        expected += jobs.len();
        hosts.spawn(work(lab.clone(), host, jobs));
    }
    let watched = until_all_is_there(context, lab, &hub, &mut screen, &mut hosts, expected).await;
    // Ends every job that still runs, before the processes that they talk to.
    if watched.is_err() {
        lab.interrupt();
    }
    while let Some(ended) = hosts.join_next().await {
        ended??;
    }
    watched?;
    prove(context, lab).await?;
    if !stay {
        context.output.line("`opmesh demo` on a terminal keeps all of this running, to be looked at.")?;
        return Ok(());
    }
    what_next(context, lab, &url)?;
    screen.lines_from_now_on();
    while lab.pause(REFRESH).await.is_ok() {
        screen.show(&mut context.output, &operations(&hub).await?)?;
    }
    Ok(())
}

/// Starts the hub and the hosts, and pairs them.
async fn start(context: &mut Context, lab: &Lab) -> anyhow::Result<String> {
    lab.opmesh(HUB, &["init", "--instance-id", HUB], None).await?;
    let serving = lab.serve(HUB, "tls://127.0.0.1:0").await?;
    let address = serving.listen.first().map(|listener| listener.address.clone()).unwrap_or_default();
    let url = format!("https://{address}");
    context.output.line(format_args!("{HUB} listens on {address}"))?;
    for host in HOSTS {
        lab.opmesh(host, &["init", "--instance-id", host], None).await?;
        lab.serve(host, "none").await?;
        let token = lab.opmesh(HUB, &["pair", "token", "--label", host], None).await?;
        lab.opmesh(host, &["pair", "join", "-", "--url", &url], Some(&token)).await?;
        context.output.line(format_args!("{host} is paired with {HUB} and lets it read all operations"))?;
    }
    Ok(url)
}

/// One host's runs, one after the other.
async fn work(lab: Lab, host: &'static str, jobs: Vec<Job>) -> anyhow::Result<()> {
    for job in jobs {
        job.run(&lab, host).await?;
    }
    Ok(())
}

/// Shows the hub's table until every run has ended there.
async fn until_all_is_there(
    context: &mut Context,
    lab: &Lab,
    hub: &Client,
    screen: &mut Screen,
    hosts: &mut JoinSet<anyhow::Result<()>>,
    expected: usize,
) -> anyhow::Result<()> {
    let mut done_at = None;
    loop {
        let operations = operations(hub).await?;
        screen.show(&mut context.output, &operations)?;
        if operations.iter().filter(|operation| operation.end_unix_ms.is_some()).count() >= expected {
            return Ok(());
        }
        while let Some(ended) = hosts.try_join_next() {
            ended??;
        }
        if hosts.is_empty() {
            let since = *done_at.get_or_insert_with(|| context.clock.monotonic());
            if context.clock.monotonic().saturating_sub(since) > ARRIVAL {
                let failure = Failure::new(Reason::TimedOut, "the hub does not hold every backup");
                return Err(failure.hint(format!("logs are in {}", lab.folder().display())).into());
            }
        }
        lab.pause(REFRESH).await?;
    }
}

/// What the hub holds, oldest first.
async fn operations(hub: &Client) -> Result<Vec<pb::Operation>, Failure> {
    let mut listed = hub.list_operations(pb::ListOperationsRequest::default()).await?;
    let mut operations = Vec::new();
    while let Some(operation) = listed.next().await? {
        operations.push(operation);
    }
    operations.reverse();
    Ok(operations)
}

/// Lets the hub recompute what it holds, and compares it with what the hosts say of themselves.
async fn prove(context: &mut Context, lab: &Lab) -> anyhow::Result<()> {
    let verified = lab.opmesh(HUB, &["hosts", "verify", "--all"], None).await?;
    context.output.line("")?;
    context.output.line(verified.trim_end())?;
    context.output.line("")?;
    Ok(())
}

fn what_next(context: &mut Context, lab: &Lab, url: &str) -> anyhow::Result<()> {
    let [hub, web, third] = [HUB, HOSTS[0], "third"].map(|who| lab.call(who));
    context.output.line("Try next, in another terminal:")?;
    for line in [
        format!("{hub} ops list"),
        format!("{hub} ops list --status warning,error --json"),
        format!("{hub} status"),
        format!("{web} run --plan mine --repo here -- echo done"),
        format!("{third} init --instance-id third"),
        format!("{hub} pair token | {third} pair join - --url {url}"),
        format!("{hub} peer block {}", HOSTS[0]),
    ] {
        context.output.line(format_args!("  {line}"))?;
    }
    context.output.line("What arrives at the hub is shown here. Ctrl-C stops everything.")
}
