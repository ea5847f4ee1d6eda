//! What every command works with: which instance is meant, the way to it, and where its answers go.

use super::logging::LogFormat;
use super::output::{Color, Output};
use crate::admin::{Client, Failure, Reached, Reason, Remote, daemon, reach};
use crate::clock::Clock;
use crate::node::LOCK_WAIT;
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
    /// An instance elsewhere is meant.
    remote: Option<Remote>,
    /// Kept until the command is over.
    reached: Option<Reached>,
}

/// An instance that may be reached again and again.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// Its folder and files.
    pub(super) places: Places,
    clock: Clock,
}

impl Context {
    pub(super) fn new(
        given: Given,
        remote: Option<Remote>,
        output: Output,
        log_format: Option<LogFormat>,
        color: Color,
    ) -> Self {
        Self { output, clock: Clock::system(), log_format, color, given, remote, reached: None }
    }

    /// The instance's folder and files, whether there is an instance or not.
    pub(super) fn places(&self) -> Result<Places, Failure> {
        if self.remote.is_some() {
            let text = "this works on the machine of the instance only";
            return Err(Failure::new(Reason::InvalidArgument, text).hint("run it there, without --admin-url"));
        }
        let uid = rustix::process::geteuid().as_raw();
        Ok(Places::resolve(self.given.clone(), |name| std::env::var_os(name), uid)?)
    }

    /// An instance that is meant and may not exist.
    pub(super) fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance { places: self.places()?, clock: self.clock })
    }

    /// The way to the instance: its daemon, or its handlers in this process on the locked store.
    pub(super) async fn client(&mut self) -> Result<Client, Failure> {
        if let Some(remote) = &self.remote {
            return remote.connect().await;
        }
        let reached = self.instance()?.reach().await?;
        let client = reached.client.clone();
        self.close().await;
        self.reached = Some(reached);
        Ok(client)
    }

    /// The way to the instance's daemon, for what makes no sense without one.
    pub(super) async fn daemon(&self) -> Result<Client, Failure> {
        if let Some(remote) = &self.remote {
            return remote.connect().await;
        }
        let instance = self.instance()?;
        instance.must_exist()?;
        daemon(&instance.places).await
    }

    /// Lets go of the instance.
    pub(super) async fn close(&mut self) {
        if let Some(reached) = self.reached.take() {
            reached.close().await;
        }
    }
}

impl Instance {
    /// Reaches the daemon, or opens the store here once no other process has it.
    pub(super) async fn reach(&self) -> Result<Reached, Failure> {
        self.must_exist()?;
        reach(&self.places, self.clock, LOCK_WAIT).await
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
