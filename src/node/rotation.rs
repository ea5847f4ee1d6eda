//! A new key for this instance, and when it takes over.
//!
//! The new key lies beside the old one until every peer that is let in has confirmed it, or the operator forces it. The
//! file decides: a key file that was replaced is the new key, whatever the store says; the store follows when it is
//! opened. Sessions tell peers; this file only begins, ends and looks.

use std::sync::Arc;

use opmesh_core::model::{InstanceId, KeyId, UnixMs};
use opmesh_core::protocol::EndReason;

use super::Node;
use crate::identity::{Identity, IdentityError};
use crate::store::{AuditEvent, AuditKind, Peer, StoreError};

/// The key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// There is none to end.
    #[error("no new key waits to take over; `opmesh key rotate` makes one")]
    None,
    /// The key files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a rotation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The key that this instance uses.
    pub key: KeyId,
    /// The keys that it used before, oldest first.
    pub before: Vec<KeyId>,
    /// The key that waits to take over, and since when.
    pub next: Option<(KeyId, UnixMs)>,
    /// Every peer that is let in.
    pub peers: Vec<Confirming>,
}

/// A peer, and whether it knows the newest key of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirming {
    /// Its key.
    pub key: KeyId,
    /// What it is called here.
    pub name: String,
    /// What it calls itself.
    pub instance: Option<InstanceId>,
    /// It said so.
    pub confirmed: bool,
}

impl Node {
    /// Makes a new key and lets every peer know, or goes on with one that waits. With nobody to ask it takes over at
    /// once.
    pub async fn rotate(&self) -> Result<Rotation, RotationError> {
        let _alone = self.inner.rotating.lock().await;
        let me = self.inner.local.me();
        if me.next.is_none() {
            let next = me.identity.succeed(self.clock().wall())?;
            next.store(&self.places().next_key())?;
            let detail = next.key_id().to_string();
            self.inner.local.set_next(Some(Arc::new(next)));
            self.audit(AuditKind::KeyRotationBegun, detail).await?;
            // The next session of each peer begins with the news.
            self.renew_sessions();
        }
        let rotation = self.rotation().await?;
        if rotation.peers.iter().all(|peer| peer.confirmed) {
            return self.take_over("").await;
        }
        Ok(rotation)
    }

    /// The new key takes over now; whoever had not confirmed it must be told by hand.
    pub async fn force_rotation(&self) -> Result<Rotation, RotationError> {
        let _alone = self.inner.rotating.lock().await;
        if self.inner.local.me().next.is_none() {
            return Err(RotationError::None);
        }
        let left: Vec<_> = self.rotation().await?.peers.into_iter().filter(|peer| !peer.confirmed).collect();
        let names: Vec<_> = left.iter().map(|peer| peer.name.as_str()).collect();
        let why =
            if names.is_empty() { String::new() } else { format!("not confirmed by {}; ", names.join(", ")) };
        self.take_over(&why).await.map(|rotation| Rotation { peers: left, ..rotation })
    }

    /// The new key is thrown away.
    pub async fn abort_rotation(&self) -> Result<Rotation, RotationError> {
        let _alone = self.inner.rotating.lock().await;
        let Some(next) = self.inner.local.me().next else { return Err(RotationError::None) };
        Identity::remove(&self.places().next_key())?;
        self.inner.local.set_next(None);
        self.audit(AuditKind::KeyRotationAborted, next.key_id().to_string()).await?;
        Ok(self.rotation().await?)
    }

    /// How it stands.
    pub async fn rotation(&self) -> Result<Rotation, StoreError> {
        let me = self.inner.local.me();
        let newest = me.next.as_ref().unwrap_or(&me.identity).public_key();
        let peers = self.store().peers().await?;
        let confirming = |peer: &Peer| Confirming {
            key: peer.key,
            name: peer.name.clone(),
            instance: peer.instance.clone(),
            confirmed: peer.keys.knows == Some(newest),
        };
        Ok(Rotation {
            key: me.identity.key_id(),
            before: me.identity.before().map(|key| key.key_id()).collect(),
            next: me.next.as_ref().map(|next| (next.key_id(), next.since())),
            peers: peers.iter().filter(|peer| has_say(peer)).map(confirming).collect(),
        })
    }

    /// Takes over when nobody is left who has not confirmed; called when a peer confirms, and when peers change.
    pub(super) async fn finish_rotation(&self) {
        let _alone = self.inner.rotating.lock().await;
        if self.inner.local.me().next.is_none() {
            return;
        }
        let finished = match self.rotation().await {
            Ok(rotation) if rotation.peers.iter().any(|peer| !peer.confirmed) => return,
            Ok(_) => self.take_over("").await.map(drop),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = finished {
            tracing::error!(%error, "the new key could not take over; `opmesh key rotate` tries again");
        }
    }

    /// The file first: from then on this is the key, whatever happens.
    async fn take_over(&self, why: &str) -> Result<Rotation, RotationError> {
        let Some(next) = self.inner.local.me().next else { return Err(RotationError::None) };
        next.replace(&self.places().next_key(), &self.places().key())?;
        self.store().take_own_key(next.public_key(), why.to_owned()).await?;
        self.inner.local.take_key(next);
        tracing::info!(key_id = %self.identity().key_id(), "this instance has a new key");
        self.renew_sessions();
        Ok(self.rotation().await?)
    }

    fn renew_sessions(&self) {
        let sessions = &self.inner.local.sessions;
        for (peer, _) in sessions.live() {
            sessions.end(&peer, EndReason::GrantsChanged);
        }
    }

    async fn audit(&self, event: AuditKind, detail: String) -> Result<(), StoreError> {
        self.store().note_audit(AuditEvent { event, peer: None, detail }).await
    }
}

/// Whose confirmation is waited for.
fn has_say(peer: &Peer) -> bool {
    peer.is_trusted() && (peer.roles.known_host || peer.roles.authorized_client)
}
