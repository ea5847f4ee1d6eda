//! The command line: parses arguments, calls the library, writes the answer. Decides nothing about operations or peers.
//!
//! One file per command or noun: the argument struct, whose doc comment is the help, and one function. What all share
//! stands in `context` (which instance, and the way to it), `output`, `time`, `logging` and `error` (the one translation
//! of failures to exit codes).

mod admin;
mod audit;
mod completion;
mod config;
mod context;
mod demo;
mod doctor;
mod elsewhere;
mod error;
mod help;
mod hosts;
mod init;
mod key;
mod logging;
mod ops;
mod output;
mod pair;
mod peer;
mod record;
mod recorder;
mod run;
mod serve;
mod status;
mod store;
mod time;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::context::Context;
use self::elsewhere::Elsewhere;
use self::logging::LogFormat;
use self::output::{Color, Format, Output, Volume};
use crate::places::Given;

/// One operation log for every backup host.
///
/// Each host records what its backup tools did; opmesh federates those records to the hubs that its owner chose, and
/// proves that both sides hold the same set.
#[derive(Debug, Parser)]
#[command(name = "opmesh", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for every command")]
struct Globals {
    /// Folder of this instance [default: `$OPMESH_DATA_DIR`, /var/lib/opmesh for root, else ~/.local/state/opmesh]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file [default: `$OPMESH_CONFIG`, else opmesh.toml in the data folder, if there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// Answers as JSON; an error as one JSON line on stderr
    #[arg(long, global = true)]
    json: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    color: Color,
    /// How log lines are written [default: log.format of the configuration, else text]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        env = "OPMESH_LOG_FORMAT",
        hide_env = true
    )]
    log_format: Option<LogFormat>,
    /// Say less on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more on stderr; twice for every frame
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Init(init::Init),
    Serve(serve::Serve),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Run(run::Run),
    Record(record::Record),
    Ops(ops::Ops),
    Hosts(hosts::Hosts),
    Pair(pair::Pair),
    Peer(peer::Peer),
    Config(config::Config),
    Key(key::Key),
    Admin(admin::Admin),
    Store(store::Store),
    Audit(audit::Audit),
    Version(version::Version),
    Completion(completion::Completion),
}

/// The program: reads this process's arguments, does what they say, and answers with the documented exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = command().try_get_matches_from(&arguments).and_then(|found| Cli::from_arg_matches(&found));
    match parsed {
        Ok(cli) => execute(cli),
        Err(fault) => error::usage(&fault, &arguments),
    }
}

/// The whole command tree, with the commands of the first level in groups.
fn command() -> clap::Command {
    help::grouped(Cli::command())
}

fn execute(cli: Cli) -> ExitCode {
    let Globals { data_dir, config, elsewhere, json, color, log_format, quiet, verbose } = cli.globals;
    let volume = match (quiet, verbose) {
        (true, _) => Volume::Quiet,
        (false, 0) => Volume::Normal,
        (false, times) => Volume::Verbose(times),
    };
    let format = if json { Format::Json } else { Format::Text };
    let remote = match elsewhere.remote() {
        Ok(remote) => remote,
        Err(fault) => return error::report(&fault, json),
    };
    let given = Given { data_dir, config };
    let mut context = Context::new(given, remote, Output::new(format, color, volume), log_format, color);
    if !matches!(cli.command, Command::Serve(_)) {
        let level = logging::command_level(volume, format);
        logging::start(log_format.unwrap_or(LogFormat::Text), color, &level);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            return error::report(&anyhow::Error::new(fault).context("no threads to work with"), json);
        }
    };
    let ended = runtime.block_on(async {
        let ended = cli.command.execute(&mut context).await;
        context.close().await;
        ended
    });
    // A read of stdin cannot be interrupted, and nothing else is left running by a command that has returned.
    runtime.shutdown_background();
    ended.unwrap_or_else(|fault| error::report(&fault, json))
}

impl Command {
    async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(demo) => demo.execute(context).await,
            Self::Init(init) => init.execute(context).await,
            Self::Serve(serve) => serve.execute(context).await,
            Self::Status(status) => status.execute(context).await,
            Self::Doctor(doctor) => doctor.execute(context).await,
            Self::Run(run) => run.execute(context).await,
            Self::Record(record) => record.execute(context).await,
            Self::Ops(ops) => ops.execute(context).await,
            Self::Hosts(hosts) => hosts.execute(context).await,
            Self::Pair(pair) => pair.execute(context).await,
            Self::Peer(peer) => peer.execute(context).await,
            Self::Config(config) => config.execute(context).await,
            Self::Key(key) => key.execute(context).await,
            Self::Admin(admin) => admin.execute(context).await,
            Self::Store(store) => store.execute(context).await,
            Self::Audit(audit) => audit.execute(context).await,
            Self::Version(version) => version.execute(context),
            Self::Completion(completion) => completion.execute(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }
}
