//! One host and what a hub holds of it, joined by a link that delivers what it is told to.
//!
//! The world also keeps what neither side knows: every version that the host's present history has gone through. With
//! it, each hub transaction is checked: what vanishes must be known to that history, or it was lost.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use opmesh_core::model::{
    Incarnation, Modno, OpId, Operation, OwnerHasher, ProcessNonce, PublicKey, Record, RowHash, UnixMs,
};
use opmesh_core::oracle::{FrameSize, HubModel, OwnerModel};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::protocol::{Comparison, EndReason, Message, Proposal, Violation};
use opmesh_core::replica::{Committed, ParkReason, Rows, Rung, Transaction, release};
use opmesh_core::session::{
    Compare, Finish, Found, Hub, HubConfig, Input, Output, Owner, OwnerConfig, Pace, Read,
};

use crate::seen::{Around, Seen};

/// A version of a row: what the row hash covers, and the hash.
pub type Version = (OpId, Modno, RowHash);

pub struct World {
    pub key: PublicKey,
    hasher: OwnerHasher,
    pub owner: OwnerModel,
    /// Every version in the owner's present history.
    pub history: BTreeSet<Version>,
    /// Versions that rotted at the hub: nobody can be asked to keep them.
    pub rotted: BTreeSet<Version>,
    pub granted: Scopes,
    pub accepted: Scopes,
    pub hub: HubModel,
    /// The hub's disk loses a row whenever a repair has ended.
    pub losing: bool,
    pub link: Option<Link>,
    pub now: Duration,
    next_label: u64,
    pub seen: Seen,
    /// A rule that was broken by the code under test; the schedule fails with it.
    pub fault: Option<String>,
    /// Rows were lost or altered since the sets were last equal, so that a Mark may rightly differ.
    pub rot_pending: bool,
    /// What went over the links, for tests that tell a story.
    pub trace: Vec<Frame>,
    /// How sessions ended, both sides.
    pub endings: Vec<Finish>,
    /// Whether to keep a trace.
    pub tracing: bool,
}

/// A message and who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Owner(Message),
    Hub(Message),
}

pub struct Link {
    pub owner: Owner,
    pub hub: Hub,
    pub to_hub: VecDeque<Message>,
    pub to_owner: VecDeque<Message>,
    pub reads: VecDeque<OwnerEffect>,
    pub commits: VecDeque<Transaction>,
    pub compares: VecDeque<Compare>,
    pub changed: bool,
    pub finished: Vec<Finish>,
    /// The owner's view in this session.
    view: View,
    /// Where the manifests end that were sent and not fully answered.
    manifests: VecDeque<u64>,
}

pub enum OwnerEffect {
    Read(Box<Read>),
    TakeIncarnation,
}

/// What can happen next on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    DeliverToHub,
    DeliverToOwner,
    OwnerEffect,
    Commit,
    Compare,
    TellChanged,
}

impl World {
    pub fn new(key: u8, frame: FrameSize) -> Self {
        let key = PublicKey([key; 32]);
        let label = Incarnation::new(u64::from(key.0[0]) * 1_000_000).unwrap();
        Self {
            key,
            hasher: OwnerHasher::new(&key),
            owner: OwnerModel::new(&key, label, frame),
            history: BTreeSet::new(),
            rotted: BTreeSet::new(),
            granted: "*".parse().unwrap(),
            accepted: "*".parse().unwrap(),
            hub: HubModel::new(&key),
            losing: false,
            link: None,
            now: Duration::ZERO,
            next_label: label.get() + 1,
            seen: Seen::default(),
            fault: None,
            rot_pending: false,
            trace: Vec::new(),
            endings: Vec::new(),
            tracing: false,
        }
    }

    pub fn wall(&self) -> UnixMs {
        UnixMs(i64::try_from(self.now.as_millis()).unwrap())
    }

    // ---- the owner's life ----

    pub fn create(&mut self, repo: &str, plan: &str, message: &str) -> OpId {
        let id = self.owner.create(Record::for_tests(repo, plan, message));
        self.written(id);
        id
    }

    pub fn update(&mut self, id: OpId, message: &str) {
        self.owner.update(id, message);
        self.written(id);
    }

    pub fn delete(&mut self, id: OpId) {
        self.owner.delete(id);
        self.tell_changed();
    }

    fn written(&mut self, id: OpId) {
        if let Some(row) = self.owner.live().get(&id) {
            self.history.insert(self.version(row));
        }
        self.tell_changed();
    }

    pub fn tell_changed(&mut self) {
        if let Some(link) = &mut self.link {
            link.changed = true;
        }
    }

    fn new_label(&mut self) -> Incarnation {
        self.next_label += 1;
        Incarnation::new(self.next_label).unwrap()
    }

    /// The owner loses its database but not its key.
    pub fn wipe_owner(&mut self, frame: FrameSize) {
        self.link = None;
        let label = self.new_label();
        self.owner = OwnerModel::new(&self.key, label, frame);
        self.history.clear();
    }

    // ---- the link ----

    pub fn view(&self) -> View {
        View::new(self.granted.clone(), self.accepted.clone())
    }

    pub fn connect(&mut self) {
        self.seen.sessions += 1;
        let process = ProcessNonce::new(self.seen.sessions).unwrap();
        let config = OwnerConfig {
            granted: self.granted.clone(),
            accepted: self.accepted.clone(),
            process,
            pace: Pace::Full,
        };
        let link = Link {
            owner: Owner::new(config, self.now),
            hub: Hub::new(HubConfig { accepted: self.accepted.clone() }, self.now),
            to_hub: VecDeque::new(),
            to_owner: VecDeque::new(),
            reads: VecDeque::new(),
            commits: VecDeque::new(),
            compares: VecDeque::new(),
            changed: false,
            finished: Vec::new(),
            view: self.view(),
            manifests: VecDeque::new(),
        };
        self.link = Some(link);
        self.owner_input(Input::Tick);
    }

    pub fn cut(&mut self) {
        self.link = None;
    }

    /// The owner ends the session, as on a change of grants.
    pub fn close(&mut self, reason: EndReason) {
        self.owner_input(Input::Close(reason));
        while self.step(Step::DeliverToHub) {}
        self.drain_finished();
        self.link = None;
    }

    pub fn steps(&self) -> Vec<Step> {
        let Some(link) = &self.link else { return Vec::new() };
        [
            (Step::DeliverToHub, !link.to_hub.is_empty()),
            (Step::DeliverToOwner, !link.to_owner.is_empty()),
            (Step::OwnerEffect, !link.reads.is_empty()),
            (Step::Commit, !link.commits.is_empty()),
            (Step::Compare, !link.compares.is_empty()),
            (Step::TellChanged, link.changed),
        ]
        .into_iter()
        .filter_map(|(step, possible)| possible.then_some(step))
        .collect()
    }

    /// Takes one step; false when there was nothing to do.
    pub fn step(&mut self, step: Step) -> bool {
        let Some(link) = &mut self.link else { return false };
        match step {
            Step::DeliverToHub => {
                let Some(message) = link.to_hub.pop_front() else { return false };
                self.hub_input(Input::Received(message));
            }
            Step::DeliverToOwner => {
                let Some(message) = link.to_owner.pop_front() else { return false };
                self.owner_input(Input::Received(message));
            }
            Step::OwnerEffect => {
                let Some(effect) = link.reads.pop_front() else { return false };
                let input = match effect {
                    OwnerEffect::Read(read) => Input::Found(self.owner.read(*read)),
                    OwnerEffect::TakeIncarnation => {
                        self.owner.incarnation = self.new_label();
                        Input::NewIncarnation(self.owner.incarnation)
                    }
                };
                self.owner_input(input);
            }
            Step::Commit => {
                let Some(transaction) = link.commits.pop_front() else { return false };
                let result = self.commit(transaction);
                self.hub_input(Input::Committed(result));
            }
            Step::Compare => {
                let Some(compare) = link.compares.pop_front() else { return false };
                let needs = self.hub.compare(&compare);
                self.hub_input(Input::Found(Found::Needs(needs)));
            }
            Step::TellChanged => {
                if !std::mem::take(&mut link.changed) {
                    return false;
                }
                self.owner_input(Input::Changed);
            }
        }
        true
    }

    /// Does everything that can be done, in a fixed order, until nothing is left.
    pub fn run(&mut self) {
        self.run_while(|_, _| true);
    }

    /// Does what can be done and is allowed, in a fixed order, until nothing is left.
    pub fn run_while(&mut self, allowed: impl Fn(&Self, Step) -> bool) {
        for _ in 0..20_000 {
            let Some(step) = self.steps().into_iter().find(|step| allowed(self, *step)) else { return };
            self.step(step);
            self.drain_finished();
        }
        panic!("a session does not come to rest");
    }

    /// Time passes, a second at a time; both sides are woken when they asked to be. What they then say is delivered.
    pub fn pass(&mut self, time: Duration, allowed: impl Fn(&Self, Step) -> bool) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_secs(1);
            if self.link.as_ref().is_some_and(|link| link.owner.deadline() <= self.now) {
                self.owner_input(Input::Tick);
            }
            if self.link.as_ref().is_some_and(|link| link.hub.deadline() <= self.now) {
                self.hub_input(Input::Tick);
            }
            self.drain_finished();
            self.run_while(&allowed);
        }
    }

    fn drain_finished(&mut self) {
        let Some(link) = self.link.take_if(|link| !link.finished.is_empty()) else { return };
        for finish in link.finished {
            match &finish {
                Finish::Violation(Violation::SupersededIncarnation { .. })
                | Finish::Silent
                | Finish::Closed(_)
                | Finish::PeerEnded(_) => {}
                Finish::Violation(violation) => self.blame(format!("two honest peers: {violation}")),
            }
            self.endings.push(finish);
        }
    }

    /// Forgets a link that has ended, and says how.
    pub fn reap(&mut self) {
        self.drain_finished();
    }

    fn blame(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    pub fn owner_input(&mut self, input: Input) {
        let Some(link) = &mut self.link else { return };
        let mut out = Vec::new();
        link.owner.handle(self.now, input, &mut out);
        self.owner_did(out);
    }

    pub fn hub_input(&mut self, input: Input) {
        let Some(link) = &mut self.link else { return };
        let mut out = Vec::new();
        link.hub.handle(self.now, input, &mut out);
        self.hub_did(out);
    }

    fn owner_did(&mut self, out: Vec<Output>) {
        for output in out {
            let Some(link) = &mut self.link else { return };
            match output {
                Output::Send(message) => {
                    self.seen.owner_sends(&message, &mut link.manifests);
                    let leak = leak(&message, &link.view);
                    if self.tracing {
                        self.trace.push(Frame::Owner(message.clone()));
                    }
                    link.to_hub.push_back(message);
                    if let Some(leak) = leak {
                        self.blame(leak);
                    }
                }
                Output::Read(read) => {
                    let two = !link.reads.is_empty();
                    link.reads.push_back(OwnerEffect::Read(Box::new(read)));
                    if two {
                        self.blame("two reads at once".to_owned());
                    }
                }
                Output::TakeIncarnation => link.reads.push_back(OwnerEffect::TakeIncarnation),
                Output::Finish(finish) => link.finished.push(finish),
                Output::Report(_) => {}
                Output::Commit(_) | Output::Compare(_) => self.blame("an owner commits".to_owned()),
            }
        }
    }

    fn hub_did(&mut self, out: Vec<Output>) {
        for output in out {
            let Some(link) = &mut self.link else { return };
            match output {
                Output::Send(message) => {
                    if self.tracing {
                        self.trace.push(Frame::Hub(message.clone()));
                    }
                    link.to_owner.push_back(message);
                }
                Output::Commit(transaction) => link.commits.push_back(transaction),
                Output::Compare(compare) => link.compares.push_back(compare),
                Output::Finish(finish) => link.finished.push(finish),
                Output::Report(_) => {}
                Output::Read(_) | Output::TakeIncarnation => self.blame("a hub reads".to_owned()),
            }
        }
    }

    // ---- the hub's store, watched ----

    fn commit(&mut self, transaction: Transaction) -> Result<Committed, Violation> {
        let before = self.hub.clone();
        let wall = self.wall();
        let result = self.hub.commit(transaction.clone(), wall);
        self.check(&before, &result);
        self.check_old_label(&before);
        match &transaction {
            Transaction::State { state, .. } => self.check_label(&before, state.incarnation, &result),
            Transaction::Answer { .. } => self.check_diff(&before),
            Transaction::Matchpoint(_) | Transaction::Ops { .. } | Transaction::Mark(_) => {}
        }
        let around = Around {
            before: before.replica(),
            after: self.hub.replica(),
            copies_before: copies(&before),
            copies_after: copies(&self.hub),
        };
        self.seen.transaction(&transaction, &result, around);
        match &result {
            Ok(Committed::Marked { outcome: Comparison::Differs, .. }) if !self.rot_pending => {
                self.seen.false_differs += 1;
            }
            Ok(
                Committed::Marked { outcome: Comparison::Equal, .. }
                | Committed::Judged { proposal: Proposal::InSync, .. },
            ) => self.rot_pending = false,
            Ok(Committed::Applied(_)) if self.losing => {
                self.lose_after_repair(before.replica().diff.is_some());
            }
            _ => {}
        }
        result
    }

    /// What no transaction may do: lose a version that only the hub has, touch rows and refuse, hold what the view
    /// does not show.
    fn check(&mut self, before: &HubModel, result: &Result<Committed, Violation>) {
        let kept = |row: &Operation| {
            self.hub.live().get(&row.id) == Some(row)
                || self.hub.parked.iter().any(|copy| copy.operation == *row)
        };
        let gone = before.live().values().chain(before.parked.iter().map(|copy| &copy.operation));
        let lost = gone
            .filter(|row| !kept(row))
            .map(|row| self.version(row))
            .find(|version| !self.history.contains(version) && !self.rotted.contains(version));
        if let Some(version) = lost {
            self.blame(format!("lost {version:?} in {result:?}"));
        }
        let refused = matches!(result, Ok(Committed::Conflict { .. }) | Err(_));
        if refused && (self.hub.live() != before.live() || self.hub.parked != before.parked) {
            self.blame("a refused transaction changed rows".to_owned());
        }
        let replica = self.hub.replica();
        let forbidden = self
            .hub
            .live()
            .values()
            .find(|row| replica.view.as_ref().is_none_or(|view| !view.includes(row.record.scope())));
        if let Some(row) = forbidden {
            self.blame(format!("holds {row:?} outside the view"));
        }
        if self.hub.replica().cursor.modno > self.hub.replica().newest.modno {
            self.blame(format!("cursor above newest after {result:?}"));
        }
    }

    /// A superseded label is refused, and only such a one.
    fn check_label(&mut self, before: &HubModel, label: Incarnation, result: &Result<Committed, Violation>) {
        let Ok(superseded) = before.clone().is_superseded(label);
        if superseded != matches!(result, Ok(Committed::Conflict { .. })) {
            self.blame(format!("label {label}, superseded {superseded}, led to {result:?}"));
        }
    }

    /// A label that is no longer the current one is superseded.
    fn check_old_label(&mut self, before: &HubModel) {
        let current = self.hub.replica().incarnation;
        let Some(old) = before.replica().incarnation.filter(|old| Some(*old) != current) else { return };
        if self.hub.is_superseded(old) != Ok(true) {
            self.blame(format!("label {old} was replaced and is not superseded"));
        }
    }

    /// A diff judges only rows that its manifests could have listed: none above everything that was read for it.
    fn check_diff(&mut self, before: &HubModel) {
        let newest = self.hub.replica().newest.modno;
        let unheard = before.live().values().find(|row| {
            row.modno > newest && self.hub.live().get(&row.id).is_none_or(|now| now.modno < row.modno)
        });
        if let Some(row) = unheard {
            self.blame(format!("a diff removed {row:?}, which is newer than its manifests"));
        }
    }

    pub fn version(&self, row: &Operation) -> Version {
        (row.id, row.modno, self.hasher.row(row))
    }

    /// A hub that loses rows again as soon as they were fetched.
    fn lose_after_repair(&mut self, was_diffing: bool) {
        let replica = self.hub.replica();
        let diff_ended = was_diffing && replica.diff.is_none();
        let ended = diff_ended || replica.rung == Some(Rung::Restream);
        let victim = self.hub.live().keys().next().copied();
        victim.filter(|_| ended).into_iter().for_each(|id| self.lose_row(id));
    }

    /// The operator lets the hub repair again.
    pub fn release(&mut self) {
        self.seen.released_by_operator += u64::from(self.hub.replica().quarantined.is_some());
        let released: Result<(), std::convert::Infallible> = release(&mut self.hub);
        released.unwrap();
    }

    /// A row at the hub is found to be bad and goes with its term.
    pub fn lose_row(&mut self, id: OpId) {
        self.mark_rotted(id);
        self.hub.lose(id);
    }

    /// A row's modno at the hub is changed behind everybody's back.
    pub fn corrupt_row(&mut self, id: OpId, modno: Modno) {
        self.mark_rotted(id);
        self.hub.corrupt_modno(id, modno);
        self.mark_rotted(id);
    }

    fn mark_rotted(&mut self, id: OpId) {
        if let Some(row) = self.hub.live().get(&id) {
            self.rotted.insert(self.version(row));
            self.rot_pending = true;
        }
    }

    /// Why the hub does not hold exactly what the owner shows it, if so.
    pub fn difference(&self) -> Option<String> {
        let view = self.view();
        let shown: Vec<_> =
            self.owner.live().values().filter(|row| view.includes(row.record.scope())).collect();
        let held: Vec<_> = self.hub.live().values().collect();
        (shown != held).then(|| format!("owner shows {shown:?}\nhub holds {held:?}"))
    }

    /// What is not as it should be once both sides are at rest and hold the same.
    pub fn unrest(&self) -> Option<String> {
        let replica = self.hub.replica();
        let rest = replica.diff.is_none()
            && replica.rung.is_none()
            && replica.quarantined.is_none()
            && replica.conflict.is_none()
            && replica.cursor == self.owner.head();
        (!rest).then(|| format!("not at rest: owner at {}, hub {replica:?}", self.owner.head()))
    }
}

fn copies(hub: &HubModel) -> [usize; 4] {
    ParkReason::ALL.map(|(reason, _)| hub.parked.iter().filter(|copy| copy.reason == reason).count())
}

/// What a frame tells that the view does not allow.
fn leak(message: &Message, view: &View) -> Option<String> {
    let scopes: Vec<_> = match message {
        Message::Ops(ops) => ops
            .operations
            .iter()
            .map(|row| row.record.scope())
            .chain(ops.tombstones.iter().map(|gone| &gone.scope))
            .collect(),
        Message::Answer(answer) => answer.operations.iter().map(|row| row.record.scope()).collect(),
        _ => Vec::new(),
    };
    scopes.into_iter().find(|scope| !view.includes(scope)).map(|scope| format!("leaked {scope:?}"))
}
