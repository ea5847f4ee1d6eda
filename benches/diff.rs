//! The vector diff: a hub at which scattered rows are missing finds exactly those again. Bytes, frames and exchanges
//! with real stores in this process; memory of two real processes over TLS. `cargo bench --bench diff`
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
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
#[path = "rig/pair.rs"]
mod pair;
#[path = "rig/report.rs"]
mod report;

use std::path::Path;

use opmesh::clock::Clock;
use opmesh::store::Store;
use opmesh_core::model::{KeyId, OpId, Position, Scope, Tombstone};
use opmesh_core::protocol::Ops;
use opmesh_core::replica::{StaleOps, Transaction};

use daemon::Instance;
use pair::Pair;
use report::{is_short, machine, micros, say, table};

/// Of so many rows one is lost.
const EVERY: usize = 997;

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    machine("diff", home.path());
    let size = if is_short() { 20_000 } else { 1_000_000 };
    counted(home.path(), size).await;
    weighed(home.path(), size).await;
}

/// Bytes and frames, by sessions in this process.
async fn counted(home: &Path, size: u64) {
    let folder = tempfile::tempdir_in(home).unwrap();
    let clock = Clock::system();
    let mut pair = Pair::new(folder.path()).await;
    material::fill(&pair.owner, 0, size).await;
    pair.session().await;
    let lost = lose(&pair.hub, &pair.owner_key, size).await;
    // Everything up to the cursor is settled as far as the hub knows; the next Mark shows that it is not.
    let began = clock.monotonic();
    pair.session().await;
    let took = clock.monotonic() - began;
    assert_eq!(pair.owner.facts().await.unwrap().set, held_set(&pair).await);
    let found = &pair.counted;
    let all = found.bytes[0] + found.bytes[1];
    table(
        &[
            "operations",
            "lost",
            "bytes to the hub",
            "bytes back",
            "without records",
            "largest frame",
            "exchanges",
            "time",
        ],
        &[vec![
            size.to_string(),
            lost.to_string(),
            found.bytes[0].to_string(),
            found.bytes[1].to_string(),
            (all - found.record_bytes).to_string(),
            found.largest.to_string(),
            found.exchanges.to_string(),
            micros(took),
        ]],
    );
    pair.owner.close().await;
    pair.hub.close().await;
}

async fn held_set(pair: &Pair) -> opmesh_core::model::SetDigest {
    let peer = pair.hub.peer(&pair.owner_key).await.unwrap().unwrap();
    peer.replica.unwrap().set
}

/// Memory, of two daemons.
async fn weighed(home: &Path, size: u64) {
    let folder = tempfile::tempdir_in(home).unwrap();
    let (mut hub, mut host) = (Instance::new(folder.path(), "hub"), Instance::new(folder.path(), "host"));
    let url = hub.serve("127.0.0.1:0");
    host.join(&hub, &url);
    let store = host.store();
    material::fill(&store, 0, size).await;
    let own = store.facts().await.unwrap().own;
    store.close().await;
    host.serve("none");
    let count = "SELECT total(count) FROM groups WHERE owner <> 1";
    let all = i64::try_from(size).unwrap();
    held::until(&hub.places.store(), "SELECT cursor_modno FROM replicas", all).await;
    host.stop();
    hub.stop();
    let store = hub.store();
    let lost = lose(&store, &own, size).await;
    store.close().await;
    let address = url.trim_start_matches("https://");
    hub.serve(address);
    let idle = hub.memory_mib("VmRSS");
    host.serve("none");
    held::until(&hub.places.store(), &format!("SELECT CAST(({count}) AS INTEGER)"), all).await;
    say(&format!(
        "{size} operations, {lost} lost: hub {idle} MiB before, {} MiB at most; host {} MiB at most",
        hub.memory_mib("VmHWM"),
        host.memory_mib("VmHWM")
    ));
    host.stop();
    hub.stop();
}

/// Takes scattered rows out of the hub's live set and leaves its cursor where it is; how many.
async fn lose(hub: &Store, owner: &KeyId, size: u64) -> u64 {
    let takeover = hub.take_over(owner).await.unwrap();
    let cursor = takeover.cursor;
    let ids: Vec<u64> = (1..=size).step_by(EVERY).collect();
    let lost = u64::try_from(ids.len()).unwrap();
    for ids in ids.chunks(100) {
        let tombstones = ids.iter().map(|id| tombstone(*id, cursor)).collect();
        let ops = Ops { base: cursor, end: cursor, as_of: cursor, operations: Vec::new(), tombstones };
        let transaction = Transaction::Ops { ops, stale: StaleOps::Refuse };
        hub.submit(owner, takeover.epoch, transaction).await.await.unwrap().unwrap();
    }
    lost
}

/// Ids are dense here, and every operation is older than the cursor but the last.
fn tombstone(id: u64, cursor: Position) -> Tombstone {
    let scope = Scope { repo: "nas".to_owned(), plan: "documents".to_owned() };
    Tombstone { id: OpId::new(id).unwrap(), modno: cursor.modno, scope }
}
