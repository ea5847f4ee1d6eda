//! One session: the only place where session, store and stream meet.
//!
//! The session decides, this acts: it performs each `Output` in order and feeds the results back. Nothing here waits
//! for anything but the one `select!`: a peer that does not read stops what is produced for it, never what is read
//! from it, and a store that is slow stops neither heartbeats nor reading. The database is the queue; what lies here
//! is bounded by the protocol's credit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use opmesh_core::model::{ConfigModno, KeyId, Position};
use opmesh_core::protocol::limits::DEAD_AFTER;
use opmesh_core::protocol::{EndReason, Message, Violation};
use opmesh_core::replica::{Committed, Transaction};
use opmesh_core::session::{Finish, Hub, Input, Kept, Output, Owner, Report, SharingInput, SharingOutput};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::store::{Epoch, Peer, Pending, StoreError};
use crate::wire::{self, Frame};

use super::Local;
use super::beside::{Ask, Beside};
use super::ending::Ending;
use super::link::Link;
use super::sessions::{Registration, Rivalry};
use super::wish::{Done, Task, Wish, learn};

/// A peer that takes nothing for so long is gone, even if it still talks.
const STUCK_AFTER: Duration = DEAD_AFTER;
/// How long an interrupted session goes on handing in what it has; the store takes that within moments.
const KEEPING: Duration = Duration::from_secs(5);

/// How many frames about keys a peer may send in a session: one that tells, one that answers.
const LESSONS: usize = 2;

/// The session of either role.
#[derive(Debug)]
pub(super) enum Machine {
    Owner(Box<Owner>),
    /// A hub's session ends when it is old enough; its dialer comes back at once.
    Hub {
        hub: Box<Hub>,
        epoch: Epoch,
        ends: Duration,
    },
}

impl Machine {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        match self {
            Self::Owner(owner) => owner.handle(now, input, out),
            Self::Hub { hub, .. } => hub.handle(now, input, out),
        }
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::Owner(owner) => owner.deadline(),
            Self::Hub { hub, ends, .. } => hub.deadline().min(*ends),
        }
    }

    fn is_aged(&self, now: Duration) -> bool {
        matches!(self, Self::Hub { ends, .. } if now >= *ends)
    }
}

/// A session and everything that is under way for it.
pub(super) struct Driver {
    local: Arc<Local>,
    peer: KeyId,
    machine: Machine,
    /// What is said beside the operations, with a peer that can.
    beside: Option<Beside>,
    link: Link,
    registration: Registration,
    stop: CancellationToken,
    /// The own log's head: an owner is told when it moves.
    head: watch::Receiver<Position>,
    /// The own config's number: what is shown follows it.
    config: watch::Receiver<ConfigModno>,

    /// Frames that the outbound queue had no room for. Each is a bounded reply: reads wait for room before they are
    /// made, and a heartbeat is left out when anything else waits.
    outgoing: VecDeque<Frame>,
    /// Since when the first of them has waited.
    stuck: Option<Duration>,
    /// Room in the outbound queue, taken before a read is made.
    slot: Option<OwnedPermit<Result<Frame, Status>>>,
    wishes: VecDeque<Wish>,
    granted: Option<Task<Result<Done, StoreError>>>,

    /// Transactions on their way: not handed in, being handed in, and handed in; each in order.
    transactions: VecDeque<Transaction>,
    handing_in: Option<Task<Pending>>,
    commits: VecDeque<Pending>,

    /// What the peer said about keys, on its way to the store; nothing more is read before it is there.
    learning: Option<Task<Result<Option<Message>, StoreError>>>,
    /// How much of that has come.
    lessons: usize,

    closing: bool,
    /// The stream takes nothing more. What it still brings is read until it says why.
    mute: bool,
    finish: Option<Finish>,
    /// Operations that travelled in this session, in frames of either kind.
    carried: usize,
}

/// What a session leaves behind.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) ending: Ending,
    /// What is still to be sent.
    pub(super) rest: VecDeque<Frame>,
    pub(super) link: Link,
    /// Whether a hub made durable what we sent.
    pub(super) delivered: Delivered,
}

/// See [`Ran::delivered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    Something,
    Nothing,
}

/// What the one `select!` found.
enum Event {
    Told(EndReason),
    Granted(Result<Done, StoreError>),
    HandedIn(Pending),
    Committed(Result<Result<Committed, Violation>, StoreError>),
    Room(Option<OwnedPermit<Result<Frame, Status>>>),
    Asked(Ask),
    ConfigChanged,
    Learnt(Result<Option<Message>, StoreError>),
    Read(Result<Option<Frame>, Status>),
    Changed,
    Tick,
}

impl Driver {
    pub(super) fn new(
        local: &Arc<Local>,
        peer: KeyId,
        machine: Machine,
        beside: Option<Beside>,
        link: Link,
        registration: Registration,
        stop: CancellationToken,
    ) -> Self {
        Self {
            local: local.clone(),
            peer,
            machine,
            beside,
            link,
            registration,
            stop,
            head: local.store.head(),
            config: local.store.config_modno(),
            outgoing: VecDeque::new(),
            stuck: None,
            slot: None,
            wishes: VecDeque::new(),
            granted: None,
            transactions: VecDeque::new(),
            handing_in: None,
            commits: VecDeque::new(),
            learning: None,
            lessons: 0,
            closing: false,
            mute: false,
            finish: None,
            carried: 0,
        }
    }

    /// Says this before anything else.
    pub(super) fn saying(mut self, first: Option<Message>) -> Self {
        if let Some(message) = first {
            self.send(message);
        }
        self
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self, first: Input) -> Ran {
        self.local.store.note_seen(&self.peer);
        self.feed(first);
        self.share(SharingInput::Changed);
        let ending = loop {
            if let Some(finish) = self.finish.take() {
                break Ending::Finished(finish);
            }
            let event = self.next().await;
            if let Err(ending) = self.take(event) {
                break ending;
            }
        };
        if matches!(ending, Ending::Interrupted(_)) {
            self.keep_what_arrived().await;
        }
        self.local.store.note_seen(&self.peer);
        tracing::debug!(operations = self.carried, "so many operations travelled in this session");
        let delivered = match &self.machine {
            Machine::Owner(owner) if owner.settled() > 0 => Delivered::Something,
            Machine::Owner(_) | Machine::Hub { .. } => Delivered::Nothing,
        };
        Ran { ending, rest: self.outgoing, link: self.link, delivered }
    }

    /// Hands in what came whole before the stream broke, so that the peer has less to send again: where something on
    /// the way cuts every stream, that is what gets a long backlog through.
    async fn keep_what_arrived(&mut self) {
        let Machine::Hub { epoch, .. } = &self.machine else { return };
        let (store, peer, epoch) = (&self.local.store, &self.peer, *epoch);
        let (under_way, transactions) = (self.handing_in.take(), std::mem::take(&mut self.transactions));
        let handing_in = async {
            if let Some(first) = under_way {
                drop(first.await);
            }
            for transaction in transactions {
                drop(store.submit(peer, epoch, transaction).await);
            }
        };
        if tokio::time::timeout(KEEPING, handing_in).await.is_err() {
            tracing::debug!("the store was too slow for what an interrupted session had brought");
        }
    }

    /// What is finished comes first, then what arrives, time last: a process that was suspended reads what lies
    /// ready before it decides that the peer has been silent.
    async fn next(&mut self) -> Event {
        let wait = self.deadline().saturating_sub(self.local.clock.monotonic());
        let wants_room = self.wants_room();
        let is_owner = matches!(self.machine, Machine::Owner(_));
        let shares = self.beside.is_some();
        tokio::select! {
            biased;
            Ok(reason) = &mut self.registration.told, if !self.closing => Event::Told(reason),
            () = self.stop.cancelled(), if !self.closing => Event::Told(EndReason::Shutdown),
            done = each(self.granted.as_mut()) => Event::Granted(done),
            pending = each(self.handing_in.as_mut()) => Event::HandedIn(pending),
            committed = each(self.commits.front_mut()) => Event::Committed(committed),
            room = self.link.outbound.clone().reserve_owned(), if wants_room => Event::Room(room.ok()),
            Some(ask) = self.registration.asks.recv(), if !self.closing => Event::Asked(ask),
            Ok(()) = self.config.changed(), if shares => Event::ConfigChanged,
            learnt = each(self.learning.as_mut()) => Event::Learnt(learnt),
            read = self.link.inbound.message(), if self.learning.is_none() => Event::Read(read),
            Ok(()) = self.head.changed(), if is_owner => Event::Changed,
            () = tokio::time::sleep(wait) => Event::Tick,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Ending> {
        match event {
            Event::Told(reason) => {
                self.closing = true;
                self.feed(Input::Close(reason));
            }
            Event::Granted(Err(StoreError::Fenced)) | Event::Committed(Err(StoreError::Fenced)) => {
                self.fenced();
            }
            Event::Granted(done) => {
                self.granted = None;
                match done? {
                    Done::Session(input) => self.feed(input),
                    Done::Sharing(input) => self.share(input),
                    Done::Kept => self.grant(),
                }
            }
            Event::HandedIn(pending) => {
                self.handing_in = None;
                self.commits.push_back(pending);
                self.hand_in();
            }
            Event::Committed(done) => {
                self.commits.pop_front();
                self.feed(Input::Committed(done?));
            }
            Event::Room(Some(room)) => self.room(room),
            Event::Room(None) => self.mute = true,
            Event::Asked(ask) => self.asked(ask),
            Event::ConfigChanged => self.share(SharingInput::Changed),
            Event::Learnt(Err(StoreError::Fenced)) => {
                self.learning = None;
                self.fenced();
            }
            Event::Learnt(learnt) => {
                self.learning = None;
                if let Some(answer) = learnt? {
                    self.send(answer);
                }
            }
            Event::Read(read) => {
                let frame = self.link.opened(read)?;
                self.received(frame)?;
            }
            Event::Changed => self.feed(Input::Changed),
            Event::Tick => self.tick()?,
        }
        Ok(())
    }

    // ---- what the session is told ----

    fn received(&mut self, frame: Frame) -> Result<(), Ending> {
        let message = wire::decode(frame)?;
        if let (Message::State(state), Machine::Hub { .. }) = (&message, &self.machine) {
            let now = self.local.clock.monotonic();
            if self.registration.process(state.process, now) == Rivalry::Conflict {
                return Err(Ending::Rivals);
            }
        }
        self.carried += operations(&message);
        if message == Message::Heartbeat {
            self.local.store.note_seen(&self.peer);
        }
        match message {
            Message::Share(share) if self.beside.is_some() => {
                self.feed(Input::Heard);
                self.share(SharingInput::Received(share));
            }
            Message::Succession(_) | Message::SuccessionKnown(_) => return self.learn(message),
            message => self.feed(Input::Received(message)),
        }
        Ok(())
    }

    /// What the peer says about keys concerns the store alone, and all that comes after it.
    fn learn(&mut self, message: Message) -> Result<(), Ending> {
        self.lessons += 1;
        if self.lessons > LESSONS {
            let (message, state) = ("Succession", "told already");
            return Err(Ending::Finished(Finish::Violation(Violation::OutOfState { message, state })));
        }
        self.learning = Some(Box::pin(learn(self.local.clone(), self.peer, message)));
        Ok(())
    }

    /// Somebody on this side wants something of the peer.
    fn asked(&mut self, ask: Ask) {
        match &mut self.beside {
            Some(beside) => {
                let write = beside.asks(ask);
                self.share(SharingInput::Ask(write));
            }
            None => ask.unable(),
        }
    }

    /// The store takes nothing more from this session: a newer one or an edit came first, and is what the peer hears
    /// of. Whoever tells this session to end may be a moment behind.
    fn fenced(&mut self) {
        self.transactions.clear();
        self.handing_in = None;
        self.commits.clear();
        let (store, peer, told) = (self.local.store.clone(), self.peer, self.registration.told.try_recv());
        // Heard once, it cannot be heard again.
        self.closing |= told.is_ok();
        self.granted = Some(Box::pin(async move {
            Ok(Done::Session(Input::Close(match told {
                Ok(reason) => reason,
                Err(_) => why_fenced(store.peer(&peer).await?.as_ref()),
            })))
        }));
    }

    fn tick(&mut self) -> Result<(), Ending> {
        let now = self.local.clock.monotonic();
        if self.stuck.is_some_and(|since| now >= since + STUCK_AFTER) {
            return Err(Ending::NotReading);
        }
        if self.machine.is_aged(now) && !self.closing {
            self.closing = true;
            self.feed(Input::Close(EndReason::Aged));
        } else {
            self.feed(Input::Tick);
        }
        self.share(SharingInput::Tick);
        Ok(())
    }

    fn deadline(&self) -> Duration {
        let stuck = self.stuck.map_or(Duration::MAX, |since| since + STUCK_AFTER);
        let beside = self.beside.as_ref().map_or(Duration::MAX, Beside::deadline);
        self.machine.deadline().min(beside).min(stuck)
    }

    fn feed(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.handle(self.local.clock.monotonic(), input, &mut out);
        for output in out {
            self.perform(output);
        }
        self.grant();
    }

    fn share(&mut self, input: SharingInput) {
        // After our End nothing is said any more.
        let Some(beside) = self.beside.as_mut().filter(|_| self.finish.is_none()) else { return };
        for output in beside.handle(self.local.clock.monotonic(), input) {
            self.perform_sharing(output);
        }
        self.grant();
    }

    // ---- what the session wants done ----

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.send(message),
            Output::Read(read) => self.wishes.push_back(Wish::Read(read)),
            Output::TakeIncarnation => self.wishes.push_back(Wish::TakeIncarnation),
            Output::Compare(compare) => self.wishes.push_back(Wish::Compare(compare)),
            Output::Commit(transaction) => {
                self.transactions.push_back(transaction);
                self.hand_in();
            }
            Output::Report(report) => self.report(report),
            Output::Finish(finish) => self.finish = Some(finish),
        }
    }

    fn perform_sharing(&mut self, output: SharingOutput) {
        match output {
            SharingOutput::Send(share) => self.send(Message::Share(share)),
            SharingOutput::Look => self.wishes.push_back(Wish::Look),
            SharingOutput::Keep(kept) => self.keep(kept),
            SharingOutput::Judge(write) => self.wishes.push_back(Wish::Judge(write)),
            SharingOutput::Answered(written) => {
                if let Some(offered) = self.beside.as_mut().and_then(|beside| beside.answered(written)) {
                    self.local.offered(self.peer, self.link.role, offered);
                }
            }
            SharingOutput::Busy(key) => {
                if let Some(beside) = &mut self.beside {
                    beside.busy(key);
                }
            }
            SharingOutput::Refuse(violation) => self.finish = Some(Finish::Violation(violation)),
        }
    }

    /// Only the newest of what the peer shows counts: it takes the place of one that waits.
    fn keep(&mut self, kept: Kept) {
        let same_kind = |wish: &&mut Wish| match (wish, &kept) {
            (Wish::Keep(waiting), kept) => std::mem::discriminant(waiting) == std::mem::discriminant(kept),
            _ => false,
        };
        match self.wishes.iter_mut().find(same_kind) {
            Some(waiting) => *waiting = Wish::Keep(kept),
            None => self.wishes.push_back(Wish::Keep(kept)),
        }
    }

    fn send(&mut self, message: Message) {
        if message == Message::Heartbeat && !self.outgoing.is_empty() {
            return;
        }
        self.carried += operations(&message);
        let frame = wire::encode(message);
        match self.slot.take() {
            Some(slot) if self.outgoing.is_empty() => drop(slot.send(self.link.outgoing(frame))),
            _ => {
                self.stuck.get_or_insert_with(|| self.local.clock.monotonic());
                self.outgoing.push_back(frame);
            }
        }
    }

    fn wants_room(&self) -> bool {
        let for_a_read = self.granted.is_none() && self.wishes.front().is_some_and(Wish::needs_room);
        self.slot.is_none() && !self.mute && (!self.outgoing.is_empty() || for_a_read)
    }

    fn room(&mut self, room: OwnedPermit<Result<Frame, Status>>) {
        if let Some(frame) = self.outgoing.pop_front() {
            drop(room.send(self.link.outgoing(frame)));
            self.stuck = (!self.outgoing.is_empty()).then(|| self.local.clock.monotonic());
        } else {
            self.slot = Some(room);
            self.grant();
        }
    }

    /// Begins what is wished for next, if it can begin: a read only with room for what it leads to.
    fn grant(&mut self) {
        if self.granted.is_some() {
            return;
        }
        let Some(wish) = self.wishes.pop_front_if(|wish| self.slot.is_some() || !wish.needs_room()) else {
            return;
        };
        let epoch = match &self.machine {
            Machine::Owner(_) => None,
            Machine::Hub { epoch, .. } => Some(*epoch),
        };
        self.granted = Some(wish.perform(self.local.clone(), self.peer, (self.link.role, epoch)));
    }

    /// Hands the next transaction to the store, one at a time so that they stay in order; how many are under way is
    /// bounded by the credit.
    fn hand_in(&mut self) {
        let Machine::Hub { epoch, .. } = &self.machine else { return };
        if self.handing_in.is_some() {
            return;
        }
        let Some(transaction) = self.transactions.pop_front() else { return };
        let (store, peer, epoch) = (self.local.store.clone(), self.peer, *epoch);
        #[expect(clippy::async_yields_async, reason = "handed in, a transaction waits beside the next one")]
        let handing_in = async move { store.submit(&peer, epoch, transaction).await };
        self.handing_in = Some(Box::pin(handing_in));
    }

    fn report(&self, report: Report) {
        if matches!(self.machine, Machine::Owner(_)) {
            match &report {
                Report::Acked(position) => self.local.store.note_acked(&self.peer, *position),
                Report::Proved { position, set } => {
                    self.local.store.note_proved(&self.peer, *position, *set);
                }
                Report::Verdict(_)
                | Report::Fork { .. }
                | Report::CaughtUp(_)
                | Report::Differs(_)
                | Report::OwnerAt(_)
                | Report::Applied(_) => {}
            }
        }
        self.local.report(self.peer, self.link.role, report);
    }
}

/// How many operations a frame carries.
fn operations(message: &Message) -> usize {
    match message {
        Message::Ops(ops) => ops.operations.len(),
        Message::Answer(answer) => answer.operations.len(),
        Message::State(_)
        | Message::Verdict(_)
        | Message::Matchpoint(_)
        | Message::Manifest(_)
        | Message::Need(_)
        | Message::Mark(_)
        | Message::Ack(_)
        | Message::Share(_)
        | Message::Succession(_)
        | Message::SuccessionKnown(_)
        | Message::Heartbeat
        | Message::End(_) => 0,
    }
}

/// Why a session that no newer one displaced was fenced off: its peer is not let in any more, or on other terms.
fn why_fenced(peer: Option<&Peer>) -> EndReason {
    if peer.is_some_and(Peer::may_deliver) { EndReason::GrantsChanged } else { EndReason::Revoked }
}

/// Waits for what is under way, for ever if nothing is.
async fn each<F: Future + Unpin>(under_way: Option<&mut F>) -> F::Output {
    match under_way {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
