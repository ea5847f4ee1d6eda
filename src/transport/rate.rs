//! How often something may happen: so many in a span, evenly, after a burst.
//!
//! One number is remembered for each thing that is paced: the time at which everything that was taken would have been
//! due at an even pace (the generic cell rate algorithm, ITU-T I.371). Time is an argument.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

/// Addresses or keys whose pace is remembered. Whoever comes with more of them than this is held by the pace of all
/// together; forgetting one only gives it a new burst.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// So many in a span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    every: Duration,
    slack: Duration,
}

impl Rate {
    /// `count` in each `span`, and at first `burst` at once. Both counts are at least one.
    pub(super) fn new(count: u32, span: Duration, burst: u32) -> Self {
        let every = span / count.max(1);
        Self { every, slack: every * burst.saturating_sub(1) }
    }
}

/// What was taken lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    due: Duration,
}

impl Pace {
    /// How long until one more may happen; nothing if it may now.
    pub(super) fn wait(self, rate: Rate, now: Duration) -> Duration {
        self.due.saturating_sub(rate.slack).saturating_sub(now)
    }

    /// One more happens.
    pub(super) fn take(&mut self, rate: Rate, now: Duration) {
        self.due = self.due.max(now) + rate.every;
    }
}

/// A pace for each address or key.
#[derive(Debug)]
pub(super) struct Paces<K: Hash + Eq> {
    rate: Rate,
    paces: LruCache<K, Pace>,
}

impl<K: Hash + Eq> Paces<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, paces: LruCache::new(REMEMBERED) }
    }

    /// As [`Pace::wait`].
    pub(super) fn wait(&self, of: &K, now: Duration) -> Duration {
        self.paces.peek(of).copied().unwrap_or_default().wait(self.rate, now)
    }

    /// As [`Pace::take`].
    pub(super) fn take(&mut self, of: K, now: Duration) {
        self.paces.get_or_insert_mut(of, Pace::default).take(self.rate, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_goes_at_once_and_the_rest_evenly() {
        let rate = Rate::new(5, SECOND, 10);
        let mut pace = Pace::default();
        let now = 7 * SECOND;
        for _ in 0..10 {
            assert_eq!(pace.wait(rate, now), Duration::ZERO);
            pace.take(rate, now);
        }
        assert_eq!(pace.wait(rate, now), SECOND / 5);
        assert_eq!(pace.wait(rate, now + SECOND / 5), Duration::ZERO);
        pace.take(rate, now + SECOND / 5);
        assert_eq!(pace.wait(rate, now + SECOND / 5), SECOND / 5);
        assert_eq!(pace.wait(rate, 10 * SECOND), Duration::ZERO);
    }

    #[test]
    fn each_has_its_own_pace_and_not_more_than_a_number_are_remembered() {
        let mut paces = Paces::new(Rate::new(1, SECOND, 1));
        paces.take(0, SECOND);
        assert_eq!((paces.wait(&0, SECOND), paces.wait(&1, SECOND)), (SECOND, Duration::ZERO));
        for other in 1..=REMEMBERED.get() {
            paces.take(other, SECOND);
        }
        assert_eq!(paces.paces.len(), REMEMBERED.get());
        assert_eq!(paces.wait(&0, SECOND), Duration::ZERO);
    }
}
