//! The O(n) diff of sorted (id, modno) vectors, a frame at a time, and how a frame is written.
//!
//! Needs no history: it is what remains when positions do not help. Both sides hold one frame in memory at most.

use crate::model::{Modno, OpId};
use crate::protocol::limits::{FRAME_BYTES, MANIFEST_ENTRIES};

/// Merges what the owner lists with what the hub holds; both ascending by id. Yields the ids that the hub lacks or
/// holds with another modno.
pub fn needs<E>(
    listed: &[(OpId, Modno)],
    held: impl IntoIterator<Item = Result<(OpId, Modno), E>>,
) -> Result<Vec<OpId>, E> {
    let mut needs = Vec::new();
    let mut held = held.into_iter();
    let mut next = held.next().transpose()?;
    for &(id, modno) in listed {
        while next.is_some_and(|(held_id, _)| held_id < id) {
            next = held.next().transpose()?;
        }
        if next != Some((id, modno)) {
            needs.push(id);
        }
    }
    Ok(needs)
}

/// Collects the entries of one manifest and knows when it is full.
#[derive(Debug)]
pub struct Page {
    entries: Vec<(OpId, Modno)>,
    bytes: usize,
    last: (u64, u64),
}

impl Page {
    /// An empty page that starts at `lo`.
    pub fn new(lo: u64) -> Self {
        Self { entries: Vec::new(), bytes: 0, last: (lo, 0) }
    }

    /// Adds the next entry, or says that it belongs to the next page.
    pub fn push(&mut self, id: OpId, modno: Modno) -> PageState {
        let size =
            varint_len(id.get().wrapping_sub(self.last.0)) + varint_len(zigzag(modno.get(), self.last.1));
        if self.bytes + size > FRAME_BYTES || self.entries.len() == MANIFEST_ENTRIES {
            return PageState::Full;
        }
        self.bytes += size;
        self.last = (id.get(), modno.get());
        self.entries.push((id, modno));
        PageState::Open
    }

    /// The entries collected.
    pub fn into_entries(self) -> Vec<(OpId, Modno)> {
        self.entries
    }
}

/// Whether a [`Page`] took an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// It did.
    Open,
    /// It did not; the page is as large as a frame may be.
    Full,
}

/// Why manifest bytes are not entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("manifest entries are not ascending (id, modno) pairs inside their range, at byte {at}")]
pub struct EntriesFault {
    /// Where the entry starts.
    pub at: usize,
}

/// Entries as bytes: for each the varint of id − previous id (the first: − `lo`), then the varint of the zigzagged
/// modno − previous modno (the first: − 0).
pub fn encode_entries(lo: u64, entries: &[(OpId, Modno)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * 4);
    let mut last = (lo, 0);
    for (id, modno) in entries {
        put_varint(&mut bytes, id.get().wrapping_sub(last.0));
        put_varint(&mut bytes, zigzag(modno.get(), last.1));
        last = (id.get(), modno.get());
    }
    bytes
}

/// The reverse of [`encode_entries`]; refuses what is not ascending, not inside [lo, hi), or not canonical.
pub fn decode_entries(lo: u64, hi: u64, bytes: &[u8]) -> Result<Vec<(OpId, Modno)>, EntriesFault> {
    let mut entries = Vec::new();
    let mut last = (lo, 0_u64);
    let mut rest = bytes;
    while !rest.is_empty() {
        let fault = EntriesFault { at: bytes.len() - rest.len() };
        let (id_step, modno_step) = (take_varint(&mut rest), take_varint(&mut rest));
        let (id_step, modno_step) = id_step.zip(modno_step).ok_or(fault)?;
        if id_step == 0 && !entries.is_empty() {
            return Err(fault);
        }
        let id = last.0.checked_add(id_step).filter(|id| *id < hi).ok_or(fault)?;
        let modno = last.1.wrapping_add(unzigzag(modno_step));
        let entry = OpId::new(id).ok().zip(Modno::new(modno).ok()).ok_or(fault)?;
        entries.push(entry);
        last = (id, modno);
    }
    Ok(entries)
}

/// Ids as bytes: the varint of each id − previous id, the first from zero.
pub fn encode_ids(ids: &[OpId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ids.len() * 2);
    let mut last = 0;
    for id in ids {
        put_varint(&mut bytes, id.get().wrapping_sub(last));
        last = id.get();
    }
    bytes
}

/// The reverse of [`encode_ids`]; refuses what is not ascending.
pub fn decode_ids(bytes: &[u8]) -> Result<Vec<OpId>, EntriesFault> {
    let mut ids = Vec::new();
    let mut last = 0_u64;
    let mut rest = bytes;
    while !rest.is_empty() {
        let fault = EntriesFault { at: bytes.len() - rest.len() };
        let step = take_varint(&mut rest).filter(|step| *step > 0).ok_or(fault)?;
        last = last.checked_add(step).ok_or(fault)?;
        ids.push(OpId::new(last).map_err(|_| fault)?);
    }
    Ok(ids)
}

fn zigzag(value: u64, previous: u64) -> u64 {
    let step = value.wrapping_sub(previous).cast_signed();
    ((step << 1) ^ (step >> 63)).cast_unsigned()
}

fn unzigzag(step: u64) -> u64 {
    (step >> 1) ^ (step & 1).wrapping_neg()
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(10)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    bytes.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or(0)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        value |= low.checked_shl(shift).filter(|shifted| shifted >> shift == low)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn entries(map: &BTreeMap<u64, u64>) -> Vec<(OpId, Modno)> {
        map.iter().map(|(id, modno)| (OpId::new(*id).unwrap(), Modno::new(*modno).unwrap())).collect()
    }

    fn vectors() -> impl Strategy<Value = BTreeMap<u64, u64>> {
        let id = prop_oneof![1..60_u64, 1..OpId::END];
        let modno = prop_oneof![1..4_u64, 0..=Modno::MAX.get()];
        proptest::collection::btree_map(id, modno, 0..60)
    }

    proptest! {
        #[test]
        fn the_merge_finds_exactly_what_a_set_difference_finds(owner in vectors(), hub in vectors()) {
            let have: BTreeSet<_> = entries(&hub).into_iter().collect();
            let expected: Vec<_> =
                entries(&owner).into_iter().filter(|entry| !have.contains(entry)).map(|(id, _)| id).collect();
            let found = needs(&entries(&owner), entries(&hub).into_iter().map(Ok::<_, ()>)).unwrap();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn entries_survive_the_wire(map in vectors(), lo in 0..2_u64) {
            let entries = entries(&map);
            let bytes = encode_entries(lo, &entries);
            prop_assert_eq!(&decode_entries(lo, OpId::END, &bytes).unwrap(), &entries);
            let mut page = Page::new(lo);
            for (id, modno) in &entries {
                prop_assert_eq!(page.push(*id, *modno), PageState::Open);
            }
            prop_assert_eq!(page.bytes, bytes.len());
            let ids: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(decode_ids(&encode_ids(&ids)).unwrap(), ids);
        }

        #[test]
        fn any_bytes_are_entries_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(entries) = decode_entries(1, 1000, &bytes) {
                prop_assert!(entries.is_sorted_by(|left, right| left.0 < right.0));
                prop_assert!(entries.iter().all(|(id, _)| (1..1000).contains(&id.get())));
            }
            if let Ok(ids) = decode_ids(&bytes) {
                prop_assert!(ids.is_sorted_by(|left, right| left < right));
            }
        }
    }

    #[test]
    fn a_page_is_full_before_its_bytes_exceed_a_frame() {
        let mut page = Page::new(0);
        let mut id = 0;
        while page.push(OpId::new(id + 1).unwrap(), Modno::new(id * 7_919 % 1_000_003).unwrap())
            == PageState::Open
        {
            id += 1;
        }
        let entries = page.into_entries();
        assert!(encode_entries(0, &entries).len() <= FRAME_BYTES);
        assert!(entries.len() > 50_000);
    }
}
