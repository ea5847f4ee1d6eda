//! The way to an instance: the socket of its daemon, or the same handlers in this process on the locked store.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use tonic::body::Body;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::client::Client;
use super::error::{Failure, Reason};
use super::pb::admin_server::AdminServer;
use super::server::Handlers;
use crate::clock::Clock;
use crate::config::Config;
use crate::node::{LockError, Node, NodeError, ServeFile};
use crate::places::Places;

/// How often a daemon that starts, or another command that ends, is looked for.
const PAUSE: Duration = Duration::from_millis(50);

/// A way to an instance; must be closed after use.
#[derive(Debug)]
pub struct Reached {
    /// Answers calls.
    pub client: Client,
    node: Option<Node>,
}

impl Reached {
    /// Lets go of the store, if it was opened here.
    pub async fn close(self) {
        if let Some(node) = self.node {
            node.close().await;
        }
    }
}

/// Reaches the daemon, or opens the store here. While another process has the data directory, both are tried for as
/// long as `wait`.
pub async fn reach(places: &Places, clock: Clock, wait: Duration) -> Result<Reached, Failure> {
    let until = clock.monotonic() + wait;
    loop {
        match daemon(places).await {
            Ok(client) => return Ok(Reached { client, node: None }),
            Err(failure) if failure.reason == Reason::Unreachable => {}
            Err(failure) => return Err(failure),
        }
        let config = Config::load(places.config())?;
        match Node::open(places.clone(), &config, clock, Duration::ZERO).await {
            Ok(node) => return Ok(Reached { client: Client::in_process(&node), node: Some(node) }),
            Err(NodeError::Lock(LockError::Held { .. })) if clock.monotonic() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaches a running daemon only; [`Reason::Unreachable`] when there is none.
pub async fn daemon(places: &Places) -> Result<Client, Failure> {
    let serving = ServeFile::read(&places.serve_file());
    let socket = serving.map_or_else(|| places.socket(), |serving| PathBuf::from(serving.admin_socket));
    Client::connect(&socket).await
}

impl Client {
    /// Straight into the handlers, without a socket: whoever has the store open may call everything.
    pub fn in_process(node: &Node) -> Self {
        let service = AdminServer::new(Handlers::new(node.clone())).max_decoding_message_size(usize::MAX);
        let service = ServiceExt::<Request<Body>>::map_err(service, |never: Infallible| match never {});
        Self::over(BoxCloneSyncService::new(service))
    }
}
