//! `opmesh serve` without its command line: a node, its network, and the faces on it, from start to drain.
//!
//! Nothing but the command line and tests call this.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{AdminListener, Failure, Reason, Socket};
use crate::clock::Clock;
use crate::config::Config;
use crate::intake::{Spool, take_in};
use crate::node::{LOCK_WAIT, Listener, Node, ServeFile};
use crate::places::Places;
use crate::transport::Listen;

/// Files that the store, the logs and the admin socket need beside connections.
const OTHER_FILES: u64 = 512;

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where the instance is.
    pub places: Places,
    /// Its configuration.
    pub config: Config,
    /// What to listen on; nothing for a pure host.
    pub listen: Vec<Listen>,
    /// Where the admin socket is to be, if not in the data directory.
    pub admin_socket: Option<PathBuf>,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    node: Node,
    serving: ServeFile,
    terminate: Signal,
    interrupt: Signal,
}

impl Daemon {
    /// Opens the store, binds everything, says so in `serve.json` and to the service manager. A second process on the
    /// same data directory is waited for, then refused.
    pub async fn start(mut options: ServeOptions, clock: Clock) -> Result<Self, Failure> {
        // First of all, so that a signal during the start is not lost.
        let terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let connections = &mut options.config.limits.connections;
        *connections = raise_file_limit(*connections);
        let node = Node::open(options.places.clone(), &options.config, clock, LOCK_WAIT).await?;
        match begin(&node, &options).await {
            Ok(serving) => Ok(Self { node, serving, terminate, interrupt }),
            Err(failure) => {
                node.close().await;
                Err(failure)
            }
        }
    }

    /// What it says about itself: the readiness line.
    pub const fn serving(&self) -> &ServeFile {
        &self.serving
    }

    /// The instance.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Runs until TERM or INT, then drains; a second signal ends the draining at once. A store that stopped ends it,
    /// too, with the failure: nothing can be done without it, and a service manager may start anew.
    pub async fn run(mut self) -> Result<(), Failure> {
        let failed = self.signalled_or_failed().await;
        tracing::info!("stopping: sessions end, what was accepted becomes durable");
        tell_manager(&sd_notify::NotifyState::Stopping);
        let node = self.node.clone();
        let mut stopping = pin!(stop(&node));
        let ended = poll_fn(|context| match stopping.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ended::Drained),
            Poll::Pending => self.poll_signal(context).map(|()| Ended::AtOnce),
        });
        if ended.await == Ended::AtOnce {
            tracing::warn!("stopped at once; what was not durable yet is not");
        }
        failed.map_or(Ok(()), Err)
    }

    /// Drains and stops now.
    pub async fn stop(self) {
        stop(&self.node).await;
    }

    async fn signalled_or_failed(&mut self) -> Option<Failure> {
        let store = self.node.store().clone();
        let mut stopped = pin!(store.stopped());
        poll_fn(|context| match self.poll_signal(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => stopped.as_mut().poll(context).map(|error| Some(error.into())),
        })
        .await
    }

    fn poll_signal(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let terminated = self.terminate.poll_recv(context).is_ready();
        let interrupted = self.interrupt.poll_recv(context).is_ready();
        if terminated || interrupted { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// How a daemon came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Drained,
    AtOnce,
}

async fn begin(node: &Node, options: &ServeOptions) -> Result<ServeFile, Failure> {
    let places = node.places();
    let path = options.admin_socket.clone().unwrap_or_else(|| places.socket());
    let path = std::path::absolute(&path).map_err(|error| {
        Failure::new(Reason::InvalidArgument, format!("{} is no path for a socket: {error}", path.display()))
    })?;
    let socket = Socket::bind(&path, options.config.admin_group.as_deref()).await?;
    let config = &options.config;
    let admin = match config.admin_listen {
        Some(address) => Some(AdminListener::bind(node, address, config.admin_certificate.as_ref()).await?),
        None => None,
    };
    let listen = node.start_network(&options.listen).await?;
    let listener = |listen: &Listen| Listener {
        channel: listen.channel.name().to_owned(),
        address: listen.address.to_string(),
    };
    let serving = ServeFile {
        ready: true,
        pid: std::process::id(),
        listen: listen.iter().map(listener).collect(),
        web: None,
        admin_socket: path.display().to_string(),
        admin_listen: admin.as_ref().map(|listener| listener.address().to_string()),
    };
    node.store().note_started(env!("CARGO_PKG_VERSION")).await?;
    node.set_serving(serving.clone());
    socket.serve(node);
    if let Some(listener) = admin {
        listener.serve(node);
    }
    serving.write(&places.serve_file())?;
    tell_manager(&sd_notify::NotifyState::Ready);
    tracing::info!(instance = %node.instance(), key_id = %node.identity().key_id(), "ready");
    node.run(take_in_spool(node.clone()));
    Ok(serving)
}

/// Records what runs left in the spool while nobody could record it.
async fn take_in_spool(node: Node) {
    let spool = Spool::new(&node.places().spool());
    match take_in(&spool, node.store(), &node.clock()).await {
        Ok(0) => {}
        Ok(taken) => tracing::info!(taken, "results from the spool were recorded"),
        Err(fault) => tracing::warn!(%fault, "results in the spool could not be recorded"),
    }
}

async fn stop(node: &Node) {
    // First, so that nobody is sent to a daemon that is going.
    if let Err(error) = ServeFile::remove(&node.places().serve_file()) {
        tracing::warn!(%error, "serve.json could not be removed");
    }
    node.close().await;
}

/// Every connection is a file; the usual limit of a login shell is far below what a hub may have. Returns how many
/// connections there may be: where the system allows fewer files, the store must not be the one that finds none.
fn raise_file_limit(connections: u32) -> u32 {
    let wanted = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    let open = getrlimit(Resource::Nofile).current;
    let Some(open) = open.filter(|open| *open < wanted) else { return connections };
    let possible = u32::try_from(open.saturating_sub(OTHER_FILES).max(open / 2)).unwrap_or(connections);
    tracing::warn!(
        limit = open,
        wanted,
        connections = possible,
        "few files may be open, so that there may be fewer connections than limits.connections; raise LimitNOFILE"
    );
    possible
}

fn tell_manager(state: &sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn no_signals(error: std::io::Error) -> Failure {
    Failure::new(Reason::Internal, format!("signals cannot be received: {error}"))
}
