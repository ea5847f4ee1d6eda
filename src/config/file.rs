//! What may be written in the configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::AdminCertificate;
use super::fault::{ConfigError, Place};

/// Most entries of an id cache: more than the rows of the largest hub that was measured, and some 2 GB of memory.
const MAX_CACHE_ENTRIES: i64 = 16 * 1024 * 1024;

/// All keys, for naming the nearest one.
pub(super) const KEYS: [&str; 24] = [
    "admin.certificate",
    "admin.group",
    "admin.key",
    "admin.listen",
    "cache.entries",
    "limits.accepts_per_second",
    "limits.accepts_per_second_per_address",
    "limits.attempts_per_minute",
    "limits.attempts_per_minute_per_address",
    "limits.attempts_per_minute_per_key",
    "limits.connections",
    "limits.live_tokens",
    "limits.session_age",
    "limits.shared_addresses",
    "limits.token_tries_per_minute",
    "limits.token_tries_per_minute_per_address",
    "limits.unauthenticated",
    "limits.unauthenticated_per_address",
    "log.format",
    "log.level",
    "sharing.allow_command_prefix",
    "sharing.allow_env",
    "sharing.allow_flags",
    "sharing.allow_hooks",
];

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Who may administer.
    pub(super) admin: Option<Admin>,
    /// The id caches.
    pub(super) cache: Option<Cache>,
    /// How much of what is let in.
    pub(super) limits: Option<super::limits::Written>,
    /// What is logged and how.
    pub(super) log: Option<Log>,
    /// What peers may set.
    pub(super) sharing: Option<super::sharing::Written>,
}

/// `[admin]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    /// Name or number of the group that owns the admin socket.
    pub(super) group: Option<String>,
    /// Where the admin service listens on TCP.
    pub(super) listen: Option<Spanned<String>>,
    /// The certificate that it shows there, in PEM.
    pub(super) certificate: Option<Spanned<PathBuf>>,
    /// The certificate's key, in PEM.
    pub(super) key: Option<Spanned<PathBuf>>,
}

/// `[cache]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cache {
    /// Entries of each id cache.
    pub(super) entries: Option<Spanned<i64>>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// text or json.
    pub(super) format: Option<LogFormat>,
    /// error, warn, info, debug or trace.
    pub(super) level: Option<LogLevel>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a hand.
    Error,
    /// And what needs a look.
    Warn,
    /// And what an operator wants each day.
    Info,
    /// And what a developer wants.
    Debug,
    /// And every frame.
    Trace,
}

impl LogFormat {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl LogLevel {
    /// The name, as log filters know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Reads the text; unknown keys first, because their error names the key that was meant.
pub(super) fn read(path: &Path, text: &str) -> Result<File, ConfigError> {
    let wrong = |error: toml::de::Error| {
        let span = error.span().unwrap_or(0..0);
        ConfigError::wrong(Place { path, text, span }, error.message(), "")
    };
    let table = DeTable::parse(text).map_err(wrong)?;
    known(path, text, "", table.get_ref())?;
    toml::from_str(text).map_err(wrong)
}

/// The number of cache entries, checked.
pub(super) fn cache_entries(path: &Path, text: &str, entries: &Spanned<i64>) -> Result<usize, ConfigError> {
    let value = *entries.get_ref();
    let fits = usize::try_from(value).ok().filter(|_| value <= MAX_CACHE_ENTRIES);
    fits.ok_or_else(|| {
        let expected = format!("expected 0 to {MAX_CACHE_ENTRIES}; 0 turns the caches off");
        ConfigError::wrong(
            Place { path, text, span: entries.span() },
            "cache.entries is out of range",
            &expected,
        )
    })
}

/// Where the admin service listens, checked.
pub(super) fn admin_listen(
    path: &Path,
    text: &str,
    listen: &Spanned<String>,
) -> Result<SocketAddr, ConfigError> {
    listen.get_ref().parse().map_err(|_| {
        let expected = "expected ADDRESS:PORT, as in \"127.0.0.1:9852\"; leave the key out for no listener";
        ConfigError::wrong(Place { path, text, span: listen.span() }, "admin.listen is no address", expected)
    })
}

/// Certificate and key, both or neither; a path that is not absolute begins at the configuration's folder.
pub(super) fn admin_certificate(
    path: &Path,
    text: &str,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
) -> Result<Option<AdminCertificate>, ConfigError> {
    let folder = path.parent().unwrap_or(path);
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(AdminCertificate {
            certificate: folder.join(certificate.get_ref()),
            key: folder.join(key.get_ref()),
        })),
        (Some(alone), None) | (None, Some(alone)) => {
            let place = Place { path, text, span: alone.span() };
            let title = "admin.certificate and admin.key go together";
            Err(ConfigError::wrong(place, title, "name both, or neither for the identity's own certificate"))
        }
    }
}

fn known(path: &Path, text: &str, above: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = format!("{above}{}", key.get_ref());
        let below = format!("{name}.");
        if KEYS.iter().any(|known| known.starts_with(&below)) {
            if let DeValue::Table(inner) = value.get_ref() {
                known(path, text, &below, inner)?;
            }
        } else if !KEYS.contains(&name.as_str()) {
            let title = format!("unknown key {name}");
            return Err(ConfigError::wrong(Place { path, text, span: key.span() }, &title, &nearest(&name)));
        }
    }
    Ok(())
}

/// What the user may have meant.
fn nearest(name: &str) -> String {
    let candidates = KEYS.iter().flat_map(|key| [*key, key.split('.').next().unwrap_or_default()]);
    let best = candidates.map(|key| (distance(name, key), key)).min();
    match best {
        Some((distance, key)) if distance <= name.chars().count() / 3 => format!("did you mean {key}?"),
        _ => all_beside(name),
    }
}

/// The keys of the same table; for a table, all tables.
fn all_beside(name: &str) -> String {
    if let Some((table, _)) = name.split_once('.') {
        let below = format!("{table}.");
        let keys: Vec<_> = KEYS.into_iter().filter(|key| key.starts_with(&below)).collect();
        return format!("the keys are {}", keys.join(", "));
    }
    let mut tables: Vec<_> = KEYS.iter().filter_map(|key| key.split('.').next()).collect();
    tables.dedup();
    format!("the tables are {}", tables.join(", "))
}

/// How many single-character edits lie between two names (Damerau, adjacent swaps count once).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (line, from) in left.chars().enumerate() {
        let mut next = vec![line + 1];
        for (column, to) in right.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&row, column) + usize::from(from != *to))
                .min(at(&row, column + 1) + 1)
                .min(at(&next, column) + 1);
            let swapped = column > 0 && previous == Some(*to) && right.get(column - 1) == Some(&from);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
        previous = Some(from);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_are_one_edit() {
        assert_eq!(distance("entires", "entries"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("group", "group"), 0);
        assert_eq!(distance("grup", "group"), 1);
    }

    #[test]
    fn every_key_that_is_named_is_known_to_the_file_and_no_other() {
        for key in KEYS {
            let (table, name) = key.split_once('.').unwrap();
            let text = format!("[{table}]\n{name} = [[]]\n");
            let error = toml::from_str::<File>(&text).unwrap_err();
            assert!(!error.message().contains("unknown"), "{key}: {error}");
        }
    }
}
