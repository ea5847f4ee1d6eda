//! How much of the audit log refusals may fill: so many records a minute, the rest as one number.
//!
//! Each listed key has a measure of its own, and so do all strangers together and all callers of the admin service
//! together, so that nobody can hide another. Remembered by the writer; how many are waiting for their record is kept
//! in the store at 1, 2, 4, 8 … of them, so that a crash forgets less than half of a number.

use std::collections::HashMap;
use std::time::Duration;

use opmesh_core::model::{KeyId, UnixMs};

/// Refusals of one kind that get a record of their own in each [`REFUSAL_WINDOW`].
pub(super) const REFUSAL_RECORDS: u32 = 10;
/// See [`REFUSAL_RECORDS`].
const REFUSAL_WINDOW: Duration = Duration::from_mins(1);

/// Who was refused, as far as one measure goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::store) enum Refused {
    /// Somebody whose key is not listed, or who proved none.
    Stranger,
    /// A key that is listed.
    Listed(KeyId),
    /// A caller of the admin service.
    Caller,
}

/// What was refused lately, and by whom: at most one entry for each peer, and two more.
#[derive(Debug, Default)]
pub(in crate::store) struct Refusals {
    samples: HashMap<Refused, Sample>,
    /// What a process before this one had counted and not written.
    lost: u64,
}

/// What to do about one that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Note {
    /// Write a record about it.
    Record,
    /// It is counted.
    Count,
    /// It is counted; so many are now, and the store must remember that.
    Keep(u64),
}

/// The refusals of the present window.
#[derive(Debug, Clone, Copy)]
struct Sample {
    began: UnixMs,
    recorded: u32,
    suppressed: u64,
}

impl Refusals {
    /// After an open: how many the store remembers as counted and not written.
    pub(in crate::store) fn after(lost: u64) -> Self {
        Self { samples: HashMap::new(), lost }
    }

    /// One more was refused. Call [`Refusals::due`] first.
    pub(in crate::store) fn refused(&mut self, who: Refused, now: UnixMs) -> Note {
        let sample = self.samples.entry(who).or_insert(Sample { began: now, recorded: 0, suppressed: 0 });
        if sample.is_over(now) {
            *sample = Sample { began: now, recorded: 0, suppressed: sample.suppressed };
        }
        if sample.recorded < REFUSAL_RECORDS {
            sample.recorded += 1;
            return Note::Record;
        }
        sample.suppressed = sample.suppressed.saturating_add(1);
        let all = self.waiting();
        if all.is_power_of_two() { Note::Keep(all) } else { Note::Count }
    }

    /// Whether a number waits to be written.
    pub(in crate::store) fn is_due(&self, now: UnixMs) -> bool {
        self.lost > 0 || self.samples.values().any(|sample| sample.suppressed > 0 && sample.is_over(now))
    }

    /// Takes how many were only counted, once their window is over; [`None`] stands for those of an earlier process.
    pub(in crate::store) fn due(&mut self, now: UnixMs) -> Vec<(Option<Refused>, u64)> {
        self.take(|sample| sample.is_over(now))
    }

    /// As [`Refusals::due`], whether their window is over or not.
    pub(in crate::store) fn all(&mut self) -> Vec<(Option<Refused>, u64)> {
        self.take(|_| true)
    }

    /// How many are counted and not written.
    pub(in crate::store) fn waiting(&self) -> u64 {
        self.samples.values().fold(0, |sum, sample| sum.saturating_add(sample.suppressed))
    }

    fn take(&mut self, which: impl Fn(&Sample) -> bool) -> Vec<(Option<Refused>, u64)> {
        let lost = std::mem::take(&mut self.lost);
        let mut taken: Vec<_> = (lost > 0).then_some((None, lost)).into_iter().collect();
        let due: Vec<_> = self.samples.extract_if(|_, sample| which(sample)).collect();
        taken.extend(due.into_iter().map(|(who, sample)| (Some(who), sample.suppressed)));
        taken.retain(|(_, counted)| *counted > 0);
        taken.sort_unstable();
        taken
    }
}

impl Sample {
    /// A clock that was set back ends the window, too.
    fn is_over(&self, now: UnixMs) -> bool {
        now < self.began || u128::from(now.since(self.began)) >= REFUSAL_WINDOW.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::PublicKey;

    use super::*;

    const START: i64 = 1_000_000_000_000;
    const STRANGER: Option<Refused> = Some(Refused::Stranger);

    fn refused(refusals: &mut Refusals, times: u32, now: i64) -> usize {
        let note = |_: &u32| refusals.refused(Refused::Stranger, UnixMs(now)) == Note::Record;
        (0..times).filter(note).count()
    }

    #[test]
    fn so_many_a_minute_are_recorded_and_the_rest_is_one_number() {
        let mut refusals = Refusals::default();
        assert_eq!(refused(&mut refusals, 25, START), 10);
        assert_eq!(refused(&mut refusals, 5, START + 59_999), 0);
        assert_eq!(refusals.due(UnixMs(START + 59_999)), []);
        assert!(refusals.is_due(UnixMs(START + 60_000)));
        assert_eq!(refusals.due(UnixMs(START + 60_000)), [(STRANGER, 20)]);
        assert_eq!(refusals.due(UnixMs(START + 60_000)), []);
        assert_eq!(refused(&mut refusals, 11, START + 60_000), 10);
        assert_eq!(refusals.all(), [(STRANGER, 1)]);
        assert_eq!(refusals.waiting(), 0);
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let mut refusals = Refusals::default();
        assert_eq!(refused(&mut refusals, 11, START), 10);
        assert_eq!(refused(&mut refusals, 1, START - 1), 1);
        assert_eq!(refusals.all(), [(STRANGER, 1)], "what was counted before is not forgotten");
    }

    #[test]
    fn one_who_is_refused_often_hides_nobody_else() {
        let mut refusals = Refusals::default();
        assert_eq!(refused(&mut refusals, 100, START), 10);
        for who in [Refused::Listed(PublicKey([2; 32]).key_id()), Refused::Caller] {
            assert_eq!(refusals.refused(who, UnixMs(START)), Note::Record);
        }
    }

    #[test]
    fn the_store_remembers_more_than_half_of_what_is_counted() {
        let mut refusals = Refusals::default();
        let mut kept = 0;
        for counted in 0..100_u64 {
            match refusals.refused(Refused::Stranger, UnixMs(START)) {
                Note::Record => assert!(counted < 10),
                Note::Keep(all) => kept = all,
                Note::Count => {}
            }
            assert!(counted < 10 || kept * 2 > refusals.waiting());
        }
        assert_eq!((kept, refusals.waiting()), (64, 90));
        assert_eq!(Refusals::after(kept).due(UnixMs(START)), [(None, 64)]);
    }
}
