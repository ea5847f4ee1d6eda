//! Applying changes to the own log: one transaction after the other, each answered once it is durable.

use opmesh_core::model::{FlowId, OpId};
use tonic::Streaming;

use super::operations::{kind, modno, status};
use super::reply::{Out, Stop};
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::admin::pb::change::Change;
use crate::node::Node;
use crate::record::{Details, Draft, Edit};
use crate::store::{self, Appended, Flow, OwnChange};

/// Changes in one transaction that comes in several messages. All of them wait in memory.
const MAX_TRANSACTION_CHANGES: usize = 1_000_000;

pub(super) async fn apply(
    node: Node,
    mut transactions: Streaming<pb::ApplyTransaction>,
    out: Out<pb::ApplyReply>,
) -> Result<(), Stop> {
    let mut changes = Vec::new();
    while let Some(part) = transactions.message().await? {
        changes.extend(part.changes);
        if changes.len() > MAX_TRANSACTION_CHANGES {
            let text = format!("one transaction holds at most {MAX_TRANSACTION_CHANGES} changes");
            return Err(Failure::new(Reason::Limit, text).into());
        }
        if part.more {
            continue;
        }
        match transaction(&node, std::mem::take(&mut changes)).await? {
            Ok(results) => out.send(pb::ApplyReply { results }).await?,
            Err(refused) => return out.send(pb::ApplyReply { results: vec![refused] }).await,
        }
    }
    Ok(())
}

type Outcome = Result<Vec<pb::ApplyResult>, pb::ApplyResult>;

/// Performs one transaction; the outer error is the store's, the inner one the result of the change at fault.
async fn transaction(node: &Node, changes: Vec<pb::Change>) -> Result<Outcome, Failure> {
    let now = node.clock().wall().0;
    let mut lines = Vec::with_capacity(changes.len());
    let mut own = Vec::with_capacity(changes.len());
    for change in changes {
        let line = change.line;
        match own_change(change, now) {
            Ok((result, change)) => {
                lines.push((line, result));
                own.push(change);
            }
            Err(failure) => return Ok(Err(refused(line, failure.message))),
        }
    }
    if own.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    match node.store().append(own).await {
        Ok(appended) => Ok(Ok(lines.iter().zip(appended).map(done).collect())),
        Err(error) => match error.reason {
            store::Refused::Store(fault) => Err(fault.into()),
            reason => {
                let line = lines.get(error.index).map_or(0, |(line, _)| *line);
                Ok(Err(refused(line, reason.to_string())))
            }
        },
    }
}

fn done(((line, result), appended): (&(u32, &'static str), Appended)) -> pb::ApplyResult {
    pb::ApplyResult {
        line: *line,
        result: (*result).to_owned(),
        id: Some(appended.id.get()),
        modno: Some(appended.modno.get()),
        reason: None,
    }
}

fn refused(line: u32, reason: String) -> pb::ApplyResult {
    pb::ApplyResult { line, result: "error".to_owned(), id: None, modno: None, reason: Some(reason) }
}

fn own_change(change: pb::Change, now: i64) -> Result<(&'static str, OwnChange), Failure> {
    let wrong = |text| Failure::new(Reason::InvalidArgument, text);
    match change.change.ok_or_else(|| wrong("expected create, update or delete"))? {
        Change::Create(create) => {
            let flow = match create.flow_id {
                Some(number) => Flow::Join(FlowId::new(number).map_err(invalid)?),
                None => Flow::New,
            };
            let record = draft(create, now)?.encode().map_err(invalid)?;
            Ok(("created", OwnChange::Create { flow, record }))
        }
        Change::Update(update) => {
            let id = OpId::new(update.id).map_err(invalid)?;
            let expect_modno = modno(update.expect_modno)?;
            let edit = edit(update)?;
            let edit = store::Edit::new(move |record| edit.apply(record).map_err(|fault| fault.to_string()));
            Ok(("updated", OwnChange::Update { id, expect_modno, edit }))
        }
        Change::Delete(delete) => {
            let id = OpId::new(delete.id).map_err(invalid)?;
            Ok(("deleted", OwnChange::Delete { id, expect_modno: modno(delete.expect_modno)? }))
        }
    }
}

fn invalid(fault: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::InvalidArgument, fault)
}

/// The draft of an operation that a caller describes.
pub(super) fn draft(create: pb::CreateOperation, now: i64) -> Result<Draft, Failure> {
    let start = create.start_unix_ms.unwrap_or(now);
    let mut draft =
        Draft::new(kind(&create.kind)?, status(&create.status)?, &create.repo_id, &create.plan_id, start);
    draft.end_unix_ms = create.end_unix_ms;
    draft.message = create.message;
    draft.snapshot_id = create.snapshot_id;
    draft.repo_guid = create.repo_guid;
    draft.details = create.details.map(details).unwrap_or_default();
    Ok(draft)
}

fn edit(update: pb::UpdateOperation) -> Result<Edit, Failure> {
    Ok(Edit {
        status: update.status.as_deref().map(status).transpose()?,
        start_unix_ms: update.start_unix_ms,
        end_unix_ms: update.end_unix_ms,
        message: update.message,
        snapshot_id: update.snapshot_id,
        repo_guid: None,
        details: update.details.map(details),
    })
}

fn details(details: pb::Details) -> Details {
    Details {
        tool: details.tool,
        tool_version: details.tool_version,
        exit_code: details.exit_code,
        argv: details.argv,
        summary_json: details.summary_json,
        errors: details.errors,
        error_count: details.error_count,
        log_tail: details.log_tail,
    }
}
