//! What this instance itself knows of a peer: its entry, its grants, its last refusal, its session. Pure.

use opmesh_core::model::{KeyId, Modno, UnixMs};

use super::check::{Check, CheckId, Side};
use super::grants::{Known, grants};
use super::words;
use crate::node::{Seat, Standing};
use crate::store::{Peer, Refusal, Role};

/// How the peer stands in the list, whatever its role. Empty names are never shown.
pub(super) fn listed(peer: &Peer, role: Role, now: UnixMs) -> Vec<Check> {
    let mut checks = vec![entry(peer, role), blocked(peer), verified(peer)];
    checks.extend(pairing(peer, role, now));
    checks.extend(refusal(peer, role, now));
    checks
}

/// Whether the peer is let in or dialled at all.
pub(super) fn is_welcome(peer: &Peer) -> bool {
    peer.blocked.is_none() && peer.verified
}

fn entry(peer: &Peer, role: Role) -> Check {
    let seen = match role {
        Role::KnownHost => {
            format!("a hub of this host at {}, key {}", words::list(&peer.dial.urls), peer.key)
        }
        Role::AuthorizedClient => format!("a host that dials this hub, key {}", peer.key),
    };
    Check::ok(CheckId::Entry, Side::Here, seen)
}

fn blocked(peer: &Peer) -> Check {
    match &peer.blocked {
        None => Check::ok(CheckId::Blocked, Side::Here, "not blocked here"),
        Some(reason) => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            let seen = format!("it is blocked here{reason}; this side refuses it");
            Check::fail(CheckId::Blocked, Side::Here, seen, format!("`opmesh peer unblock {}`", peer.name))
        }
    }
}

fn verified(peer: &Peer) -> Check {
    if peer.verified {
        return Check::ok(CheckId::Verified, Side::Here, "somebody vouched for its key");
    }
    let next = format!(
        "compare key IDs with its operator (`opmesh key show` there), then `opmesh peer verify {} --key-id {}`",
        peer.name, peer.key
    );
    let seen = "nobody here has vouched for its key; this side refuses it";
    Check::fail(CheckId::Verified, Side::Here, seen, next)
}

fn pairing(peer: &Peer, role: Role, now: UnixMs) -> Option<Check> {
    let joining = peer.joining.as_ref().filter(|_| role == Role::KnownHost)?;
    let next = "make a new token with `opmesh pair token` on the hub, then `opmesh pair join` here";
    if joining.expires <= now {
        let seen = format!(
            "the pairing token expired {}, before the hub was reached",
            words::ago(joining.expires, now)
        );
        return Some(Check::fail(CheckId::Pairing, Side::Here, seen, next));
    }
    let seen = format!("the pairing token waits to be used, until {}", words::ago(joining.expires, now));
    Some(Check::warning(
        CheckId::Pairing,
        Side::Here,
        seen,
        "leave `opmesh serve` running here; if the hub turns this host away, make a new token there",
    ))
}

/// Why a client was turned away here, unless it was let in since or what was said before explains it.
fn refusal(peer: &Peer, role: Role, now: UnixMs) -> Option<Check> {
    let (refusal, at) = peer.refused.filter(|_| role == Role::AuthorizedClient && is_welcome(peer))?;
    let seen = format!("this hub turned it away {}: {}", words::ago(at, now), refusal.advice());
    Some(Check::fail(CheckId::Refusal, Side::Here, seen, way_in(refusal, &peer.key, &peer.name)))
}

/// A key that is no peer.
pub(super) fn stranger(key: &KeyId, last: Option<(Refusal, UnixMs, String)>, now: UnixMs) -> Vec<Check> {
    let Some((refusal, at, instance)) = last else {
        let next = format!(
            "if it should be let in: `opmesh pair token` here and `opmesh pair join` there; compare {key} with \
             `opmesh key show` there"
        );
        let seen = "no peer has this key, and no refusal of it is recorded";
        return vec![Check::fail(CheckId::Entry, Side::Here, seen, next)];
    };
    let seen = format!(
        "this hub turned it away {}, under the name {instance}: {}",
        words::ago(at, now),
        refusal.advice()
    );
    vec![
        Check::skipped(CheckId::Entry, Side::Here, "no peer has this key"),
        Check::fail(CheckId::Refusal, Side::Here, seen, way_in(refusal, key, &instance)),
    ]
}

/// What lets a key in that was turned away.
fn way_in(refusal: Refusal, key: &KeyId, name: &str) -> String {
    match refusal {
        Refusal::Unknown => format!(
            "`opmesh pair token` here and `opmesh pair join` there; or, once you have compared key IDs, `opmesh peer \
             add --key-id {key}` and `opmesh peer verify {key} --key-id {key}`"
        ),
        Refusal::NotAClient | Refusal::TokenUnknown | Refusal::TokenExpired | Refusal::TokenSpent => {
            "a new token: `opmesh pair token` here, then `opmesh pair join` there".to_owned()
        }
        Refusal::Unverified => format!("compare key IDs, then `opmesh peer verify {name} --key-id {key}`"),
        Refusal::Blocked => format!("`opmesh peer unblock {name}`"),
        Refusal::InstanceTaken => {
            "`opmesh peer remove` the entry that has this instance id, if that machine is gone; else give one of the \
             two another id: a new data directory and `opmesh init --instance-id`"
                .to_owned()
        }
        Refusal::Retired => format!(
            "another key stands for this one: if it was adopted by mistake, `opmesh peer adopt {key} --undo`; if its \
             owner rotated it, that machine runs an old copy of the identity"
        ),
        Refusal::OwnKey => {
            "the identity was copied: give that machine one of its own, a new data directory and `opmesh init`".to_owned()
        }
        Refusal::ByHub => format!("on the hub {name} run `opmesh doctor`"),
    }
}

/// What a client lets this hub read, and what of it this hub takes in.
pub(super) fn client_grants(peer: &Peer, own: &KeyId) -> Vec<Check> {
    if peer.last_seen.is_none() && peer.received.is_empty() {
        let seen = "what it shares is known once it has connected";
        return vec![Check::skipped(CheckId::Grants, Side::Peer, seen)];
    }
    grants(Known {
        role: Role::AuthorizedClient,
        name: &peer.name,
        own,
        given: &peer.given,
        received: &peer.received,
        accepted: Some(&peer.accepts),
    })
}

/// What this hub does with what a client sends.
pub(super) fn client_standing(peer: &Peer) -> Check {
    let (id, name) = (CheckId::Standing, &peer.name);
    let Some(replica) = peer.replica else {
        return Check::skipped(id, Side::Here, "nothing has come from it yet");
    };
    if replica.conflict {
        let seen = "two histories of its identity were presented, and neither is applied";
        let next = format!(
            "find out which machine has the right database, then `opmesh peer resolve {name} --accept-presented` or \
             `--refuse`"
        );
        return Check::fail(id, Side::Here, seen, next);
    }
    if replica.quarantined.is_some() {
        let next = format!(
            "`opmesh hosts verify {name}`, and there `opmesh hosts verify --all`; then `opmesh hosts release {name}`"
        );
        return Check::fail(id, Side::Here, "in quarantine: repairs kept ending unequal", next);
    }
    if replica.guarded > 0 {
        let seen = format!("{} deletes were held back: too many at once", replica.guarded);
        return Check::warning(id, Side::Here, seen, format!("look at `opmesh hosts parked {name}`"));
    }
    let doing = if replica.catching_up { "comparing and catching up" } else { "all that came was taken" };
    Check::ok(id, Side::Here, format!("{} operations lie here, {doing}", replica.set.count()))
}

/// Peers with whom nothing is the matter.
pub(super) fn all_well(names: &[String]) -> Check {
    let seen = match names.len() {
        0 => "no other peer is listed".to_owned(),
        1..=NAMED => format!("all is well with {}", words::list(names)),
        count => format!("all is well with {count} peers"),
    };
    Check::ok(CheckId::Entry, Side::Here, seen)
}

/// Healthy peers that are named; more are counted.
const NAMED: usize = 8;

/// How the session stands in the daemon, whose own log's head is given; without one nothing is known.
pub(super) fn connection(peer: &Peer, role: Role, seat: &Seat, daemon: Option<Modno>, now: UnixMs) -> Check {
    let id = CheckId::Connection;
    let seen_last = peer.last_seen.map_or_else(
        || "it was never connected".to_owned(),
        |seen| format!("it was last seen {}", words::ago(seen, now)),
    );
    let Some(head) = daemon else {
        let seen = format!("no daemon runs here that would be connected; {seen_last}");
        return Check::warning(id, Side::Here, seen, "start `opmesh serve`, best by the service manager");
    };
    let why = if seat.reason.is_empty() { String::new() } else { format!(": {}", seat.reason) };
    match seat.standing {
        Standing::Live => Check::ok(id, Side::Here, "connected, nothing is missing"),
        Standing::CatchingUp => {
            Check::ok(id, Side::Here, format!("connected, catching up{}", lag(peer, role, seat, head)))
        }
        Standing::IdentityConflict => {
            let next = match role {
                Role::KnownHost => {
                    "find out which machine has the right database; the hub's operator decides".to_owned()
                }
                Role::AuthorizedClient => {
                    format!("`opmesh peer resolve {}`, once you know which copy is right", peer.name)
                }
            };
            Check::fail(id, Side::Peer, format!("identity conflict{why}"), next)
        }
        Standing::Refused => {
            let next = "the checks before this one name the reason, or the hub's `opmesh doctor` does";
            Check::warning(id, Side::Peer, format!("the last attempt was refused{why}"), next)
        }
        Standing::OtherKey | Standing::Offline | Standing::Connecting => {
            let next = match role {
                Role::KnownHost => "if all else here is well, it connects within 5 minutes".to_owned(),
                Role::AuthorizedClient => {
                    format!("run `opmesh doctor` on {}: it dials, this hub cannot", peer.name)
                }
            };
            Check::warning(id, Side::Network, format!("not connected, {seen_last}{why}"), next)
        }
    }
}

/// How much a hub of ours lacks, in words to be appended.
fn lag(peer: &Peer, role: Role, seat: &Seat, head: Modno) -> String {
    let acked = seat.acked.or(peer.progress.map(|progress| progress.acked));
    match (role, acked) {
        (Role::KnownHost, Some(acked)) => {
            format!(", {} changes behind", head.get().saturating_sub(acked.modno.get()))
        }
        (Role::KnownHost, None) => format!(", {} changes behind", head.get()),
        (Role::AuthorizedClient, _) => String::new(),
    }
}
