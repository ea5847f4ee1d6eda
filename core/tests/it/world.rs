//! One host and what a hub holds of it, joined by a link that delivers what it is told to.
//!
//! The world also keeps what neither side knows: every version that the host's present history has gone through. With
//! it, each hub transaction is checked: what vanishes must be known to that history, or it was lost.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use opmesh_core::model::{Incarnation, Modno, OpId, ProcessNonce, PublicKey, Record, RowHash, UnixMs};
use opmesh_core::oracle::{FrameSize, HubModel, OwnerModel, row_hash};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::protocol::{Comparison, EndReason, Message, Violation};
use opmesh_core::replica::{Committed, Transaction};
use opmesh_core::session::{
    Compare, Finish, Found, Hub, HubConfig, Input, Output, Owner, OwnerConfig, Read, Report,
};

/// A version of a row: what the row hash covers, and the hash.
pub type Version = (OpId, Modno, RowHash);

pub struct World {
    pub key: PublicKey,
    pub owner: OwnerModel,
    /// Every version in the owner's present history.
    pub history: BTreeSet<Version>,
    /// Versions that rotted at the hub: nobody can be asked to keep them.
    pub rotted: BTreeSet<Version>,
    pub granted: Scopes,
    pub hub: HubModel,
    pub link: Option<Link>,
    pub now: Duration,
    next_label: u64,
    pub seen: Seen,
    /// A rule that was broken by the code under test; the schedule fails with it.
    pub fault: Option<String>,
    /// Rows were lost or altered since the sets were last equal, so that a Mark may rightly differ.
    pub rot_pending: bool,
}

/// What happened, counted.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub sessions: u64,
    pub in_sync: u64,
    pub forks: u64,
    pub differs: u64,
    pub false_differs: u64,
    pub repairs: u64,
    pub conflicts: u64,
    pub frames: u64,
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
}

pub enum OwnerEffect {
    Read(Read),
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
            owner: OwnerModel::new(&key, label, frame),
            history: BTreeSet::new(),
            rotted: BTreeSet::new(),
            granted: "*".parse().unwrap(),
            hub: HubModel::new(&key),
            link: None,
            now: Duration::ZERO,
            next_label: label.get() + 1,
            seen: Seen::default(),
            fault: None,
            rot_pending: false,
        }
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
            self.history.insert((id, row.modno, row_hash(&self.key, row)));
        }
        self.tell_changed();
    }

    fn tell_changed(&mut self) {
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
        View::new(self.granted.clone(), "*".parse().unwrap())
    }

    pub fn connect(&mut self) {
        self.seen.sessions += 1;
        let accepted: Scopes = "*".parse().unwrap();
        let process = ProcessNonce::new(self.seen.sessions).unwrap();
        let config = OwnerConfig { granted: self.granted.clone(), accepted: accepted.clone(), process };
        let mut link = Link {
            owner: Owner::new(config, self.now),
            hub: Hub::new(HubConfig { accepted }, self.now),
            to_hub: VecDeque::new(),
            to_owner: VecDeque::new(),
            reads: VecDeque::new(),
            commits: VecDeque::new(),
            compares: VecDeque::new(),
            changed: false,
            finished: Vec::new(),
            view: self.view(),
        };
        let mut out = Vec::new();
        link.owner.handle(self.now, Input::Tick, &mut out);
        self.link = Some(link);
        self.owner_did(out);
    }

    pub fn cut(&mut self) {
        self.link = None;
    }

    /// The owner ends the session, as on a change of grants.
    pub fn close(&mut self, reason: EndReason) {
        self.owner_input(Input::Close(reason));
        while self.step(Step::DeliverToHub) {}
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
                    OwnerEffect::Read(read) => Input::Found(self.owner.read(read)),
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
        for _ in 0..200_000 {
            let Some(step) = self.steps().first().copied() else { return };
            self.step(step);
            if self.link.as_ref().is_some_and(|link| !link.finished.is_empty()) {
                self.drain_finished();
            }
        }
        panic!("a session does not come to rest");
    }

    fn drain_finished(&mut self) {
        let Some(link) = self.link.take_if(|link| !link.finished.is_empty()) else { return };
        for finish in link.finished {
            match finish {
                Finish::Violation(Violation::SupersededIncarnation { .. }) => self.seen.conflicts += 1,
                Finish::Violation(violation) => self.blame(format!("two honest peers: {violation}")),
                Finish::Silent => self.blame("silent".to_owned()),
                Finish::Closed(_) | Finish::PeerEnded(_) => {}
            }
        }
    }

    /// Forgets a link that has ended, and says how.
    pub fn reap(&mut self) {
        self.drain_finished();
    }

    fn blame(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    fn owner_input(&mut self, input: Input) {
        let Some(link) = &mut self.link else { return };
        let mut out = Vec::new();
        link.owner.handle(self.now, input, &mut out);
        self.owner_did(out);
    }

    fn hub_input(&mut self, input: Input) {
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
                    let leak = leak(&message, &link.view);
                    link.to_hub.push_back(message);
                    self.seen.frames += 1;
                    if let Some(leak) = leak {
                        self.blame(leak);
                    }
                }
                Output::Read(read) => link.reads.push_back(OwnerEffect::Read(read)),
                Output::TakeIncarnation => link.reads.push_back(OwnerEffect::TakeIncarnation),
                Output::Finish(finish) => link.finished.push(finish),
                Output::Report(report) => self.note(&report),
                Output::Commit(_) | Output::Compare(_) => self.blame("an owner commits".to_owned()),
            }
        }
    }

    fn note(&mut self, report: &Report) {
        match report {
            Report::Fork { .. } => self.seen.forks += 1,
            Report::Proved { .. } => self.seen.in_sync += 1,
            Report::Verdict(_) | Report::Acked(_) | Report::CaughtUp(_) => {}
            Report::Differs(_) | Report::Applied(_) => {}
        }
    }

    fn hub_did(&mut self, out: Vec<Output>) {
        for output in out {
            let Some(link) = &mut self.link else { return };
            match output {
                Output::Send(message) => link.to_owner.push_back(message),
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
        let before = self.versions();
        let live_before = self.hub.live().clone();
        let wall = UnixMs(i64::try_from(self.now.as_millis()).unwrap());
        let result = self.hub.commit(transaction, wall);
        let after = self.versions();
        for version in before.difference(&after) {
            if !self.history.contains(version) && !self.rotted.contains(version) {
                self.fault.get_or_insert(format!("lost {version:?} in {result:?}"));
            }
        }
        match &result {
            Ok(Committed::Conflict { .. }) | Err(_) if *self.hub.live() != live_before => {
                self.blame("a refused transaction changed rows".to_owned());
            }
            Ok(Committed::Marked { outcome: Comparison::Differs, repair, .. }) => {
                self.seen.differs += 1;
                self.seen.repairs += u64::from(repair.is_some());
                self.seen.false_differs += u64::from(!self.rot_pending);
            }
            Ok(Committed::Marked { outcome: Comparison::Equal, .. }) => self.rot_pending = false,
            _ => {}
        }
        result
    }

    /// Every version that the hub keeps, live or set aside.
    fn versions(&self) -> BTreeSet<Version> {
        self.hub
            .live()
            .values()
            .chain(self.hub.parked.iter().map(|copy| &copy.operation))
            .map(|row| (row.id, row.modno, row_hash(&self.key, row)))
            .collect()
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
            self.rotted.insert((id, row.modno, row_hash(&self.key, row)));
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
