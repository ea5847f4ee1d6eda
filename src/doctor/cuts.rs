//! Whether something between cuts sessions, judged from how the last ones went. Pure.

use std::time::Duration;

use super::check::{Check, CheckId, Side};
use super::words;
use crate::node::{Past, PastEnd};

/// Sessions in a row that must have been cut before something between is blamed.
const CUT_IN_A_ROW: usize = 3;
/// Values whose spread is at most this part of the largest are the same limit met again.
const SPREAD: u64 = 5;
/// Shorter sessions say nothing about a timeout: they may have been cut after so many bytes.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What the last sessions tell, the oldest first.
pub(super) fn cuts(past: &[Past]) -> Check {
    let cut: Vec<_> = past.iter().rev().take_while(|past| past.end == PastEnd::Cut).copied().collect();
    let seen_of = |limit: &str| format!("the last {} sessions were cut {limit}, without an End", cut.len());
    if cut.len() < CUT_IN_A_ROW {
        let seen = match past.len() {
            0 => "no session has ended since the daemon began".to_owned(),
            all => format!("{} of the last {all} sessions broke off", broken(past)),
        };
        return Check::ok(CheckId::Cuts, Side::Network, seen);
    }
    let lasted = cluster(cut.iter().map(|past| millis(past.lasted)));
    let carried = cluster(cut.iter().map(|past| past.sent_bytes.max(past.received_bytes)));
    let (seen, next) = match (lasted, carried) {
        (Some(ms), _) if Duration::from_millis(ms) >= SHORTEST_TIMEOUT => (
            seen_of(&format!("after about {}", words::span(Duration::from_millis(ms)))),
            "something between closes streams that are long or idle: raise its timeouts for streams (docs/operations.md, \
             behind a proxy); what was sent is kept, and goes on where it was",
        ),
        (_, Some(bytes)) => (
            seen_of(&format!("after about {} {}", words::bytes(bytes), direction(&cut))),
            "something between ends streams after so many bytes: lift its limit on the size of a request; what was sent \
             is kept, and goes on where it was",
        ),
        (_, None) => (
            seen_of("at different points"),
            "the line or a machine between is unstable: look for restarts, roaming addresses and packet loss",
        ),
    };
    Check::fail(CheckId::Cuts, Side::Network, seen, next)
}

/// Which way most of it went. What this side sent is known by what its system took, which may be more than arrived.
fn direction(cut: &[Past]) -> &'static str {
    let sent = cut.iter().all(|past| past.sent_bytes >= past.received_bytes);
    if sent { "from this side" } else { "to this side" }
}

fn broken(past: &[Past]) -> usize {
    past.iter().filter(|past| past.end == PastEnd::Cut).count()
}

/// The value around which all lie closely, if they do.
fn cluster(values: impl Iterator<Item = u64> + Clone) -> Option<u64> {
    let (least, most) = (values.clone().min()?, values.max()?);
    (most.saturating_sub(least) <= most / SPREAD).then_some(most)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn past(ms: u64, sent_bytes: u64, end: PastEnd) -> Past {
        Past { lasted: Duration::from_millis(ms), sent_bytes, received_bytes: 0, end }
    }

    #[test]
    fn sessions_that_are_cut_after_the_same_time_blame_a_timeout() {
        let all = [30_000, 29_500, 31_000].map(|ms| past(ms, ms * 7, PastEnd::Cut));
        let found = cuts(&all);
        assert_eq!(found.state, State::Fail);
        assert_eq!(found.seen, "the last 3 sessions were cut after about 31 s, without an End");
        assert!(found.next.contains("timeouts"));
    }

    #[test]
    fn sessions_that_are_cut_after_the_same_bytes_blame_a_limit_on_size() {
        let all = [400, 90, 1_500].map(|ms| past(ms, 1_048_000 + ms, PastEnd::Cut));
        let found = cuts(&all);
        assert_eq!(
            found.seen,
            "the last 3 sessions were cut after about 1.0 MiB from this side, without an End"
        );
        assert!(found.next.contains("size of a request"));
    }

    #[test]
    fn other_cuts_blame_the_line_and_few_cuts_nobody() {
        let all = [(100, 5), (90_000, 80_000), (4_000, 900)].map(|(ms, sent)| past(ms, sent, PastEnd::Cut));
        assert!(cuts(&all).seen.contains("at different points"));
        let mended = [all[0], all[1], all[2], past(60_000, 9, PastEnd::Said)];
        assert_eq!(cuts(&mended).state, State::Ok);
        assert_eq!(cuts(&all[..2]).state, State::Ok);
        assert_eq!(cuts(&[]).state, State::Ok);
    }
}
