//! `opmesh key`.

use std::process::ExitCode;

use opmesh_core::model::InstanceId;
use serde::Serialize;

use super::context::Context;
use super::time;
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
    /// Give this instance a new key
    ///
    /// Each peer is told in its next session, in a statement that both keys sign, and confirms it; when all have, the new
    /// key takes over by itself. Until then this instance goes on with the old one. Again while it waits: nothing but the
    /// same answer. Operations, digests and grants stay as they are, and nothing is sent again.
    #[command(group = clap::ArgGroup::new("step"), after_help = "Examples:
  opmesh key rotate
  opmesh key rotate --status --json
  opmesh key rotate --force     whoever has not confirmed has to be told by hand")]
    Rotate {
        /// Who has confirmed, and who is waited for
        #[arg(long, group = "step")]
        status: bool,
        /// Do not wait: peers that have not confirmed refuse this instance until their operator runs the command that this names
        #[arg(long, group = "step")]
        force: bool,
        /// Throw the new key away
        #[arg(long, group = "step")]
        abort: bool,
    },
    /// Give this instance another name
    ///
    /// The key stays. Each peer learns the name in its next session, and goes on calling this instance as its own
    /// operator named it. A hub that knows another key by this name refuses the session until one of them is renamed.
    #[command(after_help = "Examples:
  opmesh key rename web-2")]
    Rename {
        /// The new instance id: 1 to 64 characters without white space
        name: InstanceId,
    },
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
            Command::Rotate { status, force, abort } => {
                let step = match (status, force, abort) {
                    (true, ..) => "status",
                    (_, true, _) => "force",
                    (_, _, true) => "abort",
                    _ => "begin",
                };
                let request = pb::RotateKeyRequest { step: step.to_owned() };
                let rotation = context.client().await?.rotate_key(request).await?;
                show_rotation(context, &rotation)
            }
            Command::Rename { name } => {
                let request = pb::RenameKeyRequest { instance_id: name.to_string() };
                let renamed = context.client().await?.rename_key(request).await?;
                context.output.note(format_args!("this instance is called {} now", renamed.instance_id));
                who(context, Who { key_id: renamed.key_id, instance_id: renamed.instance_id })
            }
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

fn show_rotation(context: &mut Context, rotation: &pb::Rotation) -> anyhow::Result<ExitCode> {
    let waiting: Vec<_> = rotation.peers.iter().filter(|peer| !peer.confirmed).collect();
    if rotation.state == "rotated" {
        for peer in &waiting {
            context.output.note(format_args!(
                "{} did not confirm: there, compare key IDs and run `opmesh peer verify OLD --key-id {} --new-key`",
                peer.name, rotation.key_id
            ));
        }
    }
    if context.output.is_json() {
        context.output.object(rotation)?;
        return Ok(ExitCode::SUCCESS);
    }
    context.output.fields([
        ("state", rotation.state.clone()),
        ("key ID", rotation.key_id.clone()),
        ("before", rotation.succeeds.join(" ")),
        ("next key ID", rotation.next_key_id.clone().unwrap_or_default()),
        ("since", rotation.begun_unix_ms.map(time::show_ms).unwrap_or_default()),
        ("waits for", waiting.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>().join(", ")),
    ])?;
    Ok(ExitCode::SUCCESS)
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
