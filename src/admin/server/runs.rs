//! Runs of backup tools, as the processes that watch them hand them over.

use opmesh_core::model::{FlowId, OpId};

use super::apply::draft;
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::intake::{Begun, RecordFault, Recorder as _, RunKey, RunResult, RunStart, RunStep};
use crate::node::Node;

pub(super) async fn begin(node: &Node, request: pb::BeginRunRequest) -> Result<pb::BegunRun, Failure> {
    let start = start(node, request.start)?;
    let begun = node.store().begin(&start).await?;
    Ok(pb::BegunRun { id: begun.id.get(), flow_id: begun.flow_id.get() })
}

pub(super) async fn finish(node: &Node, request: pb::FinishRunRequest) -> Result<pb::FinishedRun, Failure> {
    let now = node.clock().wall().0;
    let step = match request.step.as_str() {
        "ended" => RunStep::Ended,
        "gone" => RunStep::Gone,
        other => return Err(wrong(format!("{other:?} is no step of a run: expected ended or gone"))),
    };
    let operations: Vec<_> =
        request.operations.into_iter().map(|operation| draft(operation, now)).collect::<Result<_, _>>()?;
    if operations.is_empty() {
        return Err(wrong("a run has at least one operation".to_owned()));
    }
    let begun = request.begun.map(begun).transpose()?;
    let result = RunResult { start: start(node, request.start)?, begun, step, operations };
    node.store().finish(&result).await?;
    Ok(pb::FinishedRun {})
}

fn begun(begun: pb::BegunRun) -> Result<Begun, Failure> {
    let id = OpId::new(begun.id).map_err(|fault| wrong(fault.to_string()))?;
    let flow_id = FlowId::new(begun.flow_id).map_err(|fault| wrong(fault.to_string()))?;
    Ok(Begun { id, flow_id })
}

fn start(node: &Node, start: Option<pb::RunStart>) -> Result<RunStart, Failure> {
    let start = start.ok_or_else(|| wrong("the run's start is missing".to_owned()))?;
    let operation = start.operation.ok_or_else(|| wrong("the run's operation is missing".to_owned()))?;
    Ok(RunStart {
        key: start.run_key.parse::<RunKey>().map_err(|fault| wrong(fault.to_string()))?,
        flow: start.flow_id,
        operation: draft(operation, node.clock().wall().0)?,
        pid: start.pid,
    })
}

fn wrong(text: String) -> Failure {
    Failure::new(Reason::InvalidArgument, text)
}

impl From<RecordFault> for Failure {
    fn from(fault: RecordFault) -> Self {
        let reason = match fault {
            RecordFault::Unavailable(_) => Reason::Store,
            RecordFault::Refused(_) => Reason::InvalidArgument,
        };
        Self::new(reason, fault)
    }
}
