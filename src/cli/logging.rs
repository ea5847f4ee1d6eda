//! Logs: always to stderr, as text or as one JSON object a line. Called once, before a command starts.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::output::{Color, Volume};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a command says about its own work when nobody asked for more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chatter {
    /// A daemon: what an operator wants each day.
    Daemon,
    /// A command that is over in a moment: only what needs a look.
    Command,
}

/// Sends this process's logs to stderr at `level`. `OPMESH_LOG` (the syntax of `RUST_LOG`) wins over it.
///
/// A second call in one process changes nothing.
pub(crate) fn start(format: LogFormat, color: Color, level: &str) {
    let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi);
    let started = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Refused only when this process logs already, and then it does.
    started.unwrap_or_default();
}

/// What is logged, as `-q` and `-v` ask for it. Other people's libraries speak one level less.
pub(crate) fn level(volume: Volume, chatter: Chatter) -> &'static str {
    match (volume, chatter) {
        (Volume::Quiet, _) => "error",
        (Volume::Normal, Chatter::Command) => "error,opmesh=warn",
        (Volume::Normal, Chatter::Daemon) => "warn,opmesh=info,opmesh_core=info",
        (Volume::Verbose(1), _) => "info,opmesh=debug,opmesh_core=debug",
        (Volume::Verbose(_), _) => "debug,opmesh=trace,opmesh_core=trace",
    }
}

/// Chooses log lines in detail.
const LOG_ENV: &str = "OPMESH_LOG";
