//! The named limits of the protocol (design §8).

use std::time::Duration;

/// Most operations and tombstones in one frame.
pub const FRAME_OPERATIONS: usize = 256;
/// Most bytes of records, or of manifest entries, in one frame; one operation may stand alone above it.
pub const FRAME_BYTES: usize = 256 * 1024;
/// Most changes that are looked at for one frame, inside the view or not, so that a reading transaction stays short.
pub const FRAME_SCAN: usize = 4096;
/// Most entries of a manifest. At 2 to 4 bytes an entry it meets [`FRAME_BYTES`] first; the worst case is 19 bytes.
pub const MANIFEST_ENTRIES: usize = 65_536;
/// Frames that the hub allows ahead of what it has made durable. Eight frames of 256 operations keep two full group
/// commits of 1,024 operations under way: one being written, one being received.
pub const CREDIT_WINDOW: u64 = 8;
/// Most manifests not fully answered and acknowledged.
pub const MANIFESTS_IN_FLIGHT: usize = 4;
/// Most candidates in a verdict.
pub const CANDIDATES: usize = 32;
/// Each side sends something at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(20);
/// A peer that sent nothing for so long is gone.
pub const DEAD_AFTER: Duration = Duration::from_mins(1);

const _: () = assert!(DEAD_AFTER.as_secs() >= 3 * HEARTBEAT.as_secs(), "two heartbeats may be lost");
const _: () = assert!(CREDIT_WINDOW >= 4, "design §5: credit starts at 4 or more");
