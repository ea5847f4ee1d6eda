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
use opmesh_core::protocol::{EndReason, Outcome, Write};
use tokio::sync::{mpsc, oneshot};

use crate::store::{Resolution, Role};

use super::beside::{Ask, AskFault};

/// How many times within [`RIVALRY_WINDOW`] different processes of one identity may displace each other: a restart or
/// a short overlap is no conflict.
const DISPLACEMENTS_ALLOWED: usize = 3;
/// See [`DISPLACEMENTS_ALLOWED`].
const RIVALRY_WINDOW: Duration = Duration::from_mins(1);
/// How long nobody with that identity is let in then: both get louder for their operators, and the hub calmer.
const HOLD: Duration = Duration::from_mins(1);
/// Processes that an operator has turned away, per peer; the oldest is forgotten.
const TURNED_AWAY: usize = 16;

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

/// Requests that a session has not taken up yet; it does so at once. Whoever finds no room is told.
const ASKS: usize = 8;

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
    asks: mpsc::Sender<Ask>,
}

/// Which processes spoke for one peer lately.
#[derive(Debug)]
struct Processes {
    latest: ProcessNonce,
    /// The one before it.
    other: Option<ProcessNonce>,
    displacements: VecDeque<Duration>,
    /// They were in conflict, until then or until an operator decides.
    held: Option<Duration>,
    turned_away: VecDeque<ProcessNonce>,
}

impl Processes {
    const fn new(latest: ProcessNonce) -> Self {
        Self { latest, other: None, displacements: VecDeque::new(), held: None, turned_away: VecDeque::new() }
    }

    /// A process speaks for the peer, in a session that displaced another one or not.
    fn speaks(&mut self, process: ProcessNonce, displaced: bool, now: Duration) -> Rivalry {
        if self.turned_away.contains(&process) {
            return Rivalry::Conflict;
        }
        if self.latest != process {
            self.other = Some(std::mem::replace(&mut self.latest, process));
            self.displacements.retain(|at| now.saturating_sub(*at) < RIVALRY_WINDOW);
            if displaced {
                self.displacements.push_back(now);
            }
        }
        if self.displacements.len() > DISPLACEMENTS_ALLOWED {
            self.displacements.clear();
            self.held = Some(now + HOLD);
        }
        if self.held.is_some_and(|until| now < until) { Rivalry::Conflict } else { Rivalry::None }
    }

    /// Which of the two is turned away for as long as it runs; false when there was no conflict.
    fn decide(&mut self, resolution: Resolution) -> bool {
        let Some(other) = self.other.filter(|_| self.held.is_some()) else { return false };
        let wrong = match resolution {
            Resolution::AcceptPresented => other,
            Resolution::Refuse => self.latest,
        };
        if self.turned_away.len() >= TURNED_AWAY {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back(wrong);
        self.held = None;
        self.displacements.clear();
        true
    }
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

    /// Asks the peer for something over a live session, and waits for its answer.
    pub async fn ask(&self, peer: &KeyId, write: Write) -> Result<Outcome, AskFault> {
        let (answer, answered) = oneshot::channel();
        let asks = {
            let state = self.state();
            let live = [Role::KnownHost, Role::AuthorizedClient].map(|role| state.live.get(&(*peer, role)));
            live.into_iter().flatten().next().ok_or(AskFault::NotConnected)?.asks.clone()
        };
        asks.try_send(Ask { write, answer }).map_err(|fault| match fault {
            mpsc::error::TrySendError::Full(_) => AskFault::Busy,
            mpsc::error::TrySendError::Closed(_) => AskFault::NotConnected,
        })?;
        answered.await.unwrap_or(Err(AskFault::Ended))
    }

    /// The operator decides about processes that kept displacing each other: the one that came last is the right one,
    /// or the wrong one. False when there is nothing to decide.
    pub fn decide(&self, peer: &KeyId, resolution: Resolution) -> bool {
        self.state().processes.get_mut(peer).is_some_and(|processes| processes.decide(resolution))
    }

    /// Makes the caller the live session with this peer; an older one is told that it is displaced.
    pub(super) fn register(&self, peer: KeyId, role: Role) -> Registration {
        let (end, told) = oneshot::channel();
        let (asks, asked) = mpsc::channel(ASKS);
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        let older = state.live.insert((peer, role), Live { number, end: Some(end), asks });
        drop(state);
        let displaced = older.map(|mut older| older.tell(EndReason::Displaced)).is_some();
        Registration { sessions: self.clone(), peer, role, number, displaced, told, asks: asked }
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
    /// What this side wants of the peer. Never ends while this exists and nobody displaced it.
    pub(super) asks: mpsc::Receiver<Ask>,
}

impl Registration {
    /// Notes which process the peer says it is. When different processes keep displacing each other, the identity
    /// was copied.
    pub(super) fn process(&self, process: ProcessNonce, now: Duration) -> Rivalry {
        let mut state = self.sessions.state();
        let known = state.processes.entry(self.peer).or_insert_with(|| Processes::new(process));
        known.speaks(process, self.displaced, now)
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
    fn after_a_conflict_nobody_is_let_in_for_a_minute_unless_the_operator_says_who() {
        let nonce = |n| ProcessNonce::new(n).unwrap();
        let in_conflict = || {
            let mut known = Processes::new(nonce(1));
            for (second, process) in [(1, 2), (2, 1), (3, 2), (4, 1)] {
                known.speaks(nonce(process), true, Duration::from_secs(second));
            }
            known
        };
        let at = Duration::from_secs;
        let mut held = in_conflict();
        assert_eq!(held.speaks(nonce(3), false, at(63)), Rivalry::Conflict);
        assert_eq!(held.speaks(nonce(3), false, at(64)), Rivalry::None);
        // Process 1 came last.
        for (resolution, right, wrong) in [(Resolution::AcceptPresented, 1, 2), (Resolution::Refuse, 2, 1)] {
            let mut decided = in_conflict();
            assert!(decided.decide(resolution));
            assert_eq!(decided.speaks(nonce(right), false, at(5)), Rivalry::None);
            assert_eq!(decided.speaks(nonce(wrong), true, at(6)), Rivalry::Conflict);
            assert_eq!(decided.speaks(nonce(wrong), true, at(6000)), Rivalry::Conflict);
            assert!(!decided.decide(resolution), "once");
        }
        assert!(!Processes::new(nonce(1)).decide(Resolution::Refuse));
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
