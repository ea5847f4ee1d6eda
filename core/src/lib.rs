//! The pure rules of opmesh.
//!
//! Nothing in this package reads a clock, draws a random number, opens a file or a socket, or waits. Time, nonces
//! and stored rows come in as arguments; every effect goes out as a value. The package border keeps it so, and lets
//! all of its tests run in seconds.
//!
//! Read in the order in which a message meets them: [`handshake`] proves who the peer is, [`permission`] says what it
//! may see, [`session`] runs the protocol, [`replica`] holds the hub's rules for one owner, and [`matchpoint`],
//! [`diff`] and [`guard`] are the algorithms that those two ask. [`config`] stands beside them: what repositories and plans
//! are, who sees them and who may change them.

#![warn(missing_docs)]

pub mod config;
pub mod diff;
pub mod guard;
pub mod handshake;
pub mod matchpoint;
pub mod model;
pub mod permission;
pub mod protocol;
pub mod replica;
pub mod session;
pub mod succession;

#[cfg(feature = "oracle")]
pub mod oracle;
