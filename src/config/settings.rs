//! The effective configuration as a list: every key with its value and where it was written. For `opmesh config show`;
//! nobody decides by it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::fault::ConfigError;
use super::file::KEYS;
use crate::limits::Limits;
use crate::places::ConfigFile;

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its name, with the table's.
    pub key: &'static str,
    /// What holds; nothing when there is neither a value nor a default.
    pub value: Option<Value>,
    /// The line of the file in which it was written; nothing for a default.
    pub line: Option<usize>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Every key, in the order of their names.
    pub settings: Vec<Setting>,
}

/// What this file means, key by key; a usual one that is missing means all defaults.
pub fn settings(file: &ConfigFile) -> Result<Settings, ConfigError> {
    Ok(match super::read(file)? {
        Some((path, text)) => Settings { file: Some(path.to_owned()), settings: of(path, &text)? },
        None => Settings { file: None, settings: of(Path::new(""), "")? },
    })
}

fn of(path: &Path, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let config = Config::parse(path, text)?;
    // It was parsed before, so that it can be parsed.
    let table = DeTable::parse(text).ok();
    let written = |key| table.as_ref().and_then(|table| line_of(text, table.get_ref(), key));
    Ok(KEYS.iter().map(|key| Setting { key, value: value(&config, key), line: written(key) }).collect())
}

/// The line, from 1, in which a key stands.
fn line_of(text: &str, table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (head, tail) = key.split_once('.')?;
    let (_, inner) = table.iter().find(|(name, _)| name.get_ref() == head)?;
    let DeValue::Table(inner) = inner.get_ref() else { return None };
    let (name, _) = inner.iter().find(|(name, _)| name.get_ref() == tail)?;
    Some(text.get(..name.span().start)?.matches('\n').count() + 1)
}

fn value(config: &Config, key: &str) -> Option<Value> {
    let Limits { session_age, shared_addresses, .. } = &config.limits;
    let files = config.admin_certificate.as_ref();
    Some(match key {
        "admin.certificate" => text(files?.certificate.display()),
        "admin.group" => text(config.admin_group.as_ref()?),
        "admin.key" => text(files?.key.display()),
        "admin.listen" => text(config.admin_listen?),
        "cache.entries" => Value::Integer(i64::try_from(config.cache_entries?).ok()?),
        "limits.session_age" => text(span(*session_age)),
        "limits.shared_addresses" => list(shared_addresses),
        "log.format" => text(config.log_format.name()),
        "log.level" => text(config.log_level.name()),
        "sharing.allow_command_prefix" => list(&config.allowed.command_prefixes),
        "sharing.allow_env" => list(&config.allowed.env),
        "sharing.allow_flags" => list(&config.allowed.flags),
        "sharing.allow_hooks" => list(&config.allowed.hooks),
        count => Value::Integer(limit(&config.limits, count.strip_prefix("limits.")?)?.into()),
    })
}

fn limit(limits: &Limits, key: &str) -> Option<u32> {
    Some(match key {
        "accepts_per_second" => limits.accepts_per_second,
        "accepts_per_second_per_address" => limits.accepts_per_second_per_address,
        "attempts_per_minute" => limits.attempts_per_minute,
        "attempts_per_minute_per_address" => limits.attempts_per_minute_per_address,
        "attempts_per_minute_per_key" => limits.attempts_per_minute_per_key,
        "connections" => limits.connections,
        "live_tokens" => limits.live_tokens,
        "token_tries_per_minute" => limits.token_tries_per_minute,
        "token_tries_per_minute_per_address" => limits.token_tries_per_minute_per_address,
        "unauthenticated" => limits.unauthenticated,
        "unauthenticated_per_address" => limits.unauthenticated_per_address,
        _ => return None,
    })
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> Value {
    Value::Array(values.into_iter().map(text).collect())
}

/// As it would be written, in the largest unit that fits.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(24 * 60 * 60, 'd'), (60 * 60, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(size, _)| seconds >= *size && seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{seconds}s"), |(size, unit)| format!("{}{unit}", seconds / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Setting> {
        of(Path::new("/etc/opmesh.toml"), text).unwrap()
    }

    #[test]
    fn every_key_that_has_a_default_has_a_value() {
        let without: Vec<_> = all("")
            .into_iter()
            .filter(|setting| setting.value.is_none())
            .map(|setting| setting.key)
            .collect();
        let expected = ["admin.certificate", "admin.group", "admin.key", "admin.listen", "cache.entries"];
        assert_eq!(without, expected);
        assert!(all("").iter().all(|setting| setting.line.is_none()));
    }

    #[test]
    fn what_is_written_is_shown_with_its_line() {
        let text = "# mine\n[log]\nlevel = \"debug\"\n\n[limits]\nsession_age = \"90m\"\nconnections = 100\n\
                    shared_addresses = [\"::1\"]\n[admin]\ngroup = \"backup\"\n";
        let written: Vec<_> = all(text)
            .into_iter()
            .filter_map(|setting| Some((setting.key, setting.value?.to_string(), setting.line?)))
            .collect();
        let expected = [
            ("admin.group", "\"backup\"".to_owned(), 10),
            ("limits.connections", "100".to_owned(), 7),
            ("limits.session_age", "\"90m\"".to_owned(), 6),
            ("limits.shared_addresses", "[\"::1\"]".to_owned(), 8),
            ("log.level", "\"debug\"".to_owned(), 3),
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn spans_are_shown_in_the_largest_unit_that_fits() {
        let shown = [30, 60, 5400, 86_400, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(shown, ["30s", "1m", "90m", "1d", "25h"]);
    }
}
