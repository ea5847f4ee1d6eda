//! `[limits]`: numbers, a span and addresses, each checked against what it may be.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::fault::{ConfigError, Place};
use crate::limits::Limits;

/// How long a session may be allowed to run: shorter ones cost more in handshakes than they bring.
const SESSION_AGE: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 30);
/// Connections: below this a hub could not let a burst of its own hosts in; above it no machine has descriptors.
const CONNECTIONS: RangeInclusive<u32> = 16..=1_000_000;
/// Of these, strangers: enough for a few hosts that return at once, and each holds up to 100 KiB for 10 s.
const STRANGERS: RangeInclusive<u32> = 8..=10_000;
/// Everything else: at least one, or nobody could come; and a number so large that it is no limit.
const ANY: RangeInclusive<u32> = 1..=100_000;

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    connections: Option<Spanned<u32>>,
    unauthenticated: Option<Spanned<u32>>,
    unauthenticated_per_address: Option<Spanned<u32>>,
    accepts_per_second: Option<Spanned<u32>>,
    accepts_per_second_per_address: Option<Spanned<u32>>,
    attempts_per_minute: Option<Spanned<u32>>,
    attempts_per_minute_per_address: Option<Spanned<u32>>,
    attempts_per_minute_per_key: Option<Spanned<u32>>,
    token_tries_per_minute: Option<Spanned<u32>>,
    token_tries_per_minute_per_address: Option<Spanned<u32>>,
    live_tokens: Option<Spanned<u32>>,
    session_age: Option<Spanned<String>>,
    shared_addresses: Option<Vec<IpAddr>>,
}

/// What it means.
pub(super) fn limits(path: &Path, text: &str, written: Written) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let wrong = |span, key: &str, expected: String| {
        ConfigError::wrong(Place { path, text, span }, &format!("limits.{key} is out of range"), &expected)
    };
    let to = &mut limits;
    let counts = [
        ("connections", written.connections, &mut to.connections, CONNECTIONS),
        ("unauthenticated", written.unauthenticated, &mut to.unauthenticated, STRANGERS),
        (
            "unauthenticated_per_address",
            written.unauthenticated_per_address,
            &mut to.unauthenticated_per_address,
            ANY,
        ),
        ("accepts_per_second", written.accepts_per_second, &mut to.accepts_per_second, ANY),
        (
            "accepts_per_second_per_address",
            written.accepts_per_second_per_address,
            &mut to.accepts_per_second_per_address,
            ANY,
        ),
        ("attempts_per_minute", written.attempts_per_minute, &mut to.attempts_per_minute, ANY),
        (
            "attempts_per_minute_per_address",
            written.attempts_per_minute_per_address,
            &mut to.attempts_per_minute_per_address,
            ANY,
        ),
        (
            "attempts_per_minute_per_key",
            written.attempts_per_minute_per_key,
            &mut to.attempts_per_minute_per_key,
            ANY,
        ),
        ("token_tries_per_minute", written.token_tries_per_minute, &mut to.token_tries_per_minute, ANY),
        (
            "token_tries_per_minute_per_address",
            written.token_tries_per_minute_per_address,
            &mut to.token_tries_per_minute_per_address,
            ANY,
        ),
        ("live_tokens", written.live_tokens, &mut to.live_tokens, ANY),
    ];
    for (key, value, field, range) in counts {
        let Some(value) = value else { continue };
        if !range.contains(value.get_ref()) {
            let expected = format!("expected {} to {}", range.start(), range.end());
            return Err(wrong(value.span(), key, expected));
        }
        *field = *value.get_ref();
    }
    if let Some(age) = written.session_age {
        let Some(span) = span(age.get_ref()).filter(|span| SESSION_AGE.contains(span)) else {
            let expected = "expected a span from \"1m\" to \"30d\", such as \"24h\"".to_owned();
            return Err(wrong(age.span(), "session_age", expected));
        };
        limits.session_age = span;
    }
    if let Some(addresses) = written.shared_addresses {
        limits.shared_addresses = addresses;
    }
    Ok(limits)
}

/// A number with its unit: `90s`, `5m`, `24h`, `7d`.
fn span(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(limits: &str) -> Result<Limits, String> {
        let text = format!("[limits]\n{limits}\n");
        Config::parse(Path::new("/etc/opmesh.toml"), &text)
            .map(|config| config.limits)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn spans_have_a_unit() {
        let read = |text| span(text).map(|span| span.as_secs());
        assert_eq!([read("90s"), read("5m"), read("24h")], [Some(90), Some(300), Some(86_400)]);
        assert_eq!([read("24"), read("h"), read(""), read("-1h"), read("99999999999999999999d")], [None; 5]);
    }

    #[test]
    fn every_number_is_taken_at_its_ends_and_refused_one_past_them() {
        let all = [("connections", CONNECTIONS), ("unauthenticated", STRANGERS)].into_iter().chain(
            [
                "unauthenticated_per_address",
                "accepts_per_second",
                "accepts_per_second_per_address",
                "attempts_per_minute",
                "attempts_per_minute_per_address",
                "attempts_per_minute_per_key",
                "token_tries_per_minute",
                "token_tries_per_minute_per_address",
                "live_tokens",
            ]
            .map(|key| (key, ANY)),
        );
        for (key, range) in all {
            for good in [range.start(), range.end()] {
                let limits = parse(&format!("{key} = {good}")).unwrap();
                assert_ne!(limits, Limits::default(), "{key}");
            }
            for bad in [range.start() - 1, range.end() + 1] {
                let refused = parse(&format!("{key} = {bad}")).unwrap_err();
                assert!(refused.contains(&format!("limits.{key} is out of range")), "{refused}");
            }
        }
    }

    #[test]
    fn the_manual_lists_every_key_with_its_default_and_its_range() {
        let manual = include_str!("../../docs/operations.md");
        let all = Limits::default();
        let count = |default: u32, range: RangeInclusive<u32>| {
            (default.to_string(), format!("{} to {}", range.start(), range.end()))
        };
        let span =
            (format!("`\"{}h\"`", all.session_age.as_secs() / 3600), "`\"1m\"` to `\"30d\"`".to_owned());
        let shared = (
            format!("`{:?}`", all.shared_addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "any addresses".to_owned(),
        );
        let expected = [
            ("connections", count(all.connections, CONNECTIONS)),
            ("unauthenticated", count(all.unauthenticated, STRANGERS)),
            ("unauthenticated_per_address", count(all.unauthenticated_per_address, ANY)),
            ("accepts_per_second", count(all.accepts_per_second, ANY)),
            ("accepts_per_second_per_address", count(all.accepts_per_second_per_address, ANY)),
            ("attempts_per_minute", count(all.attempts_per_minute, ANY)),
            ("attempts_per_minute_per_address", count(all.attempts_per_minute_per_address, ANY)),
            ("attempts_per_minute_per_key", count(all.attempts_per_minute_per_key, ANY)),
            ("token_tries_per_minute", count(all.token_tries_per_minute, ANY)),
            ("token_tries_per_minute_per_address", count(all.token_tries_per_minute_per_address, ANY)),
            ("live_tokens", count(all.live_tokens, ANY)),
            ("session_age", span),
            ("shared_addresses", shared),
        ];
        for (key, (default, range)) in &expected {
            let row = format!("| `limits.{key}` | {default} | {range} |");
            assert!(manual.contains(&row), "docs/operations.md lacks {row}");
        }
        let listed =
            manual.lines().filter(|line| line.starts_with("| `limits.") && !line.contains("limits.…"));
        assert_eq!(listed.count(), expected.len(), "a key that is none");
        let known = crate::config::file::KEYS.iter().filter(|key| key.starts_with("limits."));
        assert_eq!(known.count(), expected.len(), "a key that the manual lacks");
    }

    #[test]
    fn a_session_runs_from_a_minute_to_thirty_days() {
        for (text, good) in [("60s", true), ("30d", true), ("59s", false), ("721h", false), ("1 h", false)] {
            assert_eq!(parse(&format!("session_age = \"{text}\"")).is_ok(), good, "{text}");
        }
        insta::assert_snapshot!(parse("session_age = \"soon\"").unwrap_err(), @r#"
        limits.session_age is out of range
         --> /etc/opmesh.toml:2:15
          |
        2 | session_age = "soon"
          |               ^^^^^^
          |
          = help: expected a span from "1m" to "30d", such as "24h"
        "#);
    }

    #[test]
    fn shared_addresses_are_addresses() {
        let limits = parse("shared_addresses = [\"10.0.0.5\", \"2001:db8::5\"]").unwrap();
        assert_eq!(limits.shared_addresses.len(), 2);
        assert!(parse("shared_addresses = [\"proxy\"]").is_err());
    }
}
