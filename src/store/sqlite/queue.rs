//! A bounded queue from async callers to a thread. Full means that callers wait; nothing is dropped.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// The callers' end. Callers are served in the order in which they came.
#[derive(Debug)]
pub(super) struct Queue<T> {
    room: Arc<Semaphore>,
    sender: SyncSender<T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { room: Arc::clone(&self.room), sender: self.sender.clone() }
    }
}

/// The thread's end; several threads may share it.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    room: Arc<Semaphore>,
    receiver: Arc<Mutex<Receiver<T>>>,
}

impl<T> Clone for Consumer<T> {
    fn clone(&self) -> Self {
        Self { room: Arc::clone(&self.room), receiver: Arc::clone(&self.receiver) }
    }
}

/// What waiting for an item came to.
pub(super) enum Waited<T> {
    /// An item.
    Item(T),
    /// Nothing within the time.
    Nothing,
    /// All callers are gone.
    Ended,
}

/// A queue with room for `capacity` items.
pub(super) fn bounded<T>(capacity: usize) -> (Queue<T>, Consumer<T>) {
    let room = Arc::new(Semaphore::new(capacity));
    let (sender, receiver) = sync_channel(capacity);
    let consumer = Consumer { room: Arc::clone(&room), receiver: Arc::new(Mutex::new(receiver)) };
    (Queue { room, sender }, consumer)
}

impl<T> Queue<T> {
    /// Waits for room, then hands the item over; gives it back when the thread is gone.
    pub(super) async fn send(&self, item: T) -> Result<(), T> {
        let Ok(permit) = self.room.acquire().await else { return Err(item) };
        permit.forget();
        // There is room in the channel for every permit, so this does not block.
        self.sender.send(item).map_err(|error| error.0)
    }
}

impl<T> Consumer<T> {
    /// Waits for the next item.
    pub(super) fn wait(&self, at_most: Duration) -> Waited<T> {
        let received = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(at_most);
        match received {
            Ok(item) => self.taken(item),
            Err(RecvTimeoutError::Timeout) => Waited::Nothing,
            Err(RecvTimeoutError::Disconnected) => Waited::Ended,
        }
    }

    /// The next item if there is one.
    pub(super) fn next_now(&self) -> Waited<T> {
        let received = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
        match received {
            Ok(item) => self.taken(item),
            Err(TryRecvError::Empty) => Waited::Nothing,
            Err(TryRecvError::Disconnected) => Waited::Ended,
        }
    }

    /// Callers that wait for room, and later ones, get their item back.
    pub(super) fn close(&self) {
        self.room.close();
    }

    fn taken(&self, item: T) -> Waited<T> {
        self.room.add_permits(1);
        Waited::Item(item)
    }
}
