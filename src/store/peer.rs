//! Peers and pairing tokens, as the store keeps them.

use opmesh_core::model::{InstanceId, KeyId, Position, PublicKey, SetDigest, UnixMs};
use opmesh_core::permission::{Grant, Grants, Scopes};

/// Another instance. One entry per key; it may be a known host, an authorized client, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name by which it is authorized.
    pub key: KeyId,
    /// Its key, once it has shown it.
    pub public_key: Option<PublicKey>,
    /// What it is called here; unique.
    pub name: String,
    /// The label that it gave itself.
    pub instance: Option<InstanceId>,
    /// What it is to us.
    pub roles: Roles,
    /// An operator or a pairing vouched for the key.
    pub verified: bool,
    /// Refused, and why.
    pub blocked: Option<String>,
    /// How it is dialled; empty when it is no known host.
    pub dial: Dial,
    /// What it may do with our things.
    pub given: Grants,
    /// What it said, when last connected, that we may do with its things; in the text it used.
    pub received: Vec<String>,
    /// What we let in from it when it is an authorized client.
    pub accepts: Scopes,
    /// When its last session was seen.
    pub last_seen: Option<UnixMs>,
    /// Why it was last turned away, unless a session came later.
    pub refused: Option<(Refusal, UnixMs)>,
    /// As a hub of ours: what we know of its progress.
    pub progress: Option<HubProgress>,
    /// As an owner whose operations lie here: see [`super::HostRow`] for the whole.
    pub replica: Option<ReplicaFacts>,
    /// A pairing that has not happened yet.
    pub joining: Option<Joining>,
    /// What is known about its keys, and what it knows about ours.
    pub keys: PeerKeys,
}

/// A peer's keys besides the one that decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerKeys {
    /// The key that it announced and has not used yet.
    pub next: Option<PublicKey>,
    /// The newest key of ours that it has confirmed.
    pub knows: Option<PublicKey>,
    /// The keys that it had before, oldest first.
    pub succeeds: Vec<KeyId>,
    /// Another key stands for this one: it is let in no more, whatever the entry says.
    pub retired: bool,
}

/// A key that is let in no more, because another one stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Which.
    pub key: KeyId,
    /// The one that stands for it.
    pub heir: KeyId,
    /// Why.
    pub how: RetiredHow,
}

/// Why a key was retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetiredHow {
    /// Its owner has a new key.
    Succession,
    /// It was lost; an operator said whose host it was.
    Adoption,
}

impl RetiredHow {
    /// The name in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succession => "succession",
            Self::Adoption => "adoption",
        }
    }
}

/// What became of a succession that a peer told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learnt {
    /// It is stored.
    Known,
    /// It is not about the key that tells it.
    NotItsOwn,
    /// Rows lie here that are hashed with another first key; nothing was changed.
    OtherFirstKey,
}

impl Peer {
    /// Whether it is let in as a client.
    pub fn may_deliver(&self) -> bool {
        self.roles.authorized_client && self.is_trusted()
    }

    /// Whether any session with it may be: somebody vouched for the key, and nobody has decided against it since.
    pub fn is_trusted(&self) -> bool {
        self.verified && self.blocked.is_none() && !self.keys.retired
    }
}

/// What a peer is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// We dial it: it is a hub of ours.
    pub known_host: bool,
    /// It dials us: its operations lie here.
    pub authorized_client: bool,
}

/// One of a peer's roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// We dial it.
    KnownHost,
    /// It dials us.
    AuthorizedClient,
}

/// How a known host is dialled. The text was checked where it was given; the store keeps it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dial {
    /// Tried in this order.
    pub urls: Vec<String>,
    /// `tls`, `sealed` or `plain`; none: what the URL's scheme implies.
    pub channel: Option<String>,
}

/// What an owner remembers of a hub; written lazily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubProgress {
    /// The hub has made everything durable up to here.
    pub acked: Position,
    /// Where both sides last proved to hold the same set, and which.
    pub proved: Option<(Position, SetDigest)>,
}

/// What a hub holds of an owner, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaFacts {
    /// Up to here everything is here.
    pub cursor: Position,
    /// Live operations.
    pub set: SetDigest,
    /// Rows that the mass-delete guard set aside.
    pub guarded: u64,
    /// Since when repairs are given up.
    pub quarantined: Option<UnixMs>,
    /// A superseded label was presented.
    pub conflict: bool,
    /// A diff is owed or under way.
    pub catching_up: bool,
}

/// A pairing token that this instance still has to use.
#[derive(Clone, PartialEq, Eq)]
pub struct Joining {
    /// The token's secret; cleared once the hub has accepted us.
    pub seed: [u8; 32],
    /// Afterwards the entry is of no use.
    pub expires: UnixMs,
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joining").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A peer that an operator adds.
#[derive(Debug, Clone)]
pub struct NewPeer {
    /// Its key ID.
    pub key: KeyId,
    /// Its label, when the operator knows it.
    pub instance: Option<InstanceId>,
    /// What it will be to us.
    pub roles: Roles,
    /// Somebody vouches for the key.
    pub verified: bool,
    /// How it is dialled.
    pub dial: Dial,
    /// What it may do with our things.
    pub given: Grants,
    /// The token that will pair us.
    pub joining: Option<Joining>,
}

/// One edit of a peer. Each is one transaction with its audit record; the ones that change what the peer may do end
/// its live sessions (a new epoch).
#[derive(Debug, Clone)]
pub enum PeerEdit {
    /// Call it something else.
    Rename(String),
    /// An operator vouches for the key, by repeating its key ID.
    Verify(KeyId),
    /// Nobody vouches for the key any more.
    Unverify,
    /// Replaces the grant of that type.
    Grant(Grant),
    /// Takes back `TYPE` or `TYPE:SCOPE,…`, each exactly as it was given.
    Revoke(Vec<String>),
    /// Refuse it.
    Block {
        /// Why; may be empty.
        reason: String,
    },
    /// Refuse it no longer.
    Unblock,
    /// Dial it like this; an empty list of URLs makes it no known host.
    SetDial(Dial),
    /// Let this in when it is an authorized client.
    SetAccepts(Scopes),
    /// What it is to us.
    SetRoles(Roles),
    /// A token that is to pair us, or none any more.
    SetJoining(Option<Joining>),
}

/// Tells the node that a peer changed, so that it ends or starts sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEvent {
    /// Which.
    pub key: KeyId,
    /// How.
    pub change: PeerChange,
}

/// How a peer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerChange {
    /// It is new, or is dialled in another way, or is no longer refused.
    Reachable,
    /// Its grants, or what we accept from it, changed: sessions end and begin anew.
    Grants,
    /// It was blocked, or is no longer verified, or has another role: sessions end.
    Revoked,
    /// It is no peer any more: sessions end, and what is remembered of them goes.
    Removed,
    /// Name or label: nothing to do but show it.
    Shown,
    /// An operator released or resolved it: a waiting session may try again.
    Released,
    /// It knows a new key of ours.
    KeyConfirmed,
}

/// Whether a dialer is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// It is.
    Granted {
        /// What it may do with our things.
        grants: Grants,
        /// What we let in from it.
        accepted: Scopes,
        /// A pairing token was used: it is new here.
        paired: bool,
    },
    /// It is not. The stranger hears one text for all of these; log, audit and `status` have the reason.
    Refused(Refusal),
}

/// Why a dialer was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The key is not listed and came without a token.
    Unknown,
    /// The key is listed, but only as a host that we dial.
    NotAClient,
    /// The key is listed, but nobody vouched for it.
    Unverified,
    /// An operator blocked the key.
    Blocked,
    /// The token is not one of ours, or was cancelled.
    TokenUnknown,
    /// The token's time is over.
    TokenExpired,
    /// The token was used as often as it may be.
    TokenSpent,
    /// Another live key has this instance id.
    InstanceTaken,
    /// Another key stands for this one.
    Retired,
    /// This is our own key.
    OwnKey,
    /// It is a hub, and turned us away; it tells nobody why.
    ByHub,
}

impl Refusal {
    /// All refusals with their name in stores and the sentence for the operator.
    pub const ALL: [(Self, &'static str, &'static str); 11] = [
        (Self::Unknown, "unknown", "its key is not listed; pair it with a token or `opmesh peer add` it"),
        (Self::NotAClient, "not_a_client", "it is listed only as a host that we dial; pair it with a token"),
        (
            Self::Unverified,
            "unverified",
            "nobody vouched for its key; compare key IDs, then `opmesh peer verify`",
        ),
        (Self::Blocked, "blocked", "it is blocked; `opmesh peer unblock` lets it in again"),
        (
            Self::TokenUnknown,
            "token_unknown",
            "its pairing token is not one of ours or was cancelled; make a new one",
        ),
        (
            Self::TokenExpired,
            "token_expired",
            "its pairing token has expired; make a new one with `opmesh pair token`",
        ),
        (
            Self::TokenSpent,
            "token_spent",
            "its pairing token was used already; make a new one with `opmesh pair token`",
        ),
        (
            Self::InstanceTaken,
            "instance_taken",
            "another key has this instance id; `opmesh peer remove` the old one if it is gone, else call this one something \
             else, over there: `opmesh key rename`",
        ),
        (
            Self::Retired,
            "retired",
            "another key stands for this one; `opmesh peer adopt KEY --undo` takes an adoption back",
        ),
        (Self::OwnKey, "own_key", "it presents this instance's own key; the identity was copied"),
        (
            Self::ByHub,
            "by_hub",
            "it turned us away; its operator sees why in `opmesh status` and `opmesh audit`",
        ),
    ];

    /// The name in stores and JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(refusal, ..)| *refusal == self).map_or("", |(_, name, _)| *name)
    }

    /// From the name in a store.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text, _)| *text == name).map(|(refusal, ..)| *refusal)
    }

    /// The reason and the next step, for the operator.
    pub fn advice(self) -> &'static str {
        Self::ALL.iter().find(|(refusal, ..)| *refusal == self).map_or("", |(.., advice)| *advice)
    }
}

/// What was learnt about a peer in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// What it is to us in this session.
    pub role: Role,
    /// Its key.
    pub public_key: PublicKey,
    /// Its label.
    pub instance: InstanceId,
    /// What it lets us do with its things.
    pub received: Vec<String>,
}

/// The fencing number of the session that speaks for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What a session that takes over is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// Its fencing number.
    pub epoch: Epoch,
    /// What we let in from this peer.
    pub accepted: Scopes,
    /// What it may do with our things.
    pub given: Grants,
    /// Up to here everything is here.
    pub cursor: Position,
}

/// A pairing token to be remembered: never its secret.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The public half.
    pub public_key: PublicKey,
    /// What whoever uses it may do with our things.
    pub grants: Grants,
    /// For the operator; may be empty.
    pub label: String,
    /// Afterwards it is refused.
    pub expires: UnixMs,
    /// How often it may be used.
    pub uses: u32,
}

/// A pairing token as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number.
    pub id: u64,
    /// What whoever uses it may do with our things.
    pub grants: Grants,
    /// For the operator.
    pub label: String,
    /// When it was made.
    pub created: UnixMs,
    /// Afterwards it is refused.
    pub expires: UnixMs,
    /// How often it may still be used.
    pub uses_left: u32,
}

/// A token of the admin listener to be remembered: never the token itself.
#[derive(Debug, Clone)]
pub struct NewAdminToken {
    /// BLAKE3 of the token.
    pub hash: [u8; 32],
    /// What it allows, by the name that the admin service has for it.
    pub role: &'static str,
    /// For the operator; may be empty.
    pub label: String,
    /// Afterwards it is refused.
    pub expires: UnixMs,
}

/// A token of the admin listener as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Its number.
    pub id: u64,
    /// What it allows, by the name that the admin service has for it.
    pub role: String,
    /// For the operator.
    pub label: String,
    /// When it was made.
    pub created: UnixMs,
    /// Afterwards it is refused.
    pub expires: UnixMs,
    /// When it was last used, within a minute.
    pub used: Option<UnixMs>,
}
