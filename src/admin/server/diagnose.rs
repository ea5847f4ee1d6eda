//! What a doctor sees, check by check.

use super::reply::{Out, Stop};
use crate::admin::error::Failure;
use crate::admin::pb;
use crate::doctor::{Check, Patient, Report, examine};
use crate::node::Node;

/// Whom the text means.
pub(super) async fn patient(node: &Node, text: &str) -> Result<Patient, Failure> {
    Ok(Patient::find(node, text).await?)
}

pub(super) async fn diagnose(node: Node, patient: Patient, out: Out<pb::Check>) -> Result<(), Stop> {
    let (report, mut made) = Report::new();
    let showing = async {
        while let Some(check) = made.recv().await {
            out.send(pb::Check::from(check)).await?;
        }
        Ok::<_, Stop>(())
    };
    let (examined, shown) = tokio::join!(examine(&node, patient, report), showing);
    examined?;
    shown
}

impl From<Check> for pb::Check {
    fn from(check: Check) -> Self {
        Self {
            id: check.id.name().to_owned(),
            peer: check.peer,
            side: check.side.name().to_owned(),
            state: check.state.name().to_owned(),
            seen: check.seen,
            next: check.next,
        }
    }
}
