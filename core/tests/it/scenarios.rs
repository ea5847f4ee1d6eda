//! One accident each, told as a story.

mod deletes;
mod flow;
mod history;
mod rot;
mod sync;
mod views;

use opmesh_core::model::OpId;
use opmesh_core::oracle::FrameSize;
use opmesh_core::protocol::{Message, Proposal};
use opmesh_core::replica::ParkReason;

use crate::world::{Frame, World};

/// Small frames, so that few rows make several.
const SMALL: FrameSize = FrameSize { rows: 3, entries: 4 };

fn world() -> World {
    world_with(SMALL)
}

fn world_with(frame: FrameSize) -> World {
    let mut world = World::new(1, frame);
    world.tracing = true;
    world
}

/// So many operations of one repository.
fn fill(world: &mut World, repo: &str, count: usize) -> Vec<OpId> {
    (0..count).map(|n| world.create(repo, "x", &format!("{repo} {n}"))).collect()
}

/// Runs the session until it rests; both sides hold the same then.
fn settle(world: &mut World) {
    if world.link.is_none() {
        world.connect();
    }
    world.run();
    sound(world);
    assert_eq!(world.difference(), None);
}

/// A new session, run until it rests; the trace is this session's.
fn reconnect(world: &mut World) {
    world.cut();
    world.trace.clear();
    settle(world);
}

fn sound(world: &World) {
    assert_eq!(world.fault, None);
    assert_eq!(world.seen.false_differs, 0, "a mark differed without a cause");
}

fn parked(world: &World, reason: ParkReason) -> Vec<OpId> {
    world.hub.parked.iter().filter(|copy| copy.reason == reason).map(|copy| copy.operation.id).collect()
}

/// The names of the frames, in the order in which they were sent.
fn names(world: &World) -> Vec<&'static str> {
    world.trace.iter().map(|frame| name(message(frame))).collect()
}

fn count(world: &World, wanted: &str) -> usize {
    names(world).iter().filter(|name| **name == wanted).count()
}

fn proposals(world: &World) -> Vec<Proposal> {
    let proposal = |frame: &Frame| match frame {
        Frame::Hub(Message::Verdict(verdict)) => Some(verdict.proposal),
        Frame::Hub(_) | Frame::Owner(_) => None,
    };
    world.trace.iter().filter_map(proposal).collect()
}

/// Operations that were sent, each time it happened.
fn sent(world: &World) -> Vec<OpId> {
    let rows = |frame: &Frame| match message(frame) {
        Message::Ops(ops) => ops.operations.iter().map(|row| row.id).collect(),
        Message::Answer(answer) => answer.operations.iter().map(|row| row.id).collect(),
        _ => Vec::new(),
    };
    world.trace.iter().flat_map(rows).collect()
}

fn message(frame: &Frame) -> &Message {
    match frame {
        Frame::Owner(message) | Frame::Hub(message) => message,
    }
}

fn name(message: &Message) -> &'static str {
    match message {
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
    }
}
