//! `protocol::Message` → frame. Cannot fail: a message that exists fits a frame.

use opmesh_core::diff;
use opmesh_core::model::{Operation, Position, Tombstone};
use opmesh_core::protocol::{
    Ack, Answer, Comparison, EndReason, Manifest, Mark, MarkAnswer, Matchpoint, Message, Need, Ops, Proposal,
    State, Verdict,
};

use super::pb::{self, frame::Body};

/// The frame that says the same.
pub fn encode(message: Message) -> pb::Frame {
    let body = match message {
        Message::State(state) => Body::State(state.into()),
        Message::Verdict(verdict) => Body::Verdict(verdict.into()),
        Message::Matchpoint(matchpoint) => Body::Matchpoint(matchpoint.into()),
        Message::Manifest(manifest) => Body::Manifest(manifest.into()),
        Message::Need(need) => Body::Need(need.into()),
        Message::Answer(answer) => Body::Answer(answer.into()),
        Message::Ops(ops) => Body::Ops(ops.into()),
        Message::Mark(mark) => Body::Mark(mark.into()),
        Message::Ack(ack) => Body::Ack(ack.into()),
        Message::Share(share) => super::share::body(share),
        Message::Succession(succession) => Body::Succession((*succession).into()),
        Message::SuccessionKnown(key) => {
            Body::SuccessionKnown(pb::SuccessionKnown { public_key: key.0.to_vec() })
        }
        Message::Heartbeat => Body::Heartbeat(pb::Heartbeat {}),
        Message::End(reason) => Body::End(reason.into()),
    };
    pb::Frame { body: Some(body) }
}

/// At change 0 the chain is left out: it says nothing, and a warm reconnect counts bytes.
impl From<Position> for pb::Position {
    fn from(position: Position) -> Self {
        let chain = if position == Position::ZERO { Vec::new() } else { position.chain.0.to_vec() };
        Self { modno: position.modno.get(), chain }
    }
}

impl From<State> for pb::State {
    fn from(state: State) -> Self {
        Self {
            incarnation: state.incarnation.get(),
            process_nonce: state.process.get(),
            head: Some(state.head.into()),
            granted_scopes: state.granted.to_string(),
            digest: state.set.sum_bytes().to_vec(),
            count: state.set.count(),
        }
    }
}

impl From<Verdict> for pb::Verdict {
    fn from(verdict: Verdict) -> Self {
        use pb::verdict::Proposal as Word;
        let (proposal, cursor, done) = match verdict.proposal {
            Proposal::InSync => (Word::InSync, None, 0),
            Proposal::Resume { cursor } => (Word::Resume, Some(cursor.into()), 0),
            Proposal::Diff { done } => (Word::Diff, None, done),
            Proposal::Restream => (Word::Restream, None, 0),
        };
        Self {
            proposal: proposal.into(),
            cursor,
            done,
            newest: Some(verdict.newest.into()),
            candidates: verdict.candidates.into_iter().map(Into::into).collect(),
            credit: verdict.credit,
        }
    }
}

impl From<Matchpoint> for pb::Matchpoint {
    fn from(matchpoint: Matchpoint) -> Self {
        Self { position: matchpoint.position.map(Into::into), incarnation: matchpoint.incarnation.get() }
    }
}

impl From<Manifest> for pb::Manifest {
    fn from(manifest: Manifest) -> Self {
        Self {
            lo: manifest.lo,
            hi: manifest.hi,
            as_of: Some(manifest.as_of.into()),
            entries: diff::encode_entries(manifest.lo, &manifest.entries),
        }
    }
}

impl From<Need> for pb::Need {
    fn from(need: Need) -> Self {
        Self { hi: need.hi, ids: diff::encode_ids(&need.ids) }
    }
}

impl From<Answer> for pb::Answer {
    fn from(answer: Answer) -> Self {
        Self {
            hi: answer.hi,
            as_of: Some(answer.as_of.into()),
            operations: answer.operations.into_iter().map(Into::into).collect(),
            gone: diff::encode_ids(&answer.gone),
            last: answer.last,
        }
    }
}

impl From<Ops> for pb::Ops {
    fn from(ops: Ops) -> Self {
        Self {
            base: Some(ops.base.into()),
            end: Some(ops.end.into()),
            as_of: (ops.as_of != ops.end).then(|| ops.as_of.into()),
            operations: ops.operations.into_iter().map(Into::into).collect(),
            tombstones: ops.tombstones.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Operation> for pb::Operation {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id.get(),
            flow_id: operation.flow_id.get(),
            modno: operation.modno.get(),
            record: operation.record.into_bytes(),
        }
    }
}

impl From<Tombstone> for pb::Tombstone {
    fn from(tombstone: Tombstone) -> Self {
        Self {
            id: tombstone.id.get(),
            modno: tombstone.modno.get(),
            repo_id: tombstone.scope.repo,
            plan_id: tombstone.scope.plan,
        }
    }
}

impl From<Mark> for pb::Mark {
    fn from(mark: Mark) -> Self {
        Self {
            position: Some(mark.position.into()),
            digest: mark.set.sum_bytes().to_vec(),
            count: mark.set.count(),
        }
    }
}

impl From<Ack> for pb::Ack {
    fn from(ack: Ack) -> Self {
        Self {
            cursor: Some(ack.cursor.into()),
            credit: ack.credit,
            settled: ack.settled,
            mark: ack.mark.map(Into::into),
        }
    }
}

impl From<MarkAnswer> for pb::MarkAnswer {
    fn from(answer: MarkAnswer) -> Self {
        Self { position: Some(answer.position.into()), equal: answer.outcome == Comparison::Equal }
    }
}

impl From<EndReason> for pb::End {
    fn from(reason: EndReason) -> Self {
        use pb::end::Reason;
        let reason = match reason {
            EndReason::Shutdown => Reason::Shutdown,
            EndReason::GrantsChanged => Reason::GrantsChanged,
            EndReason::Revoked => Reason::Revoked,
            EndReason::Displaced => Reason::Displaced,
            EndReason::Aged => Reason::Aged,
        };
        Self { reason: reason.into() }
    }
}
