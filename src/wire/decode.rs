//! Frame → `protocol::Message`. The one place where a peer's bytes become values.

use opmesh_core::diff;
use opmesh_core::model::{
    Chain, FlowId, Incarnation, Modno, NumberFault, OpId, Operation, Position, ProcessNonce, Record, Scope,
    SetDigest, Tombstone,
};
use opmesh_core::permission::Scopes;
use opmesh_core::protocol::limits::{CANDIDATES, FRAME_BYTES, FRAME_OPERATIONS, MANIFEST_ENTRIES};
use opmesh_core::protocol::{
    Ack, Answer, Comparison, EndReason, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal,
    State, Verdict,
};

use super::fault::WireFault;
use super::pb::{self, frame::Body};

/// The largest encoded message once the peer is authenticated; also the decoder's own limit, so that no announced
/// length reserves more.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// The largest encoded message from a peer that has not yet proved who it is.
pub const MESSAGE_BYTES_BEFORE_AUTHENTICATION: usize = 16 * 1024;

const _: () = assert!(MESSAGE_BYTES >= 2 * FRAME_BYTES, "a full frame and its numbers fit a message");

/// How much of a refused text is quoted back.
const QUOTED_CHARS: usize = 80;

/// What the frame of an established session says.
pub fn decode(frame: pb::Frame) -> Result<Message, WireFault> {
    let body = frame.body.ok_or(WireFault::UnknownBody)?;
    Ok(match body {
        Body::State(state) => Message::State(state.try_into()?),
        Body::Verdict(verdict) => Message::Verdict(verdict.try_into()?),
        Body::Matchpoint(matchpoint) => Message::Matchpoint(matchpoint.try_into()?),
        Body::Manifest(manifest) => Message::Manifest(manifest.try_into()?),
        Body::Need(need) => Message::Need(need.try_into()?),
        Body::Answer(answer) => Message::Answer(answer.try_into()?),
        Body::Ops(ops) => Message::Ops(ops.try_into()?),
        Body::Mark(mark) => Message::Mark(mark.try_into()?),
        Body::Ack(ack) => Message::Ack(ack.try_into()?),
        Body::Config(config) => Message::Share(config.try_into()?),
        Body::Resources(resources) => Message::Share(resources.try_into()?),
        Body::Write(write) => Message::Share(write.try_into()?),
        Body::Written(written) => Message::Share(written.try_into()?),
        Body::Succession(succession) => Message::Succession(Box::new(succession.try_into()?)),
        Body::SuccessionKnown(known) => Message::SuccessionKnown(super::succession::known(&known)?),
        Body::Heartbeat(pb::Heartbeat {}) => Message::Heartbeat,
        Body::End(end) => Message::End(end.try_into()?),
        Body::Hello(_)
        | Body::Challenge(_)
        | Body::Proof(_)
        | Body::Accepted(_)
        | Body::Confirm(_)
        | Body::Inquiry(_)
        | Body::Findings(_)
        | Body::SealOffer(_)
        | Body::SealAnswer(_)
        | Body::Sealed(_) => {
            return Err(WireFault::OutOfPlace { message: name(&body), expected: "a message of the session" });
        }
    })
}

/// The message's name as `docs/protocol.md` writes it.
pub(super) fn name(body: &Body) -> &'static str {
    match body {
        Body::Hello(_) => "Hello",
        Body::Challenge(_) => "Challenge",
        Body::Proof(_) => "Proof",
        Body::Accepted(_) => "Accepted",
        Body::Confirm(_) => "Confirm",
        Body::State(_) => "State",
        Body::Verdict(_) => "Verdict",
        Body::Matchpoint(_) => "Matchpoint",
        Body::Manifest(_) => "Manifest",
        Body::Need(_) => "Need",
        Body::Answer(_) => "Answer",
        Body::Ops(_) => "Ops",
        Body::Mark(_) => "Mark",
        Body::Ack(_) => "Ack",
        Body::Config(_) => "Config",
        Body::Resources(_) => "Resources",
        Body::Write(_) => "Write",
        Body::Written(_) => "Written",
        Body::Succession(_) => "Succession",
        Body::SuccessionKnown(_) => "SuccessionKnown",
        Body::Heartbeat(_) => "Heartbeat",
        Body::End(_) => "End",
        Body::Inquiry(_) => "Inquiry",
        Body::Findings(_) => "Findings",
        Body::SealOffer(_) => "SealOffer",
        Body::SealAnswer(_) => "SealAnswer",
        Body::Sealed(_) => "Sealed",
    }
}

impl TryFrom<pb::Position> for Position {
    type Error = WireFault;

    fn try_from(position: pb::Position) -> Result<Self, WireFault> {
        let modno = Modno::new(position.modno)?;
        let chain = match position.chain.as_slice() {
            [] if modno == Modno::ZERO => Chain::ZERO,
            bytes => Chain(fixed("position.chain", bytes)?),
        };
        if modno == Modno::ZERO && chain != Chain::ZERO {
            return Err(WireFault::ChainBeforeFirstChange);
        }
        Ok(Self { modno, chain })
    }
}

impl TryFrom<pb::State> for State {
    type Error = WireFault;

    fn try_from(state: pb::State) -> Result<Self, WireFault> {
        Ok(Self {
            incarnation: Incarnation::new(state.incarnation)?,
            process: ProcessNonce::new(state.process_nonce)?,
            head: position("state.head", state.head)?,
            granted: scopes("state.granted_scopes", &state.granted_scopes)?,
            set: set("state.digest", &state.digest, state.count)?,
        })
    }
}

impl TryFrom<pb::Verdict> for Verdict {
    type Error = WireFault;

    fn try_from(verdict: pb::Verdict) -> Result<Self, WireFault> {
        at_most("candidates", verdict.candidates.len(), CANDIDATES)?;
        Ok(Self {
            proposal: proposal(verdict.proposal, verdict.cursor, verdict.done)?,
            newest: position("verdict.newest", verdict.newest)?,
            candidates: all(verdict.candidates)?,
            credit: number("credit", verdict.credit)?,
        })
    }
}

fn proposal(word: i32, cursor: Option<pb::Position>, done: u64) -> Result<Proposal, WireFault> {
    use pb::verdict::Proposal as Word;
    let word =
        Word::try_from(word).map_err(|_| WireFault::Unknown { field: "verdict.proposal", value: word })?;
    if cursor.is_some() && word != Word::Resume {
        return Err(WireFault::Surplus { field: "verdict.cursor" });
    }
    if done != 0 && word != Word::Diff {
        return Err(WireFault::Surplus { field: "verdict.done" });
    }
    match word {
        Word::InSync => Ok(Proposal::InSync),
        Word::Resume => Ok(Proposal::Resume { cursor: position("verdict.cursor", cursor)? }),
        Word::Diff => Ok(Proposal::Diff { done: number("done", done)? }),
        Word::Restream => Ok(Proposal::Restream),
        Word::Unknown => Err(WireFault::Unknown { field: "verdict.proposal", value: word.into() }),
    }
}

impl TryFrom<pb::Matchpoint> for Matchpoint {
    type Error = WireFault;

    fn try_from(matchpoint: pb::Matchpoint) -> Result<Self, WireFault> {
        Ok(Self {
            position: matchpoint.position.map(Position::try_from).transpose()?,
            incarnation: Incarnation::new(matchpoint.incarnation)?,
        })
    }
}

impl TryFrom<pb::Manifest> for Manifest {
    type Error = WireFault;

    fn try_from(manifest: pb::Manifest) -> Result<Self, WireFault> {
        let (lo, hi) = (number("manifest.lo", manifest.lo)?, number("manifest.hi", manifest.hi)?);
        if lo > hi {
            return Err(WireFault::Order { what: "manifest.hi", value: hi, range: "[lo, 2⁶³−1]" });
        }
        small_enough("manifest.entries", manifest.entries.len())?;
        let entries = diff::decode_entries(lo, hi, &manifest.entries)
            .map_err(|fault| WireFault::Entries { message: "Manifest", fault })?;
        at_most("manifest entries", entries.len(), MANIFEST_ENTRIES)?;
        Ok(Self { lo, hi, as_of: position("manifest.as_of", manifest.as_of)?, entries })
    }
}

impl TryFrom<pb::Need> for Need {
    type Error = WireFault;

    fn try_from(need: pb::Need) -> Result<Self, WireFault> {
        let hi = number("need.hi", need.hi)?;
        Ok(Self { hi, ids: ids("Need", "need.ids", &need.ids, hi)? })
    }
}

impl TryFrom<pb::Answer> for Answer {
    type Error = WireFault;

    fn try_from(answer: pb::Answer) -> Result<Self, WireFault> {
        let hi = number("answer.hi", answer.hi)?;
        fits_a_frame(&answer.operations, 0)?;
        let operations: Vec<Operation> = all(answer.operations)?;
        ascending("operation", "[…, hi) of its Answer", operations.iter().map(|op| op.id.get()), 0, hi)?;
        let gone = ids("Answer", "answer.gone", &answer.gone, hi)?;
        let as_of = position("answer.as_of", answer.as_of)?;
        Ok(Self { hi, as_of, operations, gone, last: answer.last })
    }
}

impl TryFrom<pb::Ops> for Ops {
    type Error = WireFault;

    fn try_from(ops: pb::Ops) -> Result<Self, WireFault> {
        let base = position("ops.base", ops.base)?;
        let end = position("ops.end", ops.end)?;
        fits_a_frame(&ops.operations, ops.tombstones.len())?;
        let operations: Vec<Operation> = all(ops.operations)?;
        let tombstones: Vec<Tombstone> = all(ops.tombstones)?;
        let as_of = ops.as_of.map(Position::try_from).transpose()?.unwrap_or(end);
        if as_of != end && as_of.modno <= end.modno {
            let value = as_of.modno.get();
            return Err(WireFault::Order { what: "ops.as_of", value, range: "(end, …]" });
        }
        let (first, after) = (base.modno.get().saturating_add(1), end.modno.get().saturating_add(1));
        if first > after {
            let value = end.modno.get();
            return Err(WireFault::Order { what: "ops.end", value, range: "[base, …]" });
        }
        let range = "(base, end] of its Ops";
        ascending("modno", range, operations.iter().map(|op| op.modno.get()), first, after)?;
        ascending("modno", range, tombstones.iter().map(|gone| gone.modno.get()), first, after)?;
        Ok(Self { base, end, as_of, operations, tombstones })
    }
}

impl TryFrom<pb::Operation> for Operation {
    type Error = WireFault;

    fn try_from(operation: pb::Operation) -> Result<Self, WireFault> {
        let id = OpId::new(operation.id)?;
        Ok(Self {
            id,
            flow_id: FlowId::new(operation.flow_id)?,
            modno: Modno::new(operation.modno)?,
            record: Record::parse(operation.record)
                .map_err(|fault| WireFault::Record { id: id.get(), fault })?,
        })
    }
}

impl TryFrom<pb::Tombstone> for Tombstone {
    type Error = WireFault;

    fn try_from(tombstone: pb::Tombstone) -> Result<Self, WireFault> {
        let id = OpId::new(tombstone.id)?;
        for (field, text) in [("repo_id", &tombstone.repo_id), ("plan_id", &tombstone.plan_id)] {
            if text.is_empty() {
                return Err(WireFault::TombstoneScope { id: id.get(), field });
            }
        }
        let scope = Scope { repo: tombstone.repo_id, plan: tombstone.plan_id };
        Ok(Self { id, modno: Modno::new(tombstone.modno)?, scope })
    }
}

impl TryFrom<pb::Mark> for Mark {
    type Error = WireFault;

    fn try_from(mark: pb::Mark) -> Result<Self, WireFault> {
        Ok(Self {
            position: position("mark.position", mark.position)?,
            set: set("mark.digest", &mark.digest, mark.count)?,
        })
    }
}

impl TryFrom<pb::Ack> for Ack {
    type Error = WireFault;

    fn try_from(ack: pb::Ack) -> Result<Self, WireFault> {
        Ok(Self {
            cursor: position("ack.cursor", ack.cursor)?,
            credit: number("credit", ack.credit)?,
            settled: number("settled", ack.settled)?,
            mark: ack.mark.map(MarkAnswer::try_from).transpose()?,
        })
    }
}

impl TryFrom<pb::MarkAnswer> for MarkAnswer {
    type Error = WireFault;

    fn try_from(answer: pb::MarkAnswer) -> Result<Self, WireFault> {
        Ok(Self {
            position: position("ack.mark.position", answer.position)?,
            outcome: if answer.equal { Comparison::Equal } else { Comparison::Differs },
        })
    }
}

impl TryFrom<pb::End> for EndReason {
    type Error = WireFault;

    fn try_from(end: pb::End) -> Result<Self, WireFault> {
        use pb::end::Reason;
        match Reason::try_from(end.reason) {
            Ok(Reason::Shutdown) => Ok(Self::Shutdown),
            Ok(Reason::GrantsChanged) => Ok(Self::GrantsChanged),
            Ok(Reason::Revoked) => Ok(Self::Revoked),
            Ok(Reason::Displaced) => Ok(Self::Displaced),
            Ok(Reason::Aged) => Ok(Self::Aged),
            Ok(Reason::Unknown) | Err(_) => {
                Err(WireFault::Unknown { field: "end.reason", value: end.reason })
            }
        }
    }
}

fn position(field: &'static str, position: Option<pb::Position>) -> Result<Position, WireFault> {
    position.ok_or(WireFault::Missing { field })?.try_into()
}

fn set(field: &'static str, digest: &[u8], count: u64) -> Result<SetDigest, WireFault> {
    Ok(SetDigest::from_parts(fixed(field, digest)?, number("count", count)?))
}

fn scopes(field: &'static str, text: &str) -> Result<Scopes, WireFault> {
    Scopes::from_wire(text).map_err(|fault| WireFault::Scopes {
        field,
        text: text.chars().take(QUOTED_CHARS).collect(),
        reason: fault.to_string(),
    })
}

pub(super) fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireFault> {
    bytes.try_into().map_err(|_| WireFault::Length { field, bytes: bytes.len(), expected: N })
}

/// A bare number: whatever has no type of its own still fits a signed 64-bit integer.
fn number(what: &'static str, value: u64) -> Result<u64, WireFault> {
    if value > OpId::END {
        return Err(NumberFault { what, value, min: 0, max: OpId::END }.into());
    }
    Ok(value)
}

pub(super) fn all<P, T: TryFrom<P, Error = WireFault>>(parts: Vec<P>) -> Result<Vec<T>, WireFault> {
    parts.into_iter().map(T::try_from).collect()
}

fn ids(message: &'static str, field: &'static str, bytes: &[u8], hi: u64) -> Result<Vec<OpId>, WireFault> {
    small_enough(field, bytes.len())?;
    let ids = diff::decode_ids(bytes).map_err(|fault| WireFault::Entries { message, fault })?;
    ascending(field, "[…, hi)", ids.iter().map(|id| id.get()), 0, hi)?;
    Ok(ids)
}

pub(super) fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), WireFault> {
    if count > limit { Err(WireFault::TooMany { what, count, limit }) } else { Ok(()) }
}

fn small_enough(what: &'static str, bytes: usize) -> Result<(), WireFault> {
    if bytes > FRAME_BYTES { Err(WireFault::TooLarge { what, bytes, limit: FRAME_BYTES }) } else { Ok(()) }
}

/// A frame of rows: at most [`FRAME_OPERATIONS`] of them and [`FRAME_BYTES`] of records, but one operation always may.
fn fits_a_frame(operations: &[pb::Operation], tombstones: usize) -> Result<(), WireFault> {
    at_most("operations and tombstones", operations.len().saturating_add(tombstones), FRAME_OPERATIONS)?;
    if operations.len() > 1 {
        small_enough("frame", operations.iter().map(|operation| operation.record.len()).sum())?;
    }
    Ok(())
}

/// Strictly ascending inside [first, end).
fn ascending(
    what: &'static str,
    range: &'static str,
    values: impl IntoIterator<Item = u64>,
    first: u64,
    end: u64,
) -> Result<(), WireFault> {
    let mut next = first;
    for value in values {
        if value < next || value >= end {
            return Err(WireFault::Order { what, value, range });
        }
        next = value.saturating_add(1);
    }
    Ok(())
}
