//! Logs: always to stderr, as text or as one JSON object a line. Called once, before a command starts.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::output::{Color, Format, Volume};
use crate::config::{self, LogLevel};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<config::LogFormat> for LogFormat {
    fn from(configured: config::LogFormat) -> Self {
        match configured {
            config::LogFormat::Text => Self::Text,
            config::LogFormat::Json => Self::Json,
        }
    }
}

/// Sends this process's logs to stderr at `level`. `OPMESH_LOG` (the syntax of `RUST_LOG`) wins over it.
///
/// A second call in one process changes nothing.
pub(crate) fn start(format: LogFormat, color: Color, level: &str) {
    let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi);
    let started = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Refused only when this process logs already, and then it does.
    started.unwrap_or_default();
}

/// What a command logs, as `-q` and `-v` ask for it. Why a hub was not reached is the command's answer and is not
/// logged beside it; with `--json` nothing but errors is, so that an answer on stderr stands alone.
pub(crate) fn command_level(volume: Volume, format: Format) -> String {
    match (volume, format) {
        (Volume::Normal, Format::Json) => level(volume, LogLevel::Error),
        (Volume::Normal, Format::Text) => {
            format!("{},opmesh::transport=error", level(volume, LogLevel::Warn))
        }
        (Volume::Quiet | Volume::Verbose(_), _) => level(volume, LogLevel::Warn),
    }
}

/// What is logged: as `-q` and `-v` ask for it, else as `configured`. Other people's libraries speak one level less.
pub(crate) fn level(volume: Volume, configured: LogLevel) -> String {
    let (libraries, own) = match (volume, configured) {
        (Volume::Quiet, _) | (Volume::Normal, LogLevel::Error) => ("error", "error"),
        (Volume::Normal, LogLevel::Warn) => ("error", "warn"),
        (Volume::Normal, LogLevel::Info) => ("warn", "info"),
        (Volume::Normal, LogLevel::Debug) | (Volume::Verbose(0 | 1), _) => ("info", "debug"),
        (Volume::Normal, LogLevel::Trace) | (Volume::Verbose(_), _) => ("debug", "trace"),
    };
    format!("{libraries},opmesh={own},opmesh_core={own}")
}

/// Chooses log lines in detail.
const LOG_ENV: &str = "OPMESH_LOG";
