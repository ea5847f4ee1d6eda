//! Forgetting hosts: a task of the node, so that it outlives the call that ordered it, and goes on after a restart.

use opmesh_core::model::KeyId;
use tokio::sync::oneshot;

use super::Node;
use crate::store::{Forgotten, PeerError, StoreError};

impl Node {
    /// Deletes everything that is kept of an owner that is not let in any more.
    pub async fn forget_host(&self, owner: KeyId) -> Result<Forgotten, PeerError> {
        let (answer, answered) = oneshot::channel();
        let node = self.clone();
        self.run(async move {
            let forgetting = node.store().forget_host(&owner);
            let ended = node.stopping().run_until_cancelled(forgetting).await;
            // Whoever asked may have left.
            drop(answer.send(ended.unwrap_or(Err(StoreError::Closed.into()))));
        });
        answered.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Goes on with what was cut off when the store was closed.
    pub(super) async fn finish_forgetting(self) {
        let unfinished = match self.store().half_forgotten().await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                tracing::error!(%error, "hosts that are being forgotten could not be looked for");
                return;
            }
        };
        for owner in unfinished {
            match self.forget_host(owner).await {
                Ok(forgotten) => {
                    tracing::info!(peer = %owner, operations = forgotten.operations, "a host was forgotten");
                }
                Err(error) => tracing::warn!(peer = %owner, %error, "a host could not be forgotten"),
            }
        }
    }
}
