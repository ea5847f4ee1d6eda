//! Operations to measure with: about 600 bytes each, as a small restic backup leaves them, and stores full of them.

use opmesh::record::{Details, Draft};
use opmesh::store::{Flow, OwnChange, Store};
use opmesh_core::model::{Kind, Record, Status};

/// Creates in one transaction of the own log.
const BATCH: u64 = 1000;
/// When the first run began.
const FIRST_UNIX_MS: i64 = 1_700_000_000_000;

/// The record of the n-th backup of a host with three plans in two repositories.
pub(crate) fn record(n: u64) -> Record {
    let plan = ["documents", "databases", "photos"][usize::try_from(n % 3).unwrap()];
    let repo = ["nas", "offsite"][usize::from(n.is_multiple_of(5))];
    let began = FIRST_UNIX_MS + i64::try_from(n).unwrap() * 60_000;
    let mut draft = Draft::new(Kind::Backup, Status::Success, repo, plan, began);
    draft.end_unix_ms = Some(began + 41_000);
    draft.snapshot_id = format!("{:064x}", u128::from(n) * 0x9e37_79b9_7f4a_7c15_f39c_c060);
    draft.repo_guid = format!("{:064x}", u128::MAX / 7);
    draft.details = Details {
        tool: "restic".to_owned(),
        tool_version: "0.18.0".to_owned(),
        exit_code: Some(0),
        argv: ["restic", "-r", "/srv/backup/nas", "backup", "--json", "--tag", "nightly", "/etc", "/home"]
            .map(str::to_owned)
            .to_vec(),
        summary_json: format!(
            r#"{{"message_type":"summary","files_new":{},"files_changed":12,"files_unmodified":48211,"dirs_new":0,"dirs_changed":9,"dirs_unmodified":6120,"data_blobs":31,"tree_blobs":10,"data_added":{},"data_added_packed":1284711,"total_files_processed":48231,"total_bytes_processed":91822118923,"total_duration":41.2}}"#,
            n % 97,
            n * 37 % 9_999_991,
        ),
        ..Details::default()
    };
    draft.encode().unwrap()
}

/// Appends operations until the own log has had `total` of them; `done` were there before.
pub(crate) async fn fill(store: &Store, done: u64, total: u64) {
    let mut next = done;
    while next < total {
        let until = total.min(next + BATCH);
        let changes = (next..until).map(|n| OwnChange::Create { flow: Flow::New, record: record(n) });
        store.append(changes.collect()).await.unwrap();
        next = until;
    }
}
