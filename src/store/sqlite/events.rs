//! What sessions and handshakes mean for the audit log, beyond what an operator edits.
//!
//! Called inside the transaction whose effect the record is about.

use opmesh_core::model::{Incarnation, KeyId};
use opmesh_core::replica::{Committed, Transaction};
use rusqlite::{OptionalExtension as _, params};

use super::audit;
use super::peer_rows;
use super::refusals::Refused;
use super::tx::Tx;
use super::value::stored;
use crate::store::{AuditEvent, AuditKind, StoreError};

/// Characters of a refusal's detail that are kept.
const REFUSAL_CHARS: usize = 500;

/// What the store knew of an owner's incarnations before it said State.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    incarnation: Option<Incarnation>,
    conflict: Option<Incarnation>,
}

/// Looks before a State is judged; nothing else changes what is compared.
pub(super) fn before(tx: &Tx<'_>, owner: i64, transaction: &Transaction) -> Result<Before, StoreError> {
    if !matches!(transaction, Transaction::State { .. }) {
        return Ok(Before::default());
    }
    let found: Option<(Option<i64>, Option<i64>)> = tx
        .connection
        .prepare_cached("SELECT incarnation, conflict FROM replicas WHERE owner = ?1")?
        .query_row(params![owner], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (incarnation, conflict) = found.unwrap_or_default();
    let label = |label: Option<i64>| label.map(Incarnation::from_i64).transpose();
    Ok(Before {
        incarnation: stored("incarnation", label(incarnation))?,
        conflict: stored("incarnation", label(conflict))?,
    })
}

/// Records what an owner's transaction did, if that bears on security.
pub(super) fn committed(
    tx: &Tx<'_>,
    key: KeyId,
    before: Before,
    presented: Option<Incarnation>,
    committed: &Committed,
) -> Result<(), StoreError> {
    let (event, detail) = match committed {
        Committed::Conflict { presented } if before.conflict == Some(*presented) => return Ok(()),
        Committed::Conflict { presented } => {
            (AuditKind::IdentityConflict, format!("incarnation {presented} was superseded"))
        }
        Committed::Judged { .. } => match (before.incarnation, presented) {
            (Some(old), Some(new)) if old != new => {
                (AuditKind::IncarnationChanged, format!("{old} is now {new}"))
            }
            _ => return Ok(()),
        },
        Committed::Forked { parked } => (AuditKind::OwnerForked, format!("{parked} operations were parked")),
        Committed::Applied(applied) if applied.guarded > 0 => {
            (AuditKind::DeletesGuarded, format!("{} operations were parked", applied.guarded))
        }
        Committed::Applied(_) | Committed::Dropped { .. } | Committed::Marked { .. } => return Ok(()),
    };
    audit::write(tx, &AuditEvent { event, peer: Some(key), detail })
}

/// Somebody was refused outside [`super::pairing::authorize`]: recorded, or counted when it happens often. The detail
/// may quote a stranger, and is cut.
pub(in crate::store) fn refused(tx: &mut Tx<'_>, mut event: AuditEvent) -> Result<(), StoreError> {
    if let Some((end, _)) = event.detail.char_indices().nth(REFUSAL_CHARS) {
        event.detail.truncate(end);
    }
    let who = match &event.peer {
        _ if event.event == AuditKind::AdminRefused => Refused::Caller,
        Some(key) if peer_rows::one(tx.connection, key)?.is_some() => Refused::Listed(*key),
        _ => Refused::Stranger,
    };
    audit::refuse(tx, who, &event)
}
