//! The named limits of the protocol (design §8).

use std::time::Duration;

/// Most operations and tombstones in one frame.
pub const FRAME_OPERATIONS: usize = 256;
/// Most bytes of records, or of manifest entries, in one frame; one operation may stand alone above it.
pub const FRAME_BYTES: usize = 256 * 1024;
/// Most bytes of records in a frame where streams keep being cut, and how many such frames may be on their way: what a
/// cut costs is sent again, and this is a sixteenth of the smallest stream that proxies are known to cut, 1 MiB.
pub const CAREFUL_FRAME_BYTES: usize = 16 * 1024;
/// See [`CAREFUL_FRAME_BYTES`].
pub const CAREFUL_FRAMES_AHEAD: u64 = 4;
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
/// Most Config, and most Resources, that a peer may send in a minute; as many at once. Each may be a whole message.
pub const SHOWN_A_MINUTE: u32 = 10;
/// How often this side looks at what it shows: below [`SHOWN_A_MINUTE`], so that frames that were held up on the way and
/// arrive together do not look like a flood.
pub const OWN_SHOWN_A_MINUTE: u32 = 8;
/// Most Writes that a peer may send in a minute; as many at once. Each may be a transaction.
pub const WRITES_A_MINUTE: u32 = 60;
/// How many this side sends; see [`OWN_SHOWN_A_MINUTE`].
pub const OWN_WRITES_A_MINUTE: u32 = 48;
/// Requests of this side that may wait for the one that is under way; more are refused to the asker.
pub const WRITES_WAITING: usize = 8;
/// Answers to Writes that a session remembers, so that a repeated key has no second effect.
pub const ANSWERS_KEPT: usize = 64;
/// Each side sends something at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(20);
/// A peer that sent nothing for so long is gone.
pub const DEAD_AFTER: Duration = Duration::from_mins(1);

const _: () = assert!(DEAD_AFTER.as_secs() >= 3 * HEARTBEAT.as_secs(), "two heartbeats may be lost");
const _: () = assert!(OWN_SHOWN_A_MINUTE < SHOWN_A_MINUTE, "an honest peer keeps clear of the limit");
const _: () = assert!(OWN_WRITES_A_MINUTE < WRITES_A_MINUTE, "an honest peer keeps clear of the limit");
const _: () = assert!(CAREFUL_FRAMES_AHEAD <= CREDIT_WINDOW, "more than the credit would not count");
const _: () = assert!(CREDIT_WINDOW >= 4, "design §5: credit starts at 4 or more");
