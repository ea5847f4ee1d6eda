//! The network of a daemon: listeners, one dialer for each known host, and the edits of peers that end sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use opmesh_core::model::KeyId;
use opmesh_core::protocol::EndReason;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::Node;
use super::hear::{hear_own_log, hear_sessions};
use crate::store::{Peer, PeerChange, PeerEvent, StoreError};
use crate::transport::{Listen, ListenError, Server, dialer};

/// How often hubs whose pairing never happened, and tokens that expired, are looked for.
const TIDY_EVERY: Duration = Duration::from_mins(1);

impl Node {
    /// Binds the listeners, begins to dial every known host, and follows edits of peers. What comes back are the
    /// bound addresses. A hub that cannot be reached delays nothing.
    pub async fn start_network(&self, listen: &[Listen]) -> Result<Vec<Listen>, ListenError> {
        self.hear_sessions();
        let server = Server::start(listen, &self.inner.local, &self.inner.tasks, self.stopping()).await?;
        self.run(supervise(self.clone()));
        self.run(tidy(self.clone()));
        self.run(self.clone().finish_forgetting());
        let node = self.clone();
        self.run(async move { node.finish_rotation().await });
        Ok(server.addresses().to_vec())
    }

    /// Dials one known host until the node closes: what a command does when no daemon runs.
    pub fn dial(&self, hub: KeyId) {
        self.hear_sessions();
        self.run(dialer::run(self.inner.local.clone(), hub, Arc::default(), self.stopping().clone()));
    }

    fn hear_sessions(&self) {
        if let Some(events) = self.take_events() {
            self.run(hear_sessions(self.clone(), events));
            self.run(hear_own_log(self.clone()));
        }
    }
}

/// Follows edits of peers until the node closes.
async fn supervise(node: Node) {
    let mut events = node.store().peer_events();
    let mut dialers = Dialers { node: node.clone(), running: HashMap::new() };
    let following = async {
        let mut followed = dialers.all().await;
        loop {
            if let Err(error) = followed {
                tracing::error!(%error, "the peers could not be read, so that a change was not followed");
            }
            followed = match events.recv().await {
                Ok(event) => dialers.follow(&event).await,
                Err(RecvError::Lagged(_)) => dialers.everything_changed().await,
                Err(RecvError::Closed) => return,
            };
        }
    };
    node.stopping().run_until_cancelled(following).await;
}

/// Looks for tokens that expired and pairings that never happened until the node closes.
async fn tidy(node: Node) {
    let mut every = tokio::time::interval(TIDY_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while node.stopping().run_until_cancelled(every.tick()).await.is_some() {
        if let Err(error) = node.store().note_expired_tokens().await {
            tracing::error!(%error, "tokens that expired could not be written to the audit log");
        }
        if let Err(error) = forget_unpaired(&node).await {
            tracing::error!(%error, "pairings that never happened could not be looked for");
        }
    }
}

/// One task for each known host.
#[derive(Debug)]
struct Dialers {
    node: Node,
    running: HashMap<KeyId, Dialer>,
}

#[derive(Debug)]
struct Dialer {
    redial: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Dialers {
    async fn all(&mut self) -> Result<(), StoreError> {
        for peer in self.node.store().peers().await? {
            self.ensure(&peer);
        }
        Ok(())
    }

    /// Dials this known host now, whatever it was waiting for.
    fn ensure(&mut self, peer: &Peer) {
        if !peer.roles.known_host {
            return;
        }
        if let Some(dialer) = self.running.get(&peer.key).filter(|dialer| !dialer.task.is_finished()) {
            dialer.redial.notify_one();
            return;
        }
        let redial = Arc::new(Notify::new());
        let inner = &self.node.inner;
        let dialing = dialer::run(inner.local.clone(), peer.key, redial.clone(), inner.stop.clone());
        let task = inner.tasks.spawn(dialing);
        self.running.insert(peer.key, Dialer { redial, task });
    }

    async fn follow(&mut self, event: &PeerEvent) -> Result<(), StoreError> {
        self.node.live().touch(&event.key);
        let sessions = &self.node.inner.local.sessions;
        match event.change {
            PeerChange::Shown => return Ok(()),
            PeerChange::KeyConfirmed => {
                self.node.finish_rotation().await;
                return Ok(());
            }
            PeerChange::Reachable | PeerChange::Released => {}
            PeerChange::Grants => sessions.end(&event.key, EndReason::GrantsChanged),
            PeerChange::Revoked => sessions.end(&event.key, EndReason::Revoked),
            PeerChange::Removed => {
                sessions.end(&event.key, EndReason::Revoked);
                self.node.live().forget(&event.key);
            }
        }
        match self.node.store().peer(&event.key).await? {
            Some(peer) => self.ensure(&peer),
            // The dialer reads that the entry is gone, and ends.
            None => {
                if let Some(dialer) = self.running.remove(&event.key) {
                    dialer.redial.notify_one();
                }
            }
        }
        self.running.retain(|_, dialer| !dialer.task.is_finished());
        // Whoever was waited for may be gone.
        self.node.finish_rotation().await;
        Ok(())
    }

    /// Edits came faster than they were followed: end every session, the ones that still may begin anew.
    async fn everything_changed(&mut self) -> Result<(), StoreError> {
        self.node.live().touch_all();
        let sessions = &self.node.inner.local.sessions;
        for (key, _) in sessions.live() {
            let peer = self.node.store().peer(&key).await?;
            let is_welcome = peer.is_some_and(|peer| peer.is_trusted());
            sessions.end(&key, if is_welcome { EndReason::GrantsChanged } else { EndReason::Revoked });
        }
        self.running.values().for_each(|dialer| dialer.redial.notify_one());
        self.node.finish_rotation().await;
        self.all().await
    }
}

/// A hub that was joined without waiting, and that was not reached before its token expired, goes again.
async fn forget_unpaired(node: &Node) -> Result<(), StoreError> {
    let now = node.clock().wall();
    for peer in node.store().peers().await? {
        let expired = peer.joining.as_ref().is_some_and(|joining| joining.expires < now);
        if expired && peer.last_seen.is_none() && !peer.roles.authorized_client {
            tracing::warn!(peer = %peer.key, "the pairing token expired before the hub was reached; join again");
            if let Err(error) = node.store().remove_peer(&peer.key).await {
                tracing::warn!(peer = %peer.key, %error, "the hub's entry could not be removed");
            }
        }
    }
    Ok(())
}
