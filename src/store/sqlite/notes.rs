//! What is remembered about peers lazily: heard from, acknowledged, proved. Kept in memory and written with other
//! work, because losing the last seconds of it costs nothing.

use std::collections::HashMap;

use opmesh_core::model::{KeyId, Position, SetDigest, UnixMs};
use rusqlite::{Connection, params};

use super::value::count;
use crate::store::{HubProgress, Peer, StoreError};

/// The notes of this run.
#[derive(Debug, Default)]
pub(in crate::store) struct Notes {
    peers: HashMap<KeyId, Note>,
    dirty: bool,
}

/// The notes about one peer.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Note {
    pub(in crate::store) seen: Option<UnixMs>,
    pub(in crate::store) acked: Option<Position>,
    pub(in crate::store) proved: Option<(Position, SetDigest)>,
    dirty: bool,
}

impl Notes {
    /// Changes the note about a peer.
    pub(in crate::store) fn note(&mut self, peer: &KeyId, change: impl FnOnce(&mut Note)) {
        let note = self.peers.entry(*peer).or_default();
        change(note);
        note.dirty = true;
        self.dirty = true;
    }

    pub(in crate::store) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What has not been written yet; counts as written from now on.
    pub(in crate::store) fn take_dirty(&mut self) -> Vec<(KeyId, Note)> {
        self.dirty = false;
        let take =
            |(peer, note): (&KeyId, &mut Note)| std::mem::take(&mut note.dirty).then_some((*peer, *note));
        self.peers.iter_mut().filter_map(take).collect()
    }

    /// Forgets a peer that was removed.
    pub(in crate::store) fn forget(&mut self, peer: &KeyId) {
        self.peers.remove(peer);
    }

    /// Shows a peer as it is now, written or not.
    pub(in crate::store) fn show(&self, peer: &mut Peer) {
        let Some(note) = self.peers.get(&peer.key) else { return };
        peer.last_seen = note.seen.max(peer.last_seen);
        let known = peer.progress;
        let acked = note.acked.or(known.map(|progress| progress.acked));
        if let Some(acked) = acked {
            let proved = note.proved.or(known.and_then(|progress| progress.proved));
            peer.progress = Some(HubProgress { acked, proved });
        }
    }

    /// When a peer was last heard from in this run.
    pub(in crate::store) fn seen(&self, peer: &KeyId) -> Option<UnixMs> {
        self.peers.get(peer).and_then(|note| note.seen)
    }
}

impl Note {
    /// Writes what is known; what is not keeps its old value.
    pub(in crate::store) fn write(&self, connection: &Connection, peer: &KeyId) -> Result<(), StoreError> {
        connection
            .prepare_cached(
                "UPDATE peers SET last_seen_unix_ms = coalesce(?2, last_seen_unix_ms),
                     acked_modno = coalesce(?3, acked_modno), acked_chain = coalesce(?4, acked_chain),
                     proved_modno = coalesce(?5, proved_modno), proved_chain = coalesce(?6, proved_chain),
                     proved_sum = coalesce(?7, proved_sum), proved_count = coalesce(?8, proved_count)
                 WHERE key_id = ?1",
            )?
            .execute(params![
                peer.as_bytes(),
                self.seen.map(|at| at.0),
                self.acked.map(|acked| acked.modno.to_i64()),
                self.acked.map(|acked| acked.chain.0),
                self.proved.map(|(position, _)| position.modno.to_i64()),
                self.proved.map(|(position, _)| position.chain.0),
                self.proved.map(|(_, set)| set.sum_bytes()),
                self.proved.map(|(_, set)| count(set.count())),
            ])?;
        Ok(())
    }
}
