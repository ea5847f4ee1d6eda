//! `[sharing]`: what peers may set although it runs programs here, each by name. Nothing unless it is written.

use std::collections::BTreeSet;
use std::path::Path;

use opmesh_core::config::{Allowed, MAX_ID_BYTES};
use serde::Deserialize;
use toml::Spanned;

use super::fault::{ConfigError, Place};

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the file")]
pub(super) struct Written {
    allow_command_prefix: Option<Vec<Spanned<String>>>,
    allow_env: Option<Vec<Spanned<String>>>,
    allow_flags: Option<Vec<Spanned<String>>>,
    allow_hooks: Option<Vec<Spanned<String>>>,
}

/// What it means. A name that nothing could have is refused: it would look like a permission and be none.
pub(super) fn allowed(path: &Path, text: &str, written: Written) -> Result<Allowed, ConfigError> {
    let read = |key: &str, names: Option<Vec<Spanned<String>>>, is_good: fn(&str) -> bool, expected: &str| {
        let mut read = BTreeSet::new();
        for name in names.unwrap_or_default() {
            if !is_good(name.get_ref()) {
                let place = Place { path, text, span: name.span() };
                let title = format!("sharing.{key} has a name that allows nothing");
                return Err(ConfigError::wrong(place, &title, expected));
            }
            read.insert(name.into_inner());
        }
        Ok(read)
    };
    Ok(Allowed {
        hooks: read(
            "allow_hooks",
            written.allow_hooks,
            is_name,
            "expected the name of a hook, such as \"mail\"",
        )?,
        command_prefixes: read(
            "allow_command_prefix",
            written.allow_command_prefix,
            is_prefix,
            "expected a whole prefix, its words parted by one space, such as \"nice -n19\"",
        )?,
        env: read(
            "allow_env",
            written.allow_env,
            is_variable,
            "expected a variable, such as \"AWS_REGION\"",
        )?,
        flags: read(
            "allow_flags",
            written.allow_flags,
            is_flag,
            "expected a flag with its dashes, such as \"--cacert\", or with the beginning of its value, such as \
             \"--option=s3.region\"",
        )?,
    })
}

fn is_name(name: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn is_prefix(prefix: &str) -> bool {
    let plain =
        |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
    prefix.split(' ').all(plain)
}

fn is_variable(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    is_name(name) && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_flag(flag: &str) -> bool {
    let bare = flag.trim_start_matches('-');
    flag.starts_with('-') && is_name(bare) && !bare.starts_with('=') && !flag.ends_with('=')
}
