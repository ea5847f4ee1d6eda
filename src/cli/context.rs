//! What every command works with: which instance is meant, the way to it, and where its answers go.

use std::path::PathBuf;

use super::logging::LogFormat;
use super::output::{Color, Output};
use crate::admin::{Client, Failure, Reason};
use crate::clock::Clock;
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
}

impl Context {
    pub(super) fn new(
        data_dir: Option<PathBuf>,
        config: Option<PathBuf>,
        output: Output,
        log_format: Option<LogFormat>,
        color: Color,
    ) -> Self {
        Self { output, clock: Clock::system(), log_format, color, given: Given { data_dir, config } }
    }

    /// The instance's folder and files.
    pub(super) fn places(&self) -> anyhow::Result<Places> {
        let uid = rustix::process::geteuid().as_raw();
        Ok(Places::resolve(self.given.clone(), |name| std::env::var_os(name), uid)?)
    }

    /// The way to the instance: its daemon, or its handlers in this process on the locked store.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let places = self.initialized()?;
        Ok(Client::connect(&places.socket()).await?)
    }

    /// The places of an instance that exists.
    pub(super) fn initialized(&self) -> anyhow::Result<Places> {
        let places = self.places()?;
        if places.key().try_exists().unwrap_or(true) {
            return Ok(places);
        }
        let folder = places.data_dir().display();
        let failure = Failure::new(Reason::NotInitialized, format!("there is no instance in {folder}"));
        let command = if self.given.data_dir.is_some() {
            format!("opmesh --data-dir {folder} init")
        } else {
            "opmesh init".to_owned()
        };
        Err(failure.hint(format!("make one with `{command}`, or name another folder with --data-dir")).into())
    }
}
