//! Succession and its answer between frame and value. A succession that exists is signed as it should be.

use opmesh_core::model::{PublicKey, UnixMs};
use opmesh_core::succession::{MAX_STATEMENTS, Statement, Succession};

use super::decode::{all, at_most, fixed};
use super::fault::WireFault;
use super::pb;

impl From<Succession> for pb::Succession {
    fn from(succession: Succession) -> Self {
        let statements = succession.statements().iter().map(|statement| pb::SuccessionStatement {
            old_key: statement.old.0.to_vec(),
            new_key: statement.new.0.to_vec(),
            at_unix_ms: statement.at.0,
            old_signature: statement.by_old.to_vec(),
            new_signature: statement.by_new.to_vec(),
        });
        Self { statements: statements.collect() }
    }
}

impl TryFrom<pb::Succession> for Succession {
    type Error = WireFault;

    fn try_from(succession: pb::Succession) -> Result<Self, WireFault> {
        at_most("statements", succession.statements.len(), MAX_STATEMENTS)?;
        Ok(Self::new(all(succession.statements)?)?)
    }
}

impl TryFrom<pb::SuccessionStatement> for Statement {
    type Error = WireFault;

    fn try_from(statement: pb::SuccessionStatement) -> Result<Self, WireFault> {
        Ok(Self {
            old: PublicKey(fixed("statement.old_key", &statement.old_key)?),
            new: PublicKey(fixed("statement.new_key", &statement.new_key)?),
            at: UnixMs(statement.at_unix_ms),
            by_old: fixed("statement.old_signature", &statement.old_signature)?,
            by_new: fixed("statement.new_signature", &statement.new_signature)?,
        })
    }
}

/// The key that a peer says it knows now.
pub(super) fn known(known: &pb::SuccessionKnown) -> Result<PublicKey, WireFault> {
    Ok(PublicKey(fixed("succession_known.public_key", &known.public_key)?))
}
