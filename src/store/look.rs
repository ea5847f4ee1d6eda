//! What can be asked of the store as a whole: what it is, how it is, whether it has stopped.
//!
//! For `status`, `doctor`, and peers that ask; nothing here changes anything.

use opmesh_core::model::{KeyId, UnixMs};

use super::sqlite::health;
use super::{Disk, Refusal, Store, StoreError, StoreFacts, StoreHealth};

impl Store {
    /// The store itself.
    pub async fn facts(&self) -> Result<StoreFacts, StoreError> {
        self.engine.facts().await
    }

    /// Whether the file is whole, as far as a look can tell.
    pub async fn health(&self) -> Result<StoreHealth, StoreError> {
        self.engine.read(health::health).await
    }

    /// The room under the store; asked on a thread that may wait.
    pub async fn disk(&self) -> Result<Disk, StoreError> {
        let path = self.engine.path().to_owned();
        let ask =
            move |_: &_| Disk::of(&path).map_err(|error| StoreError::Engine { reason: error.to_string() });
        self.engine.read(ask).await
    }

    /// Waits until the store has stopped for good; why.
    pub async fn stopped(&self) -> StoreError {
        let mut head = self.engine.head();
        loop {
            if let Some(stopped) = self.engine.stopped() {
                return stopped;
            }
            if head.changed().await.is_err() {
                return self.engine.gone();
            }
        }
    }

    /// Why a key was refused last, when and under which name, if the audit log has it; of keys that are no peers, too.
    pub async fn last_refusal(&self, key: &KeyId) -> Result<Option<(Refusal, UnixMs, String)>, StoreError> {
        let key = *key;
        self.engine.read(move |connection| health::last_refusal(connection, &key)).await
    }
}
