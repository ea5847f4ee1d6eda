//! A point in an owner's history.

use std::fmt;

use super::number::Modno;

/// The history up to one change, in 16 bytes. Two owners with equal chains at a modno went the same way there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chain(pub [u8; 16]);

impl Chain {
    /// Before the first change.
    pub const ZERO: Self = Self([0; 16]);
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// (modno, chain). Only the owner can judge one: it *recognises* a position that is among its checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The change.
    pub modno: Modno,
    /// The history up to it.
    pub chain: Chain,
}

impl Position {
    /// The beginning, which every owner recognises.
    pub const ZERO: Self = Self { modno: Modno::ZERO, chain: Chain::ZERO };

    /// The later of two positions of the same history.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if other.modno > self.modno { other } else { self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.modno, self.chain)
    }
}
