//! `opmesh config show` and `check`: the configuration file of this instance. Neither asks a daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use toml::Value;

use crate::admin::Failure;
use crate::cli::context::Context;
use crate::cli::output::Columns;
use crate::config::{Settings, settings};
use crate::store::DEFAULT_CACHE_ENTRIES;

/// Print what opmesh.toml means: every key with the value that holds and where it comes from
///
/// A daemon that runs has the file as it was when it started.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh config show
  opmesh config show --json | jq '.[] | select(.origin != \"default\")'")]
pub(super) struct Show {}

/// Look for mistakes in opmesh.toml; exit code 1 with file, line and column
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh config check
  opmesh --config new.toml config check && mv new.toml /etc/opmesh.toml")]
pub(super) struct Check {}

/// A key as `show` prints it in JSON.
#[derive(Debug, Serialize)]
struct Shown {
    key: &'static str,
    value: serde_json::Value,
    /// `default`, `file` or `environment`.
    origin: &'static str,
    file: Option<String>,
    line: Option<usize>,
    variable: Option<&'static str>,
}

/// Variables that win over the file.
const VARIABLES: [(&str, &str); 2] = [("log.format", "OPMESH_LOG_FORMAT"), ("log.level", "OPMESH_LOG")];

impl Show {
    pub(super) fn execute(&self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let Settings { file, settings } = settings(context.places()?.config()).map_err(Failure::from)?;
        let file = file.map(|path| path.display().to_string());
        let lines = settings.into_iter().map(|setting| {
            let default = (setting.key == "cache.entries").then(|| entries(DEFAULT_CACHE_ENTRIES));
            let line = Shown {
                key: setting.key,
                value: setting.value.or(default).map_or(serde_json::Value::Null, |value| shown(&value)),
                origin: if setting.line.is_some() { "file" } else { "default" },
                file: setting.line.and(file.clone()),
                line: setting.line,
                variable: None,
            };
            over(line)
        });
        if context.output.is_json() {
            let mut array = context.output.array();
            for line in lines {
                array.push(&line)?;
            }
            array.finish()?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Columns::new(["KEY", "VALUE", "FROM"]);
        for line in lines {
            let from = match (&line.file, line.line, line.variable) {
                (Some(file), Some(number), _) => format!("{file}:{number}"),
                (_, _, Some(variable)) => variable.to_owned(),
                _ => line.origin.to_owned(),
            };
            table.row([line.key.to_owned(), plain(&line.value), from]);
        }
        context.output.table(&table)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Check {
    pub(super) fn execute(&self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let found: Option<PathBuf> = settings(context.places()?.config()).map_err(Failure::from)?.file;
        context.output.note(match found {
            Some(path) => format!("{} is in order", path.display()),
            None => "there is no configuration file, which means all defaults".to_owned(),
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// A variable of the environment that wins.
fn over(line: Shown) -> Shown {
    let Some((_, variable)) = VARIABLES.into_iter().find(|(key, _)| *key == line.key) else { return line };
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => Shown {
            value: value.into(),
            origin: "environment",
            file: None,
            line: None,
            variable: Some(variable),
            ..line
        },
        _ => line,
    }
}

fn entries(count: usize) -> Value {
    i64::try_from(count).map_or_else(|_| Value::String(count.to_string()), Value::Integer)
}

/// Numbers are 64 bits wide, and so decimal strings.
fn shown(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(shown).collect(),
        other => other.to_string().into(),
    }
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) if values.is_empty() => "-".to_owned(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
