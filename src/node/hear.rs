//! What sessions report becomes what `status` shows.

use opmesh_core::model::{Position, UnixMs};
use opmesh_core::protocol::{Comparison, EndReason, Proposal};
use opmesh_core::replica::Committed;
use opmesh_core::session::{Finish, Report};
use tokio::sync::mpsc;

use super::Node;
use super::live::{Seat, Standing};
use crate::store::Role;
use crate::transport::{DialError, Ending, IDENTITY_CONFLICT, SessionEvent, SessionNews};

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
    node.live().update(peer, role, |seat| seat.hear(news, head, now));
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
            SessionNews::Connected { .. } => {
                self.standing = Standing::CatchingUp;
                self.reason.clear();
                self.met = true;
            }
            SessionNews::Report(report) => self.report(report, head, now),
            SessionNews::Ended(ending) => self.end(&ending),
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
            Report::Applied(committed) => self.applied(&committed),
        }
    }

    /// At a hub: what a frame of the owner's did.
    fn applied(&mut self, committed: &Committed) {
        match committed {
            Committed::Judged { proposal: Proposal::InSync, .. }
            | Committed::Marked { outcome: Comparison::Equal, .. } => {
                self.standing = Standing::Live;
                self.equal = true;
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
                self.equal &= applied.stored == 0 && applied.removed == 0 && applied.guarded == 0;
            }
            Committed::Dropped { .. } => {}
        }
    }

    fn end(&mut self, ending: &Ending) {
        self.standing = match ending {
            // The session that took over has the seat now.
            Ending::Finished(Finish::Closed(EndReason::Displaced)) => return,
            Ending::TurnedAway(_) | Ending::Refused(_) => Standing::Refused,
            Ending::Dial(DialError::OtherKey { .. }) => Standing::OtherKey,
            Ending::Rivals => Standing::IdentityConflict,
            Ending::HubError { text, .. } if text.starts_with(IDENTITY_CONFLICT) => {
                Standing::IdentityConflict
            }
            Ending::Finished(_)
            | Ending::Wire(_)
            | Ending::Handshake(_)
            | Ending::HandshakeTimeout
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

    /// Notes since when the hub lacks something, or that it lacks nothing.
    fn measure(&mut self, head: Position, now: UnixMs) {
        let has_all = self.acked.is_some_and(|acked| acked.modno >= head.modno);
        self.behind_since = if has_all { None } else { self.behind_since.or(Some(now)) };
    }
}
