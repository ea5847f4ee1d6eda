//! The mass-delete guard: an emptied, truncated or rolled-back host must not erase what the hub holds of it.
//!
//! One sum of deletes per owner over 24 hours, whatever their cause, against the most live rows held in those 24
//! hours. Who is parked by fork, view or re-stream does not count: nothing is deleted there.

use crate::model::UnixMs;

/// How long deletes are remembered, in milliseconds.
pub const WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

/// The window slides in steps of an hour, so that what is kept stays small.
const SLOT_MS: i64 = 60 * 60 * 1000;

/// Deletes that are always allowed.
const ALWAYS_ALLOWED: u64 = 100;

/// What happens to rows that are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Delete them.
    Delete,
    /// Set them aside and let an operator look.
    Park,
}

/// Deletes and the most live rows, per hour, of the last 24 hours; oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    slots: Vec<Slot>,
}

/// One hour of a [`Window`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Hours since 1970.
    pub hour: i64,
    /// Rows deleted in it.
    pub deleted: u64,
    /// The most live rows held in it.
    pub live: u64,
}

impl Window {
    /// From what a store kept.
    pub fn from_slots(slots: Vec<Slot>) -> Self {
        Self { slots }
    }

    /// For a store to keep.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Notes how many live rows there are.
    pub fn observe(&mut self, now: UnixMs, live: u64) {
        let slot = self.slot(now);
        slot.live = slot.live.max(live);
    }

    /// Rules on one tombstone: parked once 24 hours have seen more than 100 deletes and more than half of the base.
    pub fn tombstone(&mut self, now: UnixMs) -> Ruling {
        let (deleted, base) = self.totals(now);
        if deleted.saturating_add(1) > ALWAYS_ALLOWED.max(base / 2) {
            return Ruling::Park;
        }
        self.slot(now).deleted += 1;
        Ruling::Delete
    }

    /// Rules on rows that a list no longer names, all at once: parked when 24 hours would see more than 100 deletes and
    /// more than a tenth of the base, or more than half of the base, however few rows that is.
    pub fn absent(&mut self, now: UnixMs, rows: u64) -> Ruling {
        if rows == 0 {
            return Ruling::Delete;
        }
        let (deleted, base) = self.totals(now);
        let sum = deleted.saturating_add(rows);
        if sum > ALWAYS_ALLOWED.max(base / 10) || sum > base / 2 {
            return Ruling::Park;
        }
        self.slot(now).deleted += rows;
        Ruling::Delete
    }

    fn totals(&mut self, now: UnixMs) -> (u64, u64) {
        self.forget_old(now);
        self.slots.iter().fold((0, 0), |(deleted, base), slot| (deleted + slot.deleted, base.max(slot.live)))
    }

    fn slot(&mut self, now: UnixMs) -> &mut Slot {
        self.forget_old(now);
        let hour = now.0.div_euclid(SLOT_MS);
        let at = self.slots.partition_point(|slot| slot.hour < hour);
        if self.slots.get(at).is_none_or(|slot| slot.hour != hour) {
            self.slots.insert(at, Slot { hour, deleted: 0, live: 0 });
        }
        #[expect(clippy::indexing_slicing, reason = "a slot was just found or inserted at this index")]
        &mut self.slots[at]
    }

    /// A clock that steps back must not forget: only slots that lie in the past are dropped.
    fn forget_old(&mut self, now: UnixMs) {
        self.slots.retain(|slot| now.since(UnixMs(slot.hour.saturating_mul(SLOT_MS))) < WINDOW_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMs = UnixMs(1_700_000_000_000);

    fn window(live: u64) -> Window {
        let mut window = Window::default();
        window.observe(NOON, live);
        window
    }

    fn later(hours: i64) -> UnixMs {
        UnixMs(NOON.0 + hours * SLOT_MS)
    }

    #[test]
    fn a_diff_may_delete_a_tenth_or_a_hundred_but_never_more_than_half() {
        assert_eq!(window(10_000).absent(NOON, 1_000), Ruling::Delete);
        assert_eq!(window(10_000).absent(NOON, 1_001), Ruling::Park);
        assert_eq!(window(500).absent(NOON, 100), Ruling::Delete);
        assert_eq!(window(500).absent(NOON, 101), Ruling::Park);
        assert_eq!(window(10).absent(NOON, 5), Ruling::Delete);
        assert_eq!(window(10).absent(NOON, 6), Ruling::Park);
        assert_eq!(window(0).absent(NOON, 0), Ruling::Delete);
    }

    #[test]
    fn tombstones_may_delete_half_or_a_hundred() {
        let mut small = window(10);
        assert!((0..100).all(|_| small.tombstone(NOON) == Ruling::Delete));
        assert_eq!(small.tombstone(NOON), Ruling::Park);
        let mut large = window(1_000);
        assert!((0..500).all(|_| large.tombstone(NOON) == Ruling::Delete));
        assert_eq!(large.tombstone(NOON), Ruling::Park);
    }

    #[test]
    fn the_sum_is_one_for_all_causes_and_is_forgotten_after_24_hours() {
        let mut window = window(1_000);
        assert_eq!(window.absent(NOON, 60), Ruling::Delete);
        for _ in 0..41 {
            window.tombstone(later(5));
        }
        window.observe(later(5), 900);
        assert_eq!(window.absent(later(5), 1), Ruling::Park);
        assert_eq!(window.absent(later(25), 1), Ruling::Delete);
        window.observe(later(40), 900);
        assert_eq!(window.absent(later(40), 59), Ruling::Delete);
    }

    #[test]
    fn a_clock_that_steps_back_forgets_nothing() {
        let mut window = window(1_000);
        assert_eq!(window.absent(NOON, 100), Ruling::Delete);
        assert_eq!(window.absent(later(-24 * 365), 1), Ruling::Park);
    }
}
