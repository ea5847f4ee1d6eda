//! `opmesh key`.

use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use crate::admin::{Failure, Reason, pb};
use crate::identity::Identity;
use crate::transport::certificate_pem;

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
    /// The certificate that this instance shows on its listeners, in PEM
    ///
    /// For tools that check certificates, such as grpcurl with -cacert; the name in it is opmesh.
    #[command(after_help = "Examples:
  opmesh key certificate > hub.pem
  grpcurl -cacert hub.pem -authority opmesh …")]
    Certificate,
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
            Command::Certificate => certificate(context),
            Command::Show => {
                let status = context.client().await?.status(pb::StatusRequest {}).await?;
                who(context, Who { key_id: status.key_id, instance_id: status.instance_id })
            }
        }
    }
}

fn certificate(context: &mut Context) -> anyhow::Result<ExitCode> {
    let instance = context.instance()?;
    instance.must_exist()?;
    let identity = Identity::load(&instance.places.key()).map_err(Failure::from)?;
    let pem = certificate_pem(&identity).map_err(|fault| Failure::new(Reason::Identity, fault))?;
    if context.output.is_json() {
        context.output.object(&Certificate { certificate: pem })?;
    } else {
        context.output.line(pem.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `key certificate` answers in JSON.
#[derive(Debug, Serialize)]
struct Certificate {
    /// PEM.
    certificate: String,
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
