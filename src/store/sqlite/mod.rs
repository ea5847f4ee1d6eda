//! The store on SQLite: one writing thread, a few reading ones, and the way from async callers to them.

pub(super) mod admin_tokens;
pub(super) mod audit;
pub(super) mod audit_files;
pub(super) mod config;
mod connection;
mod copy;
pub(super) mod events;
pub(super) mod forget;
pub(super) mod health;
pub(super) mod lists;
mod memory;
mod notes;
pub(super) mod own_log;
pub(super) mod pairing;
pub(super) mod peer_rows;
pub(super) mod peers;
mod queue;
mod reader;
mod refusals;
mod replica_row;
pub(super) mod restore;
mod rows;
mod schema;
pub(super) mod session_reads;
pub(super) mod succession;
mod tx;
mod upgrade;
mod value;
pub(super) mod verify;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use opmesh_core::model::{ConfigModno, InstanceId, KeyId, OwnerHasher, Position, PublicKey};
use opmesh_core::replica::Transaction;
use rusqlite::{Connection, params};
use tokio::sync::{broadcast, oneshot, watch};

use super::{
    AuditEvent, AuditKind, AuditVerdict, OpenOptions, PeerEvent, StoreError, StoreEvent, StoreFacts,
};
use crate::clock::Clock;

use audit_files::AuditFiles;
use memory::Memory;
use notes::Notes;
use queue::{Consumer, Queue};
use reader::{Question, Reader};
use rows::HashedRows;
use schema::{OWN, SCHEMA};
use tx::Tx;
use value::stored;
use writer::{JobError, Order, Outlets, Task, Writer};

pub(super) use writer::{SubmitError, Weight};

/// Connections that read.
const READERS: usize = 4;

/// Calls that wait for the writer. A frame is at most 256 KiB, so that what waits here stays below 32 MiB.
const WRITER_QUEUE: usize = 128;

/// Calls that wait for a reader.
const READER_QUEUE: usize = 256;

/// Changes of operations that a slow listener may fall behind.
const EVENTS: usize = 4096;

/// Changes of peers that a slow listener may fall behind.
const PEER_EVENTS: usize = 256;

/// What a store that does not know its name yet is called in lists.
const UNNAMED: &str = "self";

/// The running store.
pub(super) struct Engine {
    path: PathBuf,
    orders: Queue<Order>,
    questions: Mutex<Option<Queue<Question>>>,
    head: watch::Receiver<Position>,
    config: watch::Receiver<ConfigModno>,
    events: broadcast::Sender<StoreEvent>,
    peers: broadcast::Sender<PeerEvent>,
    stopped: Arc<OnceLock<StoreError>>,
    notes: Arc<Mutex<Notes>>,
    /// Of the owners whose sessions have taken over.
    hashers: Mutex<HashMap<KeyId, OwnerHasher>>,
    clock: Clock,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Makes the file of a new store. Rows are hashed with the identity's `first` key.
pub(super) fn create(path: &Path, own: PublicKey, first: PublicKey, clock: Clock) -> Result<(), StoreError> {
    connection::create_file(path)?;
    audit_files::forget(path).map_err(|error| connection::unusable(path, error))?;
    let connection = connection::writer(path)?;
    let fill = || {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        schema::create(&connection)?;
        let incarnation = own_log::draw_incarnation()?;
        connection.execute(
            "INSERT INTO meta (one, log_key, incarnation, head_modno, head_chain, op_ids, flow_ids,
                 created_unix_ms)
             VALUES (1, ?1, ?2, 0, zeroblob(16), 0, 0, ?3)",
            params![first.0, incarnation.to_i64(), clock.wall().0],
        )?;
        connection.execute(
            "INSERT INTO owners (owner, key_id, log_key, name) VALUES (?1, ?2, ?3, ?4)",
            params![OWN, own.key_id().as_bytes(), first.0, UNNAMED],
        )?;
        connection.execute_batch("COMMIT")?;
        // The header in the file itself tells later programs what it is.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok::<_, StoreError>(())
    };
    fill()
}

/// Opens the store and starts its threads. It may still be filed under a key that this identity had `before`.
pub(super) fn open(path: &Path, options: &OpenOptions, before: &[PublicKey]) -> Result<Engine, StoreError> {
    connection::check_file(path)?;
    let connection = connection::writer(path)?;
    let found = connection::check_contents(&connection, path)?;
    let stored = owner_key(&connection).map_err(|error| connection::unusable(path, error))?;
    let own = options.own.key_id();
    let is_older = before.iter().any(|key| key.key_id() == stored);
    if stored != own && !is_older {
        return Err(StoreError::OtherIdentity { path: path.to_owned(), stored, own });
    }
    if found < SCHEMA {
        upgrade::bring_up(&connection, path, found)?;
    }
    if is_older {
        // The key file was replaced, and the process ended before the store followed.
        succession::rename_own(&connection, &options.own)
            .map_err(|error| connection::unusable(path, error))?;
    }
    let memory = Memory::load(&connection, options.own, options.cache_entries)
        .map_err(|error| connection::unusable(path, error))?;
    let config_modno = config::modno(&connection).map_err(|error| connection::unusable(path, error))?;
    let files = AuditFiles::open(path, &connection, options.clock.monotonic())?;
    let readers = (0..READERS).map(|_| connection::reader(path)).collect::<Result<Vec<_>, _>>()?;
    start(path, options.clock, connection, (memory, config_modno), files, readers)
        .map_err(|error| connection::unusable(path, error))
}

/// Whose store it is; the same in every schema.
fn owner_key(connection: &Connection) -> Result<KeyId, StoreError> {
    let key = connection.query_row("SELECT key_id FROM owners WHERE owner = ?1", [OWN], |row| row.get(0))?;
    Ok(KeyId::from_bytes(key))
}

fn start(
    path: &Path,
    clock: Clock,
    connection: Connection,
    (memory, config_modno): (Memory, ConfigModno),
    files: AuditFiles,
    readers: Vec<Connection>,
) -> std::io::Result<Engine> {
    let (orders, consumer) = queue::bounded(WRITER_QUEUE);
    let (questions, asked) = queue::bounded(READER_QUEUE);
    let (head_sender, head) = watch::channel(memory.head);
    let (config_sender, config) = watch::channel(config_modno);
    let (events, _) = broadcast::channel(EVENTS);
    let (peers, _) = broadcast::channel(PEER_EVENTS);
    let stopped = Arc::new(OnceLock::new());
    let notes = Arc::new(Mutex::new(Notes::default()));
    let outlets = Outlets {
        head: head_sender,
        config: config_sender,
        events: events.clone(),
        peers: peers.clone(),
        stopped: Arc::clone(&stopped),
    };
    let writer = Writer {
        connection,
        memory,
        orders: consumer,
        outlets,
        notes: Arc::clone(&notes),
        clock,
        notes_written: clock.monotonic(),
        files,
    };
    let mut threads = vec![thread("store-writer", move || writer.run())?];
    for connection in readers {
        let asked: Consumer<Question> = asked.clone();
        threads.push(thread("store-reader", move || Reader::new(connection).run(asked))?);
    }
    Ok(Engine {
        path: path.to_owned(),
        orders,
        questions: Mutex::new(Some(questions)),
        head,
        config,
        events,
        peers,
        stopped,
        notes,
        hashers: Mutex::default(),
        clock,
        threads: Mutex::new(threads),
    })
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl Engine {
    /// Hands work to the writer; waits only for room in its queue.
    pub(super) async fn submit<T, E>(
        &self,
        weight: Weight,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, E>>
    where
        T: Send + 'static,
        E: JobError,
    {
        let (task, answer) = Task::new(weight, work);
        // When the writer is gone the task is dropped here, and the answer with it.
        drop(self.orders.send(Order::Perform(Box::new(task))).await);
        answer
    }

    /// Performs work in a writing transaction.
    pub(super) async fn write<T, E>(
        &self,
        weight: Weight,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: JobError,
    {
        let answer = self.submit(weight, work).await;
        answer.await.unwrap_or_else(|_| Err(self.gone().into()))
    }

    /// Performs work in a reading transaction.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(stopped) = self.stopped.get() {
            return Err(stopped.clone());
        }
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(questions) = questions else { return Err(StoreError::Closed) };
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |reader| {
            // Whoever asked may be gone; then nobody needs the answer.
            drop(answer.send(reader.transaction(work)));
        });
        drop(questions.send(question).await);
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why the store stopped, once it has.
    pub(super) fn stopped(&self) -> Option<StoreError> {
        self.stopped.get().cloned()
    }

    /// Remembers how an owner's rows are hashed.
    pub(super) fn keep_hasher(&self, owner: KeyId, hasher: OwnerHasher) {
        self.hashers.lock().unwrap_or_else(PoisonError::into_inner).insert(owner, hasher);
    }

    /// Hashes what a transaction of an owner brings; nothing when the owner is not known yet.
    pub(super) fn hash_rows(&self, owner: &KeyId, transaction: &Transaction) -> HashedRows {
        let hasher = self.hashers.lock().unwrap_or_else(PoisonError::into_inner).get(owner).copied();
        hasher.map_or_else(HashedRows::default, |hasher| rows::hash_rows(hasher, transaction))
    }

    /// The owner's rows are gone, and so is how they were hashed.
    pub(super) fn drop_hasher(&self, owner: &KeyId) {
        self.hashers.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }

    /// Why there is no answer.
    pub(super) fn gone(&self) -> StoreError {
        self.stopped.get().cloned().unwrap_or(StoreError::Closed)
    }

    /// Ends the readers, then the writer, which leaves the file in good order.
    pub(super) async fn close(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.orders.send(Order::Close).await);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        if joined.await.is_ok_and(|failed| failed > 0) {
            tracing::error!("a thread of the store ended by a panic");
        }
    }

    pub(super) fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    pub(super) fn config_modno(&self) -> watch::Receiver<ConfigModno> {
        let mut config = self.config.clone();
        config.mark_unchanged();
        config
    }

    /// Where listeners subscribe: within a job, so that no transaction that is under way escapes them.
    pub(super) fn events(&self) -> broadcast::Sender<StoreEvent> {
        self.events.clone()
    }

    pub(super) fn peer_events(&self) -> broadcast::Receiver<PeerEvent> {
        self.peers.subscribe()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Reads or changes the lazy notes.
    pub(super) fn with_notes<T>(&self, work: impl FnOnce(&mut Notes) -> T) -> T {
        work(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Recomputes the audit log. The file beside the database is read first: it is never newer than what follows.
    pub(super) async fn verify_audit(&self) -> Result<AuditVerdict, StoreError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || audit_files::read_head(&path));
        let beside = reading.await.map_err(|_| StoreError::Closed)?;
        self.read(move |connection| audit::verify(connection, beside.as_ref())).await
    }

    /// Copies the database through a connection of its own, so that readers stay free.
    pub(super) async fn backup(&self, to: PathBuf) -> Result<(), StoreError> {
        if let Some(stopped) = self.stopped.get() {
            return Err(stopped.clone());
        }
        let path = self.path.clone();
        let copying = move || copy::write(&connection::reader(&path)?, &to, copy::Occupied::Refuse);
        tokio::task::spawn_blocking(copying).await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) async fn facts(&self) -> Result<StoreFacts, StoreError> {
        let path = self.path.clone();
        self.read(move |connection| facts(connection, path)).await
    }
}

fn facts(connection: &Connection, path: PathBuf) -> Result<StoreFacts, StoreError> {
    let (instance, incarnation): (Option<String>, i64) = connection
        .prepare_cached("SELECT instance, incarnation FROM meta WHERE one = 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(StoreFacts {
        engine: "sqlite",
        schema: u32::try_from(SCHEMA).unwrap_or(0),
        path,
        own: owner_key(connection)?,
        instance: instance.and_then(|text| text.parse().ok()),
        incarnation: stored("incarnation", opmesh_core::model::Incarnation::from_i64(incarnation))?,
        head: session_reads::head(connection)?,
        set: memory::stored_total(connection, OWN)?,
    })
}

/// What this instance calls itself; a change of it is audited.
pub(super) fn set_instance(tx: &mut Tx<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    let old: Option<String> = tx
        .connection
        .prepare_cached("SELECT instance FROM meta WHERE one = 1")?
        .query_row([], |row| row.get(0))?;
    if old.as_deref() == Some(instance.as_str()) {
        return Ok(());
    }
    if let Some(old) = old {
        let detail = format!("{old} is now {instance}");
        audit::write(tx, &AuditEvent { event: AuditKind::OwnInstanceRenamed, peer: None, detail })?;
    }
    tx.connection
        .prepare_cached("UPDATE meta SET instance = ?1 WHERE one = 1")?
        .execute([instance.as_str()])?;
    tx.connection
        .prepare_cached("UPDATE owners SET name = ?1 WHERE owner = 1")?
        .execute([instance.as_str()])?;
    Ok(())
}
