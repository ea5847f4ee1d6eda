//! Federated config: this instance's repositories and plans, and what peers show of theirs.
//!
//! Who may do what is decided by `opmesh_core::config` inside the transaction that keeps the result.

use opmesh_core::config::{
    Allowed, Applied, Change, Config, GuidSeed, Refusal, Resources, SharedRepo, Shown, Taken,
};
use opmesh_core::model::{ConfigModno, KeyId, UnixMs};
use tokio::sync::watch;

use super::sqlite::{Weight, config};
use super::{Epoch, Role, Store, StoreError};

/// What a peer last showed of itself; nothing of it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerConfig {
    /// Its repositories and plans, as far as we may see them.
    pub shown: Option<Shown>,
    /// When that last changed here.
    pub shown_at: Option<UnixMs>,
    /// Which repositories and plans it names.
    pub resources: Option<Resources>,
}

impl Store {
    /// The config with its secrets. What others may see of it is `opmesh_core::config::shown`.
    pub async fn config(&self) -> Result<Config, StoreError> {
        self.engine.read(config::load).await
    }

    /// Follows the modno of the last durable change to the config; also what peers share and withdraw changes it. A read
    /// after this shows what was committed before.
    pub fn config_modno(&self) -> watch::Receiver<ConfigModno> {
        self.engine.config_modno()
    }

    /// The operator of this instance changes the config, all of it or nothing, with its audit record.
    pub async fn apply_config(&self, change: Change) -> Result<Result<Applied, Refusal>, StoreError> {
        let seed = draw_seed()?;
        self.engine.write(weigh(&change), move |tx| config::apply(tx, change, seed)).await
    }

    /// A peer changes the config, as far as its grants allow at the moment of the transaction. `role` is what the peer
    /// is in the session that brought the change, `epoch` that session's, if the peer is a client in it. A refusal has its
    /// audit record, too, unless the change was only stale. [`StoreError::Fenced`] when the peer is not let in any more.
    pub async fn write_config(
        &self,
        peer: &KeyId,
        role: Role,
        epoch: Option<Epoch>,
        change: Change,
        allowed: Allowed,
    ) -> Result<Result<Applied, Refusal>, StoreError> {
        let (key, seed) = (*peer, draw_seed()?);
        let weight = weigh(&change);
        self.engine
            .write(weight, move |tx| config::write(tx, key, (role, epoch), change, &allowed, seed))
            .await
    }

    /// A hub of ours says which repositories it shares with us: all of them. What is refused is refused one by one, and
    /// audited when it is not the same as last time. [`StoreError::Fenced`] when it is no known host, or blocked.
    pub async fn take_shared(
        &self,
        peer: &KeyId,
        offered: Vec<SharedRepo>,
        allowed: Allowed,
    ) -> Result<Taken, StoreError> {
        let key = *peer;
        let weight = Weight { operations: offered.len().max(1), bytes: 0 };
        self.engine.write(weight, move |tx| config::take(tx, key, &offered, &allowed)).await
    }

    /// Keeps what a peer shows of its config. The same again writes nothing.
    pub async fn keep_shown(&self, peer: &KeyId, shown: Shown) -> Result<(), StoreError> {
        let key = *peer;
        self.engine.write(Weight::ONE, move |tx| config::keep_shown(tx, key, &shown)).await
    }

    /// Keeps which repositories and plans a peer names. The same again writes nothing.
    pub async fn keep_resources(&self, peer: &KeyId, resources: Resources) -> Result<(), StoreError> {
        let key = *peer;
        self.engine.write(Weight::ONE, move |tx| config::keep_resources(tx, key, &resources)).await
    }

    /// What a peer last showed; all empty when it showed nothing.
    pub async fn peer_config(&self, peer: &KeyId) -> Result<PeerConfig, StoreError> {
        let key = *peer;
        self.engine.read(move |connection| config::of_peer(connection, &key)).await
    }
}

fn draw_seed() -> Result<GuidSeed, StoreError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StoreError::Engine { reason: error.to_string() })?;
    Ok(GuidSeed(seed))
}

fn weigh(change: &Change) -> Weight {
    let operations = change.put_repos.len() + change.put_plans.len() + change.delete_repos.len();
    Weight { operations: (operations + change.delete_plans.len()).max(1), bytes: 0 }
}
