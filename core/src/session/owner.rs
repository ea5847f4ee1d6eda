//! The owner's side: say where it stands, hear the hub's proposal, judge it, and send what the hub lacks.
//!
//! The database is the queue: this holds positions, never operations. At most one read is outstanding, and none is
//! begun that the hub's credit would not let through.

use std::collections::VecDeque;
use std::time::Duration;

use crate::matchpoint;
use crate::model::{Incarnation, OpId, Position, ProcessNonce};
use crate::permission::{Scopes, View};
use crate::protocol::limits::MANIFESTS_IN_FLIGHT;
use crate::protocol::{
    Ack, Answer, Comparison, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal, State,
    Verdict, Violation,
};

use super::effect::{
    Changes, Finish, Found, Here, Input, ManifestPage, OperationsPage, Output, Read, Report,
};
use super::liveness::Liveness;

/// What an owner's session starts with.
#[derive(Debug, Clone)]
pub struct OwnerConfig {
    /// What this hub may read.
    pub granted: Scopes,
    /// What the hub takes, as it said in the handshake.
    pub accepted: Scopes,
    /// This run of the process.
    pub process: ProcessNonce,
}

/// The owner's machine.
#[derive(Debug)]
pub struct Owner {
    config: OwnerConfig,
    view: View,
    live: Liveness,
    phase: Phase,
    reading: Reading,
    /// Cumulative counts of Ops and Answer frames: allowed, sent, done with.
    credit: u64,
    sent: u64,
    settled: u64,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was read yet.
    Fresh,
    /// The first read is under way.
    Greeting,
    /// State was sent.
    Judged { here: Here },
    /// The hub's positions are being looked up.
    Choosing { verdict: Verdict },
    /// The hub's newest position is not ours: a new incarnation is being made durable.
    Branching { matchpoint: Option<Position> },
    /// Ops and Marks.
    Streaming(Streaming),
    /// Manifests and Answers.
    Diffing(Diffing),
}

impl Phase {
    const fn name(&self) -> &'static str {
        match self {
            Self::Fresh | Self::Greeting => "reading the own state",
            Self::Judged { .. } => "waiting for the verdict",
            Self::Choosing { .. } => "looking up positions",
            Self::Branching { .. } => "taking a new incarnation",
            Self::Streaming(_) => "streaming",
            Self::Diffing(_) => "a diff is under way",
        }
    }
}

/// The one outstanding read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    /// Its result is wanted.
    Wanted,
    /// A repair began meanwhile; its result is not wanted.
    Discarded,
}

#[derive(Debug)]
struct Streaming {
    /// The last `end`.
    end: Position,
    /// There may be changes after `end`.
    more: bool,
    /// The Mark that waits for its answer.
    unanswered: Option<Mark>,
    /// The newest consistent point, to be marked once the unanswered Mark is answered.
    skipped: Option<Mark>,
    /// The last position that was marked, or equal in the verdict: it needs no Mark.
    judged: Option<Position>,
    /// The last Mark differed, so that a second Verdict may come.
    differed: bool,
}

impl Streaming {
    const fn from(end: Position) -> Self {
        Self { end, more: true, unanswered: None, skipped: None, judged: None, differed: false }
    }
}

#[derive(Debug)]
struct Diffing {
    /// Where the next manifest starts; none once the last one was sent.
    next: Option<u64>,
    /// Manifests not fully answered and acknowledged, oldest first.
    manifests: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    lo: u64,
    hi: u64,
    as_of: Position,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// The hub has not said what it needs.
    AwaitingNeed,
    /// From here on the needed ids are not answered.
    Answering { ids: Vec<OpId>, next: usize },
    /// The final Answer was this frame of the session.
    Answered { frame: u64 },
}

impl Owner {
    /// A session right after the handshake. Give it [`Input::Tick`] to start it.
    pub fn new(config: OwnerConfig, now: Duration) -> Self {
        let view = View::new(config.granted.clone(), config.accepted.clone());
        Self {
            config,
            view,
            live: Liveness::new(now),
            phase: Phase::Fresh,
            reading: Reading::No,
            credit: 0,
            sent: 0,
            settled: 0,
        }
    }

    /// How many frames of operations the hub has settled in this session.
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// Call [`Owner::handle`] with [`Input::Tick`] at this time at the latest.
    pub fn deadline(&self) -> Duration {
        self.live.deadline()
    }

    /// Takes one input; what it leads to is pushed to `out`, in order.
    pub fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        if self.live.is_over() {
            return;
        }
        if let Err(violation) = self.take(now, input, out) {
            self.live.finish(Finish::Violation(violation), out);
        }
        if !self.live.is_over() {
            self.pump(now, out);
        }
    }

    fn take(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) -> Result<(), Violation> {
        match input {
            Input::Received(message) => {
                self.live.heard(now);
                self.received(now, message, out)
            }
            Input::Found(found) => {
                if std::mem::replace(&mut self.reading, Reading::No) == Reading::Wanted {
                    self.found(now, found, out);
                }
                Ok(())
            }
            Input::NewIncarnation(incarnation) => {
                self.branched(now, incarnation, out);
                Ok(())
            }
            Input::Changed => {
                if let Phase::Streaming(streaming) = &mut self.phase {
                    streaming.more = true;
                }
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
            Input::Committed(_) => Ok(()), // an owner asks for no commits
        }
    }

    fn received(&mut self, now: Duration, message: Message, out: &mut Vec<Output>) -> Result<(), Violation> {
        let unexpected = |message, phase: &Phase| Violation::OutOfState { message, state: phase.name() };
        match message {
            Message::Verdict(verdict) => self.verdict(verdict, out),
            Message::Need(need) => self.need(need),
            Message::Ack(ack) => self.ack(now, ack, out),
            Message::Heartbeat => Ok(()),
            Message::End(reason) => {
                self.live.finish(Finish::PeerEnded(reason), out);
                Ok(())
            }
            // Without the sharing machine beside this one, or they would not come here.
            Message::Share(share) => Err(unexpected(share.name(), &self.phase)),
            Message::Succession(_) => Err(unexpected("Succession", &self.phase)),
            Message::SuccessionKnown(_) => Err(unexpected("SuccessionKnown", &self.phase)),
            Message::State(_) => Err(unexpected("State", &self.phase)),
            Message::Matchpoint(_) => Err(unexpected("Matchpoint", &self.phase)),
            Message::Manifest(_) => Err(unexpected("Manifest", &self.phase)),
            Message::Answer(_) => Err(unexpected("Answer", &self.phase)),
            Message::Ops(_) => Err(unexpected("Ops", &self.phase)),
            Message::Mark(_) => Err(unexpected("Mark", &self.phase)),
        }
    }

    // ---- the proposal and its judgement ----

    fn verdict(&mut self, verdict: Verdict, out: &mut Vec<Output>) -> Result<(), Violation> {
        let first = matches!(self.phase, Phase::Judged { .. });
        let repair = matches!(&self.phase, Phase::Streaming(streaming) if streaming.differed);
        if !first && !repair {
            return Err(Violation::OutOfState { message: "Verdict", state: self.phase.name() });
        }
        if verdict.credit < self.credit {
            return Err(Violation::ImpossibleVerdict { detail: "it takes credit back" });
        }
        self.credit = verdict.credit;
        out.push(Output::Report(Report::Verdict(verdict.proposal)));
        if repair {
            return self.repair(verdict.proposal);
        }
        if verdict.proposal == Proposal::InSync {
            return self.in_sync(out);
        }
        let modnos = std::iter::once(&verdict.newest)
            .chain(&verdict.candidates)
            .map(|position| position.modno)
            .filter(|modno| modno.get() > 0)
            .collect();
        self.phase = Phase::Choosing { verdict };
        self.read(Read::Checkpoints { modnos }, out);
        Ok(())
    }

    fn in_sync(&mut self, out: &mut Vec<Output>) -> Result<(), Violation> {
        let Phase::Judged { here } = &self.phase else {
            return Err(Violation::ImpossibleVerdict { detail: "in sync, but not in answer to State" });
        };
        let (position, set) = (here.head, here.set);
        self.phase = Phase::Streaming(Streaming { judged: Some(position), ..Streaming::from(position) });
        out.push(Output::Report(Report::Proved { position, set }));
        Ok(())
    }

    /// From here until the hub has settled what this starts, no Ops and no Mark of the old course may be sent: a
    /// read that is under way is thrown away.
    fn repair(&mut self, proposal: Proposal) -> Result<(), Violation> {
        self.phase = match proposal {
            Proposal::Diff { done } => Phase::Diffing(Diffing::from(done)),
            Proposal::Restream => Phase::Streaming(Streaming::from(Position::ZERO)),
            Proposal::InSync | Proposal::Resume { .. } => {
                return Err(Violation::ImpossibleVerdict { detail: "a repair is a diff or a re-stream" });
            }
        };
        if self.reading == Reading::Wanted {
            self.reading = Reading::Discarded;
        }
        Ok(())
    }

    fn judge(&mut self, verdict: Verdict, checkpoints: &[Position], out: &mut Vec<Output>) {
        let recognised = |position: &Position| *position == Position::ZERO || checkpoints.contains(position);
        if !recognised(&verdict.newest) {
            let matchpoint = matchpoint::choose(&verdict.candidates, recognised);
            out.push(Output::Report(Report::Fork { matchpoint }));
            self.phase = Phase::Branching { matchpoint };
            out.push(Output::TakeIncarnation);
            return;
        }
        self.phase = match verdict.proposal {
            Proposal::Resume { cursor } => Phase::Streaming(Streaming::from(cursor)),
            Proposal::Diff { done } => Phase::Diffing(Diffing::from(done)),
            Proposal::Restream | Proposal::InSync => Phase::Streaming(Streaming::from(Position::ZERO)),
        };
    }

    fn branched(&mut self, now: Duration, incarnation: Incarnation, out: &mut Vec<Output>) {
        let Phase::Branching { matchpoint } = self.phase else { return };
        let message = Message::Matchpoint(Matchpoint { position: matchpoint, incarnation });
        self.live.send(now, message, out);
        self.phase = Phase::Diffing(Diffing::from(0));
    }

    // ---- what was read ----

    fn found(&mut self, now: Duration, found: Found, out: &mut Vec<Output>) {
        match found {
            Found::Here(here) => self.here(now, here, out),
            Found::Checkpoints(checkpoints) => match std::mem::replace(&mut self.phase, Phase::Greeting) {
                Phase::Choosing { verdict } => self.judge(verdict, &checkpoints, out),
                other => self.phase = other,
            },
            Found::Changes(changes) => self.changes(now, changes, out),
            Found::Manifest(page) => self.manifest(now, page, out),
            Found::Operations(page) => self.operations(now, page, out),
            Found::Needs(_) => {} // only a hub compares
        }
    }

    fn here(&mut self, now: Duration, here: Here, out: &mut Vec<Output>) {
        let state = State {
            incarnation: here.incarnation,
            process: self.config.process,
            head: here.head,
            granted: self.config.granted.clone(),
            set: here.set,
        };
        self.phase = Phase::Judged { here };
        self.live.send(now, Message::State(state), out);
    }

    fn changes(&mut self, now: Duration, changes: Changes, out: &mut Vec<Output>) {
        let Phase::Streaming(streaming) = &mut self.phase else { return };
        if changes.end != streaming.end {
            let ops = Ops {
                base: streaming.end,
                end: changes.end,
                as_of: changes.as_of,
                operations: changes.operations,
                tombstones: changes.tombstones,
            };
            streaming.end = changes.end;
            streaming.skipped = None;
            self.sent += 1;
            self.live.send(now, Message::Ops(ops), out);
        }
        let Some(set) = changes.consistent else {
            streaming.more = true;
            return;
        };
        out.push(Output::Report(Report::CaughtUp(streaming.end)));
        if streaming.judged == Some(streaming.end) {
            return;
        }
        let mark = Mark { position: streaming.end, set };
        if streaming.unanswered.is_some() {
            streaming.skipped = Some(mark);
        } else {
            streaming.mark(mark);
            self.live.send(now, Message::Mark(mark), out);
        }
    }

    fn manifest(&mut self, now: Duration, page: ManifestPage, out: &mut Vec<Output>) {
        let Phase::Diffing(diffing) = &mut self.phase else { return };
        let Some(lo) = diffing.next else { return };
        diffing.next = (page.hi != OpId::END).then_some(page.hi);
        diffing.manifests.push_back(Pending {
            lo,
            hi: page.hi,
            as_of: page.as_of,
            progress: Progress::AwaitingNeed,
        });
        let manifest = Manifest { lo, hi: page.hi, as_of: page.as_of, entries: page.entries };
        self.live.send(now, Message::Manifest(manifest), out);
    }

    fn operations(&mut self, now: Duration, page: OperationsPage, out: &mut Vec<Output>) {
        let Phase::Diffing(diffing) = &mut self.phase else { return };
        let Some(pending) = diffing.answering() else { return };
        let Progress::Answering { ids, next } = &mut pending.progress else { return };
        *next += page.settled;
        let hi = ids.get(*next).map_or(pending.hi, |id| id.get());
        let answer = Answer {
            hi,
            as_of: page.as_of,
            operations: page.operations,
            gone: page.gone,
            last: hi == OpId::END,
        };
        self.sent += 1;
        if hi == pending.hi {
            pending.progress = Progress::Answered { frame: self.sent };
        }
        self.live.send(now, Message::Answer(answer), out);
    }

    // ---- what the hub says while operations flow ----

    fn need(&mut self, need: Need) -> Result<(), Violation> {
        let Phase::Diffing(diffing) = &mut self.phase else {
            return Err(Violation::OutOfState { message: "Need", state: self.phase.name() });
        };
        let misfit = |detail| Violation::DoesNotFitManifest { message: "Need", detail };
        let waiting = diffing
            .manifests
            .iter_mut()
            .find(|pending| matches!(pending.progress, Progress::AwaitingNeed))
            .ok_or(misfit("every manifest was answered"))?;
        if need.hi != waiting.hi {
            return Err(misfit("another range"));
        }
        let inside = |id: &OpId| (waiting.lo..waiting.hi).contains(&id.get());
        if !need.ids.iter().all(inside) {
            return Err(misfit("an id outside the range"));
        }
        waiting.progress = Progress::Answering { ids: need.ids, next: 0 };
        Ok(())
    }

    /// A need without ids is answered without a read, as soon as it is its turn and the credit allows.
    fn answer_empty(&mut self, now: Duration, out: &mut Vec<Output>) {
        while self.sent < self.credit {
            let Phase::Diffing(diffing) = &mut self.phase else { return };
            let Some(pending) = diffing.answering() else { return };
            let Progress::Answering { ids, .. } = &pending.progress else { return };
            if !ids.is_empty() {
                return;
            }
            let page =
                OperationsPage { as_of: pending.as_of, operations: Vec::new(), gone: Vec::new(), settled: 0 };
            self.operations(now, page, out);
        }
    }

    fn ack(&mut self, now: Duration, ack: Ack, out: &mut Vec<Output>) -> Result<(), Violation> {
        if !matches!(self.phase, Phase::Streaming(_) | Phase::Diffing(_)) {
            return Err(Violation::OutOfState { message: "Ack", state: self.phase.name() });
        }
        if ack.credit < self.credit || ack.settled < self.settled || ack.settled > self.sent {
            return Err(Violation::ImpossibleAck);
        }
        self.credit = ack.credit;
        self.settled = ack.settled;
        out.push(Output::Report(Report::Acked(ack.cursor)));
        if let Some(answer) = ack.mark {
            self.mark_answered(now, answer, out)?;
        }
        if let Phase::Diffing(diffing) = &mut self.phase {
            diffing.forget_acknowledged(ack.settled);
            if diffing.is_over() {
                self.phase = Phase::Streaming(Streaming::from(ack.cursor));
            }
        }
        Ok(())
    }

    fn mark_answered(
        &mut self,
        now: Duration,
        answer: MarkAnswer,
        out: &mut Vec<Output>,
    ) -> Result<(), Violation> {
        let Phase::Streaming(streaming) = &mut self.phase else { return Err(Violation::ImpossibleAck) };
        let mark = streaming
            .unanswered
            .take_if(|mark| mark.position == answer.position)
            .ok_or(Violation::ImpossibleAck)?;
        streaming.differed = answer.outcome == Comparison::Differs;
        out.push(Output::Report(match answer.outcome {
            Comparison::Equal => Report::Proved { position: mark.position, set: mark.set },
            Comparison::Differs => Report::Differs(mark.position),
        }));
        if let Some(mark) = streaming.skipped.take() {
            streaming.mark(mark);
            self.live.send(now, Message::Mark(mark), out);
        }
        Ok(())
    }

    // ---- what to read next ----

    fn pump(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.answer_empty(now, out);
        if self.reading != Reading::No {
            return;
        }
        let may_send = self.sent < self.credit;
        let view = || self.view.clone();
        let read = match &mut self.phase {
            Phase::Fresh => {
                self.phase = Phase::Greeting;
                Read::Here { view: view() }
            }
            Phase::Streaming(streaming) if streaming.more && may_send => {
                streaming.more = false;
                Read::Changes { after: streaming.end.modno, view: view() }
            }
            Phase::Diffing(diffing) => match diffing.next_read(may_send) {
                Some(NextRead::Operations(ids)) => Read::Operations { ids, view: view() },
                Some(NextRead::Manifest(lo)) => Read::Manifest { lo, view: view() },
                None => return,
            },
            Phase::Greeting
            | Phase::Judged { .. }
            | Phase::Choosing { .. }
            | Phase::Branching { .. }
            | Phase::Streaming(_) => return,
        };
        self.read(read, out);
    }

    fn read(&mut self, read: Read, out: &mut Vec<Output>) {
        self.reading = Reading::Wanted;
        out.push(Output::Read(read));
    }
}

impl Streaming {
    fn mark(&mut self, mark: Mark) {
        self.judged = Some(mark.position);
        self.unanswered = Some(mark);
    }
}

enum NextRead {
    Operations(Vec<OpId>),
    Manifest(u64),
}

impl Diffing {
    fn from(done: u64) -> Self {
        Self { next: Some(done), manifests: VecDeque::new() }
    }

    /// The oldest manifest that is not fully answered, if the hub has said what it needs of it.
    fn answering(&mut self) -> Option<&mut Pending> {
        self.manifests
            .iter_mut()
            .find(|pending| !matches!(pending.progress, Progress::Answered { .. }))
            .filter(|pending| matches!(pending.progress, Progress::Answering { .. }))
    }

    fn next_read(&mut self, may_send: bool) -> Option<NextRead> {
        if let Some(Pending { progress: Progress::Answering { ids, next }, .. }) = self.answering() {
            let rest = ids.get(*next..).unwrap_or_default();
            if !rest.is_empty() {
                // One frame holds no more operations than this, so more ids need not be asked for at once.
                let ids = rest.iter().take(crate::protocol::limits::FRAME_OPERATIONS).copied().collect();
                return may_send.then_some(NextRead::Operations(ids));
            }
        }
        (self.manifests.len() < MANIFESTS_IN_FLIGHT).then_some(self.next).flatten().map(NextRead::Manifest)
    }

    fn forget_acknowledged(&mut self, settled: u64) {
        let done =
            |pending: &Pending| matches!(pending.progress, Progress::Answered { frame } if frame <= settled);
        while self.manifests.front().is_some_and(done) {
            self.manifests.pop_front();
        }
    }

    fn is_over(&self) -> bool {
        self.next.is_none() && self.manifests.is_empty()
    }
}
