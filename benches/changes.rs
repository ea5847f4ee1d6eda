//! What 1,000 changes cost beside their records: updates, creates and deletes scattered over the log of a host that was
//! in step, in one session from State to the equal Mark, with real stores. `cargo bench --bench changes`
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
use opmesh::record::Edit;
use opmesh::store::{Edit as RecordEdit, Flow, OwnChange};
use opmesh_core::model::OpId;

use pair::Pair;
use report::{is_short, machine, micros, table};

const CHANGES: u64 = 1_000;

/// The n-th change at a host of so many operations.
type Change = fn(u64, u64) -> OwnChange;

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    machine("changes", home.path());
    let size = if is_short() { 20_000 } else { 1_000_000 };
    let clock = Clock::system();
    let mut pair = Pair::new(home.path()).await;
    material::fill(&pair.owner, 0, size).await;
    pair.session().await;
    let mut rows = Vec::new();
    let kinds: [(&str, Change); 3] = [("creates", create), ("updates", update), ("deletes", delete)];
    for (name, change) in kinds {
        let changes = (0..CHANGES).map(|n| change(n, size)).collect();
        pair.owner.append(changes).await.unwrap();
        let began = clock.monotonic();
        pair.session().await;
        let took = clock.monotonic() - began;
        let counted = &pair.counted;
        let all = counted.bytes[0] + counted.bytes[1];
        rows.push(vec![
            format!("{CHANGES} {name}"),
            size.to_string(),
            counted.record_bytes.to_string(),
            (all - counted.record_bytes).to_string(),
            tenths((all - counted.record_bytes) * 10 / usize::try_from(CHANGES).unwrap()),
            format!("{} + {}", counted.frames[0], counted.frames[1]),
            micros(took),
        ]);
    }
    table(&["changes", "at", "record bytes", "other bytes", "a change", "frames", "time"], &rows);
    pair.owner.close().await;
    pair.hub.close().await;
}

fn create(n: u64, size: u64) -> OwnChange {
    OwnChange::Create { flow: Flow::New, record: material::record(size + n) }
}

/// Ids are dense here, so a stride reaches operations all over the log.
fn scattered(n: u64, size: u64) -> OpId {
    OpId::new(1 + n * (size / CHANGES)).unwrap()
}

fn update(n: u64, size: u64) -> OwnChange {
    let edit = Edit { message: Some(format!("checked again, run {n}")), ..Edit::default() };
    let edit = RecordEdit::new(move |record| edit.apply(record).map_err(|fault| fault.to_string()));
    OwnChange::Update { id: scattered(n, size), expect_modno: None, edit }
}

fn delete(n: u64, size: u64) -> OwnChange {
    OwnChange::Delete { id: scattered(n, size), expect_modno: None }
}

fn tenths(value: usize) -> String {
    format!("{}.{}", value / 10, value % 10)
}
