//! How this instance stands: its log, its store, its daemon, and every peer in every role.

use opmesh_core::model::{Position, UnixMs};
use opmesh_core::permission::{self, Grant, Grants, Said, Side};

use super::show;
use crate::admin::error::Failure;
use crate::admin::pb;
use crate::node::{Node, Seat, ServeFile, Standing};
use crate::store::{Peer, Role};

/// This program's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What stands in front of the reason of a peer that a new key waits for.
const UNCONFIRMED: &str = "has not confirmed this instance's new key, see `opmesh key rotate --status`";

pub(super) async fn status(node: &Node) -> Result<pb::StatusReply, Failure> {
    let facts = node.store().facts().await?;
    let moment = Moment { head: facts.head, now: node.clock().wall() };
    let peers = node.store().peers().await?;
    Ok(pb::StatusReply {
        instance_id: node.instance().to_string(),
        key_id: node.identity().key_id().to_string(),
        version: VERSION.to_owned(),
        daemon: Some(daemon(node)),
        position: Some(show::position(&facts.head)),
        digest: show::digest(&facts.set),
        count: facts.set.count(),
        store: Some(pb::StoreStatus {
            engine: facts.engine.to_owned(),
            schema: facts.schema,
            path: facts.path.display().to_string(),
        }),
        peers: peers.iter().flat_map(|peer| of_peer(node, peer, moment)).collect(),
        next_key_id: node.next_key().map(|key| key.key_id().to_string()),
    })
}

fn daemon(node: &Node) -> pb::Daemon {
    let Some(serving) = node.serving() else { return pb::Daemon::default() };
    let ServeFile { ready: running, pid, listen, web, admin_socket, admin_listen } = serving.clone();
    let listener = |listener: crate::node::Listener| pb::Listener {
        channel: listener.channel,
        address: listener.address,
    };
    pb::Daemon {
        running,
        pid: Some(pid),
        since_unix_ms: Some(node.since().0),
        listen: listen.into_iter().map(listener).collect(),
        web,
        admin_socket: Some(admin_socket),
        admin_listen,
    }
}

/// What all entries of one status are measured against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The own log's last change.
    pub(super) head: Position,
    pub(super) now: UnixMs,
}

/// One entry for each role of the peer.
pub(super) fn of_peer(node: &Node, peer: &Peer, moment: Moment) -> Vec<pb::PeerStatus> {
    roles(peer)
        .into_iter()
        .map(|role| {
            let entry = entry(peer, role, &node.live().seat(&peer.key, role), moment);
            match node.next_key() {
                Some(next) if peer.keys.knows != Some(next) && peer.blocked.is_none() => {
                    let also = if entry.reason.is_empty() { "" } else { "; " };
                    let reason = format!("{UNCONFIRMED}{also}{}", entry.reason);
                    pb::PeerStatus { reason, ..entry }
                }
                _ => entry,
            }
        })
        .collect()
}

/// The peer's roles in the order in which they are shown.
pub(super) fn roles(peer: &Peer) -> Vec<Role> {
    let known = peer.roles.known_host.then_some(Role::KnownHost);
    let client = peer.roles.authorized_client.then_some(Role::AuthorizedClient);
    known.into_iter().chain(client).collect()
}

/// The role's name in JSON.
pub(super) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::KnownHost => "known_host",
        Role::AuthorizedClient => "authorized_client",
    }
}

fn entry(peer: &Peer, role: Role, seat: &Seat, moment: Moment) -> pb::PeerStatus {
    let (state, reason) = state(peer, role, seat);
    let held = held(peer, role, seat, moment);
    pb::PeerStatus {
        key_id: peer.key.to_string(),
        instance_id: peer.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: peer.name.clone(),
        role: role_name(role).to_owned(),
        verified: peer.verified,
        state: state.to_owned(),
        reason,
        last_seen_unix_ms: show::ms(peer.last_seen),
        grants: Some(grants(peer, role, seat)),
        position: held.position.as_ref().map(show::position),
        digest: held.digest,
        count: held.count,
        lag: held.lag,
        in_sync: held.in_sync,
    }
}

fn grants(peer: &Peer, role: Role, seat: &Seat) -> pb::Grants {
    let unmet = if was_met(peer, seat) { unmet(peer, role, seat) } else { Vec::new() };
    pb::Grants { given: peer.given.to_strings(), received: peer.received.clone(), unmet }
}

/// Where the two sides' grants do not meet, one line each.
fn unmet(peer: &Peer, role: Role, seat: &Seat) -> Vec<String> {
    // A type of a newer program is none that could meet one of ours.
    let known = peer.received.iter().filter_map(|text| text.parse::<Grant>().ok());
    let received: Grants = known.collect();
    let (side, accepted) = match role {
        Role::KnownHost => (Side::Owner, seat.accepted.as_ref()),
        Role::AuthorizedClient => (Side::Hub, Some(&peer.accepts)),
    };
    let said = Said { side, given: &peer.given, received: &received, accepted };
    permission::unmet(said).iter().map(ToString::to_string).collect()
}

/// Whether a handshake with this peer was ever completed: before, it has said nothing.
fn was_met(peer: &Peer, seat: &Seat) -> bool {
    peer.last_seen.is_some() || seat.met
}

/// As in the entries of its roles, together.
pub(super) fn grants_of(peer: &Peer, entries: &[pb::PeerStatus]) -> pb::Grants {
    let mut unmet: Vec<String> = Vec::new();
    for line in entries.iter().filter_map(|entry| entry.grants.as_ref()).flat_map(|grants| &grants.unmet) {
        if !unmet.contains(line) {
            unmet.push(line.clone());
        }
    }
    pb::Grants { given: peer.given.to_strings(), received: peer.received.clone(), unmet }
}

/// The first that applies: what an operator must decide comes before what the network does.
fn state(peer: &Peer, role: Role, seat: &Seat) -> (&'static str, String) {
    if let Some(why) = &peer.blocked {
        return ("blocked", why.clone());
    }
    if !peer.verified {
        return (
            "unverified",
            format!("compare key IDs, then `opmesh peer verify {} --key-id …`", peer.name),
        );
    }
    if let Some(decision) = decision(peer, role) {
        return decision;
    }
    match seat.standing {
        Standing::Connecting => ("connecting", seat.reason.clone()),
        Standing::CatchingUp => ("catching_up", seat.reason.clone()),
        Standing::Live => ("live", quiet(peer, role)),
        Standing::IdentityConflict => ("identity_conflict", seat.reason.clone()),
        Standing::Refused | Standing::OtherKey => ("refused", seat.reason.clone()),
        Standing::Offline => match &peer.refused {
            Some((refusal, _)) => ("refused", refusal.advice().to_owned()),
            None if peer.last_seen.is_none() => ("never_connected", seat.reason.clone()),
            None => ("offline", seat.reason.clone()),
        },
    }
}

/// A live session may have little to do: say so where it would surprise.
fn quiet(peer: &Peer, role: Role) -> String {
    match role {
        Role::KnownHost if peer.given.is_empty() => "grants nothing".to_owned(),
        Role::KnownHost | Role::AuthorizedClient => String::new(),
    }
}

fn decision(peer: &Peer, role: Role) -> Option<(&'static str, String)> {
    let replica = peer.replica.filter(|_| role == Role::AuthorizedClient)?;
    let name = &peer.name;
    if replica.conflict {
        let text = format!(
            "it presented a history that was superseded; find out which copy is the right one, then `opmesh peer resolve {name}`"
        );
        return Some(("identity_conflict", text));
    }
    if replica.quarantined.is_some() {
        let text = format!("repairs kept ending unequal; look into it, then `opmesh hosts release {name}`");
        return Some(("quarantined", text));
    }
    let guarded = replica.guarded;
    let text = || format!("{guarded} deletes were held back; look at `opmesh hosts parked {name}`");
    (guarded > 0).then(|| ("needs_decision", text()))
}

#[derive(Debug, Default)]
struct Held {
    position: Option<Position>,
    digest: Option<String>,
    count: Option<u64>,
    lag: Option<pb::Lag>,
    in_sync: Option<bool>,
}

fn held(peer: &Peer, role: Role, seat: &Seat, moment: Moment) -> Held {
    let met = was_met(peer, seat);
    match role {
        Role::KnownHost => hub_held(peer, seat, moment, met),
        Role::AuthorizedClient => owner_held(peer, seat, moment, met),
    }
}

/// A hub of ours: what it has acknowledged, and what was last proved equal.
fn hub_held(peer: &Peer, seat: &Seat, moment: Moment, met: bool) -> Held {
    let stored = peer.progress;
    let acked = seat.acked.or(stored.map(|progress| progress.acked));
    let proved = seat.proved.or(stored.and_then(|progress| progress.proved));
    let behind = acked
        .map_or(moment.head.modno.get(), |acked| moment.head.modno.get().saturating_sub(acked.modno.get()));
    let since = seat.behind_since.or(peer.last_seen).filter(|_| behind > 0);
    let ms = age_ms(since, moment.now);
    Held {
        position: acked,
        digest: proved.map(|(_, set)| show::digest(&set)),
        count: proved.map(|(_, set)| set.count()),
        lag: met.then_some(pb::Lag { operations: behind, ms }),
        in_sync: met.then(|| is_live(peer, seat) && proved.is_some_and(|(at, _)| at == moment.head)),
    }
}

/// How long something has been missing; 0 when nothing is.
fn age_ms(since: Option<UnixMs>, now: UnixMs) -> i64 {
    since.map_or(0, |since| i64::try_from(now.since(since)).unwrap_or(i64::MAX))
}

/// Only a hub that is connected can say that it still holds what it once proved to hold.
fn is_live(peer: &Peer, seat: &Seat) -> bool {
    seat.standing == Standing::Live && peer.is_trusted()
}

/// An owner: the rows that lie here. How far it is ahead is what it last said; once it has gone, only it knows.
fn owner_held(peer: &Peer, seat: &Seat, moment: Moment, met: bool) -> Held {
    let Some(replica) = peer.replica else {
        return Held { in_sync: met.then_some(false), ..Held::default() };
    };
    let equal = is_live(peer, seat) && seat.equal;
    let connected = matches!(seat.standing, Standing::CatchingUp | Standing::Live);
    let ahead = seat.owner_at.filter(|_| connected && met);
    let lag = ahead.map(|at| {
        let operations = at.modno.get().saturating_sub(replica.cursor.modno.get());
        let since = seat.behind_since.filter(|_| operations > 0);
        pb::Lag { operations, ms: age_ms(since, moment.now) }
    });
    Held {
        position: Some(replica.cursor),
        digest: Some(show::digest(&replica.set)),
        count: Some(replica.set.count()),
        lag: if met && equal { Some(pb::Lag { operations: 0, ms: 0 }) } else { lag },
        in_sync: met.then_some(equal),
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::{Chain, Modno, PublicKey, SetDigest};
    use opmesh_core::permission::{Grants, Scopes};

    use super::*;
    use crate::store::{Dial, HubProgress, Refusal, ReplicaFacts, Roles};

    fn peer() -> Peer {
        Peer {
            key: PublicKey([1; 32]).key_id(),
            public_key: None,
            name: "p".into(),
            instance: None,
            roles: Roles { known_host: true, authorized_client: true },
            verified: true,
            blocked: None,
            dial: Dial::default(),
            given: Grants::parse(["READ_OPERATIONS:*"]).unwrap(),
            received: Vec::new(),
            accepts: Scopes::everything(),
            last_seen: None,
            refused: None,
            progress: None,
            replica: None,
            joining: None,
            keys: crate::store::PeerKeys::default(),
        }
    }

    fn at(modno: u64) -> Position {
        Position { modno: Modno::new(modno).unwrap(), chain: Chain([7; 16]) }
    }

    fn facts() -> ReplicaFacts {
        ReplicaFacts {
            cursor: at(3),
            set: SetDigest::EMPTY,
            guarded: 0,
            quarantined: None,
            conflict: false,
            catching_up: false,
        }
    }

    fn state_of(peer: &Peer, role: Role, standing: Standing) -> &'static str {
        state(peer, role, &Seat { standing, ..Seat::default() }).0
    }

    #[test]
    fn what_an_operator_must_decide_comes_before_what_the_network_does() {
        let client = Role::AuthorizedClient;
        let with = |replica| Peer { replica: Some(replica), ..peer() };
        let guarded = with(ReplicaFacts { guarded: 2, ..facts() });
        let quarantined = with(ReplicaFacts { quarantined: Some(UnixMs(1)), ..facts() });
        let conflict = with(ReplicaFacts { conflict: true, quarantined: Some(UnixMs(1)), ..facts() });
        let blocked = Peer { blocked: Some("why".into()), verified: false, ..conflict.clone() };
        let unverified = Peer { verified: false, ..conflict.clone() };
        let refused = Peer { refused: Some((Refusal::TokenSpent, UnixMs(1))), ..peer() };
        let seen = Peer { last_seen: Some(UnixMs(1)), ..peer() };
        for (peer, role, standing, expected) in [
            (&blocked, client, Standing::Live, "blocked"),
            (&unverified, client, Standing::Live, "unverified"),
            (&conflict, client, Standing::Live, "identity_conflict"),
            (&quarantined, client, Standing::Live, "quarantined"),
            (&guarded, client, Standing::Live, "needs_decision"),
            (&guarded, Role::KnownHost, Standing::Live, "live"),
            (&refused, client, Standing::Offline, "refused"),
            (&refused, client, Standing::CatchingUp, "catching_up"),
            (&peer(), client, Standing::Offline, "never_connected"),
            (&seen, client, Standing::Offline, "offline"),
        ] {
            assert_eq!(state_of(peer, role, standing), expected);
        }
    }

    #[test]
    fn lag_and_in_sync_say_nothing_about_a_peer_that_was_never_met() {
        let moment = Moment { head: at(9), now: UnixMs(1000) };
        let never = entry(&peer(), Role::KnownHost, &Seat::default(), moment);
        assert_eq!((never.lag, never.in_sync), (None, None));
        let progress = HubProgress { acked: at(7), proved: Some((at(7), SetDigest::EMPTY)) };
        let seen = Peer { last_seen: Some(UnixMs(400)), progress: Some(progress), ..peer() };
        let behind = entry(&seen, Role::KnownHost, &Seat::default(), moment);
        assert_eq!(behind.lag, Some(pb::Lag { operations: 2, ms: 600 }));
        assert_eq!(behind.in_sync, Some(false));
        let moment = Moment { head: at(7), now: UnixMs(1000) };
        let live = Seat { standing: Standing::Live, ..Seat::default() };
        let equal = entry(&seen, Role::KnownHost, &live, moment);
        assert_eq!((equal.lag, equal.in_sync), (Some(pb::Lag { operations: 0, ms: 0 }), Some(true)));
    }

    #[test]
    fn an_owners_lag_is_what_it_last_said_while_it_is_connected() {
        let moment = Moment { head: at(0), now: UnixMs(1000) };
        let owner = Peer { last_seen: Some(UnixMs(400)), replica: Some(facts()), ..peer() };
        let seat = |standing| Seat {
            standing,
            owner_at: Some(at(8)),
            behind_since: Some(UnixMs(700)),
            ..Seat::default()
        };
        let lag = |standing| entry(&owner, Role::AuthorizedClient, &seat(standing), moment).lag;
        assert_eq!(lag(Standing::CatchingUp), Some(pb::Lag { operations: 5, ms: 300 }));
        assert_eq!(lag(Standing::Live), Some(pb::Lag { operations: 5, ms: 300 }));
        assert_eq!(lag(Standing::Offline), None);
        let equal = Seat { equal: true, ..seat(Standing::Live) };
        let entry = entry(&owner, Role::AuthorizedClient, &equal, moment);
        assert_eq!(entry.lag, Some(pb::Lag { operations: 0, ms: 0 }));
    }

    #[test]
    fn where_grants_do_not_meet_is_said_once_both_sides_have_spoken() {
        let moment = Moment { head: at(0), now: UnixMs(1000) };
        let unmet = |peer: &Peer, role, seat: &Seat| entry(peer, role, seat, moment).grants.unwrap().unmet;
        let narrow = Peer {
            accepts: "plan:x".parse().unwrap(),
            received: vec!["READ_OPERATIONS:repo:y".into(), "SOMETHING_NEW:*".into()],
            ..peer()
        };
        let client = Role::AuthorizedClient;
        assert_eq!(unmet(&narrow, client, &Seat::default()), Vec::<String>::new());
        let met = Seat { met: true, accepted: Some("repo:z".parse().unwrap()), ..Seat::default() };
        assert_eq!(
            unmet(&narrow, client, &met),
            ["READ_OPERATIONS: it grants repo:y, we accept plan:x; only what is in both is sent"]
        );
        assert_eq!(
            unmet(&narrow, Role::KnownHost, &met),
            ["READ_OPERATIONS: we grant *, it accepts repo:z; only what is in both is sent"]
        );
    }

    #[test]
    fn only_a_peer_that_is_connected_and_let_in_is_in_sync() {
        let moment = Moment { head: at(7), now: UnixMs(1000) };
        let progress = HubProgress { acked: at(7), proved: Some((at(7), SetDigest::EMPTY)) };
        let good =
            Peer { last_seen: Some(UnixMs(400)), progress: Some(progress), replica: Some(facts()), ..peer() };
        let blocked = Peer { blocked: Some(String::new()), ..good.clone() };
        for role in [Role::KnownHost, Role::AuthorizedClient] {
            let in_sync = |peer: &Peer, standing| {
                entry(peer, role, &Seat { standing, equal: true, ..Seat::default() }, moment).in_sync
            };
            assert_eq!(in_sync(&good, Standing::Live), Some(true));
            assert_eq!(in_sync(&blocked, Standing::Live), Some(false));
            for standing in [
                Standing::Offline,
                Standing::Connecting,
                Standing::CatchingUp,
                Standing::Refused,
                Standing::OtherKey,
                Standing::IdentityConflict,
            ] {
                assert_eq!(in_sync(&good, standing.clone()), Some(false), "{standing:?}");
            }
        }
    }

    #[test]
    fn a_live_hub_that_may_read_nothing_is_pointed_out() {
        let nothing = Peer { given: Grants::default(), ..peer() };
        let (name, reason) =
            state(&nothing, Role::KnownHost, &Seat { standing: Standing::Live, ..Seat::default() });
        assert_eq!((name, reason.as_str()), ("live", "grants nothing"));
    }
}
