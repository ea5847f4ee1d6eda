//! `opmesh config`: this instance's own file, and the repositories and plans that instances show each other.

mod federated;
mod file;

use std::process::ExitCode;

use super::context::Context;

/// The configuration file; repositories and plans, here and on other instances
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(file::Show),
    Check(file::Check),
    Get(federated::Get),
    Apply(federated::Apply),
    Push(federated::Push),
}

impl Config {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Show(show) => show.execute(context),
            Command::Check(check) => check.execute(context),
            Command::Get(get) => get.execute(context).await,
            Command::Apply(apply) => apply.execute(context).await,
            Command::Push(push) => push.execute(context).await,
        }
    }
}
