//! Security events.

use opmesh_core::model::UnixMs;

use super::reply::{Out, Stop};
use super::show;
use crate::admin::error::Failure;
use crate::admin::pb;
use crate::node::Node;
use crate::store::AuditVerdict;

pub(super) async fn list(node: Node, since: Option<i64>, out: Out<pb::AuditRecord>) -> Result<(), Stop> {
    let mut after = 0;
    loop {
        let records = node.store().audit(since.map(UnixMs), after).await?;
        let Some(last) = records.last() else { return Ok(()) };
        after = last.number;
        for record in &records {
            out.send(show::audit(record)).await?;
        }
    }
}

pub(super) async fn verify(node: &Node) -> Result<pb::AuditVerification, Failure> {
    Ok(match node.store().audit_verify().await? {
        AuditVerdict::Whole { records, last } => pb::AuditVerification {
            equal: true,
            count: records,
            bad_id: None,
            fault: String::new(),
            chain: show::hex(&last),
        },
        AuditVerdict::Broken { number, fault } => pb::AuditVerification {
            equal: false,
            count: number.saturating_sub(1),
            bad_id: Some(number),
            fault: fault.name().to_owned(),
            chain: String::new(),
        },
    })
}
