//! What every command works with: which instance is meant, the way to it, and where its answers go.

use std::path::PathBuf;
use std::time::Duration;

use super::logging::LogFormat;
use super::output::{Color, Output};
use crate::admin::{Client, Failure, Reason};
use crate::clock::Clock;
use crate::config::Config;
use crate::node::{LOCK_WAIT, Node, ServeFile};
use crate::places::{Given, Places};

/// One command's surroundings.
#[derive(Debug)]
pub(super) struct Context {
    /// Answers and talk.
    pub(super) output: Output,
    /// Time.
    pub(super) clock: Clock,
    /// `--log-format`, if given.
    pub(super) log_format: Option<LogFormat>,
    /// `--color`.
    pub(super) color: Color,
    given: Given,
    /// Open while this command works on the store itself.
    node: Option<Node>,
}

/// An instance that may be reached again and again.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// Its folder and files.
    pub(super) places: Places,
    clock: Clock,
}

/// A way to an instance that must be closed after use.
#[derive(Debug)]
pub(super) struct Reached {
    /// Answers admin calls.
    pub(super) client: Client,
    node: Option<Node>,
}

impl Context {
    pub(super) fn new(
        data_dir: Option<PathBuf>,
        config: Option<PathBuf>,
        output: Output,
        log_format: Option<LogFormat>,
        color: Color,
    ) -> Self {
        let given = Given { data_dir, config };
        Self { output, clock: Clock::system(), log_format, color, given, node: None }
    }

    /// The instance's folder and files, whether there is an instance or not.
    pub(super) fn places(&self) -> Result<Places, Failure> {
        let uid = rustix::process::geteuid().as_raw();
        Ok(Places::resolve(self.given.clone(), |name| std::env::var_os(name), uid)?)
    }

    /// An instance that is meant and may not exist.
    pub(super) fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance { places: self.places()?, clock: self.clock })
    }

    /// The way to the instance: its daemon, or its handlers in this process on the locked store.
    pub(super) async fn client(&mut self) -> Result<Client, Failure> {
        let reached = self.instance()?.reach(LOCK_WAIT).await?;
        self.node = reached.node;
        Ok(reached.client)
    }

    /// Closes the store, if this command had opened it.
    pub(super) async fn close(&mut self) {
        if let Some(node) = self.node.take() {
            node.close().await;
        }
    }
}

impl Instance {
    /// Reaches the daemon, or opens the store here, waiting up to `wait` for another process to let go of it.
    pub(super) async fn reach(&self, wait: Duration) -> Result<Reached, Failure> {
        self.must_exist()?;
        let serving = ServeFile::read(&self.places.serve_file());
        let socket = serving.map_or_else(|| self.places.socket(), |serving| PathBuf::from(serving.admin_socket));
        match Client::connect(&socket).await {
            Ok(client) => return Ok(Reached { client, node: None }),
            Err(failure) if failure.reason == Reason::Unreachable => {}
            Err(failure) => return Err(failure),
        }
        let config = Config::load(self.places.config())?;
        let node = Node::open(self.places.clone(), &config, self.clock, wait).await?;
        Ok(Reached { client: Client::in_process(&node), node: Some(node) })
    }

    /// Says how to make an instance where there is none.
    pub(super) fn must_exist(&self) -> Result<(), Failure> {
        if self.places.key().try_exists().unwrap_or(true) {
            return Ok(());
        }
        let folder = self.places.data_dir().display();
        let failure = Failure::new(Reason::NotInitialized, format!("there is no instance in {folder}"));
        Err(failure.hint(format!("make one with `opmesh --data-dir {folder} init`, or name another folder")))
    }
}

impl Reached {
    /// Lets go of the store, if it was opened here.
    pub(super) async fn close(self) {
        if let Some(node) = self.node {
            node.close().await;
        }
    }
}
