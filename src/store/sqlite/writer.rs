//! The one thread that writes: group commit with a savepoint for each job.
//!
//! It takes whatever is queued, runs each job in a savepoint of its own inside one transaction, commits once, and
//! answers all. It never waits for more when the queue is empty. A job that fails is rolled back alone. A failure of
//! the disk stops the store: a COMMIT that returned an error may still be on the disk, so nothing is tried again.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opmesh_core::model::{ConfigModno, Position};
use opmesh_core::protocol::Violation;
use rusqlite::Connection;
use tokio::sync::{broadcast, oneshot, watch};

use super::audit;
use super::audit_files::AuditFiles;
use super::memory::Memory;
use super::notes::Notes;
use super::queue::{Consumer, Waited};
use super::tx::{Effects, Tx};
use crate::clock::Clock;
use crate::store::{
    AppendError, AuditEvent, AuditKind, PeerError, PeerEvent, Refused, StoreError, StoreEvent,
};

/// A group ends at the first of these (design §8).
const GROUP_OPERATIONS: usize = 1024;
const GROUP_BYTES: usize = 1024 * 1024;
const GROUP_TIME: Duration = Duration::from_millis(20);

/// How often lazy notes are written when nothing else is.
const NOTES_EVERY: Duration = Duration::from_secs(5);

/// How much of a group's limits a job uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Weight {
    pub(in crate::store) operations: usize,
    pub(in crate::store) bytes: usize,
}

impl Weight {
    pub(in crate::store) const ONE: Self = Self { operations: 1, bytes: 0 };
}

/// An error that knows whether it stops the store.
pub(in crate::store) trait JobError: Send + From<StoreError> + 'static {
    fn store_error(&self) -> Option<&StoreError>;
}

impl JobError for StoreError {
    fn store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl JobError for PeerError {
    fn store_error(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self { index: 0, reason: Refused::Store(error) }
    }
}

impl JobError for AppendError {
    fn store_error(&self) -> Option<&StoreError> {
        if let Refused::Store(error) = &self.reason { Some(error) } else { None }
    }
}

/// Why a replica's transaction did not happen.
#[derive(Debug)]
pub(in crate::store) enum SubmitError {
    Violation(Violation),
    Store(StoreError),
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl JobError for SubmitError {
    fn store_error(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

/// Something that the writer performs in a savepoint.
pub(in crate::store) trait Job: Send {
    fn weight(&self) -> Weight;
    /// Performs it; an error asks for the rollback of the savepoint.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Failed>;
    /// Tells the caller, once the transaction around it is durable or has failed.
    fn answer(self: Box<Self>, durable: Result<(), StoreError>);
}

/// A job that is to be rolled back, and whether the store stops with it.
#[derive(Debug)]
pub(in crate::store) struct Failed {
    stop: Option<StoreError>,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { stop: matches!(error, StoreError::Stopped { .. }).then_some(error) }
    }
}

/// A job from a closure.
pub(in crate::store) struct Task<F, T, E> {
    weight: Weight,
    work: Option<F>,
    outcome: Option<Result<T, E>>,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Task<F, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: JobError,
{
    pub(in crate::store) fn new(weight: Weight, work: F) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (caller, answer) = oneshot::channel();
        (Self { weight, work: Some(work), outcome: None, caller }, answer)
    }
}

impl<F, T, E> Job for Task<F, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: JobError,
{
    fn weight(&self) -> Weight {
        self.weight
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let outcome = work(tx).and_then(|value| tx.settle().map(|()| value).map_err(E::from));
        let failed = outcome.as_ref().err().map(|error| {
            let stop = error.store_error().filter(|error| matches!(error, StoreError::Stopped { .. }));
            Failed { stop: stop.cloned() }
        });
        self.outcome = Some(outcome);
        failed.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, durable: Result<(), StoreError>) {
        let outcome = match durable {
            Ok(()) => self.outcome.unwrap_or_else(|| Err(StoreError::Closed.into())),
            Err(error) => Err(error.into()),
        };
        // The caller may have given up; the work is done all the same.
        drop(self.caller.send(outcome));
    }
}

/// What the writer's queue carries.
pub(in crate::store) enum Order {
    /// Perform this.
    Perform(Box<dyn Job>),
    /// Perform what was handed in before, then end in good order.
    Close,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perform(_) => "Perform",
            Self::Close => "Close",
        })
    }
}

/// Where the writer tells what has happened.
pub(in crate::store) struct Outlets {
    pub(in crate::store) head: watch::Sender<Position>,
    pub(in crate::store) config: watch::Sender<ConfigModno>,
    pub(in crate::store) events: broadcast::Sender<StoreEvent>,
    pub(in crate::store) peers: broadcast::Sender<PeerEvent>,
    pub(in crate::store) stopped: Arc<OnceLock<StoreError>>,
}

/// The writer's thread.
pub(in crate::store) struct Writer {
    pub(in crate::store) connection: Connection,
    pub(in crate::store) memory: Memory,
    pub(in crate::store) orders: Consumer<Order>,
    pub(in crate::store) outlets: Outlets,
    pub(in crate::store) notes: Arc<Mutex<Notes>>,
    pub(in crate::store) clock: Clock,
    pub(in crate::store) notes_written: Duration,
    pub(in crate::store) files: AuditFiles,
}

/// A group of jobs in one transaction.
#[derive(Default)]
struct Group {
    jobs: Vec<Box<dyn Job>>,
    effects: Effects,
    operations: usize,
    bytes: usize,
    /// The transaction has begun, so that a failure leaves memory and tables apart.
    begun: bool,
    close: bool,
}

impl Writer {
    /// Serves until it is closed, or until all callers are gone: then without the courtesies of an orderly end.
    pub(in crate::store) fn run(mut self) {
        self.record_last_stop();
        loop {
            let now = self.clock.monotonic();
            if self.files.is_due(now) {
                self.files.write_head(&self.connection, now);
            }
            match self.orders.wait(NOTES_EVERY) {
                Waited::Item(Order::Perform(job)) => {
                    if self.group(Some(job)) {
                        break self.finish();
                    }
                }
                Waited::Item(Order::Close) => break self.finish(),
                Waited::Nothing => {
                    if self.notes_due() || self.memory.refusals.is_due(self.clock.wall()) {
                        self.group(None);
                    }
                }
                Waited::Ended => break,
            }
        }
        self.orders.close();
    }

    /// One transaction; whether the store is to close after it.
    fn group(&mut self, first: Option<Box<dyn Job>>) -> bool {
        let mut group = Group::default();
        let durable = self.perform(first, &mut group);
        if let Err(error) = &durable {
            self.give_up(error, group.begun);
        } else {
            self.publish(&mut group.effects);
        }
        for job in group.jobs {
            job.answer(durable.clone());
        }
        group.close
    }

    fn perform(&mut self, first: Option<Box<dyn Job>>, group: &mut Group) -> Result<(), StoreError> {
        let mut next = first;
        if let Some(stopped) = self.outlets.stopped.get().cloned() {
            group.jobs.extend(next);
            return Err(stopped);
        }
        if let Err(error) = self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut s| s.execute([]))
        {
            group.jobs.extend(next);
            return Err(error.into());
        }
        group.begun = true;
        let began = self.clock.monotonic();
        while let Some(mut job) = next.take() {
            let weight = job.weight();
            let ran = self.savepoint(job.as_mut(), &mut group.effects);
            group.jobs.push(job);
            ran?;
            group.operations += weight.operations;
            group.bytes += weight.bytes;
            let full = group.operations >= GROUP_OPERATIONS || group.bytes >= GROUP_BYTES;
            if full || self.clock.monotonic().saturating_sub(began) >= GROUP_TIME {
                break;
            }
            match self.orders.next_now() {
                Waited::Item(Order::Perform(job)) => next = Some(job),
                Waited::Item(Order::Close) => group.close = true,
                Waited::Nothing | Waited::Ended => {}
            }
        }
        if self.notes_due() {
            self.write_notes()?;
        }
        self.outside_jobs(audit::write_counted)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Performs what no caller asked for in the transaction that is under way.
    fn outside_jobs(&mut self, work: fn(&mut Tx<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut effects = Effects::default();
        let now = self.clock.wall();
        work(&mut Tx::new(&self.connection, &mut self.memory, &mut effects, now, false))
    }

    /// Runs one job; an error stops the store.
    fn savepoint(&mut self, job: &mut dyn Job, effects: &mut Effects) -> Result<(), StoreError> {
        self.connection.prepare_cached("SAVEPOINT job")?.execute([])?;
        let mark = self.memory.begin();
        let (events, peers, head) = (effects.events.len(), effects.peers.len(), effects.head);
        let config = effects.config;
        let watched = self.outlets.events.receiver_count() > 0;
        let now = self.clock.wall();
        let ran = job.run(&mut Tx::new(&self.connection, &mut self.memory, effects, now, watched));
        if let Err(failed) = ran {
            if let Some(stop) = failed.stop {
                return Err(stop);
            }
            effects.events.truncate(events);
            effects.peers.truncate(peers);
            effects.head = head;
            effects.config = config;
            self.connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
            self.connection.prepare_cached("RELEASE job")?.execute([])?;
            return self.memory.undo(mark, &self.connection);
        }
        self.connection.prepare_cached("RELEASE job")?.execute([])?;
        Ok(())
    }

    fn publish(&self, effects: &mut Effects) {
        if let Some(head) = effects.head {
            self.outlets.head.send_replace(head);
        }
        if let Some(config) = effects.config {
            self.outlets.config.send_replace(config);
        }
        // No receiver is no error: nobody listens.
        effects.events.drain(..).for_each(|event| drop(self.outlets.events.send(event)));
        effects.peers.drain(..).for_each(|event| drop(self.outlets.peers.send(event)));
    }

    /// After a failed transaction: a lock that was not free passes, anything else stops the store.
    fn give_up(&mut self, error: &StoreError, begun: bool) {
        if !begun && matches!(error, StoreError::Engine { .. }) {
            return;
        }
        let reason = match error {
            StoreError::Stopped { reason } => reason.clone(),
            other => other.to_string(),
        };
        if self.outlets.stopped.set(StoreError::Stopped { reason: reason.clone() }).is_ok() {
            tracing::error!(reason, "the store stopped; nothing more is written");
            self.files.leave_reason(&reason);
            // Whoever follows the head looks up; `Store::stopped` is one of them.
            self.outlets.head.send_modify(|_| {});
        }
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the transaction could not be rolled back");
        }
    }

    fn notes_due(&self) -> bool {
        self.clock.monotonic().saturating_sub(self.notes_written) >= NOTES_EVERY
            && self.notes.lock().unwrap_or_else(PoisonError::into_inner).is_dirty()
    }

    fn write_notes(&mut self) -> Result<(), StoreError> {
        self.notes_written = self.clock.monotonic();
        let dirty = self.notes.lock().unwrap_or_else(PoisonError::into_inner).take_dirty();
        dirty.iter().try_for_each(|(peer, note)| note.write(&self.connection, peer))
    }

    /// An orderly end: what is queued, lazy notes, unused numbers, the log copied into the database.
    fn finish(&mut self) {
        self.orders.close();
        while let Waited::Item(order) = self.orders.next_now() {
            if let Order::Perform(job) = order {
                self.group(Some(job));
            }
        }
        if self.outlets.stopped.get().is_none()
            && let Err(error) = self.tidy_up()
        {
            tracing::error!(%error, "the store was not closed in good order; nothing is lost");
        }
    }

    fn tidy_up(&mut self) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.write_notes()?;
        self.outside_jobs(audit::write_last_counted)?;
        self.connection.execute(
            "UPDATE meta SET op_ids = ?1, flow_ids = ?2 WHERE one = 1",
            [self.memory.op_ids.used, self.memory.flow_ids.used],
        )?;
        self.connection.execute_batch("COMMIT")?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.files.write_head(&self.connection, self.clock.monotonic());
        Ok(())
    }

    /// The process before this one could not write why its store stopped; it left a word.
    fn record_last_stop(&mut self) {
        let Some(detail) = self.files.left_reason() else { return };
        let event = AuditEvent { event: AuditKind::StoreStopped, peer: None, detail };
        let (task, mut written) =
            Task::<_, (), StoreError>::new(Weight::ONE, move |tx: &mut Tx<'_>| audit::write(tx, &event));
        self.group(Some(Box::new(task)));
        if let Ok(Ok(())) = written.try_recv() {
            self.files.clear_reason();
        }
    }
}
