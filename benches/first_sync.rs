//! The first sync of a host between two real processes over TLS: how fast operations become durable at the hub, against
//! a raw SQLite insert of the same rows into the same tables, and the memory of both. `cargo bench --bench first_sync`
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench: a broken assumption ends it"
)]

#[path = "rig/daemon.rs"]
mod daemon;
#[path = "rig/held.rs"]
mod held;
#[path = "rig/material.rs"]
mod material;
#[path = "rig/raw.rs"]
mod raw;
#[path = "rig/report.rs"]
mod report;

use std::path::Path;
use std::time::Duration;

use opmesh::clock::Clock;

use daemon::Instance;
use report::{is_short, machine, percentile, say, table};

/// Runs of one size; the median ratio counts.
const RUNS: usize = 3;

struct Run {
    sync: Duration,
    raw: Duration,
    host_mib: u64,
    hub_mib: u64,
}

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    machine("first_sync", home.path());
    let sizes: &[u64] = if is_short() { &[10_000] } else { &[100_000, 1_000_000] };
    let mut rows = Vec::new();
    for size in sizes {
        let mut runs = Vec::new();
        for _ in 0..if is_short() { 1 } else { RUNS } {
            let folder = tempfile::tempdir_in(home.path()).unwrap();
            runs.push(measure(folder.path(), *size).await);
        }
        rows.push(summary(*size, &runs));
    }
    table(&["operations", "sync op/s", "raw op/s", "ratio", "host peak", "hub peak"], &rows);
}

async fn measure(folder: &Path, size: u64) -> Run {
    let (mut hub, mut host) = (Instance::new(folder, "hub"), Instance::new(folder, "host"));
    let url = hub.serve("127.0.0.1:0");
    host.join(&hub, &url);
    let store = host.store();
    material::fill(&store, 0, size).await;
    store.close().await;
    let clock = Clock::system();
    host.serve("none");
    let began = clock.monotonic();
    let cursor = "SELECT cursor_modno FROM replicas";
    held::until(&hub.places.store(), cursor, i64::try_from(size).unwrap()).await;
    let sync = clock.monotonic() - began;
    let (host_mib, hub_mib) = (host.memory_mib("VmHWM"), hub.memory_mib("VmHWM"));
    host.stop();
    hub.stop();
    let raw = raw::insert_all(&hub.places.store(), folder);
    say(&format!(
        "{size} operations: sync {sync:.2?}, raw {raw:.2?}, host {host_mib} MiB, hub {hub_mib} MiB"
    ));
    Run { sync, raw, host_mib, hub_mib }
}

fn summary(size: u64, runs: &[Run]) -> Vec<String> {
    let rate = |took: fn(&Run) -> Duration| {
        let took = percentile(runs.iter().map(took).collect(), 50);
        u128::from(size) * 1000 / took.as_millis().max(1)
    };
    let mut ratios: Vec<f64> =
        runs.iter().map(|run| run.raw.as_secs_f64() / run.sync.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let peak = |mib: fn(&Run) -> u64| runs.iter().map(mib).max().unwrap();
    vec![
        size.to_string(),
        rate(|run| run.sync).to_string(),
        rate(|run| run.raw).to_string(),
        format!("{:.2}", ratios[(ratios.len() - 1) / 2]),
        format!("{} MiB", peak(|run| run.host_mib)),
        format!("{} MiB", peak(|run| run.hub_mib)),
    ]
}
