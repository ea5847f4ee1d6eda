//! How the last sessions with a peer went: what tells a connection that is cut from one that ends.
//!
//! Kept in memory, a few for each peer; `doctor` judges them.

use std::collections::VecDeque;
use std::time::Duration;

use opmesh_core::model::UnixMs;
use opmesh_core::session::Finish;

use crate::transport::Ending;

/// Sessions that are remembered for each peer and role.
pub const PAST_SESSIONS: usize = 5;

/// A session that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// From the handshake to the end.
    pub lasted: Duration,
    /// Over its connection, from us.
    pub sent_bytes: u64,
    /// Over its connection, to us.
    pub received_bytes: u64,
    /// How it ended.
    pub end: PastEnd,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastEnd {
    /// One side said so, or broke a rule: whatever it was, the connection did its part.
    Said,
    /// The stream broke off, or stood still until one side gave up.
    Cut,
}

impl PastEnd {
    fn of(ending: &Ending) -> Self {
        match ending {
            Ending::Interrupted(_) | Ending::NotReading | Ending::Finished(Finish::Silent) => Self::Cut,
            // What a proxy between makes of a stream that it gives up.
            Ending::HubError { code, .. }
                if matches!(code.as_str(), "Unknown" | "Cancelled" | "DeadlineExceeded") =>
            {
                Self::Cut
            }
            _ => Self::Said,
        }
    }
}

/// The session that runs, and those before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    begun: Option<UnixMs>,
    carried_bytes: (u64, u64),
    past: VecDeque<Past>,
}

impl History {
    /// The last sessions, the oldest first; at most [`PAST_SESSIONS`].
    pub fn past(&self) -> Vec<Past> {
        self.past.iter().copied().collect()
    }

    pub(super) fn began(&mut self, now: UnixMs) {
        (self.begun, self.carried_bytes) = (Some(now), (0, 0));
    }

    pub(super) fn carried(&mut self, sent_bytes: u64, received_bytes: u64) {
        self.carried_bytes = (sent_bytes, received_bytes);
    }

    /// An attempt that became no session leaves no trace.
    pub(super) fn ended(&mut self, ending: &Ending, now: UnixMs) {
        let Some(begun) = self.begun.take() else { return };
        if self.past.len() == PAST_SESSIONS {
            self.past.pop_front();
        }
        let (sent_bytes, received_bytes) = self.carried_bytes;
        let lasted = Duration::from_millis(now.since(begun));
        self.past.push_back(Past { lasted, sent_bytes, received_bytes, end: PastEnd::of(ending) });
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::protocol::EndReason;

    use super::*;

    #[test]
    fn the_last_few_sessions_are_remembered_and_attempts_are_not() {
        let mut history = History::default();
        let cut = Ending::Interrupted("gone".to_owned());
        history.ended(&cut, UnixMs(0));
        assert_eq!(history.past(), []);
        for n in 0..7 {
            history.began(UnixMs(n * 100));
            history.carried(10, 20);
            history.ended(&cut, UnixMs(n * 100 + n));
        }
        let past = history.past();
        assert_eq!(past.len(), PAST_SESSIONS);
        assert_eq!(past.first().unwrap().lasted, Duration::from_millis(2));
        assert_eq!((past[0].sent_bytes, past[0].received_bytes, past[0].end), (10, 20, PastEnd::Cut));
        let shut = Ending::Finished(Finish::PeerEnded(EndReason::Shutdown));
        history.began(UnixMs(0));
        history.ended(&shut, UnixMs(1));
        assert_eq!(history.past().last().unwrap().end, PastEnd::Said);
    }
}
