//! How much of the audit log strangers may fill: so many records a minute, the rest as one number.
//!
//! Only for keys that are not listed; whatever concerns a listed key is always written. Remembered by the writer, not
//! stored: a new process begins with a new minute.

use std::time::Duration;

use opmesh_core::model::UnixMs;

/// Refusals of strangers that get a record of their own in each [`STRANGER_WINDOW`].
pub(super) const STRANGER_RECORDS: u32 = 10;
/// See [`STRANGER_RECORDS`].
const STRANGER_WINDOW: Duration = Duration::from_mins(1);

/// Refused strangers of the present window.
#[derive(Debug, Default)]
pub(in crate::store) struct Strangers {
    began: Option<UnixMs>,
    recorded: u32,
    suppressed: u64,
}

/// What to do about a stranger that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Note {
    /// Write a record about it.
    Record,
    /// It is counted.
    Count,
}

impl Strangers {
    /// One more was refused. Call [`Strangers::due`] first.
    pub(in crate::store) fn refused(&mut self, now: UnixMs) -> Note {
        if self.is_over(now) {
            self.began = Some(now);
            self.recorded = 0;
        }
        if self.recorded < STRANGER_RECORDS {
            self.recorded += 1;
            return Note::Record;
        }
        self.suppressed = self.suppressed.saturating_add(1);
        Note::Count
    }

    /// Takes how many were only counted, once their window is over.
    pub(in crate::store) fn due(&mut self, now: UnixMs) -> Option<u64> {
        if self.is_due(now) { self.take() } else { None }
    }

    /// Whether a number waits to be written.
    pub(in crate::store) fn is_due(&self, now: UnixMs) -> bool {
        self.suppressed > 0 && self.is_over(now)
    }

    /// Takes how many were only counted.
    pub(in crate::store) fn take(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.suppressed)).filter(|suppressed| *suppressed > 0)
    }

    /// A clock that was set back ends the window, too.
    fn is_over(&self, now: UnixMs) -> bool {
        let is_past = |began| now < began || u128::from(now.since(began)) >= STRANGER_WINDOW.as_millis();
        self.began.is_none_or(is_past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_000_000_000_000;

    fn refused(strangers: &mut Strangers, times: u32, now: i64) -> usize {
        (0..times).filter(|_| strangers.refused(UnixMs(now)) == Note::Record).count()
    }

    #[test]
    fn so_many_a_minute_are_recorded_and_the_rest_is_one_number() {
        let mut strangers = Strangers::default();
        assert_eq!(refused(&mut strangers, 25, START), 10);
        assert_eq!(refused(&mut strangers, 5, START + 59_999), 0);
        assert_eq!(strangers.due(UnixMs(START + 59_999)), None);
        assert!(strangers.is_due(UnixMs(START + 60_000)));
        assert_eq!(strangers.due(UnixMs(START + 60_000)), Some(20));
        assert_eq!(strangers.due(UnixMs(START + 60_000)), None);
        assert_eq!(refused(&mut strangers, 11, START + 60_000), 10);
        assert_eq!(strangers.take(), Some(1));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let mut strangers = Strangers::default();
        assert_eq!(refused(&mut strangers, 11, START), 10);
        assert_eq!(refused(&mut strangers, 1, START - 1), 1);
    }
}
