//! How `run` and `record` reach the own log: for each call anew, since a run may take days and must hold nothing.

use opmesh_core::model::{FlowId, NumberFault, OpId};

use super::context::{Context, Instance};
use crate::admin::{Failure, Reached, Reason, pb};
use crate::intake::{Begun, RecordFault, Recorder, RunResult, RunStart, RunStep, Spool};
use crate::record::{Details, Draft};

/// The way to this instance, if one was named.
#[derive(Debug)]
pub(super) struct Way {
    instance: Result<Instance, String>,
}

impl Way {
    /// Never fails: that there is no instance is said once, by the run itself.
    pub(super) fn to_instance(context: &Context) -> Self {
        Self { instance: context.instance().map_err(|fault| format!("{fault:#}")) }
    }

    /// Where results wait that cannot be recorded; none without a folder to put it in.
    pub(super) fn spool(&self) -> Option<Spool> {
        let instance = self.instance.as_ref().ok()?;
        Some(Spool::new(&instance.places.spool()))
    }

    async fn reach(&self) -> Result<Reached, RecordFault> {
        let instance = self.instance.as_ref().map_err(|reason| RecordFault::Unavailable(reason.clone()))?;
        instance.reach().await.map_err(fault)
    }
}

impl Recorder for Way {
    async fn begin(&self, start: &RunStart) -> Result<Begun, RecordFault> {
        let request = pb::BeginRunRequest { start: Some(run_start(start)) };
        let reached = self.reach().await?;
        let begun = reached.client.begin_run(request).await;
        reached.close().await;
        let begun = begun.map_err(fault)?;
        let number = |fault: NumberFault| RecordFault::Unavailable(fault.to_string());
        let id = OpId::new(begun.id).map_err(number)?;
        let flow_id = FlowId::new(begun.flow_id).map_err(number)?;
        Ok(Begun { id, flow_id })
    }

    async fn finish(&self, result: &RunResult) -> Result<(), RecordFault> {
        let step = match result.step {
            RunStep::Ended => "ended",
            RunStep::Gone => "gone",
        };
        let request = pb::FinishRunRequest {
            start: Some(run_start(&result.start)),
            begun: result
                .begun
                .map(|begun| pb::BegunRun { id: begun.id.get(), flow_id: begun.flow_id.get() }),
            step: step.to_owned(),
            operations: result.operations.iter().map(operation).collect(),
        };
        let reached = self.reach().await?;
        let finished = reached.client.finish_run(request).await;
        reached.close().await;
        finished.map(drop).map_err(fault)
    }
}

/// What is wrong with the operation stays wrong; everything else may pass.
fn fault(failure: Failure) -> RecordFault {
    match failure.reason {
        Reason::InvalidArgument | Reason::Limit => RecordFault::Refused(failure.message),
        _ => RecordFault::Unavailable(failure.message),
    }
}

fn run_start(start: &RunStart) -> pb::RunStart {
    pb::RunStart {
        run_key: start.key.to_string(),
        flow_id: start.flow,
        operation: Some(operation(&start.operation)),
        pid: start.pid,
    }
}

fn operation(draft: &Draft) -> pb::CreateOperation {
    pb::CreateOperation {
        kind: draft.kind.name().to_owned(),
        status: draft.status.name().to_owned(),
        repo_id: draft.repo_id.clone(),
        plan_id: draft.plan_id.clone(),
        start_unix_ms: Some(draft.start_unix_ms),
        end_unix_ms: draft.end_unix_ms,
        flow_id: None,
        message: draft.message.clone(),
        snapshot_id: draft.snapshot_id.clone(),
        repo_guid: draft.repo_guid.clone(),
        details: Some(details(&draft.details)),
    }
}

fn details(details: &Details) -> pb::Details {
    pb::Details {
        tool: details.tool.clone(),
        tool_version: details.tool_version.clone(),
        exit_code: details.exit_code,
        argv: details.argv.clone(),
        summary_json: details.summary_json.clone(),
        errors: details.errors.clone(),
        error_count: details.error_count,
        log_tail: details.log_tail.clone(),
    }
}
