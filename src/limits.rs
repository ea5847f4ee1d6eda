//! The limits that an operator may set, with their defaults and what they may be.
//!
//! Only what a machine or a fleet may need otherwise stands here; what both sides of a session rely on, or what bounds
//! memory, is a constant beside the code that keeps it. `docs/operations.md` lists both kinds, and a test compares.
//! Knows no file: `config` reads `[limits]` into this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Connections on all listeners, known peers included.
pub const CONNECTIONS: u32 = 20_000;
/// Connections whose peer has not proved who it is.
pub const UNAUTHENTICATED: u32 = 64;
/// The same, from one IPv4 address or one IPv6 /64 network.
pub const UNAUTHENTICATED_PER_ADDRESS: u32 = 8;
/// New connections in a second from addresses where no peer has proved itself; twice as many in a burst.
pub const ACCEPTS_PER_SECOND: u32 = 50;
/// The same, from one address.
pub const ACCEPTS_PER_SECOND_PER_ADDRESS: u32 = 5;
/// Keys that are not let in and still ask the store, in a minute.
pub const ATTEMPTS_PER_MINUTE: u32 = 300;
/// The same, from one address.
pub const ATTEMPTS_PER_MINUTE_PER_ADDRESS: u32 = 20;
/// The same, with one key.
pub const ATTEMPTS_PER_MINUTE_PER_KEY: u32 = 10;
/// The same, with a pairing token.
pub const TOKEN_TRIES_PER_MINUTE: u32 = 30;
/// The same, with a pairing token and from one address.
pub const TOKEN_TRIES_PER_MINUTE_PER_ADDRESS: u32 = 5;
/// Pairing tokens that can be used at the same time.
pub const LIVE_TOKENS: u32 = 16;
/// How long a session runs before its hub asks for a new one, so that no keys are used for ever.
pub const SESSION_AGE: Duration = Duration::from_hours(24);

const _: () = assert!(UNAUTHENTICATED_PER_ADDRESS < UNAUTHENTICATED, "one address must not keep others out");

/// The limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// See [`CONNECTIONS`].
    pub connections: u32,
    /// See [`UNAUTHENTICATED`].
    pub unauthenticated: u32,
    /// See [`UNAUTHENTICATED_PER_ADDRESS`].
    pub unauthenticated_per_address: u32,
    /// See [`ACCEPTS_PER_SECOND`].
    pub accepts_per_second: u32,
    /// See [`ACCEPTS_PER_SECOND_PER_ADDRESS`].
    pub accepts_per_second_per_address: u32,
    /// See [`ATTEMPTS_PER_MINUTE`].
    pub attempts_per_minute: u32,
    /// See [`ATTEMPTS_PER_MINUTE_PER_ADDRESS`].
    pub attempts_per_minute_per_address: u32,
    /// See [`ATTEMPTS_PER_MINUTE_PER_KEY`].
    pub attempts_per_minute_per_key: u32,
    /// See [`TOKEN_TRIES_PER_MINUTE`].
    pub token_tries_per_minute: u32,
    /// See [`TOKEN_TRIES_PER_MINUTE_PER_ADDRESS`].
    pub token_tries_per_minute_per_address: u32,
    /// See [`LIVE_TOKENS`].
    pub live_tokens: u32,
    /// See [`SESSION_AGE`].
    pub session_age: Duration,
    /// Addresses from which many peers come, such as a proxy's: what is limited for one address is not limited for
    /// these, and their connections do not count against [`ACCEPTS_PER_SECOND`]. By default this machine's own.
    pub shared_addresses: Vec<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            unauthenticated: UNAUTHENTICATED,
            unauthenticated_per_address: UNAUTHENTICATED_PER_ADDRESS,
            accepts_per_second: ACCEPTS_PER_SECOND,
            accepts_per_second_per_address: ACCEPTS_PER_SECOND_PER_ADDRESS,
            attempts_per_minute: ATTEMPTS_PER_MINUTE,
            attempts_per_minute_per_address: ATTEMPTS_PER_MINUTE_PER_ADDRESS,
            attempts_per_minute_per_key: ATTEMPTS_PER_MINUTE_PER_KEY,
            token_tries_per_minute: TOKEN_TRIES_PER_MINUTE,
            token_tries_per_minute_per_address: TOKEN_TRIES_PER_MINUTE_PER_ADDRESS,
            live_tokens: LIVE_TOKENS,
            session_age: SESSION_AGE,
            shared_addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let limits = Limits::default();
        assert_eq!((limits.connections, limits.unauthenticated), (20_000, 64));
        assert_eq!(limits.unauthenticated_per_address, 8);
        assert_eq!(limits.session_age, Duration::from_hours(24));
    }
}
