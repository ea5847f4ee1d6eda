//! Who follows the state of peers, and which peers each of them has to look at again.
//!
//! A watcher has a set of peers, not a queue of events: however slow it reads, the set is bounded by the number of
//! peers, nobody waits for it, and nothing is lost, because what it looks at is the present state.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use opmesh_core::model::KeyId;
use tokio::sync::Notify;

/// Watchers at once: a few administrators and monitors.
pub const MAX_WATCHERS: usize = 64;

/// All watchers. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Watchers {
    all: Arc<Mutex<Vec<Weak<Touched>>>>,
}

/// One who follows. Goes when dropped.
#[derive(Debug)]
pub struct Watcher {
    touched: Arc<Touched>,
}

#[derive(Debug, Default)]
struct Touched {
    peers: Mutex<Dirty>,
    wake: Notify,
}

/// What a watcher has to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dirty {
    /// These; maybe none.
    Peers(HashSet<KeyId>),
    /// Everything.
    All,
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Peers(HashSet::new())
    }
}

impl Watchers {
    pub(super) fn add(&self) -> Option<Watcher> {
        let mut all = self.all();
        all.retain(|watcher| watcher.strong_count() > 0);
        if all.len() >= MAX_WATCHERS {
            return None;
        }
        let touched = Arc::new(Touched::default());
        all.push(Arc::downgrade(&touched));
        Some(Watcher { touched })
    }

    pub(super) fn touch(&self, peer: &KeyId) {
        self.each(|dirty| {
            if let Dirty::Peers(peers) = dirty {
                peers.insert(*peer);
            }
        });
    }

    pub(super) fn touch_all(&self) {
        self.each(|dirty| *dirty = Dirty::All);
    }

    fn each(&self, note: impl Fn(&mut Dirty)) {
        for watcher in self.all().iter().filter_map(Weak::upgrade) {
            note(&mut watcher.peers());
            watcher.wake.notify_one();
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Touched>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Touched {
    fn peers(&self) -> MutexGuard<'_, Dirty> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Waits until there is something to look at, and takes it.
    pub async fn changed(&self) -> Dirty {
        loop {
            let dirty = std::mem::take(&mut *self.touched.peers());
            if dirty != Dirty::default() {
                return dirty;
            }
            self.touched.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::PublicKey;

    use super::*;

    fn key(number: u8) -> KeyId {
        PublicKey([number; 32]).key_id()
    }

    #[tokio::test]
    async fn a_watcher_that_does_not_look_keeps_each_peer_once() {
        let watchers = Watchers::default();
        let watcher = watchers.add().unwrap();
        for change in 0..10_000_u32 {
            watchers.touch(&key(u8::try_from(change % 3).unwrap()));
        }
        assert_eq!(watcher.changed().await, Dirty::Peers((0..3).map(key).collect()));
        watchers.touch(&key(1));
        watchers.touch_all();
        watchers.touch(&key(2));
        assert_eq!(watcher.changed().await, Dirty::All);
    }

    #[test]
    fn one_that_has_gone_makes_room_for_another() {
        let watchers = Watchers::default();
        let mut watching: Vec<_> = (0..MAX_WATCHERS).map(|_| watchers.add().unwrap()).collect();
        assert!(watchers.add().is_none());
        watching.pop();
        assert!(watchers.add().is_some());
    }
}
