//! Listing, following and deleting operations.

use opmesh_core::model::{FlowId, KeyId, Kind, Modno, OpId, Status, UnixMs};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::reply::{Out, Stop};
use super::show;
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::Node;
use crate::store::{Change, OpRow, OpsQuery, OwnChange, RetiredHow, StoreEvent};

/// Operations in one read of the store.
const PAGE: usize = 256;
/// Records in one message: a caller that reads slowly keeps a few messages in memory, not a few pages of log tails.
const MESSAGE_BYTES: usize = 1024 * 1024;

pub(super) async fn list(
    node: Node,
    request: pb::ListOperationsRequest,
    out: Out<pb::OperationPage>,
) -> Result<(), Stop> {
    let mut query = query(&node, request.filter.unwrap_or_default()).await?;
    let mut left = request.limit.unwrap_or(u64::MAX);
    while left > 0 {
        query.limit = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
        let page = node.store().operations(query.clone()).await?;
        left = left.saturating_sub(u64::try_from(page.rows.len()).unwrap_or(u64::MAX));
        for rows in messages(&page.rows) {
            let operations = rows.iter().map(show::operation).collect();
            out.send(pb::OperationPage { operations }).await?;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    Ok(())
}

/// Cuts a page where a message is full.
fn messages(rows: &[OpRow]) -> impl Iterator<Item = &[OpRow]> {
    let mut bytes = 0;
    rows.chunk_by(move |row, _| {
        bytes += row.record.as_ref().map_or(0, |record| record.as_bytes().len());
        let room = bytes < MESSAGE_BYTES;
        bytes = if room { bytes } else { 0 };
        room
    })
}

pub(super) async fn one(node: &Node, id: u64) -> Result<pb::Operation, Failure> {
    let row = match OpId::new(id) {
        Ok(number) => node.store().operation(number).await?,
        Err(_) => None,
    };
    row.as_ref().map(show::operation).ok_or_else(|| unknown(id))
}

pub(super) async fn watch(
    node: Node,
    mut events: broadcast::Receiver<StoreEvent>,
    request: pb::WatchOperationsRequest,
    out: Out<pb::OperationEvent>,
) -> Result<(), Stop> {
    let query = query(&node, request.filter.unwrap_or_default()).await?;
    loop {
        match events.recv().await {
            Ok(event) if includes(&query, &event.operation) => {
                let name = match event.change {
                    Change::Created => "created",
                    Change::Updated => "updated",
                    Change::Deleted => "deleted",
                };
                let operation = Some(show::operation(&event.operation));
                out.send(pb::OperationEvent { event: name.to_owned(), operation }).await?;
            }
            Ok(_) => {}
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(missed)) => {
                let text = format!("this reader was too slow and missed {missed} events");
                return Err(Failure::new(Reason::Lagged, text)
                    .hint("list the operations again, then watch")
                    .into());
            }
        }
    }
}

pub(super) async fn delete(node: &Node, ids: Vec<u64>) -> Result<pb::DeleteOperationsReply, Failure> {
    if ids.is_empty() {
        return Err(Failure::new(Reason::InvalidArgument, "no operation to delete was named"));
    }
    let own = node.identity().key_id();
    let mut changes = Vec::new();
    for id in ids {
        let row = match OpId::new(id) {
            Ok(number) => node.store().operation(number).await?,
            Err(_) => None,
        };
        let row = row.ok_or_else(|| unknown(id))?;
        if row.owner != own {
            let text = format!("operation {id} belongs to {}; only its owner can delete it", row.host);
            return Err(Failure::new(Reason::NotOwn, text).hint("run the command on that host"));
        }
        changes.push(OwnChange::Delete { id: row.original_id, expect_modno: None });
    }
    let appended = node.store().append(changes).await?;
    let deleted =
        appended.iter().map(|done| pb::DeletedOperation { id: done.id.get(), modno: done.modno.get() });
    Ok(pb::DeleteOperationsReply { deleted: deleted.collect() })
}

fn unknown(id: u64) -> Failure {
    Failure::new(Reason::UnknownOperation, format!("there is no operation {id} here"))
        .hint("`opmesh ops list` shows all of them")
}

/// The store's words for a filter.
async fn query(node: &Node, filter: pb::OperationFilter) -> Result<OpsQuery, Failure> {
    let mut hosts = Vec::<KeyId>::new();
    for host in &filter.host {
        hosts.push(node.store().find_host(host).await.map_err(super::hosts::unknown_as_host)?);
    }
    if !hosts.is_empty() {
        // What a lost key wrote is listed with the host that stands for it.
        let adopted = node.store().retired().await?.into_iter();
        let adopted = adopted.filter(|old| old.how == RetiredHow::Adoption && hosts.contains(&old.heir));
        hosts.extend(adopted.map(|old| old.key).collect::<Vec<_>>());
    }
    let kinds = filter.kind.iter().map(|name| kind(name)).collect::<Result<_, _>>()?;
    let statuses = filter.status.iter().map(|name| status(name)).collect::<Result<_, _>>()?;
    let flow =
        |number: &u64| FlowId::new(*number).map_err(|fault| Failure::new(Reason::InvalidArgument, fault));
    Ok(OpsQuery {
        hosts,
        repos: filter.repo_id,
        plans: filter.plan_id,
        kinds,
        statuses,
        flows: filter.flow_id.iter().map(flow).collect::<Result<_, _>>()?,
        since: filter.since_unix_ms.map(UnixMs),
        until: filter.until_unix_ms.map(UnixMs),
        after: None,
        limit: PAGE,
    })
}

/// Whether an operation would be listed by this query.
fn includes(query: &OpsQuery, row: &OpRow) -> bool {
    fn any<T: PartialEq>(wanted: &[T], found: &T) -> bool {
        wanted.is_empty() || wanted.contains(found)
    }
    let start = UnixMs(row.columns.start_unix_ms);
    any(&query.hosts, &row.owner)
        && any(&query.repos, &row.scope.repo)
        && any(&query.plans, &row.scope.plan)
        && any(&query.kinds, &row.columns.kind)
        && any(&query.statuses, &row.columns.status)
        && any(&query.flows, &row.flow_id)
        && query.since.is_none_or(|since| start >= since)
        && query.until.is_none_or(|until| start < until)
}

/// A kind by its name.
pub(super) fn kind(name: &str) -> Result<Kind, Failure> {
    if name == Kind::Unknown.name() {
        return Ok(Kind::Unknown);
    }
    Kind::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|(.., name)| *name).collect();
        let text = format!("{name:?} is not a kind: expected one of {}", names.join(", "));
        Failure::new(Reason::InvalidArgument, text)
    })
}

/// A status by its name.
pub(super) fn status(name: &str) -> Result<Status, Failure> {
    Status::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Status::ALL.iter().map(|(.., name)| *name).collect();
        let text = format!("{name:?} is not a status: expected one of {}", names.join(", "));
        Failure::new(Reason::InvalidArgument, text)
    })
}

/// A change number that a caller expects.
pub(super) fn modno(number: Option<u64>) -> Result<Option<Modno>, Failure> {
    number.map(Modno::new).transpose().map_err(|fault| Failure::new(Reason::InvalidArgument, fault))
}
