//! What intake hands over to be recorded, and how it becomes changes of the own log exactly once.
//!
//! A run has a random key. Its beginning and its end are each taken in once, whoever hands them in and however often:
//! the daemon, a later command that finds the result in the spool, or both.

use std::fmt;
use std::str::FromStr;

use opmesh_core::model::{FlowId, NumberFault, OpId, Record, Status};
use serde::{Deserialize, Serialize};

use super::spool::{Spool, Waiting};
use crate::clock::Clock;
use crate::record::{Draft, DraftFault, Edit};
use crate::store::{self, AppendError, Appended, Flow, OnceKey, OwnChange, Refused, Store};

/// Separates the key under which a run's end is taken in from the one of its beginning.
const END_CONTEXT: &str = "opmesh intake run end 1";

/// The random name of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RunKey([u8; 16]);

/// Text that names no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a run key: expected 32 hex digits")]
pub struct RunKeyFault(String);

impl RunKey {
    /// Draws a new one.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    const fn beginning(self) -> OnceKey {
        OnceKey(self.0)
    }

    fn end(self) -> OnceKey {
        let mut key = [0; 16];
        key.iter_mut().zip(blake3::derive_key(END_CONTEXT, &self.0)).for_each(|(to, from)| *to = from);
        OnceKey(key)
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for RunKey {
    type Err = RunKeyFault;

    fn from_str(text: &str) -> Result<Self, RunKeyFault> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| RunKeyFault(text.to_owned()))
    }
}

impl From<RunKey> for String {
    fn from(key: RunKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for RunKey {
    type Error = RunKeyFault;

    fn try_from(text: String) -> Result<Self, RunKeyFault> {
        text.parse()
    }
}

/// The beginning of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// Which run.
    pub key: RunKey,
    /// The flow that it joins, as a number of this instance; none = its own.
    pub flow: Option<u64>,
    /// The operation, in progress.
    pub operation: Draft,
    /// The process that watches it.
    pub pid: u32,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// How the run began.
    pub start: RunStart,
    /// What its beginning was recorded as, as far as whoever watched it heard.
    pub begun: Option<Begun>,
    /// How it is known.
    pub step: RunStep,
    /// What it came to: the operation that began it first, then one for each further snapshot. Never empty.
    pub operations: Vec<Draft>,
}

/// How the end of a run is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStep {
    /// It was watched to its end.
    Ended,
    /// Whoever watched it is gone.
    Gone,
}

/// A beginning that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(u64, u64)", try_from = "(u64, u64)")]
pub struct Begun {
    /// The operation.
    pub id: OpId,
    /// Its flow; nested runs join it.
    pub flow_id: FlowId,
}

impl From<Begun> for (u64, u64) {
    fn from(begun: Begun) -> Self {
        (begun.id.get(), begun.flow_id.get())
    }
}

impl TryFrom<(u64, u64)> for Begun {
    type Error = NumberFault;

    fn try_from((id, flow_id): (u64, u64)) -> Result<Self, NumberFault> {
        Ok(Self { id: OpId::new(id)?, flow_id: FlowId::new(flow_id)? })
    }
}

/// Why something was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It can be recorded later: no identity, a locked store, a full disk, a daemon that does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// It can never be recorded as it is.
    #[error("{0}")]
    Refused(String),
}

/// The way into the own log: the admin socket, or a store opened for the moment of the call. A run may take days, so
/// nothing may stay open or locked between two calls.
pub trait Recorder: Sync {
    /// Records the beginning of a run.
    fn begin(&self, start: &RunStart) -> impl Future<Output = Result<Begun, RecordFault>> + Send;

    /// Records the end of a run; a second time it does nothing.
    fn finish(&self, result: &RunResult) -> impl Future<Output = Result<(), RecordFault>> + Send;
}

/// An open store records directly: what the daemon does with what arrives at its socket.
impl Recorder for Store {
    async fn begin(&self, start: &RunStart) -> Result<Begun, RecordFault> {
        create_once(self, start, &encode(&start.operation)?)
            .await?
            .ok_or_else(|| RecordFault::Refused(format!("the run {} has begun before", start.key)))
    }

    async fn finish(&self, result: &RunResult) -> Result<(), RecordFault> {
        let started = encode(&result.start.operation)?;
        let records = result.operations.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        if let Some(begun) = result.begun
            && end_begun(self, result, begun, &records).await? == Ended::Here
        {
            return Ok(());
        }
        if let [only] = records.as_slice() {
            // Begun unseen and ended: one change. A beginning that is still under way finds its key used up.
            if create_once(self, &result.start, only).await?.is_some() {
                return Ok(());
            }
        } else {
            create_once(self, &result.start, &started).await?;
        }
        let unfinished = self.unfinished().await.map_err(|fault| unavailable(&fault))?;
        if let Some(row) = unfinished.into_iter().find(|row| row.record.as_ref() == Some(&started)) {
            end_begun(self, result, Begun { id: row.id, flow_id: row.flow_id }, &records).await?;
        }
        // Otherwise it was taken in before, or the operator deleted the operation.
        Ok(())
    }
}

/// Creates the operation that begins a run, in the flow that it joins if there is one of that number.
async fn create_once(store: &Store, start: &RunStart, record: &Record) -> Result<Option<Begun>, RecordFault> {
    let joined = start.flow.and_then(|number| FlowId::new(number).ok()).map(Flow::Join);
    let mut answer = create_in(store, start, record, joined.unwrap_or(Flow::New)).await;
    if let Err(AppendError { reason: Refused::NoSuchFlow(_), .. }) = &answer {
        answer = create_in(store, start, record, Flow::New).await;
    }
    let appended = answer.map_err(|fault| refused(&fault))?;
    let first = appended.and_then(|all| all.first().copied());
    Ok(first.map(|Appended { id, flow_id, .. }| Begun { id, flow_id }))
}

async fn create_in(
    store: &Store,
    start: &RunStart,
    record: &Record,
    flow: Flow,
) -> Result<Option<Vec<Appended>>, AppendError> {
    store.append_once(start.key.beginning(), vec![OwnChange::Create { flow, record: record.clone() }]).await
}

/// Whether the operation that began a run took its end.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// It did, now or earlier.
    Here,
    /// The number is no operation of this run: deleted, ended otherwise, or the store is an older copy.
    NotHere,
}

async fn end_begun(
    store: &Store,
    result: &RunResult,
    begun: Begun,
    records: &[Record],
) -> Result<Ended, RecordFault> {
    let Some(first) = result.operations.first().cloned() else { return Ok(Ended::Here) };
    let edit = store::Edit::new(move |record: &Record| {
        let before = Draft::decode(record);
        let is_begun = before.status == Status::InProgress && before.start_unix_ms == first.start_unix_ms;
        let same_place = before.repo_id == first.repo_id && before.plan_id == first.plan_id;
        if is_begun && same_place && before.kind == first.kind {
            Edit::from(first).apply(record).map_err(|fault| fault.to_string())
        } else {
            Err("the operation is not the one that this run began".to_owned())
        }
    });
    let mut changes = vec![OwnChange::Update { id: begun.id, expect_modno: None, edit }];
    let flow = Flow::Join(begun.flow_id);
    changes.extend(records.iter().skip(1).map(|record| OwnChange::Create { flow, record: record.clone() }));
    match store.append_once(result.start.key.end(), changes).await {
        Ok(_) => Ok(Ended::Here),
        Err(AppendError { reason: Refused::NoSuchOperation(_) | Refused::Edit(_), .. }) => Ok(Ended::NotHere),
        Err(fault) => Err(refused(&fault)),
    }
}

fn encode(draft: &Draft) -> Result<Record, RecordFault> {
    draft.encode().map_err(|fault: DraftFault| RecordFault::Refused(fault.to_string()))
}

fn refused(fault: &AppendError) -> RecordFault {
    match &fault.reason {
        Refused::Store(fault) => unavailable(fault),
        other => RecordFault::Refused(other.to_string()),
    }
}

fn unavailable(fault: &store::StoreError) -> RecordFault {
    RecordFault::Unavailable(fault.to_string())
}

/// Takes in what waits in the spool: results that could not be recorded, and runs whose process is gone. Returns how
/// many. Stops at the first that cannot be recorded now; what can never be recorded is set aside there.
/// Called by `serve` at its start, and by `run` and `record` after their own result.
pub async fn take_in<R: Recorder>(spool: &Spool, recorder: &R, clock: &Clock) -> Result<usize, RecordFault> {
    let mut taken = 0;
    for waiting in spool.waiting(clock.wall()) {
        let result = match &waiting {
            Waiting::Result(result) => result.clone(),
            Waiting::Gone(start) => gone(start, clock),
        };
        match recorder.finish(&result).await {
            Ok(()) => {
                taken += 1;
                spool.remove(result.start.key);
            }
            Err(RecordFault::Refused(reason)) => {
                tracing::warn!(key = %result.start.key, reason, "a spooled result was refused and set aside");
                spool.set_aside(result.start.key);
            }
            Err(fault @ RecordFault::Unavailable(_)) => return Err(fault),
        }
    }
    Ok(taken)
}

fn gone(start: &RunStart, clock: &Clock) -> RunResult {
    let mut operation = start.operation.clone();
    operation.status = Status::SystemCancelled;
    operation.end_unix_ms = Some(clock.wall().0);
    operation.message = format!(
        "`opmesh run` (process {}) was gone before the command ended; its result is unknown",
        start.pid
    );
    RunResult { start: start.clone(), begun: None, step: RunStep::Gone, operations: vec![operation] }
}
