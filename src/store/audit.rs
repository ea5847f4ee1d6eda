//! What is written about security, and what reading it shows.
//!
//! Every event has its kind here, once: its name in the store and in JSON, and its sentence in `docs/operations.md`.
//! How records are chained is `sqlite/audit.rs`.

use opmesh_core::model::{KeyId, UnixMs};

/// Makes the enum and its list from one table, so that neither can lack what the other has.
macro_rules! kinds {
    ($($kind:ident $name:literal $meaning:literal)*) => {
        /// What happened. One event writes one record, in the transaction of its effect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AuditKind {
            $(#[doc = $meaning] $kind,)*
        }

        impl AuditKind {
            /// All kinds, as `docs/operations.md` lists them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name in the store and in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it says, for the operator.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning,)* }
            }
        }
    };
}

kinds! {
    TokenMade "token_made" "a pairing token was made; with its number, uses and grants"
    TokenCancelled "token_cancelled" "a pairing token was cancelled"
    ClientPaired "client_paired" "a host used a pairing token and is a client now"
    PairedWithHub "paired_with_hub" "a hub accepted this instance's pairing token"
    ClientRefused "client_refused" "a dialer was turned away, with the reason that it is not told"
    StrangersRefused "strangers_refused" "so many more dialers with keys that are not listed were turned away within a minute"
    PeerAdded "peer_added" "a peer was added, or a listed one became a hub of this instance; with the grants given"
    PeerVerified "peer_verified" "an operator vouched for a peer's key"
    PeerBlocked "peer_blocked" "an operator blocked a peer"
    PeerUnblocked "peer_unblocked" "an operator lets a blocked peer in again"
    PeerRemoved "peer_removed" "a peer was removed"
    PeerRenamed "peer_renamed" "a peer has another name here"
    PeerDialChanged "peer_dial_changed" "a hub is dialled in another way"
    PairingChanged "pairing_changed" "the token with which this instance will pair was set or taken away"
    RolesChanged "roles_changed" "a peer is something else to this instance"
    GrantsChanged "grants_changed" "what a peer may do with this instance's things changed; with the grants it has now"
    AcceptsChanged "accepts_changed" "what is let in from a peer changed; with the scopes"
    InstanceRenamed "instance_renamed" "a peer presented another instance id under the same key"
    ConflictAccepted "conflict_accepted" "an operator decided that the database which was refused is the right one"
    ConflictRefused "conflict_refused" "an operator decided that the database which was refused is the wrong one"
    OwnerReleased "owner_released" "an operator let the repairs of a quarantined host begin again"
    OwnInstanceRenamed "own_instance_renamed" "this instance has another instance id; its peers learn it in their next session"
    HostForgetBegun "host_forget_begun" "an operator ordered that everything kept of a host be deleted"
    HostForgotten "host_forgotten" "everything kept of a host is deleted; with the counts"
    KeyRotationBegun "key_rotation_begun" "a new key for this instance was made and waits until every peer knows it; with its key ID"
    KeyRotationAborted "key_rotation_aborted" "the new key that waited was thrown away; with its key ID"
    KeyRotated "key_rotated" "this instance has a new key; with both key IDs and who had not confirmed it"
    KeyAnnounced "key_announced" "a peer announced the key that will take the place of its present one; with its key ID"
    KeySucceeded "key_succeeded" "a peer uses the key that it announced, and is known by that one alone; with both key IDs"
    KeyReplaced "key_replaced" "an operator says that a peer has another key; with both key IDs"
    HostAdopted "host_adopted" "an operator says that a key stands for a lost one, which is let in no more; with both key IDs"
    AdoptionUndone "adoption_undone" "an adoption was taken back"
    StoreBackedUp "store_backed_up" "a copy of the whole store was written; with its path"
    StoreRestored "store_restored" "this store was made from a backup; its pairing tokens are void"
}

/// Something that bears on security, to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// What happened.
    pub event: AuditKind,
    /// The peer that it is about.
    pub peer: Option<KeyId>,
    /// For people; never a secret.
    pub detail: String,
}

/// An audit record; each is chained to the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// When.
    pub at: UnixMs,
    /// What: the name of an [`AuditKind`], of this program or of a newer one.
    pub event: String,
    /// About whom.
    pub peer: Option<KeyId>,
    /// For people.
    pub detail: String,
    /// BLAKE3 over the previous hash and this record.
    pub hash: [u8; 32],
}

/// Whether the chain of audit records is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditVerdict {
    /// It is.
    Whole {
        /// How many records.
        records: u64,
        /// The last record's hash; keep it elsewhere to notice a chain that was rewritten as a whole.
        last: [u8; 32],
    },
    /// It is not.
    Broken {
        /// The first record that does not follow from the one before it.
        number: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: &str = include_str!("../../docs/operations.md");

    #[test]
    fn the_list_of_audit_events_in_the_manual_is_the_enum() {
        let (_, section) =
            OPERATIONS.split_once("### Audit events\n").expect("the manual lists audit events");
        let (section, _) = section.split_once("\n#").unwrap_or((section, ""));
        let listed: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let kinds: Vec<_> =
            AuditKind::ALL.iter().map(|kind| format!("| `{}` | {} |", kind.name(), kind.meaning())).collect();
        assert_eq!(listed, kinds);
    }

    #[test]
    fn no_two_kinds_share_a_name() {
        let names: std::collections::BTreeSet<_> = AuditKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), AuditKind::ALL.len());
    }
}
