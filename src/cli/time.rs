//! Times and spans as people type them and read them: RFC 3339, a day, or a span back; local time in tables.
//!
//! JSON never comes through here: there a time is `_unix_ms`, a decimal string.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use opmesh_core::model::UnixMs;

/// A point in time as an argument names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// A moment of its own.
    At(UnixMs),
    /// So long before the moment the command runs.
    Back(Duration),
}

/// Text that names no point in time, or no span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimeFault {
    /// Neither a time, nor a day, nor a span.
    #[error(
        "{0:?} is no time: expected RFC 3339 (2026-11-21T08:00:00Z), a day (2026-11-21) or a span back (90m, 36h, 7d, 2w)"
    )]
    When(String),
    /// Not a number with a unit.
    #[error("{0:?} is no span: expected a whole number and one of ms, s, m, h, d, w (30s, 10m, 7d)")]
    Span(String),
}

impl When {
    /// The moment meant, for a command that runs at `now`.
    pub(crate) fn resolve(self, now: UnixMs) -> UnixMs {
        match self {
            Self::At(moment) => moment,
            Self::Back(span) => {
                let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                UnixMs(now.0.saturating_sub(span_ms))
            }
        }
    }

    /// Reads an argument; a day begins at midnight in `zone`.
    fn parse_in(text: &str, zone: &TimeZone) -> Result<Self, TimeFault> {
        if let Ok(span) = parse_span(text) {
            return Ok(Self::Back(span));
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self::At(UnixMs(moment.as_millisecond())));
        }
        text.parse::<Date>()
            .ok()
            .filter(|_| text.len() == DAY_CHARS)
            .and_then(|day| day.to_zoned(zone.clone()).ok())
            .map(|midnight| Self::At(UnixMs(midnight.timestamp().as_millisecond())))
            .ok_or_else(|| TimeFault::When(text.to_owned()))
    }
}

impl FromStr for When {
    type Err = TimeFault;

    fn from_str(text: &str) -> Result<Self, TimeFault> {
        Self::parse_in(text, &TimeZone::system())
    }
}

/// Reads `30s`, `10m`, `36h`, `7d`, `2w`, `500ms`. A bare number is refused: it would hide its unit.
pub(crate) fn parse_span(text: &str) -> Result<Duration, TimeFault> {
    let fault = || TimeFault::Span(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().map_err(|_| fault())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return Err(fault()),
    };
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(fault)
}

/// A moment in local time to the second, as tables show it.
pub(crate) fn show(moment: UnixMs) -> String {
    show_in(moment, TimeZone::system())
}

/// As [`show`], for a number off the wire.
pub(crate) fn show_ms(unix_ms: i64) -> String {
    show(UnixMs(unix_ms))
}

fn show_in(moment: UnixMs, zone: TimeZone) -> String {
    Timestamp::from_millisecond(moment.0)
        .map_or_else(|_| "-".to_owned(), |time| time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How long it took, in the two units that matter: `0.4s`, `12s`, `3m05s`, `2h10m`, `4d03h`.
pub(crate) fn show_span(span_ms: i64) -> String {
    let span = SignedDuration::from_millis(span_ms.max(0));
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..10 => format!("{seconds}.{}s", span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `YYYY-MM-DD`.
const DAY_CHARS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    #[test]
    fn spans_count_back_from_now() {
        for (text, span_ms) in
            [("90m", 5_400_000), ("36h", 129_600_000), ("7d", 604_800_000), ("2w", 1_209_600_000)]
        {
            let when = text.parse::<When>().unwrap();
            assert_eq!(when.resolve(NOW), UnixMs(NOW.0 - span_ms), "{text}");
        }
    }

    #[test]
    fn a_moment_is_itself_whatever_the_zone_it_is_written_in() {
        let utc = "2026-11-21T08:00:00Z".parse::<When>().unwrap();
        let east = "2026-11-21T10:00:00+02:00".parse::<When>().unwrap();
        assert_eq!(utc, east);
        assert_eq!(utc.resolve(NOW), UnixMs(1_795_248_000_000));
    }

    #[test]
    fn a_day_begins_at_local_midnight() {
        let day = When::parse_in("2026-11-21", &TimeZone::fixed(jiff::tz::offset(2))).unwrap();
        assert_eq!(day, "2026-11-20T22:00:00Z".parse::<When>().unwrap());
    }

    #[test]
    fn text_that_names_no_time_is_refused_with_the_forms_that_do() {
        for bad in [
            "",
            "7",
            "d",
            "7x",
            "-7d",
            "2026-13-01",
            "2026-11-21T08:00",
            "yesterday",
            "99999999999999999999d",
        ] {
            let fault = bad.parse::<When>().unwrap_err();
            assert!(fault.to_string().contains("36h"), "{bad}: {fault}");
        }
        assert!(parse_span("10").is_err());
        assert!(parse_span("18446744073709551615w").is_err());
    }

    #[test]
    fn tables_show_two_units() {
        for (span_ms, shown) in [
            (412, "0.4s"),
            (12_000, "12s"),
            (185_000, "3m05s"),
            (7_800_000, "2h10m"),
            (356_400_000, "4d03h"),
            (-5, "0.0s"),
        ] {
            assert_eq!(show_span(span_ms), shown);
        }
        assert_eq!(show_in(UnixMs(1_795_248_000_000), TimeZone::UTC), "2026-11-21 08:00:00");
        assert_eq!(show_in(UnixMs(i64::MAX), TimeZone::UTC), "-");
    }
}
