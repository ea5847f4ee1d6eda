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
    Initialized "initialized" "the store was made; with where the key came from"
    Started "started" "a daemon started; says when the one before it ended without a word"
    Stopped "stopped" "a daemon ended in good order"
    StoreStopped "store_stopped" "the store of an earlier process stopped because the disk or the file failed; with its reason"
    TokenMade "token_made" "a pairing token was made; with its number, uses and grants"
    TokenCancelled "token_cancelled" "a pairing token was cancelled"
    TokenExpired "token_expired" "a pairing token expired with uses left"
    ClientPaired "client_paired" "a host used a pairing token, whose number stands there, and is a client now"
    PairedWithHub "paired_with_hub" "a hub accepted this instance's pairing token"
    ClientConnected "client_connected" "a client proved its key and its session took over"
    HubConnected "hub_connected" "a hub proved its key and accepted this instance"
    ClientRefused "client_refused" "a dialer was turned away, with the reason that it is not told"
    RefusalsRepeated "refusals_repeated" "a listed key was refused, or refused us, so many times more within a minute"
    HandshakeFailed "handshake_failed" "somebody did not prove a key, or changed what was said; with address and reason"
    StrangersRefused "strangers_refused" "so many more dialers that are not listed, or proved nothing, were turned away"
    RefusedByHub "refused_by_hub" "a hub turned this instance away"
    OtherKeyAnswered "other_key_answered" "another key than the pinned one answered at the address of a hub"
    PeerAdded "peer_added" "a peer was added, or a listed one became a hub of this instance; with the grants given"
    PeerVerified "peer_verified" "an operator vouched for a peer's key"
    PeerUnverified "peer_unverified" "an operator no longer vouches for a peer's key"
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
    ScopeDenied "scope_denied" "a peer sent an operation outside its view; its session ended and nothing of the frame was stored"
    IdentityConflict "identity_conflict" "a key was used by two databases or two processes; an operator must decide"
    ConflictAccepted "conflict_accepted" "an operator decided that the database which was refused is the right one"
    ConflictRefused "conflict_refused" "an operator decided that the database which was refused is the wrong one"
    AdminTokenMade "admin_token_made" "a token of the admin listener was made; with its number, label and role"
    AdminTokenRevoked "admin_token_revoked" "a token of the admin listener was revoked"
    AdminRefused "admin_refused" "a call of the admin service was refused: by uid on the socket, by token or role on the listener"
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
    IncarnationChanged "incarnation_changed" "a host's log began a new life: it was restored, or started over"
    OwnerForked "owner_forked" "a host went back behind what lies here; what lay above was parked"
    OwnRollback "own_rollback" "a hub holds what this instance's own log does not know: it was restored from an older copy"
    DeletesGuarded "deletes_guarded" "a host deleted so much at once that the guard parked it; one record a frame"
    ConfigChanged "config_changed" "repositories or plans were changed, by the operator or by the peer that the record names"
    ConfigRefused "config_refused" "a peer asked for a change of repositories or plans that a rule forbids; with the rule"
    SharedReposTaken "shared_repos_taken" "repositories that a hub shares were received, changed or not shared any more"
    SharedRepoRefused "shared_repo_refused" "repositories that a hub shares were not taken, each with the rule; not repeated while the same are refused"
    SharedReposWithdrawn "shared_repos_withdrawn" "a peer was removed or may share less; what it had shared stays and is marked"
    ConfigPushed "config_pushed" "a peer was asked to change its repositories and plans; with the modno that the change was made for and the verdict"
    OwnerReleased "owner_released" "an operator let the repairs of a quarantined host begin again"
    AdminRefusalsRepeated "admin_refusals_repeated" "so many more calls of the admin service were refused within a minute"
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
        /// The first record that does not fit, or that is missing.
        number: u64,
        /// What it does not fit.
        fault: AuditFault,
    },
}

/// What a record does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFault {
    /// The one before it: it was changed, or one was taken out or put in.
    Chain,
    /// The end that the store remembers: records were cut off, or added behind its back.
    End,
    /// The end that the file beside the database remembers: records were cut off, or this is another copy.
    Beside,
}

impl AuditFault {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::End => "end",
            Self::Beside => "beside",
        }
    }
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
