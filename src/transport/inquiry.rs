//! What a dialer hears that was let in and only asks how it stands.
//!
//! Nothing changes by it: no session begins, none is displaced. Called by the acceptor's handshake.

use opmesh_core::handshake::VERSIONS;
use opmesh_core::model::KeyId;
use opmesh_core::protocol::{Findings, Inquiry, Room, Standing};

use crate::store::{Disk, Peer};

use super::ending::Ending;
use super::{Local, PROGRAM};

/// The answer to this peer.
pub(super) async fn findings(local: &Local, peer: KeyId, inquiry: Inquiry) -> Result<Findings, Ending> {
    let entry = local.store.peer(&peer).await?;
    let schema = local.store.facts().await?.schema;
    let room = local.store.disk().await.map_or(Room::Unknown, Disk::room);
    let at = local.clock.wall();
    tracing::info!(%peer, version = %inquiry.version, at_unix_ms = inquiry.at.0, "a peer asks how it stands");
    Ok(Findings {
        at,
        version: PROGRAM.to_owned(),
        protocol_versions: VERSIONS.to_vec(),
        standing: entry.as_ref().map_or(Standing::Well, standing),
        grants_received: entry.map(|entry| entry.received).unwrap_or_default(),
        room,
        schema,
    })
}

/// The first that applies: what an operator must decide comes first.
fn standing(peer: &Peer) -> Standing {
    match peer.replica {
        Some(replica) if replica.conflict => Standing::IdentityConflict,
        Some(replica) if replica.quarantined.is_some() => Standing::Quarantined,
        Some(replica) if replica.guarded > 0 => Standing::NeedsDecision,
        Some(replica) if replica.catching_up => Standing::CatchingUp,
        Some(_) | None => Standing::Well,
    }
}
