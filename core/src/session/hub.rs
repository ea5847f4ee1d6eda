//! The hub's side: propose, take what comes, make it durable, acknowledge.
//!
//! What a frame does to the rows is decided in [`crate::replica`], inside the transaction. Here is decided which frame
//! may come when, and what may be under way at once. Commits are pipelined: they are performed and answered in the
//! order in which they were asked for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{OpId, Position};
use crate::permission::Scopes;
use crate::protocol::limits::{CREDIT_WINDOW, MANIFESTS_IN_FLIGHT};
use crate::protocol::{
    Ack, Answer, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal, Verdict, Violation,
};
use crate::replica::{Committed, StaleOps, Transaction};

use super::effect::{Compare, Finish, Found, Input, Output, Report};
use super::liveness::Liveness;

/// What a hub's session starts with.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// What this hub takes of the owner's operations, as it said in the handshake.
    pub accepted: Scopes,
}

/// The hub's machine.
#[derive(Debug)]
pub struct Hub {
    accepted: Scopes,
    live: Liveness,
    phase: Phase,
    /// Commits under way, oldest first.
    under_way: VecDeque<UnderWay>,
    /// Repairs started in this session.
    repairs: u64,
    /// Cumulative counts of Ops and Answer frames: allowed, received, done with.
    credit: u64,
    received: u64,
    settled: u64,
}

/// What a commit was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnderWay {
    State,
    Matchpoint,
    Ops {
        /// They may be dropped if more repairs than this were started by the time they are performed.
        repairs: u64,
    },
    Mark,
    /// An Answer after which its manifest is not settled.
    Answer,
    /// The final Answer of a manifest.
    FinalAnswer,
}

#[derive(Debug)]
enum Phase {
    /// The owner has not said where it stands.
    AwaitingState,
    /// Its State is being judged.
    Judging,
    /// The Verdict was sent; instead of what it proposes, a Matchpoint may come.
    Proposed { candidates: Vec<Position>, then: Course },
    /// Ops and Marks.
    Streaming,
    /// A repair was proposed, and the owner has not answered to it: what it sent before it read of it may still come.
    Repairing(Proposal),
    /// Manifests and Answers.
    Diffing(Diffing),
}

/// What a Verdict proposes for the next frames.
#[derive(Debug, Clone, Copy)]
enum Course {
    Stream,
    Diff { done: u64 },
}

impl Phase {
    const fn name(&self) -> &'static str {
        match self {
            Self::AwaitingState => "waiting for State",
            Self::Judging => "judging State",
            Self::Proposed { .. } => "waiting for the answer to the verdict",
            Self::Streaming => "streaming",
            Self::Repairing(_) => "waiting for the answer to a repair",
            Self::Diffing(_) => "a diff is under way",
        }
    }
}

#[derive(Debug)]
struct Diffing {
    /// Where the next manifest must start; none after the last one.
    next: Option<u64>,
    /// Manifests not fully answered and made durable, oldest first.
    manifests: VecDeque<Pending>,
    /// How many of them, from the front, only wait for their last Answer to become durable.
    answered: usize,
    /// A comparison is under way for the first manifest that has none.
    comparing: bool,
}

#[derive(Debug)]
struct Pending {
    manifest: Manifest,
    /// What was asked for; none before the comparison.
    needs: Option<Vec<OpId>>,
    /// The first id that no Answer has settled.
    done: u64,
}

impl Hub {
    /// A session right after the handshake.
    pub fn new(config: HubConfig, now: Duration) -> Self {
        Self {
            accepted: config.accepted,
            live: Liveness::new(now),
            phase: Phase::AwaitingState,
            under_way: VecDeque::new(),
            repairs: 0,
            credit: CREDIT_WINDOW,
            received: 0,
            settled: 0,
        }
    }

    /// Call [`Hub::handle`] with [`Input::Tick`] at this time at the latest.
    pub fn deadline(&self) -> Duration {
        self.live.deadline()
    }

    /// Takes one input; what it leads to is pushed to `out`, in order.
    pub fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        if self.live.is_over() {
            return;
        }
        let result = match input {
            Input::Received(message) => {
                self.live.heard(now);
                self.take(message, out)
            }
            Input::Committed(result) => {
                let what = self.under_way.pop_front();
                result.and_then(|committed| self.committed(now, what, committed, out))
            }
            Input::Found(Found::Needs(ids)) => {
                self.compared(now, ids, out);
                Ok(())
            }
            Input::Heard => {
                self.live.heard(now);
                Ok(())
            }
            Input::Tick => {
                self.live.tick(now, out);
                Ok(())
            }
            Input::Close(reason) => {
                self.live.close(reason, out);
                Ok(())
            }
            // A hub has no log of its own in this session, so it asked for none of these.
            Input::Found(_) | Input::NewIncarnation(_) | Input::Changed => Ok(()),
        };
        if let Err(violation) = result {
            self.live.finish(Finish::Violation(violation), out);
        }
        if !self.live.is_over() {
            self.compare_next(out);
        }
    }

    fn take(&mut self, message: Message, out: &mut Vec<Output>) -> Result<(), Violation> {
        if !matches!(
            message,
            Message::Heartbeat
                | Message::Matchpoint(_)
                | Message::End(_)
                | Message::Share(_)
                | Message::Succession(_)
                | Message::SuccessionKnown(_)
        ) {
            self.accept_course();
        }
        match message {
            Message::State(state) => {
                if !matches!(self.phase, Phase::AwaitingState) {
                    return Err(self.unexpected("State"));
                }
                self.phase = Phase::Judging;
                let accepted = self.accepted.clone();
                out.push(Output::Report(Report::OwnerAt(state.head)));
                self.commit(UnderWay::State, Transaction::State { state, accepted }, out);
                Ok(())
            }
            Message::Matchpoint(matchpoint) => self.matchpoint(matchpoint, out),
            Message::Ops(ops) => self.ops(ops, out),
            Message::Mark(mark) => self.mark(mark, out),
            Message::Manifest(manifest) => self.manifest(manifest),
            Message::Answer(answer) => self.answer(answer, out),
            Message::Heartbeat => Ok(()),
            Message::End(reason) => {
                self.live.finish(Finish::PeerEnded(reason), out);
                Ok(())
            }
            // Without the sharing machine beside this one, or they would not come here.
            Message::Share(share) => Err(self.unexpected(share.name())),
            Message::Succession(_) => Err(self.unexpected("Succession")),
            Message::SuccessionKnown(_) => Err(self.unexpected("SuccessionKnown")),
            Message::Verdict(_) => Err(self.unexpected("Verdict")),
            Message::Need(_) => Err(self.unexpected("Need")),
            Message::Ack(_) => Err(self.unexpected("Ack")),
        }
    }

    const fn unexpected(&self, message: &'static str) -> Violation {
        Violation::OutOfState { message, state: self.phase.name() }
    }

    /// The first frame that is no Matchpoint follows the proposal.
    fn accept_course(&mut self) {
        if let Phase::Proposed { then, .. } = &self.phase {
            self.phase = match then {
                Course::Stream => Phase::Streaming,
                Course::Diff { done } => Phase::Diffing(Diffing::from(*done)),
            };
        }
    }

    // ---- what the owner says ----

    fn matchpoint(&mut self, matchpoint: Matchpoint, out: &mut Vec<Output>) -> Result<(), Violation> {
        let Phase::Proposed { candidates, .. } = &self.phase else {
            return Err(self.unexpected("Matchpoint"));
        };
        if matchpoint.position.is_some_and(|position| !candidates.contains(&position)) {
            return Err(Violation::UnknownMatchpoint(matchpoint.position));
        }
        self.phase = Phase::Diffing(Diffing::from(0));
        self.commit(UnderWay::Matchpoint, Transaction::Matchpoint(matchpoint), out);
        Ok(())
    }

    fn ops(&mut self, ops: Ops, out: &mut Vec<Output>) -> Result<(), Violation> {
        let (stale, repairs) = match &self.phase {
            // A Mark under way may turn out to differ and start a repair before these are performed.
            Phase::Streaming if self.is_marked() => (StaleOps::Drop, self.repairs),
            Phase::Streaming => (StaleOps::Refuse, self.repairs),
            Phase::Repairing(Proposal::Restream) if ops.base == Position::ZERO => {
                self.phase = Phase::Streaming;
                (StaleOps::Refuse, self.repairs)
            }
            Phase::Repairing(_) => (StaleOps::Drop, self.repairs.saturating_sub(1)),
            Phase::AwaitingState | Phase::Judging | Phase::Proposed { .. } | Phase::Diffing(_) => {
                return Err(self.unexpected("Ops"));
            }
        };
        self.spend_credit()?;
        out.push(Output::Report(Report::OwnerAt(ops.as_of)));
        self.commit(UnderWay::Ops { repairs }, Transaction::Ops { ops, stale }, out);
        Ok(())
    }

    fn mark(&mut self, mark: Mark, out: &mut Vec<Output>) -> Result<(), Violation> {
        match &self.phase {
            Phase::Streaming if self.is_marked() => Err(Violation::MarkNotAtEnd { position: mark.position }),
            Phase::Streaming => {
                self.commit(UnderWay::Mark, Transaction::Mark(mark), out);
                Ok(())
            }
            // The owner has not read of the repair yet; when it does, it forgets this Mark.
            Phase::Repairing(_) => Ok(()),
            Phase::AwaitingState | Phase::Judging | Phase::Proposed { .. } | Phase::Diffing(_) => {
                Err(self.unexpected("Mark"))
            }
        }
    }

    fn is_marked(&self) -> bool {
        self.under_way.contains(&UnderWay::Mark)
    }

    fn manifest(&mut self, manifest: Manifest) -> Result<(), Violation> {
        if let Phase::Repairing(Proposal::Diff { done }) = self.phase {
            self.phase = Phase::Diffing(Diffing::from(done));
        }
        let Phase::Diffing(diffing) = &mut self.phase else { return Err(self.unexpected("Manifest")) };
        if diffing.manifests.len() >= MANIFESTS_IN_FLIGHT {
            return Err(Violation::TooManyManifests { limit: MANIFESTS_IN_FLIGHT });
        }
        if diffing.next != Some(manifest.lo) {
            let expected = diffing.next.unwrap_or(OpId::END);
            return Err(Violation::ManifestGap { lo: manifest.lo, expected });
        }
        diffing.next = (manifest.hi != OpId::END).then_some(manifest.hi);
        diffing.manifests.push_back(Pending { done: manifest.lo, manifest, needs: None });
        Ok(())
    }

    fn answer(&mut self, answer: Answer, out: &mut Vec<Output>) -> Result<(), Violation> {
        self.spend_credit()?;
        let Phase::Diffing(diffing) = &mut self.phase else { return Err(self.unexpected("Answer")) };
        let (what, transaction) = diffing.answer(answer)?;
        self.commit(what, transaction, out);
        Ok(())
    }

    const fn spend_credit(&mut self) -> Result<(), Violation> {
        self.received += 1;
        if self.received > self.credit {
            return Err(Violation::CreditExceeded { frame: self.received, credit: self.credit });
        }
        Ok(())
    }

    // ---- what became durable ----

    fn commit(&mut self, what: UnderWay, transaction: Transaction, out: &mut Vec<Output>) {
        self.under_way.push_back(what);
        out.push(Output::Commit(transaction));
    }

    fn committed(
        &mut self,
        now: Duration,
        what: Option<UnderWay>,
        committed: Committed,
        out: &mut Vec<Output>,
    ) -> Result<(), Violation> {
        out.push(Output::Report(Report::Applied(Box::new(committed.clone()))));
        match committed {
            Committed::Judged { proposal, newest, candidates, .. } => {
                self.propose(proposal, candidates.clone());
                let verdict = Verdict { proposal, newest, candidates, credit: self.credit };
                self.live.send(now, Message::Verdict(verdict), out);
                Ok(())
            }
            Committed::Conflict { presented } => Err(Violation::SupersededIncarnation { presented }),
            Committed::Forked { .. } => Ok(()),
            Committed::Applied(applied) => {
                if what == Some(UnderWay::FinalAnswer) {
                    self.manifest_settled();
                }
                self.settle_frame(now, applied.cursor, out);
                Ok(())
            }
            Committed::Dropped { base, cursor } => {
                if !matches!(what, Some(UnderWay::Ops { repairs }) if self.repairs > repairs) {
                    return Err(Violation::BaseIsNotCursor { base, cursor });
                }
                self.settle_frame(now, cursor, out);
                Ok(())
            }
            Committed::Marked { position, outcome, repair, .. } => {
                let answer = MarkAnswer { position, outcome };
                let ack = self.ack(position, Some(answer));
                self.live.send(now, Message::Ack(ack), out);
                if let Some(repair) = repair {
                    self.repairs += 1;
                    self.phase = Phase::Repairing(repair.proposal);
                    let verdict = Verdict {
                        proposal: repair.proposal,
                        newest: repair.newest,
                        candidates: Vec::new(),
                        credit: self.credit,
                    };
                    self.live.send(now, Message::Verdict(verdict), out);
                }
                Ok(())
            }
        }
    }

    fn manifest_settled(&mut self) {
        let Phase::Diffing(diffing) = &mut self.phase else { return };
        diffing.answered = diffing.answered.saturating_sub(1);
        diffing.manifests.pop_front();
        if diffing.next.is_none() && diffing.manifests.is_empty() {
            self.phase = Phase::Streaming;
        }
    }

    fn propose(&mut self, proposal: Proposal, candidates: Vec<Position>) {
        self.phase = match proposal {
            Proposal::InSync => Phase::Streaming,
            Proposal::Resume { .. } | Proposal::Restream => {
                Phase::Proposed { candidates, then: Course::Stream }
            }
            Proposal::Diff { done } => Phase::Proposed { candidates, then: Course::Diff { done } },
        };
    }

    fn settle_frame(&mut self, now: Duration, cursor: Position, out: &mut Vec<Output>) {
        self.settled += 1;
        self.credit += 1;
        let ack = self.ack(cursor, None);
        self.live.send(now, Message::Ack(ack), out);
    }

    const fn ack(&self, cursor: Position, mark: Option<MarkAnswer>) -> Ack {
        Ack { cursor, credit: self.credit, settled: self.settled, mark }
    }

    // ---- comparing manifests with the rows ----

    /// A comparison must see every row that an earlier frame stored, so it waits until nothing is being committed.
    fn compare_next(&mut self, out: &mut Vec<Output>) {
        if !self.under_way.is_empty() {
            return;
        }
        let Phase::Diffing(diffing) = &mut self.phase else { return };
        if let Some(compare) = diffing.next_comparison() {
            out.push(Output::Compare(compare));
        }
    }

    fn compared(&mut self, now: Duration, ids: Vec<OpId>, out: &mut Vec<Output>) {
        let Phase::Diffing(diffing) = &mut self.phase else { return };
        diffing.comparing = false;
        let Some(pending) = diffing.manifests.iter_mut().find(|pending| pending.needs.is_none()) else {
            return;
        };
        pending.needs = Some(ids.clone());
        let need = Need { hi: pending.manifest.hi, ids };
        self.live.send(now, Message::Need(need), out);
    }
}

impl Diffing {
    const fn from(done: u64) -> Self {
        Self { next: Some(done), manifests: VecDeque::new(), answered: 0, comparing: false }
    }

    fn next_comparison(&mut self) -> Option<Compare> {
        if self.comparing {
            return None;
        }
        let pending = self.manifests.iter().find(|pending| pending.needs.is_none())?;
        self.comparing = true;
        Some(Compare {
            lo: pending.manifest.lo,
            hi: pending.manifest.hi,
            entries: pending.manifest.entries.clone(),
        })
    }

    /// Checks an Answer against the manifest that it belongs to.
    fn answer(&mut self, answer: Answer) -> Result<(UnderWay, Transaction), Violation> {
        let misfit = |detail| Violation::DoesNotFitManifest { message: "Answer", detail };
        let pending = self.manifests.get_mut(self.answered).ok_or(misfit("no manifest waits for one"))?;
        let needs = pending.needs.as_ref().ok_or(misfit("nothing was needed yet"))?;
        let (lo, hi) = (pending.done, answer.hi);
        let is_final = hi == pending.manifest.hi;
        if hi > pending.manifest.hi || (hi <= lo && !is_final) {
            return Err(misfit("it settles nothing, or more than the range"));
        }
        if answer.last != (is_final && hi == OpId::END) {
            return Err(misfit("last is not where the ids end"));
        }
        let needed = needs.iter().filter(|id| (lo..hi).contains(&id.get()));
        let mut settled: Vec<&OpId> =
            answer.operations.iter().map(|operation| &operation.id).chain(&answer.gone).collect();
        settled.sort_unstable();
        if !needed.eq(settled) {
            return Err(misfit("it does not settle exactly what was needed"));
        }
        if answer.operations.iter().any(|operation| operation.modno > answer.as_of.modno) {
            return Err(misfit("an operation is newer than the transaction that read it"));
        }
        let inside = |id: &OpId| (lo..hi).contains(&id.get());
        let listed = pending.manifest.entries.iter().map(|(id, _)| *id).filter(inside).collect();
        let as_of = pending.manifest.as_of;
        pending.done = hi;
        self.answered += usize::from(is_final);
        let what = if is_final { UnderWay::FinalAnswer } else { UnderWay::Answer };
        Ok((what, Transaction::Answer { answer, listed, as_of }))
    }
}
