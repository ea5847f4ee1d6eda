//! What a reconnect costs when nothing has changed: protobuf bytes each way and exchanges, from State to the hub's
//! answer, with real stores on both sides. `cargo bench --bench reconnect`
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
#[path = "rig/report.rs"]
mod report;

use opmesh::clock::Clock;

use pair::Pair;
use report::{is_short, machine, micros, percentile, table};

/// Reconnects whose median time is shown.
const RUNS: usize = 11;

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    machine("reconnect", home.path());
    let sizes: &[u64] = if is_short() { &[1_000, 10_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let clock = Clock::system();
    let mut pair = Pair::new(home.path()).await;
    let (mut rows, mut done) = (Vec::new(), 0);
    for size in sizes {
        material::fill(&pair.owner, done, *size).await;
        done = *size;
        pair.session().await;
        let mut took = Vec::new();
        for _ in 0..RUNS {
            let began = clock.monotonic();
            pair.session().await;
            took.push(clock.monotonic() - began);
        }
        let counted = &pair.counted;
        assert_eq!(counted.frames, [1, 1], "a State and a Verdict");
        rows.push(vec![
            size.to_string(),
            counted.bytes[0].to_string(),
            counted.bytes[1].to_string(),
            counted.exchanges.to_string(),
            micros(percentile(took, 50)),
        ]);
    }
    table(&["operations", "bytes to the hub", "bytes back", "exchanges", "time"], &rows);
    pair.owner.close().await;
    pair.hub.close().await;
}
