//! `opmesh serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use super::context::Context;
use super::logging;
use crate::admin::Failure;
use crate::config::Config;
use crate::daemon::{Daemon, ServeOptions};
use crate::transport::{AddressFault, Listen};

/// Run the daemon: listen for hosts, dial hubs, answer on the admin socket
///
/// One JSON line on stdout says that every listener is bound and the store is open; the same object lies in serve.json
/// meanwhile. TERM or INT ends it within 10 seconds, a second one at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh serve
  opmesh serve --listen 0.0.0.0:9850
  opmesh serve --listen sealed://127.0.0.1:9850
  opmesh serve --listen none
  opmesh serve --listen 127.0.0.1:0 --listen plain://127.0.0.1:0")]
pub(super) struct Serve {
    /// Where to listen for hosts, again for more: bare is tls, sealed is for proxies, plain on loopback only, none for
    /// a pure host
    #[arg(long, value_name = "[CHANNEL://]ADDR", default_value = "127.0.0.1:9850")]
    listen: Vec<Door>,
    /// Where the admin socket is [default: admin.sock in the data folder]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Where the admin service listens on TCP, for holders of a token [default: admin.listen of the configuration]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
}

/// What `--listen` takes.
#[derive(Debug, Clone, Copy)]
enum Door {
    /// Nobody can connect.
    None,
    /// Here.
    At(Listen),
}

impl FromStr for Door {
    type Err = AddressFault;

    fn from_str(text: &str) -> Result<Self, AddressFault> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::At) }
    }
}

impl Serve {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let places = context.places()?;
        let mut config = Config::load(places.config()).map_err(Failure::from)?;
        let format = context.log_format.unwrap_or_else(|| config.log_format.into());
        let level = logging::level(context.output.volume(), config.log_level);
        logging::start(format, context.color, &level);
        context.instance()?.must_exist()?;
        config.admin_listen = self.admin_listen.or(config.admin_listen);

        let listen = self.listen.into_iter().filter_map(Door::listen).collect();
        let options = ServeOptions { places, config, listen, admin_socket: self.admin_socket };
        let daemon = Daemon::start(options, context.clock).await?;
        // Somebody who starts a daemon and does not read its stdout still wants the daemon.
        if let Err(fault) = context.output.json_line(daemon.serving()) {
            tracing::debug!(%fault, "the readiness line was not read");
        }
        daemon.run().await?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Door {
    fn listen(self) -> Option<Listen> {
        match self {
            Self::None => None,
            Self::At(listen) => Some(listen),
        }
    }
}
