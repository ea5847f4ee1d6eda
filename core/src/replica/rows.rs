//! The primitive steps that a store offers inside one transaction.

use crate::model::{Incarnation, Modno, OpId, Operation, RowHash, SetDigest, UnixMs};
use crate::permission::View;

use super::Replica;

/// A live row as the rules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The change that last touched it.
    pub modno: Modno,
    /// Its hash as it was added to the digest.
    pub hash: RowHash,
}

/// Why a row was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParkReason {
    /// It lies above a matchpoint, on a branch that its owner no longer knows.
    Fork,
    /// It left the view.
    View,
    /// Too many rows were to be deleted.
    Guard,
    /// Everything was sent again.
    Restream,
}

impl ParkReason {
    /// All reasons with their names in text.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Fork, "fork"), (Self::View, "view"), (Self::Guard, "guard"), (Self::Restream, "restream")];

    /// The name in text and stores.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, name)| *name)
    }

    /// From the name in a store.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text)| *text == name).map(|(reason, _)| *reason)
    }
}

/// What happens to rows that the owner no longer lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StagedFate {
    /// They are deleted.
    Delete,
    /// The guard holds: they are parked with [`ParkReason::Guard`].
    Park,
}

/// One owner's rows inside one transaction of a store. "Live" rows count in the digest; parked ones do not.
///
/// Parked copies have no unique id: an id may be parked several times, each copy with its own number and reason.
pub trait Rows {
    /// What the store fails with.
    type Error;

    /// The replica's state; [`Replica::default`] when there is none yet.
    fn load(&mut self) -> Result<Replica, Self::Error>;
    /// Stores the replica's state.
    fn save(&mut self, replica: &Replica) -> Result<(), Self::Error>;

    /// Whether this label was superseded.
    fn is_superseded(&mut self, incarnation: Incarnation) -> Result<bool, Self::Error>;
    /// Remembers this label as superseded.
    fn supersede(&mut self, incarnation: Incarnation) -> Result<(), Self::Error>;
    /// Forgets that this label was superseded.
    fn reinstate(&mut self, incarnation: Incarnation) -> Result<(), Self::Error>;

    /// Digest and count of all live rows.
    fn set(&mut self) -> Result<SetDigest, Self::Error>;
    /// The live row with this id.
    fn held(&mut self, id: OpId) -> Result<Option<Held>, Self::Error>;
    /// Inserts the row or replaces the live one, with its digest; the local ids stay. Removes every parked copy that
    /// is equal (id, modno, hash).
    fn put(&mut self, operation: &Operation) -> Result<(), Self::Error>;
    /// Deletes a live row.
    fn remove(&mut self, id: OpId) -> Result<(), Self::Error>;
    /// Parks a live row.
    fn park(&mut self, id: OpId, reason: ParkReason, now: UnixMs) -> Result<(), Self::Error>;

    /// Parks the live rows with a modno above this one; how many.
    fn park_above(&mut self, modno: Modno, reason: ParkReason, now: UnixMs) -> Result<u64, Self::Error>;
    /// Parks the live rows outside the view with [`ParkReason::View`]; how many.
    fn park_outside(&mut self, view: &View, now: UnixMs) -> Result<u64, Self::Error>;

    /// The parked copies with [`ParkReason::Restream`] or [`ParkReason::View`] and a modno above this one now have
    /// [`ParkReason::Fork`]: they lie on a branch that its owner no longer knows, so nobody can send them again.
    fn keep_copies_above(&mut self, modno: Modno) -> Result<(), Self::Error>;

    /// Of the parked copies inside the view with [`ParkReason::Restream`] or [`ParkReason::View`]: how many ids have no
    /// live row. An equal set says nothing about copies outside the view.
    fn absent_copies(&mut self, view: &View) -> Result<u64, Self::Error>;
    /// Removes those copies. With [`StagedFate::Park`], the ones without a live row stay, with [`ParkReason::Guard`].
    fn retire_copies(&mut self, view: &View, absent: StagedFate, now: UnixMs) -> Result<(), Self::Error>;

    /// Stages the live rows with `lo` ≤ id < `hi`, modno ≤ `as_of` and an id that is not in `listed` (ascending).
    fn stage(&mut self, lo: u64, hi: u64, listed: &[OpId], as_of: Modno) -> Result<(), Self::Error>;
    /// How many staged rows are live with the modno that was staged.
    fn staged(&mut self) -> Result<u64, Self::Error>;
    /// Deletes or parks those rows, and forgets everything staged.
    fn settle_staged(&mut self, fate: StagedFate, now: UnixMs) -> Result<(), Self::Error>;
    /// Forgets everything staged.
    fn clear_staged(&mut self) -> Result<(), Self::Error>;
}
