//! How often keys that are not let in may ask.
//!
//! Every such attempt costs the store a transaction, so they are paced: for each key, for each address, and for all
//! together; attempts with a pairing token more strictly. One that comes too soon waits a little, and is refused
//! unheard when the wait would be long. Keys that are let in are never counted here, so that nobody's attempts can
//! keep a listed peer out. Called by the handshake, between the proof and the question to the store.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opmesh_core::model::KeyId;

use crate::limits::Limits;

use super::rate::{Pace, Paces, Rate};

/// The longest wait; whoever would have to wait longer is refused. Well within the time of a handshake.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_mins(1);

/// Somebody who is not let in, as far as is known now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// Proved.
    pub(super) key: KeyId,
    /// None for an address that many peers share.
    pub(super) address: Option<IpAddr>,
    /// Whether it presents a pairing token.
    pub(super) token: bool,
}

/// It came too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooOften;

/// Shared by all handshakes.
#[derive(Debug)]
pub(super) struct Attempts {
    paces: Mutex<AllPaces>,
}

#[derive(Debug)]
struct AllPaces {
    all: (Rate, Pace),
    by_address: Paces<IpAddr>,
    by_key: Paces<KeyId>,
    tokens: (Rate, Pace),
    tokens_by_address: Paces<IpAddr>,
}

impl Attempts {
    pub(super) fn new(limits: &Limits) -> Self {
        let a_minute = |count| Rate::new(count, MINUTE, count);
        Self {
            paces: Mutex::new(AllPaces {
                all: (a_minute(limits.attempts_per_minute), Pace::default()),
                by_address: Paces::new(a_minute(limits.attempts_per_minute_per_address)),
                by_key: Paces::new(a_minute(limits.attempts_per_minute_per_key)),
                tokens: (a_minute(limits.token_tries_per_minute), Pace::default()),
                tokens_by_address: Paces::new(a_minute(limits.token_tries_per_minute_per_address)),
            }),
        }
    }

    /// Counts the attempt, and says how long it has to wait before the store is asked. One that is refused is not
    /// counted: hammering makes nothing longer.
    pub(super) fn take(&self, attempt: Attempt, now: Duration) -> Result<Duration, TooOften> {
        let mut paces = self.paces();
        let wait = paces.wait(&attempt, now);
        if wait > LONGEST_WAIT {
            return Err(TooOften);
        }
        paces.take(&attempt, now);
        Ok(wait)
    }

    fn paces(&self) -> MutexGuard<'_, AllPaces> {
        // Each pace is one number.
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AllPaces {
    fn wait(&self, attempt: &Attempt, now: Duration) -> Duration {
        let all = self.all.1.wait(self.all.0, now).max(self.by_key.wait(&attempt.key, now));
        let wait = attempt.address.map_or(all, |address| all.max(self.by_address.wait(&address, now)));
        if !attempt.token {
            return wait;
        }
        let wait = wait.max(self.tokens.1.wait(self.tokens.0, now));
        attempt.address.map_or(wait, |address| wait.max(self.tokens_by_address.wait(&address, now)))
    }

    fn take(&mut self, attempt: &Attempt, now: Duration) {
        self.all.1.take(self.all.0, now);
        self.by_key.take(attempt.key, now);
        if attempt.token {
            self.tokens.1.take(self.tokens.0, now);
        }
        let Some(address) = attempt.address else { return };
        self.by_address.take(address, now);
        if attempt.token {
            self.tokens_by_address.take(address, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::PublicKey;

    use super::*;

    const START: Duration = Duration::from_hours(1);

    fn attempt(key: u16, address: u8) -> Attempt {
        let [high, low] = key.to_be_bytes();
        let mut bytes = [high; 32];
        bytes[1] = low;
        Attempt {
            key: PublicKey(bytes).key_id(),
            address: Some(IpAddr::from([10, 0, 0, address])),
            token: false,
        }
    }

    /// How many of these are heard at once, in a minute that begins fresh.
    fn heard(attempts: impl Iterator<Item = Attempt>) -> usize {
        let paces = Attempts::new(&Limits::default());
        attempts.filter(|attempt| paces.take(*attempt, START) == Ok(Duration::ZERO)).count()
    }

    #[test]
    fn a_key_is_heard_ten_times_an_address_twenty_times_and_all_together_three_hundred_times_a_minute() {
        assert_eq!(heard((0..30).map(|n| attempt(1, n))), 10);
        assert_eq!(heard((0..30).map(|n| attempt(n, 1))), 20);
        assert_eq!(heard((0..400_u16).map(|n| attempt(n, n.to_be_bytes()[1] / 2))), 300);
    }

    #[test]
    fn tokens_are_tried_five_times_from_one_address_and_thirty_times_in_all() {
        let tries = |many: bool| {
            (0..60_u8).map(move |n| Attempt { token: true, ..attempt(n.into(), if many { n } else { 1 }) })
        };
        assert_eq!(heard(tries(false)), 5);
        assert_eq!(heard(tries(true)), 30);
    }

    #[test]
    fn one_too_many_waits_if_it_must_not_wait_long_and_is_refused_otherwise() {
        let paces = Attempts::new(&Limits::default());
        for n in 0..20 {
            assert_eq!(paces.take(attempt(n, 1), START), Ok(Duration::ZERO));
        }
        assert_eq!(paces.take(attempt(20, 1), START), Ok(LONGEST_WAIT), "every 3 s from one address");
        assert_eq!(paces.take(attempt(21, 1), START), Err(TooOften));
        assert_eq!(paces.take(attempt(21, 1), START + LONGEST_WAIT), Ok(LONGEST_WAIT));
        assert_eq!(paces.take(attempt(22, 2), START), Ok(Duration::ZERO), "another address");
        assert_eq!(paces.take(attempt(23, 1), START + MINUTE), Ok(Duration::ZERO));
    }

    #[test]
    fn a_shared_address_has_no_pace_of_its_own() {
        let shared = (0..100_u8).map(|n| Attempt { address: None, ..attempt(n.into(), 0) });
        assert_eq!(heard(shared), 100);
    }
}
