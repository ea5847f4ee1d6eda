//! One side of a session alone, with hand-made messages from the other.

use std::collections::VecDeque;
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use opmesh_core::config::Resources;
use opmesh_core::model::{
    Chain, FlowId, Incarnation, Modno, OpId, Operation, Position, ProcessNonce, PublicKey, Record, Scope,
    SetDigest, Tombstone, UnixMs,
};
use opmesh_core::oracle::{FrameSize, HubModel, OwnerModel};
use opmesh_core::protocol::{
    Ack, Answer, Comparison, EndReason, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Outcome,
    Proposal, Share, State, Verdict,
};
use opmesh_core::replica::{Committed, Transaction};
use opmesh_core::session::{
    Changes, Compare, Finish, Found, Hub, HubConfig, Input, Output, Owner, OwnerConfig, Read,
};
use opmesh_core::succession::{Statement, Succession};

use crate::world::World;

/// The owner's label in these tests; the one before it is superseded.
pub const LABEL: u64 = 7;
/// What the hub may see.
pub const GRANTED: &str = "repo:a";

/// Six rows in the view, three outside it.
pub fn world() -> World {
    let mut world = World::new(1, FrameSize { rows: 2, entries: 2 });
    for n in 0..9 {
        world.create(["a", "a", "b"][n % 3], "x", &format!("row {n}"));
    }
    world
}

/// Two sides that hold the same, after the hub has seen everything once: three copies are parked by view.
pub fn synced() -> World {
    let mut world = world();
    world.connect();
    world.run();
    world.cut();
    world.granted = GRANTED.parse().unwrap();
    world.connect();
    world.run();
    world.cut();
    assert_eq!((world.hub.live().len(), world.hub.parked.len()), (6, 3));
    world
}

// ---- the hub alone ----

pub struct HubBench {
    pub hub: Hub,
    pub model: HubModel,
    /// Commits and comparisons wait.
    pub held: bool,
    commits: VecDeque<Transaction>,
    compares: VecDeque<Compare>,
    pub sent: Vec<Message>,
    pub finished: Vec<Finish>,
}

impl HubBench {
    pub fn new(model: HubModel) -> Self {
        let accepted = "*".parse().unwrap();
        Self {
            hub: Hub::new(HubConfig { accepted }, Duration::ZERO),
            model,
            held: false,
            commits: VecDeque::new(),
            compares: VecDeque::new(),
            sent: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// A hub that has answered State with a proposal to resume.
    pub fn proposed() -> Self {
        let mut bench = Self::new(synced().hub);
        bench.hear(state(LABEL));
        bench
    }

    pub fn streaming() -> Self {
        let mut bench = Self::proposed();
        let (base, end) = (bench.cursor(), after(bench.cursor(), 1));
        bench.hear(ops(base, end, vec![]));
        bench
    }

    /// A hub that was told of a fork and waits for manifests.
    pub fn diffing() -> Self {
        let mut bench = Self::proposed();
        bench.hear(Message::Matchpoint(Matchpoint {
            position: Some(bench.cursor()),
            incarnation: label(LABEL + 1),
        }));
        bench
    }

    /// A hub with an owed diff that it proposes.
    pub fn proposed_diff() -> Self {
        let mut bench = Self::new(Self::diffing().model);
        bench.hear(state(LABEL + 1));
        assert!(matches!(
            bench.sent[..],
            [Message::Verdict(Verdict { proposal: Proposal::Diff { .. }, .. })]
        ));
        bench
    }

    /// A hub that found a difference and proposed a diff.
    pub fn repairing() -> Self {
        let mut bench = Self::streaming();
        let position = bench.cursor();
        bench.hear(mark(position));
        bench
    }

    /// A hub that found a difference after a diff that changed nothing.
    pub fn restreaming() -> Self {
        let mut bench = Self::repairing();
        let position = bench.cursor();
        let listed: Vec<_> = bench.model.live().values().map(|row| (row.id, row.modno)).collect();
        bench.hear(manifest(0, OpId::END, position, listed));
        bench.hear(answer(OpId::END, position, vec![]));
        bench.hear(mark(position));
        let proposals = bench.sent.iter().filter(|message| {
            matches!(message, Message::Verdict(Verdict { proposal: Proposal::Restream, .. }))
        });
        assert_eq!(proposals.count(), 1);
        bench
    }

    pub fn cursor(&self) -> Position {
        self.model.replica().cursor
    }

    pub fn hear(&mut self, message: Message) {
        self.input(Input::Received(message));
    }

    pub fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.hub.handle(Duration::ZERO, input, &mut out);
        for output in out {
            match output {
                Output::Send(message) => self.sent.push(message),
                Output::Commit(transaction) => self.commits.push_back(transaction),
                Output::Compare(compare) => self.compares.push_back(compare),
                Output::Finish(finish) => self.finished.push(finish),
                Output::Report(_) => {}
                Output::Read(_) | Output::TakeIncarnation => panic!("a hub has no log"),
            }
        }
        if !self.held {
            self.catch_up();
        }
    }

    pub fn catch_up(&mut self) {
        while let Some(transaction) = self.commits.pop_front() {
            let result = self.model.commit(transaction, UnixMs(0));
            self.input(Input::Committed(result));
        }
        while let Some(compare) = self.compares.pop_front() {
            let needs = self.model.compare(&compare);
            self.input(Input::Found(Found::Needs(needs)));
        }
    }

    /// Rows, live and set aside: what a refused frame must not touch.
    pub fn rows(&self) -> (Vec<Operation>, Vec<Operation>, Position) {
        let parked = self.model.parked.iter().map(|copy| copy.operation.clone()).collect();
        (self.model.live().values().cloned().collect(), parked, self.cursor())
    }
}

// ---- the owner alone ----

pub struct OwnerBench {
    pub owner: Owner,
    pub model: OwnerModel,
    /// Reads wait.
    pub held: bool,
    reads: VecDeque<Option<Read>>,
    pub sent: Vec<Message>,
    pub finished: Vec<Finish>,
}

impl OwnerBench {
    pub fn new() -> Self {
        let config = OwnerConfig {
            granted: GRANTED.parse().unwrap(),
            accepted: "*".parse().unwrap(),
            process: ProcessNonce::new(1).unwrap(),
        };
        Self {
            owner: Owner::new(config, Duration::ZERO),
            model: world().owner,
            held: false,
            reads: VecDeque::new(),
            sent: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Its first read is under way.
    pub fn greeting() -> Self {
        let mut bench = Self::new();
        bench.held = true;
        bench.input(Input::Tick);
        bench
    }

    pub fn judged() -> Self {
        let mut bench = Self::new();
        bench.input(Input::Tick);
        bench
    }

    /// It looks up the hub's positions.
    pub fn choosing() -> Self {
        let mut bench = Self::judged();
        bench.held = true;
        bench.hear(verdict(Proposal::Resume { cursor: Position::ZERO }, Position::ZERO));
        bench
    }

    /// It makes a new label durable.
    pub fn branching() -> Self {
        let mut bench = Self::judged();
        bench.held = true;
        bench.hear(verdict(Proposal::Resume { cursor: Position::ZERO }, nowhere()));
        bench.step();
        bench
    }

    /// Everything was sent and acknowledged but a Mark.
    pub fn streaming() -> Self {
        let mut bench = Self::judged();
        bench.hear(verdict(Proposal::Resume { cursor: Position::ZERO }, Position::ZERO));
        bench
    }

    /// Its Mark differed.
    pub fn differed() -> Self {
        let mut bench = Self::streaming();
        let position = bench.model.head();
        let answered = MarkAnswer { position, outcome: Comparison::Differs };
        bench.hear(ack(8, 5, Some(answered)));
        bench
    }

    /// Three manifests were sent.
    pub fn diffing() -> Self {
        let mut bench = Self::judged();
        bench.hear(verdict(Proposal::Diff { done: 0 }, Position::ZERO));
        bench
    }

    pub fn hear(&mut self, message: Message) {
        self.input(Input::Received(message));
    }

    pub fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.owner.handle(Duration::ZERO, input, &mut out);
        for output in out {
            match output {
                Output::Send(message) => self.sent.push(message),
                Output::Read(read) => self.reads.push_back(Some(read)),
                Output::TakeIncarnation => self.reads.push_back(None),
                Output::Finish(finish) => self.finished.push(finish),
                Output::Report(_) => {}
                Output::Commit(_) | Output::Compare(_) => panic!("an owner commits nothing"),
            }
        }
        while !self.held && self.step() {}
    }

    pub fn step(&mut self) -> bool {
        let Some(effect) = self.reads.pop_front() else { return false };
        let input = match effect {
            Some(read) => Input::Found(self.model.read(read)),
            None => Input::NewIncarnation(label(LABEL + 1)),
        };
        self.input(input);
        true
    }
}

/// Every input there is, for sides that are to stay silent.
pub fn inputs() -> Vec<Input> {
    let mut inputs: Vec<Input> =
        messages().into_iter().map(|(_, message)| Input::Received(message)).collect();
    inputs.extend([
        Input::Tick,
        Input::Changed,
        Input::Close(EndReason::Shutdown),
        Input::NewIncarnation(label(99)),
        Input::Found(Found::Needs(vec![])),
        Input::Found(Found::Changes(Changes {
            operations: vec![],
            tombstones: vec![],
            end: Position::ZERO,
            as_of: Position::ZERO,
            consistent: None,
        })),
        Input::Committed(Ok(Committed::Forked { parked: 0 })),
    ]);
    inputs
}

/// One message of each kind, with its name.
pub fn messages() -> Vec<(&'static str, Message)> {
    vec![
        ("State", state(LABEL)),
        ("Verdict", verdict(Proposal::Diff { done: 0 }, Position::ZERO)),
        ("Matchpoint", Message::Matchpoint(Matchpoint { position: None, incarnation: label(LABEL + 5) })),
        ("Manifest", manifest(0, OpId::END, nowhere(), vec![])),
        ("Need", Message::Need(Need { hi: OpId::END, ids: vec![] })),
        ("Answer", answer(OpId::END, nowhere(), vec![])),
        ("Ops", ops(Position::ZERO, nowhere(), vec![])),
        ("Mark", mark(nowhere())),
        ("Ack", ack(8, 0, None)),
        ("Config", Message::Share(Share::Config(crate::sharing::shown(1)))),
        ("Resources", Message::Share(Share::Resources(Resources::default()))),
        ("Write", Message::Share(Share::Write(crate::sharing::write(1)))),
        ("Written", Message::Share(Share::Written(crate::sharing::written(1, Outcome::Unchanged)))),
        ("Succession", Message::Succession(Box::new(succession()))),
        ("SuccessionKnown", Message::SuccessionKnown(succession().newest())),
        ("Heartbeat", Message::Heartbeat),
        ("End", Message::End(EndReason::Shutdown)),
    ]
}

// ---- messages ----

/// From one key to another, signed by both.
pub fn succession() -> Succession {
    let keys = [1, 2].map(|seed| SigningKey::from_bytes(&[seed; 32]));
    let [old, new] = [&keys[0], &keys[1]].map(|key| PublicKey(key.verifying_key().to_bytes()));
    let signs = Statement::signs(&old, &new, UnixMs(7));
    let (by_old, by_new) = (keys[0].sign(&signs.by_old).to_bytes(), keys[1].sign(&signs.by_new).to_bytes());
    Succession::new(vec![Statement { old, new, at: UnixMs(7), by_old, by_new }]).unwrap()
}

pub fn label(number: u64) -> Incarnation {
    Incarnation::new(number).unwrap()
}

/// A position that nobody has been at.
pub fn nowhere() -> Position {
    Position { modno: Modno::new(500).unwrap(), chain: Chain([0xee; 16]) }
}

pub fn after(position: Position, steps: u64) -> Position {
    Position { modno: Modno::new(position.modno.get() + steps).unwrap(), chain: Chain([7; 16]) }
}

pub fn row(id: u64, modno: u64, repo: &str) -> Operation {
    Operation {
        id: OpId::new(id).unwrap(),
        flow_id: FlowId::new(id).unwrap(),
        modno: Modno::new(modno).unwrap(),
        record: Record::for_tests(repo, "x", "forged"),
    }
}

pub fn gone(id: u64, modno: u64, repo: &str) -> Tombstone {
    let scope = Scope { repo: repo.to_owned(), plan: "x".to_owned() };
    Tombstone { id: OpId::new(id).unwrap(), modno: Modno::new(modno).unwrap(), scope }
}

pub fn state(incarnation: u64) -> Message {
    let set = SetDigest::EMPTY;
    Message::State(State {
        incarnation: label(incarnation),
        process: ProcessNonce::new(1).unwrap(),
        head: nowhere(),
        granted: GRANTED.parse().unwrap(),
        set,
    })
}

pub fn verdict(proposal: Proposal, newest: Position) -> Message {
    Message::Verdict(Verdict { proposal, newest, candidates: vec![], credit: 8 })
}

pub fn ops(base: Position, end: Position, operations: Vec<Operation>) -> Message {
    Message::Ops(Ops { base, end, as_of: end, operations, tombstones: vec![] })
}

pub fn mark(position: Position) -> Message {
    Message::Mark(Mark { position, set: SetDigest::EMPTY })
}

pub fn manifest(lo: u64, hi: u64, as_of: Position, entries: Vec<(OpId, Modno)>) -> Message {
    Message::Manifest(Manifest { lo, hi, as_of, entries })
}

pub fn answer(hi: u64, as_of: Position, operations: Vec<Operation>) -> Message {
    Message::Answer(Answer { hi, as_of, operations, gone: vec![], last: hi == OpId::END })
}

pub fn ack(credit: u64, settled: u64, mark: Option<MarkAnswer>) -> Message {
    Message::Ack(Ack { cursor: Position::ZERO, credit, settled, mark })
}
