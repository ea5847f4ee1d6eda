//! How much room the disk under the store has. Judged here, against one reserve, for `opmesh doctor` and for peers that
//! ask.

use std::io;
use std::path::Path;

use opmesh_core::protocol::Room;

/// What should stay free under a store: less is said to be low.
pub const DISK_RESERVE_BYTES: u64 = 512 * 1024 * 1024;
/// With less than this a commit may fail at any moment; the log beside the database alone grows by more.
pub const DISK_FULL_BYTES: u64 = 16 * 1024 * 1024;

/// What the file system says about the room that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// For whoever is not root.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

impl Disk {
    /// Asks the file system on which this path lies.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    /// Whether that is enough.
    pub const fn room(self) -> Room {
        match self.free_bytes {
            ..DISK_FULL_BYTES => Room::Full,
            DISK_FULL_BYTES..DISK_RESERVE_BYTES => Room::Low,
            DISK_RESERVE_BYTES.. => Room::Enough,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_low_below_the_reserve_and_none_below_what_a_commit_may_need() {
        let room = |free_bytes| Disk { free_bytes, total_bytes: u64::MAX }.room();
        assert_eq!(room(DISK_RESERVE_BYTES), Room::Enough);
        assert_eq!(room(DISK_RESERVE_BYTES - 1), Room::Low);
        assert_eq!(room(DISK_FULL_BYTES), Room::Low);
        assert_eq!(room(DISK_FULL_BYTES - 1), Room::Full);
    }
}
