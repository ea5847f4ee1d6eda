//! Row hashes, set digests and the chain: what proves that two sides hold the same rows and the same history.

use std::fmt;

use super::identity::PublicKey;
use super::number::{FlowId, Incarnation, Modno, OpId};
use super::operation::Operation;
use super::position::{Chain, Position};

/// Separates row hashes from every other use of BLAKE3; the owner's public key is the key material.
const ROW_CONTEXT: &str = "opmesh row 1";

/// Stands in the chain where a row hash would, when the change is a delete.
const DELETED: [u8; 16] = *b"opmesh deleted 1";

/// First 16 bytes of BLAKE3 keyed with `derive_key("opmesh row 1", owner public key)` over
/// id ‖ modno ‖ flow id (u64 LE each) ‖ record bytes as stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowHash(pub [u8; 16]);

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes the rows of one owner. Holds no more than the key: BLAKE3's own state is 60 times as large to keep and copy.
#[derive(Clone, Copy)]
pub struct OwnerHasher {
    key: [u8; blake3::KEY_LEN],
}

impl fmt::Debug for OwnerHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerHasher").finish_non_exhaustive()
    }
}

impl OwnerHasher {
    /// A hasher for the rows that the holder of `owner` writes.
    pub fn new(owner: &PublicKey) -> Self {
        Self { key: blake3::derive_key(ROW_CONTEXT, &owner.0) }
    }

    /// The hash of a row.
    pub fn row(&self, operation: &Operation) -> RowHash {
        self.parts(operation.id, operation.modno, operation.flow_id, operation.record.as_bytes())
    }

    /// The hash of a row from its parts, as a store holds them.
    pub fn parts(&self, id: OpId, modno: Modno, flow_id: FlowId, record: &[u8]) -> RowHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for number in [id.get(), modno.get(), flow_id.get()] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(record);
        RowHash(first_half(hasher.finalize()))
    }
}

/// What a change did, as the chain records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainEntry {
    /// The operation was created or updated and now has this hash.
    Stored(RowHash),
    /// The operation was deleted.
    Deleted,
}

impl Position {
    /// The position after one more change: `chain_n = BLAKE3-128(chain_{n−1} ‖ incarnation ‖ n ‖ id ‖ row hash or DEL)`,
    /// numbers as u64 LE.
    #[must_use]
    pub fn advance(&self, incarnation: Incarnation, modno: Modno, id: OpId, entry: ChainEntry) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain.0);
        for number in [incarnation.get(), modno.get(), id.get()] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(match &entry {
            ChainEntry::Stored(hash) => &hash.0,
            ChainEntry::Deleted => &DELETED,
        });
        Self { modno, chain: Chain(first_half(hasher.finalize())) }
    }
}

fn first_half(hash: blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    half
}

/// The wrapping 128-bit sum of the row hashes (LE) of a set of live operations, with their count. Equal digests mean
/// equal sets: the hashes are keyed, so that nobody but the owner could construct two sets that collide.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SetDigest {
    sum: u128,
    count: u64,
}

impl SetDigest {
    /// No operations.
    pub const EMPTY: Self = Self { sum: 0, count: 0 };

    /// From the parts that a store or a message holds.
    pub const fn from_parts(sum: [u8; 16], count: u64) -> Self {
        Self { sum: u128::from_le_bytes(sum), count }
    }

    /// The sum, little-endian.
    pub const fn sum_bytes(&self) -> [u8; 16] {
        self.sum.to_le_bytes()
    }

    /// How many operations.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// One more operation.
    pub fn add(&mut self, row: RowHash) {
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(row.0));
        self.count = self.count.wrapping_add(1);
    }

    /// One operation less.
    pub fn remove(&mut self, row: RowHash) {
        self.sum = self.sum.wrapping_sub(u128::from_le_bytes(row.0));
        self.count = self.count.wrapping_sub(1);
    }

    /// The digest of two disjoint sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { sum: self.sum.wrapping_add(other.sum), count: self.count.wrapping_add(other.count) }
    }

    /// The digest of this set without a subset of it; with [`SetDigest::union`], how a change that was added up
    /// elsewhere is applied.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self { sum: self.sum.wrapping_sub(other.sum), count: self.count.wrapping_sub(other.count) }
    }
}

impl fmt::Display for SetDigest {
    /// 32 lower-case hex digits of the little-endian bytes; the count is shown beside it where it matters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sum_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}×{}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Record;

    fn operation(id: u64, modno: u64, text: &str) -> Operation {
        Operation {
            id: OpId::new(id).unwrap(),
            flow_id: FlowId::new(id).unwrap(),
            modno: Modno::new(modno).unwrap(),
            record: Record::for_tests("r", "p", text),
        }
    }

    #[test]
    fn a_row_hash_covers_owner_id_modno_flow_and_every_byte_of_the_record() {
        let hasher = OwnerHasher::new(&PublicKey([1; 32]));
        let base = operation(1, 1, "x");
        let mut seen = vec![hasher.row(&base)];
        seen.push(OwnerHasher::new(&PublicKey([2; 32])).row(&base));
        seen.push(hasher.row(&operation(2, 1, "x")));
        seen.push(hasher.row(&operation(1, 2, "x")));
        seen.push(hasher.row(&operation(1, 1, "y")));
        seen.push(hasher.row(&Operation { flow_id: FlowId::new(9).unwrap(), ..base }));
        let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
    }

    #[test]
    fn digests_add_up_in_any_order_and_subtract_exactly() {
        let hasher = OwnerHasher::new(&PublicKey([1; 32]));
        let rows: Vec<_> = (1..=9).map(|n| hasher.row(&operation(n, n, "x"))).collect();
        let mut forward = SetDigest::EMPTY;
        for row in &rows {
            forward.add(*row);
        }
        let mut backward = SetDigest::EMPTY;
        for row in rows.iter().rev() {
            backward.add(*row);
        }
        assert_eq!(forward, backward);
        for row in &rows {
            forward.remove(*row);
        }
        assert_eq!(forward, SetDigest::EMPTY);
    }

    #[test]
    fn chains_part_where_histories_part_and_never_meet_again() {
        let incarnation = Incarnation::new(5).unwrap();
        let step = |from: Position, n: u64, entry| {
            from.advance(incarnation, Modno::new(n).unwrap(), OpId::new(1).unwrap(), entry)
        };
        let common = step(Position::ZERO, 1, ChainEntry::Stored(RowHash([1; 16])));
        let left = step(common, 2, ChainEntry::Stored(RowHash([2; 16])));
        let right = step(common, 2, ChainEntry::Deleted);
        assert_ne!(left.chain, right.chain);
        assert_ne!(step(left, 3, ChainEntry::Deleted).chain, step(right, 3, ChainEntry::Deleted).chain);
    }
}
