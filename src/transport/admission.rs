//! How many connections there may be, and how many of strangers.
//!
//! Counts only; called by the listeners before anything is read from a connection, and by the connection's gate when
//! its peer turns out to be known. Behind a proxy the same is counted of streams.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections on all listeners, known peers included.
pub const CONNECTIONS: usize = 20_000;
/// Connections whose peer has not proved who it is.
pub const UNAUTHENTICATED: usize = 64;
/// The same, from one IPv4 address or one IPv6 /64 network.
pub const UNAUTHENTICATED_PER_ADDRESS: usize = 8;

const _: () = assert!(UNAUTHENTICATED_PER_ADDRESS < UNAUTHENTICATED, "one address must not keep others out");

/// Why a connection is closed before anything is read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Turned {
    /// [`CONNECTIONS`].
    #[error("{CONNECTIONS} connections are open")]
    Full,
    /// [`UNAUTHENTICATED`].
    #[error("{UNAUTHENTICATED} connections have not proved who they are")]
    Strangers,
    /// [`UNAUTHENTICATED_PER_ADDRESS`].
    #[error("{UNAUTHENTICATED_PER_ADDRESS} connections from this address have not proved who they are")]
    StrangersFromAddress,
}

/// Shared by all listeners.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    strangers: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Counts a new connection, as a stranger's.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Admitted, Turned> {
        self.admit_from(Origin::Network(network(address)))
    }

    /// The same where a proxy stands in between, so that its address says nothing about the peer's.
    pub(super) fn admit_behind_proxy(&self) -> Result<Admitted, Turned> {
        self.admit_from(Origin::Proxy)
    }

    fn admit_from(&self, origin: Origin) -> Result<Admitted, Turned> {
        let mut counts = self.counts();
        if counts.connections >= CONNECTIONS {
            return Err(Turned::Full);
        }
        if counts.strangers >= UNAUTHENTICATED {
            return Err(Turned::Strangers);
        }
        if let Origin::Network(network) = origin {
            let here = counts.by_address.entry(network).or_default();
            if *here >= UNAUTHENTICATED_PER_ADDRESS {
                return Err(Turned::StrangersFromAddress);
            }
            *here += 1;
        }
        counts.connections += 1;
        counts.strangers += 1;
        drop(counts);
        Ok(Admitted { admission: self.clone(), stranger_from: Some(origin) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counts are changed by single steps that cannot panic half-way.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection; dropped when it closes.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Admission,
    stranger_from: Option<Origin>,
}

/// What strangers are counted by.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Network(IpAddr),
    Proxy,
}

impl Admitted {
    /// The peer has proved who it is: makes room for other strangers.
    pub(super) fn known(&mut self) {
        let Some(origin) = self.stranger_from.take() else { return };
        let mut counts = self.admission.counts();
        counts.strangers = counts.strangers.saturating_sub(1);
        if let Origin::Network(network) = origin
            && let Some(here) = counts.by_address.get_mut(&network)
        {
            *here = here.saturating_sub(1);
            if *here == 0 {
                counts.by_address.remove(&network);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.known();
        let mut counts = self.admission.counts();
        counts.connections = counts.connections.saturating_sub(1);
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

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_gets_eight_strangers_and_all_together_sixty_four() {
        let admission = Admission::default();
        let mut held: Vec<_> = (0..8).map(|_| admission.admit(address(1)).unwrap()).collect();
        assert_eq!(admission.admit(address(1)).unwrap_err(), Turned::StrangersFromAddress);
        held.extend((8..64).map(|n| admission.admit(address(n)).unwrap()));
        assert_eq!(admission.admit(address(200)).unwrap_err(), Turned::Strangers);
        held.pop();
        assert!(admission.admit(address(200)).is_ok());
    }

    #[test]
    fn a_peer_that_proved_who_it_is_makes_room_while_it_stays() {
        let admission = Admission::default();
        let mut held: Vec<_> = (0..8).map(|_| admission.admit(address(1)).unwrap()).collect();
        held[0].known();
        held[0].known();
        assert!(admission.admit(address(1)).is_ok());
        assert_eq!(admission.counts().connections, 8);
        drop(held);
        assert_eq!(admission.counts().connections, 0);
        assert!(admission.counts().by_address.is_empty());
    }

    #[test]
    fn behind_a_proxy_there_are_no_addresses_to_count_by() {
        let admission = Admission::default();
        let mut held: Vec<_> = (0..64).map(|_| admission.admit_behind_proxy().unwrap()).collect();
        assert_eq!(admission.admit_behind_proxy().unwrap_err(), Turned::Strangers);
        held[0].known();
        assert!(admission.admit_behind_proxy().is_ok());
        drop(held);
        assert_eq!(admission.counts().connections, 0);
        assert_eq!(admission.counts().strangers, 0);
    }

    #[test]
    fn a_slash_64_is_one_address_and_a_mapped_ipv4_address_is_that_ipv4_address() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        let c: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network(c));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }
}
