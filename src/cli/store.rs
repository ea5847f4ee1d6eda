//! `opmesh store`.

use std::path::{PathBuf, absolute};
use std::process::ExitCode;

use super::context::Context;
use crate::admin::{Failure, Reason, pb};

/// The database of this instance
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a copy of everything that is kept to a new file, while the daemon runs or not
    ///
    /// The daemon writes it, with its own rights, readable by its user alone. The private key is not in it: keep
    /// `identity.key` apart, as a secret. `opmesh init --restore` makes an instance of both.
    #[command(after_help = "Examples:
  opmesh store backup /backup/opmesh.db
  opmesh init --restore /backup/opmesh.db --import-key identity.key    on another machine")]
    Backup {
        /// Nothing may be there yet
        file: PathBuf,
    },
}

impl Store {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let Command::Backup { file } = self.command;
        let file = absolute(&file)?;
        let Some(path) = file.to_str().map(str::to_owned) else {
            let text = format!("{} is not UTF-8", file.display());
            return Err(Failure::new(Reason::InvalidArgument, text).into());
        };
        let written = context.client().await?.backup_store(pb::BackupStoreRequest { path }).await?;
        context.output.note("the private key is not in it: keep identity.key apart");
        if context.output.is_json() {
            context.output.object(&written)?;
        } else {
            context.output.line(format_args!("{}  {} bytes", written.path, written.size_bytes))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
