//! How this process stands with its peers right now: what sessions report, kept in memory.
//!
//! What outlives the process (last seen, acknowledged, proved, quarantined) is the store's; `status` shows both. Who
//! follows along is told which peers to look at again ([`super::watch`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use opmesh_core::model::{KeyId, Position, SetDigest, UnixMs};
use opmesh_core::permission::Scopes;

use super::past::History;
use super::watch::{Watcher, Watchers};
use crate::store::Role;
use crate::transport::Offered;

/// Where a session with a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// No session, and no attempt under way.
    #[default]
    Offline,
    /// Dialling, or in the handshake.
    Connecting,
    /// Authenticated; the sets are not known to be equal yet.
    CatchingUp,
    /// Everything was sent, and the sets were equal when last compared.
    Live,
    /// The hub turned us away.
    Refused,
    /// Somebody else's key answered at the hub's address.
    OtherKey,
    /// One of the two sides' histories was superseded; an operator must decide.
    IdentityConflict,
}

/// What is known of one peer in one role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seat {
    /// Where the session is.
    pub standing: Standing,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
    /// A handshake was completed since this process began.
    pub met: bool,
    /// A hub of ours has this.
    pub acked: Option<Position>,
    /// A hub of ours held the same set when last compared.
    pub proved: Option<(Position, SetDigest)>,
    /// An owner's set here was equal when last compared, and nothing was applied since.
    pub equal: bool,
    /// A host of ours has said so of the repositories that we share with it.
    pub offered: Option<Offered>,
    /// The one of the two that holds a copy has lacked something ever since.
    pub behind_since: Option<UnixMs>,
    /// What the hub, whichever of the two that is, said that it takes of the owner's operations.
    pub accepted: Option<Scopes>,
    /// The last change of an owner's log, as it last said in this session.
    pub owner_at: Option<Position>,
    /// Up to here this session has brought everything.
    pub held: Option<Position>,
    /// How the last sessions went.
    pub history: History,
}

impl Seat {
    /// An operator has decided a conflict: what is to be seen is what the next session shows.
    pub fn decided(&mut self) {
        if self.standing == Standing::IdentityConflict {
            self.standing = Standing::Offline;
            self.reason.clear();
        }
    }
}

/// All peers. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Live {
    seats: Arc<Mutex<HashMap<(KeyId, Role), Seat>>>,
    changes: watch::Sender<u64>,
    watchers: Watchers,
}

impl Default for Live {
    fn default() -> Self {
        Self { seats: Arc::default(), changes: watch::Sender::new(0), watchers: Watchers::default() }
    }
}

impl Live {
    /// What is known of this peer in this role.
    pub fn seat(&self, peer: &KeyId, role: Role) -> Seat {
        self.seats().get(&(*peer, role)).cloned().unwrap_or_default()
    }

    /// Notes something, and wakes whoever waits for changes.
    pub fn update(&self, peer: KeyId, role: Role, note: impl FnOnce(&mut Seat)) {
        note(self.seats().entry((peer, role)).or_default());
        self.changed(&peer);
    }

    /// As [`Live::update`], unless nothing is known: the last words of a removed peer's session bring it back to no
    /// list.
    pub(super) fn update_known(&self, peer: KeyId, role: Role, note: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.seats().get_mut(&(peer, role)) {
            note(seat);
        }
        self.changed(&peer);
    }

    /// The peer was removed: should it be added again, it begins like any other.
    pub(super) fn forget(&self, peer: &KeyId) {
        self.seats().retain(|(seated, _), _| seated != peer);
        self.changed(peer);
    }

    /// Notes something about every peer in this role that was heard of; wakes watchers only.
    pub(super) fn update_all(&self, role: Role, note: impl Fn(&mut Seat)) {
        let mut touched = Vec::new();
        for ((peer, seated), seat) in self.seats().iter_mut() {
            if *seated == role {
                note(seat);
                touched.push(*peer);
            }
        }
        for peer in &touched {
            self.watchers.touch(peer);
        }
    }

    /// What is kept of the peer has changed.
    pub(super) fn touch(&self, peer: &KeyId) {
        self.watchers.touch(peer);
    }

    /// What is kept of many peers may have changed.
    pub(super) fn touch_all(&self) {
        self.watchers.touch_all();
    }

    /// Follows all peers from now on; none when there are too many who do.
    pub fn watch(&self) -> Option<Watcher> {
        self.watchers.add()
    }

    fn changed(&self, peer: &KeyId) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        self.watchers.touch(peer);
    }

    /// Wakes on every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<(KeyId, Role), Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
