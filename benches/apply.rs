//! The hub's store alone: frames of 256 operations handed to it as a session would, eight under way, against a raw
//! SQLite insert of the same rows. `cargo bench --bench apply`
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench: a broken assumption ends it"
)]

#[path = "rig/material.rs"]
mod material;
#[path = "rig/pair.rs"]
mod pair;
#[path = "rig/raw.rs"]
mod raw;
#[path = "rig/report.rs"]
mod report;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use opmesh::clock::Clock;
use opmesh::store::{Epoch, Pending};
use opmesh_core::model::{Modno, Position};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::protocol::Ops;
use opmesh_core::protocol::limits::FRAME_BYTES;
use opmesh_core::replica::{StaleOps, Transaction};
use opmesh_core::session::{Found, Read};

use pair::Pair;
use report::{is_short, machine, say, table};

/// Frames that are read ahead of the clock.
const AHEAD: usize = 64;
/// Frames under way at the hub, as the protocol's credit allows.
const UNDER_WAY: usize = 8;

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    machine("apply", home.path());
    let sizes: &[u64] = if is_short() { &[20_000] } else { &[100_000, 1_000_000] };
    let mut rows = Vec::new();
    for size in sizes {
        let folder = tempfile::tempdir_in(home.path()).unwrap();
        rows.push(measure(folder.path(), *size).await);
    }
    table(&["operations", "hub op/s", "raw op/s", "ratio", "reading op/s"], &rows);
}

async fn measure(folder: &Path, size: u64) -> Vec<String> {
    let mut pair = Pair::new(folder).await;
    let clock = Clock::system();
    // An empty session stores the view that the rows are judged by.
    pair.session().await;
    let epoch = pair.hub.take_over(&pair.owner_key).await.unwrap().epoch;
    material::fill(&pair.owner, 0, size).await;
    let (mut reading, mut applying) = (Duration::ZERO, Duration::ZERO);
    let mut base = Position::ZERO;
    loop {
        let began = clock.monotonic();
        let frames = read_ahead(&pair, &mut base).await;
        reading += clock.monotonic() - began;
        if frames.is_empty() {
            break;
        }
        let began = clock.monotonic();
        apply(&pair, epoch, frames).await;
        applying += clock.monotonic() - began;
    }
    pair.hub.close().await;
    let raw = raw::insert_all(&folder.join("hub.db"), folder);
    say(&format!("{size} operations: hub {applying:.2?}, raw {raw:.2?}, reading {reading:.2?}"));
    let rate = |took: Duration| size * 1000 / u64::try_from(took.as_millis()).unwrap().max(1);
    let ratio = raw.as_secs_f64() / applying.as_secs_f64();
    vec![
        size.to_string(),
        rate(applying).to_string(),
        rate(raw).to_string(),
        format!("{ratio:.2}"),
        rate(reading).to_string(),
    ]
}

async fn read_ahead(pair: &Pair, base: &mut Position) -> Vec<Ops> {
    let view = View::new(Scopes::everything(), Scopes::everything());
    let mut frames = Vec::new();
    while frames.len() < AHEAD {
        let read = Read::Changes {
            after: base.modno.max(Modno::ZERO),
            view: view.clone(),
            frame_bytes: FRAME_BYTES,
        };
        let Found::Changes(changes) = pair.owner.read(read).await.unwrap() else { panic!("another answer") };
        if changes.end == *base {
            break;
        }
        let (operations, tombstones) = (changes.operations, changes.tombstones);
        frames.push(Ops { base: *base, end: changes.end, as_of: changes.as_of, operations, tombstones });
        *base = changes.end;
    }
    frames
}

async fn apply(pair: &Pair, epoch: Epoch, frames: Vec<Ops>) {
    let mut under_way: VecDeque<Pending> = VecDeque::new();
    for ops in frames {
        if under_way.len() == UNDER_WAY {
            under_way.pop_front().unwrap().await.unwrap().unwrap();
        }
        let transaction = Transaction::Ops { ops, stale: StaleOps::Refuse };
        under_way.push_back(pair.hub.submit(&pair.owner_key, epoch, transaction).await);
    }
    for pending in under_way {
        pending.await.unwrap().unwrap();
    }
}
