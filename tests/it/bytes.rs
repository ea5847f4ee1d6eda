//! Bytes and exchanges are exact, so they are asserted: counted on the encoded frames, from State on.

use std::time::Duration;

use opmesh::wire;
use opmesh_core::model::{Incarnation, OpId, ProcessNonce, PublicKey, Record, UnixMs};
use opmesh_core::oracle::{FrameSize, HubModel, OwnerModel};
use opmesh_core::permission::{Scopes, View};
use opmesh_core::protocol::Message;
use opmesh_core::protocol::limits::{FRAME_BYTES, FRAME_OPERATIONS, MANIFEST_ENTRIES};
use opmesh_core::session::{Found, Hub, HubConfig, Input, Output, Owner, OwnerConfig};
use prost::Message as _;

const KEY: PublicKey = PublicKey([7; 32]);

/// The limit of a warm reconnect in bytes, both ways together (design §5).
const WARM_BYTES: usize = 256;
/// The limit of finding a fork in bytes, both ways together.
const FORK_BYTES: usize = 1_200;
/// What a frame may have beside its entries: tags, lengths, positions.
const FRAME_OVERHEAD: usize = 128;

/// Two sessions and their stores; every frame goes through the wire format.
struct Pair {
    owner: OwnerModel,
    hub: HubModel,
    frames: Vec<(&'static str, usize)>,
}

fn everything() -> Scopes {
    Scopes::everything()
}

fn owner_with(operations: u64) -> OwnerModel {
    let label = Incarnation::new(0x1234_5678_9abc_def0).unwrap();
    let frame = FrameSize { rows: FRAME_OPERATIONS, entries: MANIFEST_ENTRIES };
    let mut owner = OwnerModel::new(&KEY, label, frame);
    for n in 0..operations {
        owner.create(Record::for_tests("repo", ["daily", "weekly"][usize::from(n % 7 == 0)], "ok"));
    }
    owner
}

impl Pair {
    fn in_step(owner: OwnerModel) -> Self {
        let hub = HubModel::in_step_with(&owner, &View::new(everything(), everything()));
        Self { owner, hub, frames: Vec::new() }
    }

    /// One session from State until it comes to rest, or until `stop` says so.
    fn session(&mut self, mut stop: impl FnMut(&mut OwnerModel, &[(&'static str, usize)]) -> bool) {
        let process = ProcessNonce::new(0x0fed_cba9_8765_4321).unwrap();
        let config = OwnerConfig { granted: everything(), accepted: everything(), process };
        let mut owner = Owner::new(config, Duration::ZERO);
        let mut hub = Hub::new(HubConfig { accepted: everything() }, Duration::ZERO);
        let (mut to_owner, mut to_hub) = (vec![Input::Tick], Vec::new());
        while !(to_owner.is_empty() && to_hub.is_empty()) {
            let mut out = Vec::new();
            for input in to_owner.drain(..) {
                owner.handle(Duration::ZERO, input, &mut out);
            }
            for output in out {
                match output {
                    Output::Send(message) => to_hub.push(Input::Received(self.carry(message))),
                    Output::Read(read) => to_owner.push(Input::Found(self.owner.read(read))),
                    Output::TakeIncarnation => {
                        self.owner.incarnation = Incarnation::new(99).unwrap();
                        to_owner.push(Input::NewIncarnation(self.owner.incarnation));
                    }
                    Output::Finish(finish) => panic!("{finish:?}"),
                    Output::Report(_) | Output::Commit(_) | Output::Compare(_) => {}
                }
            }
            if stop(&mut self.owner, &self.frames) {
                return;
            }
            let mut out = Vec::new();
            for input in to_hub.drain(..) {
                hub.handle(Duration::ZERO, input, &mut out);
            }
            for output in out {
                match output {
                    Output::Send(message) => to_owner.push(Input::Received(self.carry(message))),
                    Output::Commit(transaction) => {
                        to_hub.push(Input::Committed(self.hub.commit(transaction, UnixMs(0))));
                    }
                    Output::Compare(compare) => {
                        to_hub.push(Input::Found(Found::Needs(self.hub.compare(&compare))));
                    }
                    Output::Finish(finish) => panic!("{finish:?}"),
                    Output::Report(_) | Output::Read(_) | Output::TakeIncarnation => {}
                }
            }
        }
    }

    fn carry(&mut self, message: Message) -> Message {
        let name = match &message {
            Message::State(_) => "State",
            Message::Verdict(_) => "Verdict",
            Message::Matchpoint(_) => "Matchpoint",
            Message::Manifest(_) => "Manifest",
            Message::Need(_) => "Need",
            Message::Answer(_) => "Answer",
            Message::Ops(_) => "Ops",
            Message::Mark(_) => "Mark",
            Message::Ack(_) => "Ack",
            Message::Share(share) => share.name(),
            Message::Succession(_) => "Succession",
            Message::SuccessionKnown(_) => "SuccessionKnown",
            Message::Heartbeat => "Heartbeat",
            Message::End(_) => "End",
        };
        let bytes = wire::encode(message).encode_to_vec();
        self.frames.push((name, bytes.len()));
        wire::decode(wire::Frame::decode(bytes.as_slice()).unwrap()).unwrap()
    }

    fn names(&self) -> Vec<&'static str> {
        self.frames.iter().map(|(name, _)| *name).collect()
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(|(_, bytes)| bytes).sum()
    }
}

#[test]
fn a_warm_reconnect_is_one_exchange_of_at_most_256_bytes_at_a_thousand_and_a_million_operations() {
    for operations in [1_000, 1_000_000] {
        let mut pair = Pair::in_step(owner_with(operations));
        pair.session(|_, _| false);
        println!("{operations} operations: {:?}, {} B", pair.frames, pair.bytes());
        assert_eq!(pair.names(), ["State", "Verdict"]);
        assert!(pair.bytes() <= WARM_BYTES, "{} B", pair.bytes());
    }
}

#[test]
fn a_fork_is_found_in_one_exchange_of_at_most_1200_bytes() {
    let mut owner = owner_with(200_000);
    let older = owner.clone();
    owner.create(Record::for_tests("repo", "daily", "dead branch"));
    let mut pair = Pair::in_step(owner);
    pair.owner = older;
    for _ in 0..10 {
        pair.owner.create(Record::for_tests("repo", "daily", "new branch"));
    }
    pair.session(|_, _| false);
    assert_eq!(pair.names()[..3], ["State", "Verdict", "Matchpoint"]);
    let found: usize = pair.frames[..3].iter().map(|(_, bytes)| bytes).sum();
    println!("fork at 200,000 operations: {:?}", &pair.frames[..3]);
    assert!(found <= FORK_BYTES, "{found} B");
    assert!(pair.owner.live().values().eq(pair.hub.live().values()));
    assert_eq!(pair.hub.parked.len(), 1);
}

#[test]
fn a_diff_stays_below_the_frame_limit_and_goes_on_where_it_was_cut_while_writes_go_on() {
    let mut pair = Pair::in_step(owner_with(200_000));
    for id in (1..200_000).step_by(97) {
        pair.hub.lose(OpId::new(id).unwrap());
    }
    // The cursor is right, so only a Mark can tell: one more change brings it.
    pair.owner.create(Record::for_tests("repo", "daily", "one more"));
    let answers = |frames: &[(&str, usize)]| frames.iter().filter(|(name, _)| *name == "Answer").count();
    pair.session(|owner, frames| {
        if answers(frames) > 0 {
            owner.update(OpId::new(5).unwrap(), "meanwhile");
        }
        answers(frames) == 3
    });
    let cut = pair.hub.replica().diff.unwrap();
    assert!(cut.done > 0);
    pair.frames.clear();
    pair.session(|owner, frames| {
        if frames.len() == 9 {
            owner.delete(OpId::new(150_000).unwrap());
        }
        false
    });
    assert_eq!(pair.names()[..3], ["State", "Verdict", "Manifest"]);
    assert!(pair.owner.live().values().eq(pair.hub.live().values()));
    let largest = pair.frames.iter().map(|(_, bytes)| *bytes).max().unwrap();
    println!("largest frame of a diff over 200,000 operations: {largest} B");
    assert!(largest <= FRAME_BYTES + FRAME_OVERHEAD, "{largest} B");
}
