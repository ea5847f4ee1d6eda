//! `opmesh config`: the repositories and plans that instances show each other, and ask each other to change.

mod federated;

use std::process::ExitCode;

use super::context::Context;

/// Repositories and plans, here and on other instances
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Get(federated::Get),
    Apply(federated::Apply),
    Push(federated::Push),
}

impl Config {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Get(get) => get.execute(context).await,
            Command::Apply(apply) => apply.execute(context).await,
            Command::Push(push) => push.execute(context).await,
        }
    }
}
