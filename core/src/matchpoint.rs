//! Finding what two sides have in common, in one exchange.
//!
//! The hub remembers a [`Trail`] of older cursors and proposes them; the owner, who alone can judge a chain, picks the
//! newest that it recognises. Distances double, as in Bitcoin's block locator, so a fork of depth d is found at a depth
//! of at most a few d.

use crate::model::{Modno, Position};
use crate::protocol::limits::CANDIDATES;

/// Older cursors, newest first, one for each power of two of distance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trail {
    positions: Vec<Position>,
}

impl Trail {
    /// From what a store kept: newest first.
    pub fn from_positions(positions: Vec<Position>) -> Self {
        Self { positions }
    }

    /// For a store to keep: newest first.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// Remembers a position that is about to become an older one. Of the positions whose distance from it lies in the
    /// same power of two, the oldest stays: so none is lost before a still older one covers its distance.
    pub fn push(&mut self, position: Position) {
        if position == Position::ZERO {
            return;
        }
        self.positions.retain(|known| known.modno < position.modno);
        let newest = position.modno.get();
        let octave = |known: &Position| newest.saturating_sub(known.modno.get()).checked_ilog2();
        let mut kept: Vec<Position> = Vec::with_capacity(self.positions.len());
        for known in self.positions.iter().rev() {
            if kept.last().is_none_or(|older| octave(older) != octave(known)) {
                kept.push(*known);
            }
        }
        kept.reverse();
        kept.insert(0, position);
        kept.truncate(CANDIDATES - 1);
        self.positions = kept;
    }

    /// Forgets what lies after a matchpoint.
    pub fn forget_after(&mut self, modno: Modno) {
        self.positions.retain(|known| known.modno <= modno);
    }

    /// What a verdict proposes: the cursor, then older positions, newest first, at most [`CANDIDATES`].
    pub fn candidates(&self, cursor: Position) -> Vec<Position> {
        let older = self.positions.iter().filter(|known| known.modno < cursor.modno);
        std::iter::once(cursor)
            .filter(|cursor| *cursor != Position::ZERO)
            .chain(older.copied())
            .take(CANDIDATES)
            .collect()
    }
}

/// The newest candidate that is one of the owner's own checkpoints. [`Position::ZERO`] is always recognised, but names
/// nothing in common, so it is never the answer.
pub fn choose(candidates: &[Position], recognised: impl Fn(&Position) -> bool) -> Option<Position> {
    candidates
        .iter()
        .filter(|candidate| **candidate != Position::ZERO && recognised(candidate))
        .max_by_key(|candidate| candidate.modno)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Chain;

    fn at(modno: u64) -> Position {
        Position { modno: Modno::new(modno).unwrap(), chain: Chain([1; 16]) }
    }

    fn trail(steps: impl IntoIterator<Item = u64>) -> Trail {
        let mut trail = Trail::default();
        steps.into_iter().for_each(|step| trail.push(at(step)));
        trail
    }

    #[test]
    fn ten_million_changes_leave_a_verdict_of_at_most_32_candidates() {
        let trail = trail((1..=40_000).map(|n| n * 256));
        let candidates = trail.candidates(at(40_000 * 256 + 1));
        assert!(candidates.len() <= CANDIDATES, "{}", candidates.len());
        assert!(candidates.is_sorted_by(|newer, older| newer.modno > older.modno));
    }

    #[test]
    fn a_fork_is_found_at_most_four_times_deeper_than_it_is() {
        for step in [1_u64, 7, 256] {
            let head = step * 20_000;
            let trail = trail((1..=20_000).map(|n| n * step));
            let candidates = trail.candidates(at(head));
            for depth in (0..14).map(|n| step << n) {
                let fork = head - depth;
                let found =
                    choose(&candidates, |known| known.modno.get() <= fork).map_or(0, |p| p.modno.get());
                assert!(head - found <= 4 * depth + step, "step {step} depth {depth} found {}", head - found);
            }
        }
    }

    #[test]
    fn positions_after_a_matchpoint_are_forgotten() {
        let mut trail = trail([10, 20, 30]);
        trail.forget_after(Modno::new(20).unwrap());
        assert_eq!(trail.candidates(at(25)), vec![at(25), at(20), at(10)]);
    }

    #[test]
    fn zero_is_never_a_matchpoint() {
        assert_eq!(choose(&[Position::ZERO], |_| true), None);
        assert_eq!(trail([0]).candidates(Position::ZERO), vec![]);
    }
}
