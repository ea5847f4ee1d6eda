//! Which sessions are live: at most one for each peer and role, the newest.
//!
//! The node ends sessions here when grants change; a new session displaces an older one of the same peer here, once
//! its handshake is complete.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opmesh_core::handshake::HandshakeFault;
use opmesh_core::model::{KeyId, ProcessNonce, UnixMs};
use opmesh_core::protocol::EndReason;
use tokio::sync::oneshot;

use crate::store::Role;

/// How many times within [`RIVALRY_WINDOW`] different processes of one identity may displace each other: a restart or
/// a short overlap is no conflict.
const DISPLACEMENTS_ALLOWED: usize = 3;
/// See [`DISPLACEMENTS_ALLOWED`].
const RIVALRY_WINDOW: Duration = Duration::from_mins(1);

/// Dialers that failed and are remembered.
const FAILED_DIALERS: usize = 16;

/// A dialer that did not get as far as to say who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDialer {
    /// When.
    pub at: UnixMs,
    /// From where.
    pub address: IpAddr,
    /// What went wrong, for this side's operator.
    pub fault: HandshakeFault,
}

/// All live sessions of this process, and who failed to begin one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    numbers: u64,
    live: HashMap<(KeyId, Role), Live>,
    processes: HashMap<KeyId, Processes>,
    failed: VecDeque<FailedDialer>,
}

#[derive(Debug)]
struct Live {
    number: u64,
    end: Option<oneshot::Sender<EndReason>>,
}

/// Which processes spoke for one peer lately.
#[derive(Debug)]
struct Processes {
    latest: ProcessNonce,
    displacements: VecDeque<Duration>,
}

impl Sessions {
    /// Tells the live sessions with this peer, in either role, to end.
    pub fn end(&self, peer: &KeyId, reason: EndReason) {
        let mut state = self.state();
        for role in [Role::KnownHost, Role::AuthorizedClient] {
            if let Some(live) = state.live.get_mut(&(*peer, role)) {
                live.tell(reason);
            }
        }
    }

    /// Who is connected, in no order.
    pub fn live(&self) -> Vec<(KeyId, Role)> {
        self.state().live.keys().copied().collect()
    }

    /// Whether there is a session with this peer in this role.
    pub fn is_live(&self, peer: &KeyId, role: Role) -> bool {
        self.state().live.contains_key(&(*peer, role))
    }

    /// Dialers whose handshake failed before they had said who they are; the latest ones, the oldest first.
    pub fn failed_dialers(&self) -> Vec<FailedDialer> {
        self.state().failed.iter().cloned().collect()
    }

    /// Remembers a dialer whose handshake failed.
    pub(super) fn note_failed(&self, dialer: FailedDialer) {
        let mut state = self.state();
        if state.failed.len() == FAILED_DIALERS {
            state.failed.pop_front();
        }
        state.failed.push_back(dialer);
    }

    /// Makes the caller the live session with this peer; an older one is told that it is displaced.
    pub(super) fn register(&self, peer: KeyId, role: Role) -> Registration {
        let (end, told) = oneshot::channel();
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        let older = state.live.insert((peer, role), Live { number, end: Some(end) });
        drop(state);
        let displaced = older.map(|mut older| older.tell(EndReason::Displaced)).is_some();
        Registration { sessions: self.clone(), peer, role, number, displaced, told }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The maps are changed by single steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn tell(&mut self, reason: EndReason) {
        if let Some(end) = self.end.take()
            && end.send(reason).is_err()
        {
            tracing::debug!("a session was told to end while it ended");
        }
    }
}

/// Whether several processes use one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rivalry {
    None,
    Conflict,
}

/// A live session's entry; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    sessions: Sessions,
    peer: KeyId,
    role: Role,
    number: u64,
    displaced: bool,
    /// Resolves when the session must end. Errors are impossible while this exists and nobody displaced it.
    pub(super) told: oneshot::Receiver<EndReason>,
}

impl Registration {
    /// Notes which process the peer says it is. When different processes keep displacing each other, the identity
    /// was copied.
    pub(super) fn process(&self, process: ProcessNonce, now: Duration) -> Rivalry {
        let mut state = self.sessions.state();
        let known = state
            .processes
            .entry(self.peer)
            .or_insert_with(|| Processes { latest: process, displacements: VecDeque::new() });
        let changed = std::mem::replace(&mut known.latest, process) != process;
        known.displacements.retain(|at| now.saturating_sub(*at) < RIVALRY_WINDOW);
        if changed && self.displaced {
            known.displacements.push_back(now);
        }
        if known.displacements.len() > DISPLACEMENTS_ALLOWED { Rivalry::Conflict } else { Rivalry::None }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.sessions.state();
        let key = (self.peer, self.role);
        if state.live.get(&key).is_some_and(|live| live.number == self.number) {
            state.live.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::PublicKey;

    use super::*;

    const ROLE: Role = Role::AuthorizedClient;

    fn peer(n: u8) -> KeyId {
        PublicKey([n; 32]).key_id()
    }

    #[test]
    fn the_newest_session_displaces_the_older_one_of_the_same_role_only() {
        let sessions = Sessions::default();
        let mut first = sessions.register(peer(1), ROLE);
        let mut other_role = sessions.register(peer(1), Role::KnownHost);
        let mut other_peer = sessions.register(peer(2), ROLE);
        let second = sessions.register(peer(1), ROLE);
        assert_eq!(first.told.try_recv(), Ok(EndReason::Displaced));
        assert!(other_role.told.try_recv().is_err() && other_peer.told.try_recv().is_err());
        drop(first);
        assert_eq!(sessions.live().len(), 3, "the older one does not take the newer one's entry with it");
        drop(second);
        assert_eq!(sessions.live().len(), 2);
    }

    #[test]
    fn ending_reaches_both_roles_and_the_first_reason_counts() {
        let sessions = Sessions::default();
        let mut hub = sessions.register(peer(1), ROLE);
        let mut host = sessions.register(peer(1), Role::KnownHost);
        sessions.end(&peer(1), EndReason::Revoked);
        sessions.end(&peer(1), EndReason::GrantsChanged);
        assert_eq!(hub.told.try_recv(), Ok(EndReason::Revoked));
        assert_eq!(host.told.try_recv(), Ok(EndReason::Revoked));
    }

    #[test]
    fn two_processes_that_keep_displacing_each_other_are_an_identity_conflict() {
        let sessions = Sessions::default();
        let nonce = |n| ProcessNonce::new(n).unwrap();
        let mut held = Vec::new();
        let mut seen = Vec::new();
        for (second, process) in [(0, 1), (1, 2), (2, 1), (3, 2), (4, 1)] {
            let session = sessions.register(peer(1), ROLE);
            seen.push(session.process(nonce(process), Duration::from_secs(second)));
            held.push(session);
        }
        assert_eq!(seen[..4], [Rivalry::None; 4]);
        assert_eq!(seen[4], Rivalry::Conflict);
        let later = sessions.register(peer(1), ROLE);
        assert_eq!(later.process(nonce(2), Duration::from_mins(2)), Rivalry::None);
    }

    #[test]
    fn one_process_that_reconnects_often_is_no_conflict() {
        let sessions = Sessions::default();
        let mut held = Vec::new();
        for second in 0..20 {
            let session = sessions.register(peer(1), ROLE);
            let process = ProcessNonce::new(7).unwrap();
            assert_eq!(session.process(process, Duration::from_secs(second)), Rivalry::None);
            held.push(session);
        }
    }
}
