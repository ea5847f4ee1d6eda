//! `opmesh init`.

use std::path::PathBuf;
use std::process::ExitCode;

use opmesh_core::model::InstanceId;

use super::context::Context;
use super::key::{Who, who};
use crate::admin::{Failure, Reason, pb};
use crate::node::{self, InitError, Sources};

/// Make an instance: an identity and an empty store in a folder of their own
///
/// The key ID alone goes to stdout. Again with the same or no name: nothing changes and the answer is the same. A
/// folder that holds anything else is left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh init
  opmesh init --instance-id web-1
  opmesh init --hub
  opmesh --data-dir /srv/opmesh init --json
  opmesh init --import-key identity.key
  opmesh init --restore hub.backup --import-key identity.key")]
pub(super) struct Init {
    /// What this instance calls itself [default: the host name up to the first dot]
    #[arg(long, value_name = "NAME")]
    instance_id: Option<InstanceId>,
    /// Say how to go on as a hub: any instance can be one
    #[arg(long)]
    hub: bool,
    /// A key file to take over instead of making a key: PKCS#8 PEM, ed25519, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    import_key: Option<PathBuf>,
    /// A file that `opmesh store backup` wrote: becomes the store; its key comes with --import-key, or lies here already
    #[arg(long, value_name = "FILE")]
    restore: Option<PathBuf>,
}

/// What comes next, for each of the two parts that an instance can play.
const NEXT_ON_A_HUB: &str =
    "next: `opmesh serve --listen 0.0.0.0:9850`, then `opmesh pair token` for each host";
const NEXT_ON_A_HOST: &str =
    "next: `opmesh serve --listen none`, then `opmesh pair join TOKEN --url https://HUB:9850`";

const NEXT_AFTER_A_RESTORE: &str = "next: make sure that the old instance does not run any more, compare `opmesh peer list` with who should be let in, \
     then `opmesh serve`";

impl Init {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let places = context.places()?;
        let sources = Sources { key: self.import_key.as_deref(), backup: self.restore.as_deref() };
        match node::init(&places, self.instance_id.clone(), sources, context.clock).await {
            Ok(made) => {
                context.output.note(format_args!(
                    "made {} in {}",
                    made.instance,
                    places.data_dir().display()
                ));
                context.output.note(match (self.restore, self.hub) {
                    (Some(_), _) => NEXT_AFTER_A_RESTORE,
                    (None, true) => NEXT_ON_A_HUB,
                    (None, false) => NEXT_ON_A_HOST,
                });
                let made = Who { key_id: made.key_id.to_string(), instance_id: made.instance.to_string() };
                who(context, made)
            }
            Err(InitError::Initialized { .. }) => self.again(context).await,
            Err(fault) => Err(Failure::from(fault).into()),
        }
    }

    async fn again(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        if self.restore.is_some() || self.import_key.is_some() {
            let message = format!("{} has an instance already", context.places()?.data_dir().display());
            return Err(Failure::new(Reason::Exists, message)
                .hint("name a new folder with --data-dir, or move this one away")
                .into());
        }
        let status = context.client().await?.status(pb::StatusRequest {}).await?;
        if let Some(name) = self.instance_id.filter(|name| name.as_str() != status.instance_id) {
            let message =
                format!("this instance is called {}, not {name}; nothing was changed", status.instance_id);
            return Err(Failure::new(Reason::Exists, message)
                .hint("name another folder with --data-dir")
                .into());
        }
        who(context, Who { key_id: status.key_id, instance_id: status.instance_id })
    }
}
