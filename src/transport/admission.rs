//! How many connections there may be, how many of strangers, and how fast these may come.
//!
//! Called by the listeners before anything is read from a connection, and by the connection's gate when its peer turns
//! out to be known. Nobody is told apart yet, so that the limits are made such that no stranger can keep a listed peer
//! out: where there are too many strangers, one of them, by chance, goes, not the newest; and what comes from an
//! address where a peer has proved itself is not held up by those who come from elsewhere. Behind a proxy the same is
//! counted of streams, without addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;

use super::rate::{Pace, Paces, Rate};

/// Addresses that are remembered because a peer has proved itself there: as many as there may be peers.
const KNOWN_ADDRESSES: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// So many seconds' worth may come at once.
const BURST_SECONDS: u32 = 2;
const SECOND: Duration = Duration::from_secs(1);

/// Why a connection is closed before anything is read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Turned {
    /// `limits.connections`.
    #[error("{0} connections are open")]
    Full(u32),
    /// `limits.accepts_per_second`.
    #[error("more than {0} connections a second come from addresses where no peer has proved itself")]
    TooFast(u32),
    /// `limits.accepts_per_second_per_address`.
    #[error("more than {0} connections a second come from this address")]
    TooFastFromAddress(u32),
}

/// Shared by all listeners.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    limits: Arc<Limits>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    connections: u32,
    numbers: u64,
    strangers: BTreeMap<u64, Stranger>,
    known: LruCache<IpAddr, Pace>,
    all: Rate,
    accepts: Pace,
    accepts_by_address: Paces<IpAddr>,
}

/// A connection whose peer has not proved who it is.
#[derive(Debug)]
struct Stranger {
    network: IpAddr,
    origin: Origin,
    leave: CancellationToken,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    New,
    /// A peer has proved itself there.
    Known,
    /// One of `limits.shared_addresses`.
    Shared,
}

impl Admission {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        let per_second = |count: u32| Rate::new(count, SECOND, count.saturating_mul(BURST_SECONDS));
        let state = State {
            connections: 0,
            numbers: 0,
            strangers: BTreeMap::new(),
            known: LruCache::new(KNOWN_ADDRESSES),
            all: per_second(limits.accepts_per_second),
            accepts: Pace::default(),
            accepts_by_address: Paces::new(per_second(limits.accepts_per_second_per_address)),
        };
        Self { limits, state: Arc::new(Mutex::new(state)) }
    }

    /// Counts a new connection, as a stranger's. Where it is one too many of these, another one is told to leave.
    pub(super) fn admit(&self, address: IpAddr, now: Duration) -> Result<Admitted, Turned> {
        let network = network(address);
        let mut state = self.state();
        let origin = self.origin(address, network, &state);
        self.take_in(&mut state, network, origin, now)
    }

    /// The same for what a proxy brings: its address says nothing about the peer's.
    pub(super) fn admit_behind_proxy(&self, now: Duration) -> Result<Admitted, Turned> {
        self.take_in(&mut self.state(), Ipv6Addr::UNSPECIFIED.into(), Origin::Shared, now)
    }

    fn take_in(
        &self,
        state: &mut State,
        network: IpAddr,
        origin: Origin,
        now: Duration,
    ) -> Result<Admitted, Turned> {
        if state.connections >= self.limits.connections {
            return Err(Turned::Full(self.limits.connections));
        }
        match origin {
            Origin::New => state.keep_pace(network, now, &self.limits)?,
            Origin::Known => state.keep_own_pace(network, now, &self.limits)?,
            Origin::Shared => {}
        }
        let made_room = state.make_room(network, origin, &self.limits);
        let leave = CancellationToken::new();
        state.numbers += 1;
        state.connections += 1;
        let number = state.numbers;
        state.strangers.insert(number, Stranger { network, origin, leave: leave.clone() });
        Ok(Admitted { admission: self.clone(), number, leave, made_room })
    }

    /// What counts as one address in limits; none for a shared one.
    pub(super) fn address(&self, address: IpAddr) -> Option<IpAddr> {
        (!self.limits.shared_addresses.contains(&address.to_canonical())).then(|| network(address))
    }

    fn origin(&self, address: IpAddr, network: IpAddr, state: &State) -> Origin {
        if self.address(address).is_none() {
            Origin::Shared
        } else if state.known.contains(&network) {
            Origin::Known
        } else {
            Origin::New
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts are changed by single steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep_pace(&mut self, network: IpAddr, now: Duration, limits: &Limits) -> Result<(), Turned> {
        if !self.accepts_by_address.wait(&network, now).is_zero() {
            return Err(Turned::TooFastFromAddress(limits.accepts_per_second_per_address));
        }
        if !self.accepts.wait(self.all, now).is_zero() {
            return Err(Turned::TooFast(limits.accepts_per_second));
        }
        self.accepts_by_address.take(network, now);
        self.accepts.take(self.all, now);
        Ok(())
    }

    /// An address where a peer has proved itself may come as fast as all new ones together.
    fn keep_own_pace(&mut self, network: IpAddr, now: Duration, limits: &Limits) -> Result<(), Turned> {
        let Some(pace) = self.known.get_mut(&network) else { return Ok(()) };
        if !pace.wait(self.all, now).is_zero() {
            return Err(Turned::TooFastFromAddress(limits.accepts_per_second));
        }
        pace.take(self.all, now);
        Ok(())
    }

    /// Sends one away where the newcomer would be one too many: of its own address first, else of addresses where no
    /// peer has proved itself, else any.
    fn make_room(&mut self, network: IpAddr, origin: Origin, limits: &Limits) -> bool {
        let here: Vec<u64> = self.numbers_of(|stranger| stranger.network == network);
        if origin != Origin::Shared && is_at(limits.unauthenticated_per_address, here.len()) {
            return self.send_away(&here);
        }
        if !is_at(limits.unauthenticated, self.strangers.len()) {
            return false;
        }
        let new = self.numbers_of(|stranger| stranger.origin == Origin::New);
        let candidates = if new.is_empty() { self.numbers_of(|_| true) } else { new };
        self.send_away(&candidates)
    }

    fn numbers_of(&self, wanted: impl Fn(&Stranger) -> bool) -> Vec<u64> {
        self.strangers.iter().filter(|(_, stranger)| wanted(stranger)).map(|(number, _)| *number).collect()
    }

    /// By chance: the newest would keep everybody out who comes after the limit was reached, the oldest would never
    /// let a crowd finish.
    fn send_away(&mut self, candidates: &[u64]) -> bool {
        let random = getrandom::u32().ok().and_then(|random| usize::try_from(random).ok()).unwrap_or(0);
        let chosen = random.checked_rem(candidates.len()).and_then(|at| candidates.get(at));
        let sent = chosen.and_then(|number| self.strangers.remove(number));
        sent.map(|stranger| stranger.leave.cancel()).is_some()
    }
}

fn is_at(limit: u32, count: usize) -> bool {
    u32::try_from(count).is_ok_and(|count| count >= limit)
}

/// One counted connection; dropped when it closes.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Admission,
    number: u64,
    leave: CancellationToken,
    /// Another one was sent away for it.
    pub(super) made_room: bool,
}

impl Admitted {
    /// Cancelled when it must make room for another one.
    pub(super) fn leave(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// The peer has proved who it is: makes room for other strangers.
    pub(super) fn known(&self) {
        let mut state = self.admission.state();
        if let Some(stranger) = state.strangers.remove(&self.number)
            && stranger.origin != Origin::Shared
        {
            state.known.get_or_insert_mut(stranger.network, Pace::default);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.strangers.remove(&self.number);
        state.connections = state.connections.saturating_sub(1);
    }
}

/// One IPv6 customer has a whole /64, so that is what counts as an address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn admission(change: impl FnOnce(&mut Limits)) -> Admission {
        let mut limits = Limits::default();
        change(&mut limits);
        Admission::new(Arc::new(limits))
    }

    fn left(held: &[Admitted]) -> usize {
        held.iter().filter(|admitted| admitted.leave.is_cancelled()).count()
    }

    #[test]
    fn one_address_holds_eight_strangers_and_the_ninth_takes_the_place_of_one_of_them() {
        let admission = admission(|_| {});
        let other = admission.admit(address(2), NOW).unwrap();
        let mut held: Vec<_> = (0..8).map(|_| admission.admit(address(1), NOW).unwrap()).collect();
        assert_eq!(left(&held), 0);
        held.push(admission.admit(address(1), NOW).unwrap());
        assert_eq!((left(&held), held[8].leave.is_cancelled(), held[8].made_room), (1, false, true));
        assert!(!other.leave.is_cancelled());
        assert_eq!(admission.state().strangers.len(), 9);
    }

    #[test]
    fn all_together_are_sixty_four_and_the_next_takes_the_place_of_one_of_them() {
        let admission = admission(|_| {});
        let mut held: Vec<_> = (0..64).map(|n| admission.admit(address(n), NOW).unwrap()).collect();
        assert_eq!(left(&held), 0);
        held.push(admission.admit(address(64), NOW).unwrap());
        assert_eq!((left(&held), held[64].leave.is_cancelled()), (1, false));
        assert_eq!(admission.state().strangers.len(), 64);
    }

    #[test]
    fn strangers_make_room_before_those_who_come_from_where_a_peer_has_proved_itself() {
        let admission = admission(|limits| limits.accepts_per_second = 1000);
        admission.admit(address(200), NOW).unwrap().known();
        let returning = admission.admit(address(200), NOW).unwrap();
        let shared = admission.admit("127.0.0.1".parse().unwrap(), NOW).unwrap();
        let mut held: Vec<_> = (0..62).map(|n| admission.admit(address(n), NOW).unwrap()).collect();
        for n in 62..100 {
            held.push(admission.admit(address(n), NOW).unwrap());
        }
        assert_eq!(left(&held), 38);
        assert!(!returning.leave.is_cancelled() && !shared.leave.is_cancelled());
    }

    #[test]
    fn connections_in_all_have_a_limit_for_everybody() {
        let admission = admission(|limits| limits.connections = 2);
        let held: Vec<_> = (0..2).map(|n| admission.admit(address(n), NOW).unwrap()).collect();
        held.iter().for_each(Admitted::known);
        assert_eq!(admission.admit(address(3), NOW).unwrap_err(), Turned::Full(2));
        drop(held);
        assert!(admission.admit(address(3), NOW).is_ok());
    }

    #[test]
    fn new_addresses_come_at_fifty_a_second_and_one_of_them_at_five_with_twice_as_many_at_first() {
        let admission = admission(|_| {});
        let come = |who: IpAddr, now| admission.admit(who, now).map(drop);
        for _ in 0..10 {
            assert_eq!(come(address(1), NOW), Ok(()));
        }
        assert_eq!(come(address(1), NOW), Err(Turned::TooFastFromAddress(5)));
        assert_eq!(come(address(1), NOW + SECOND / 5), Ok(()));
        for n in 0..89 {
            assert_eq!(come(address(100 + n), NOW), Ok(()), "{n}");
        }
        assert_eq!(come(address(2), NOW), Err(Turned::TooFast(50)));
    }

    #[test]
    fn a_flood_from_elsewhere_holds_up_neither_known_nor_shared_addresses() {
        let admission = admission(|_| {});
        admission.admit(address(250), NOW).unwrap().known();
        let flood = (0..=255).map(|n| admission.admit(IpAddr::from([10, 1, 0, n]), NOW));
        assert!(flood.filter(Result::is_err).count() > 100);
        for _ in 0..100 {
            assert!(admission.admit(address(250), NOW).is_ok());
        }
        assert_eq!(admission.admit(address(250), NOW).unwrap_err(), Turned::TooFastFromAddress(50));
        for _ in 0..200 {
            assert!(admission.admit("::1".parse().unwrap(), NOW).is_ok());
        }
    }

    #[test]
    fn a_peer_that_proved_who_it_is_makes_room_while_it_stays() {
        let admission = admission(|_| {});
        let held: Vec<_> = (0..8).map(|_| admission.admit(address(1), NOW).unwrap()).collect();
        held[0].known();
        held[0].known();
        let another = admission.admit(address(1), NOW).unwrap();
        assert_eq!((left(&held), another.made_room), (0, false));
        assert_eq!(admission.state().connections, 9);
        drop((held, another));
        assert_eq!(admission.state().connections, 0);
        assert!(admission.state().strangers.is_empty());
    }

    #[test]
    fn a_slash_64_is_one_address_and_a_mapped_ipv4_address_is_that_ipv4_address() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        let c: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network(c));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1));
        let admission = admission(|_| {});
        assert_eq!(admission.address("::ffff:127.0.0.1".parse().unwrap()), None);
        assert_eq!(admission.address("127.0.0.2".parse().unwrap()), Some("127.0.0.2".parse().unwrap()));
    }
}
