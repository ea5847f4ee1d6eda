//! Following how peers stand: a snapshot, then what changes, at the reader's pace.
//!
//! What waits for a slow reader is a set of peers to look at again, never a queue of events; when the reader is ready,
//! it gets their present state. Nothing here holds up a session.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opmesh_core::model::KeyId;
use prost::Message as _;

use super::peers::moment;
use super::reply::{Out, Stop};
use super::status::{self, Moment};
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::{Dirty, MAX_WATCHERS, Node, Watcher};
use crate::store::{Peer, Role};

/// How long changes gather before they are looked at: a busy peer is shown a few times a second, not for each frame.
const PACE: Duration = Duration::from_millis(250);
/// How often everything is looked at: when a peer was last seen changes without a sign.
const SWEEP: Duration = Duration::from_mins(1);
/// How exact the last sign of life is: a step is a change.
const SEEN_STEP_MS: i64 = 60_000;
/// Up to so many peers are read one by one; more, and one read of all is cheaper.
const FEW: usize = 16;

/// Follows along from now on.
pub(super) fn follow(node: &Node) -> Result<Watcher, Failure> {
    node.live().watch().ok_or_else(|| {
        let text = format!("{MAX_WATCHERS} readers follow the peers already");
        Failure::new(Reason::Limit, text).hint("end one of them, or ask for the status from time to time")
    })
}

pub(super) async fn watch(node: Node, watcher: Watcher, out: Out<pb::PeerEvent>) -> Result<(), Stop> {
    let mut shown = Shown { node, out, told: BTreeMap::new() };
    shown.all("snapshot").await?;
    shown.out.send(pb::PeerEvent { event: "synced".to_owned(), peer: None }).await?;
    loop {
        match tokio::time::timeout(SWEEP, watcher.changed()).await {
            Ok(Dirty::Peers(peers)) if peers.len() <= FEW => {
                let moment = moment(&shown.node).await?;
                for key in peers {
                    shown.one(&key, moment).await?;
                }
            }
            Ok(Dirty::Peers(_) | Dirty::All) | Err(_) => shown.all("changed").await?,
        }
        tokio::time::sleep(PACE).await;
    }
}

/// What the reader was told.
#[derive(Debug)]
struct Shown {
    node: Node,
    out: Out<pb::PeerEvent>,
    told: BTreeMap<(KeyId, Role), Told>,
}

/// Enough to notice a change, and to say who has gone.
#[derive(Debug)]
struct Told {
    hash: blake3::Hash,
    name: String,
    instance_id: String,
}

impl Shown {
    async fn all(&mut self, event: &str) -> Result<(), Stop> {
        let moment = moment(&self.node).await?;
        let mut there = BTreeSet::new();
        for peer in self.node.store().peers().await? {
            there.insert(peer.key);
            self.tell(&peer, moment, event).await?;
        }
        let keys: BTreeSet<KeyId> = self.told.keys().map(|(key, _)| *key).collect();
        for key in keys.difference(&there) {
            self.forget(key, &[]).await?;
        }
        Ok(())
    }

    async fn one(&mut self, key: &KeyId, moment: Moment) -> Result<(), Stop> {
        match self.node.store().peer(key).await? {
            Some(peer) => self.tell(&peer, moment, "changed").await,
            None => self.forget(key, &[]).await,
        }
    }

    async fn tell(&mut self, peer: &Peer, moment: Moment, event: &str) -> Result<(), Stop> {
        let roles = status::roles(peer);
        for (role, entry) in roles.iter().zip(status::of_peer(&self.node, peer, moment)) {
            let hash = of_what_counts(&entry);
            let told = Told { hash, name: entry.name.clone(), instance_id: entry.instance_id.clone() };
            let before = self.told.insert((peer.key, *role), told);
            if before.is_none_or(|before| before.hash != hash) {
                self.out.send(pb::PeerEvent { event: event.to_owned(), peer: Some(entry) }).await?;
            }
        }
        self.forget(&peer.key, &roles).await
    }

    /// Says of the roles that the reader was told of and that are not in `kept` that they are no more.
    async fn forget(&mut self, key: &KeyId, kept: &[Role]) -> Result<(), Stop> {
        for role in [Role::KnownHost, Role::AuthorizedClient] {
            if kept.contains(&role) {
                continue;
            }
            let Some(told) = self.told.remove(&(*key, role)) else { continue };
            let peer = pb::PeerStatus {
                key_id: key.to_string(),
                instance_id: told.instance_id,
                name: told.name,
                role: status::role_name(role).to_owned(),
                ..pb::PeerStatus::default()
            };
            self.out.send(pb::PeerEvent { event: "removed".to_owned(), peer: Some(peer) }).await?;
        }
        Ok(())
    }
}

/// A hash of all but what changes by itself: how old something is, and when exactly the peer was last seen.
fn of_what_counts(entry: &pb::PeerStatus) -> blake3::Hash {
    let mut counts = entry.clone();
    if let Some(lag) = counts.lag.as_mut() {
        lag.ms = 0;
    }
    counts.last_seen_unix_ms = counts.last_seen_unix_ms.map(|at| at.div_euclid(SEEN_STEP_MS));
    blake3::hash(&counts.encode_to_vec())
}
