//! `opmesh key`.

use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use crate::admin::pb;

/// The identity of this instance
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The key ID, by which peers authorize this instance
    #[command(after_help = "Examples:
  opmesh key show
  opmesh key show --json")]
    Show,
}

/// Who an instance is; `init` answers the same.
#[derive(Debug, Serialize)]
pub(super) struct Who {
    /// The key decides.
    pub(super) key_id: String,
    /// The label is for people.
    pub(super) instance_id: String,
}

impl Key {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Show => {
                let status = context.client().await?.status(pb::StatusRequest {}).await?;
                who(context, Who { key_id: status.key_id, instance_id: status.instance_id })
            }
        }
    }
}

/// Answers with the key ID alone, or with both names in JSON.
pub(super) fn who(context: &mut Context, who: Who) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        context.output.object(&who)?;
    } else {
        context.output.line(who.key_id)?;
    }
    Ok(ExitCode::SUCCESS)
}
