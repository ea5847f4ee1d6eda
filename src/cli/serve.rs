//! `opmesh serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::context::Context;

/// Run the daemon: listen for hosts, dial hubs, answer on the admin socket
///
/// One JSON line on stdout says that every listener is bound and the store is open; the same object lies in serve.json
/// meanwhile. TERM or INT ends it within 10 seconds, a second one at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh serve
  opmesh serve --listen 0.0.0.0:9850
  opmesh serve --listen none
  opmesh serve --listen 127.0.0.1:0 --listen plain://127.0.0.1:0")]
pub(super) struct Serve {
    /// Where to listen for hosts, again for more; plain on loopback only, none for a pure host [default:
    /// tls://127.0.0.1:9850]
    #[arg(long, value_name = "[CHANNEL://]ADDR")]
    listen: Vec<String>,
    /// Where the admin socket is [default: admin.sock in the data folder]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

impl Serve {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        context.instance()?.must_exist()?;
        Ok(ExitCode::SUCCESS)
    }
}
