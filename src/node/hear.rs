//! What sessions report becomes what `status` shows.

use opmesh_core::model::{Position, UnixMs};
use opmesh_core::protocol::{Comparison, EndReason, Proposal, Violation};
use opmesh_core::replica::Committed;
use opmesh_core::session::{Finish, Report};
use tokio::sync::mpsc;

use super::Node;
use super::live::{Seat, Standing};
use crate::store::Role;
use crate::transport::{Ending, IDENTITY_CONFLICT, SessionEvent, SessionNews};

/// Follows sessions until the node closes.
pub(super) async fn hear_sessions(node: Node, mut events: mpsc::Receiver<SessionEvent>) {
    let head = node.store().head();
    let hearing = async {
        while let Some(event) = events.recv().await {
            let position = *head.borrow();
            heard(&node, event, position);
        }
    };
    node.stopping().run_until_cancelled(hearing).await;
}

/// Follows the own log until the node closes: after a new change, every hub that had everything lacks something.
pub(super) async fn hear_own_log(node: Node) {
    let mut head = node.store().head();
    let hearing = async {
        while head.changed().await.is_ok() {
            let (position, now) = (*head.borrow_and_update(), node.clock().wall());
            node.live().update_all(Role::KnownHost, |seat| seat.measure(position, now));
        }
    };
    node.stopping().run_until_cancelled(hearing).await;
}

fn heard(node: &Node, event: SessionEvent, head: Position) {
    let now = node.clock().wall();
    let SessionEvent { peer, role, news } = event;
    match &news {
        SessionNews::Dialing | SessionNews::Connected { .. } => {
            node.live().update(peer, role, |seat| seat.hear(news, head, now));
        }
        SessionNews::Report(_)
        | SessionNews::Offered(_)
        | SessionNews::Carried { .. }
        | SessionNews::Ended(_) => {
            node.live().update_known(peer, role, |seat| seat.hear(news, head, now));
        }
    }
}

impl Seat {
    fn hear(&mut self, news: SessionNews, head: Position, now: UnixMs) {
        match news {
            SessionNews::Dialing => {
                // What an operator must see stays until a session shows otherwise.
                if self.standing == Standing::Offline {
                    self.standing = Standing::Connecting;
                }
            }
            SessionNews::Connected { accepted, .. } => {
                self.standing = Standing::CatchingUp;
                (self.owner_at, self.held) = (None, None);
                self.accepted = Some(accepted);
                self.reason.clear();
                self.met = true;
                self.offered = None;
                self.history.began(now);
            }
            SessionNews::Offered(offered) => self.offered = Some(offered),
            SessionNews::Report(report) => self.report(report, head, now),
            SessionNews::Carried { sent_bytes, received_bytes } => {
                self.history.carried(sent_bytes, received_bytes);
            }
            SessionNews::Ended(ending) => {
                self.history.ended(&ending, now);
                self.end(&ending);
            }
        }
    }

    fn report(&mut self, report: Report, head: Position, now: UnixMs) {
        match report {
            Report::Verdict(Proposal::InSync) | Report::CaughtUp(_) => self.standing = Standing::Live,
            Report::Verdict(Proposal::Resume { .. } | Proposal::Diff { .. } | Proposal::Restream)
            | Report::Fork { .. }
            | Report::Differs(_) => self.standing = Standing::CatchingUp,
            Report::Acked(position) => {
                self.acked = Some(position);
                self.measure(head, now);
            }
            Report::Proved { position, set } => {
                self.standing = Standing::Live;
                self.proved = Some((position, set));
                self.acked = Some(self.acked.map_or(position, |acked| acked.later(position)));
                self.measure(head, now);
            }
            Report::OwnerAt(position) => {
                self.owner_at = Some(position);
                self.measure_owner(now);
            }
            Report::Applied(committed) => self.applied(&committed, now),
        }
    }

    /// At a hub: what a frame of the owner's did.
    fn applied(&mut self, committed: &Committed, now: UnixMs) {
        match committed {
            Committed::Judged { proposal: Proposal::InSync, .. } => {
                self.standing = Standing::Live;
                self.equal = true;
                self.held = self.owner_at;
            }
            Committed::Marked { outcome: Comparison::Equal, position, .. } => {
                self.standing = Standing::Live;
                self.equal = true;
                self.held = Some(*position);
            }
            Committed::Judged { proposal: Proposal::Resume { cursor }, .. } => {
                self.standing = Standing::CatchingUp;
                self.equal = false;
                self.held = Some(*cursor);
            }
            Committed::Judged { .. } | Committed::Marked { .. } | Committed::Forked { .. } => {
                self.standing = Standing::CatchingUp;
                self.equal = false;
            }
            Committed::Conflict { .. } => {
                self.standing = Standing::IdentityConflict;
                self.equal = false;
            }
            Committed::Applied(applied) => {
                self.held = Some(applied.cursor);
                self.equal &= applied.stored == 0 && applied.removed == 0 && applied.guarded == 0;
            }
            Committed::Dropped { .. } => {}
        }
        self.measure_owner(now);
    }

    fn end(&mut self, ending: &Ending) {
        self.standing = match ending {
            // The session that took over has the seat now.
            Ending::Finished(Finish::Closed(EndReason::Displaced)) => return,
            Ending::TurnedAway(_)
            | Ending::Refused(_)
            | Ending::Finished(Finish::PeerEnded(EndReason::Revoked)) => Standing::Refused,
            _ if ending.other_key().is_some() => Standing::OtherKey,
            Ending::Rivals | Ending::Finished(Finish::Violation(Violation::SupersededIncarnation { .. })) => {
                Standing::IdentityConflict
            }
            Ending::HubError { text, .. } if text.starts_with(IDENTITY_CONFLICT) => {
                Standing::IdentityConflict
            }
            Ending::Finished(_)
            | Ending::Wire(_)
            | Ending::OtherChannel { .. }
            | Ending::Seal(_)
            | Ending::Handshake(_)
            | Ending::HandshakeTimeout
            | Ending::TooOften
            | Ending::NotReading
            | Ending::Interrupted(_)
            | Ending::HubError { .. }
            | Ending::Dial(_)
            | Ending::Address(_)
            | Ending::Store(_)
            | Ending::Randomness => Standing::Offline,
        };
        self.reason = ending.to_string();
    }

    /// The same for an owner: since when something is missing here, as far as it has said.
    fn measure_owner(&mut self, now: UnixMs) {
        let lacks = self.owner_at.filter(|at| self.held.is_none_or(|held| held.modno < at.modno));
        self.behind_since = lacks.and_then(|_| self.behind_since.or(Some(now)));
    }

    /// Notes since when the hub lacks something, or that it lacks nothing.
    fn measure(&mut self, head: Position, now: UnixMs) {
        let has_all = self.acked.is_some_and(|acked| acked.modno >= head.modno);
        self.behind_since = if has_all { None } else { self.behind_since.or(Some(now)) };
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::handshake::HandshakeFault;
    use opmesh_core::model::{Chain, Incarnation, Modno, PublicKey, SetDigest};
    use opmesh_core::permission::Scopes;

    use super::*;
    use crate::transport::{DialError, OtherKey};

    fn at(modno: u64) -> Position {
        Position { modno: Modno::new(modno).unwrap(), chain: Chain([7; 16]) }
    }

    fn told(seat: &mut Seat, head: u64, now: i64, news: SessionNews) {
        seat.hear(news, at(head), UnixMs(now));
    }

    fn connected() -> SessionNews {
        SessionNews::Connected {
            session: [0; 16],
            instance: "hub".parse().unwrap(),
            grants_received: Vec::new(),
            accepted: Scopes::everything(),
        }
    }

    #[test]
    fn a_hub_is_behind_from_the_first_change_that_it_lacks_until_it_has_acknowledged_all() {
        let mut seat = Seat::default();
        told(&mut seat, 5, 100, connected());
        told(&mut seat, 5, 100, SessionNews::Report(Report::Acked(at(3))));
        told(&mut seat, 6, 200, SessionNews::Report(Report::Acked(at(5))));
        assert_eq!((seat.acked, seat.behind_since), (Some(at(5)), Some(UnixMs(100))));
        told(&mut seat, 6, 300, SessionNews::Report(Report::Acked(at(6))));
        assert_eq!(seat.behind_since, None);
        seat.measure(at(7), UnixMs(400));
        seat.measure(at(8), UnixMs(500));
        assert_eq!(seat.behind_since, Some(UnixMs(400)));
        assert_eq!(seat.standing, Standing::CatchingUp);
        let proved = Report::Proved { position: at(8), set: SetDigest::EMPTY };
        told(&mut seat, 8, 600, SessionNews::Report(proved));
        assert_eq!((seat.standing.clone(), seat.behind_since), (Standing::Live, None));
    }

    #[test]
    fn a_displaced_session_leaves_the_seat_to_the_newer_one() {
        let mut seat = Seat::default();
        told(&mut seat, 0, 0, connected());
        let displaced = Ending::Finished(Finish::Closed(EndReason::Displaced));
        told(&mut seat, 0, 0, SessionNews::Ended(displaced));
        assert_eq!(seat.standing, Standing::CatchingUp);
        let revoked = Ending::Finished(Finish::PeerEnded(EndReason::Revoked));
        told(&mut seat, 0, 0, SessionNews::Ended(revoked));
        assert_eq!(seat.standing, Standing::Refused);
        assert_eq!(seat.reason, "the peer ended the session: no longer let in");
        let shut_down = Ending::Finished(Finish::PeerEnded(EndReason::Shutdown));
        told(&mut seat, 0, 0, SessionNews::Ended(shut_down));
        assert_eq!(seat.standing, Standing::Offline);
    }

    #[test]
    fn what_an_operator_must_see_survives_the_next_attempt() {
        let mut seat = Seat::default();
        let refused = Ending::TurnedAway("not authorized".to_owned());
        told(&mut seat, 0, 0, SessionNews::Ended(refused));
        told(&mut seat, 0, 0, SessionNews::Dialing);
        assert_eq!(seat.standing, Standing::Refused);
        let conflict = format!("{IDENTITY_CONFLICT}: two copies");
        let ended = Ending::HubError { code: "FAILED_PRECONDITION".to_owned(), text: conflict };
        told(&mut seat, 0, 0, SessionNews::Ended(ended));
        assert_eq!(seat.standing, Standing::IdentityConflict);
        told(&mut seat, 0, 0, connected());
        assert_eq!((seat.standing.clone(), seat.reason.as_str()), (Standing::CatchingUp, ""));
    }

    #[test]
    fn two_histories_of_one_identity_are_a_conflict_at_the_hub_and_at_the_owner() {
        let presented = Incarnation::new(5).unwrap();
        let violation = Violation::SupersededIncarnation { presented };
        let text = format!("{IDENTITY_CONFLICT}: {violation}");
        for ending in [
            Ending::Finished(Finish::Violation(violation)),
            Ending::HubError { code: "FailedPrecondition".to_owned(), text },
        ] {
            let mut seat = Seat::default();
            told(&mut seat, 0, 0, connected());
            told(&mut seat, 0, 0, SessionNews::Ended(ending));
            assert_eq!(seat.standing, Standing::IdentityConflict);
        }
    }

    #[test]
    fn another_instance_in_the_hubs_place_is_named_wherever_it_is_noticed() {
        let (expected, presented) = (PublicKey([1; 32]).key_id(), PublicKey([2; 32]).key_id());
        let url = "https://hub".to_owned();
        for ending in [
            Ending::Dial(DialError::OtherKey { url, other: OtherKey { expected, presented } }),
            Ending::Handshake(HandshakeFault::WrongHub { expected, presented }),
        ] {
            let mut seat = Seat::default();
            told(&mut seat, 0, 0, SessionNews::Ended(ending));
            assert_eq!(seat.standing, Standing::OtherKey);
            assert!(seat.reason.contains(&presented.to_string()), "{}", seat.reason);
        }
    }

    #[test]
    fn an_owner_is_ahead_from_what_it_says_until_that_is_here() {
        let mut seat = Seat::default();
        let report = |report| SessionNews::Report(report);
        let brought = |modno| {
            let applied =
                opmesh_core::replica::Applied { cursor: at(modno), stored: 1, removed: 0, guarded: 0 };
            SessionNews::Report(Report::Applied(Box::new(Committed::Applied(applied))))
        };
        told(&mut seat, 0, 100, connected());
        told(&mut seat, 0, 100, report(Report::OwnerAt(at(500))));
        told(&mut seat, 0, 200, brought(256));
        assert_eq!((seat.owner_at, seat.behind_since), (Some(at(500)), Some(UnixMs(100))));
        told(&mut seat, 0, 300, report(Report::OwnerAt(at(501))));
        told(&mut seat, 0, 400, brought(501));
        assert_eq!(seat.behind_since, None);
        told(&mut seat, 0, 500, report(Report::OwnerAt(at(502))));
        assert_eq!(seat.behind_since, Some(UnixMs(500)));
        told(&mut seat, 0, 600, connected());
        assert_eq!(seat.owner_at, None, "a new session says it anew");
    }

    #[test]
    fn an_owners_set_is_equal_until_something_is_applied() {
        let mut seat = Seat::default();
        let report = |committed| SessionNews::Report(Report::Applied(Box::new(committed)));
        let marked = Committed::Marked {
            position: at(1),
            outcome: Comparison::Equal,
            set: SetDigest::EMPTY,
            repair: None,
        };
        told(&mut seat, 0, 0, report(marked));
        assert!(seat.equal && seat.standing == Standing::Live);
        let empty = opmesh_core::replica::Applied { cursor: at(2), stored: 0, removed: 0, guarded: 0 };
        told(&mut seat, 0, 0, report(Committed::Applied(empty.clone())));
        assert!(seat.equal, "changes outside the view alter nothing here");
        told(
            &mut seat,
            0,
            0,
            report(Committed::Applied(opmesh_core::replica::Applied { stored: 1, ..empty })),
        );
        assert!(!seat.equal);
    }
}
