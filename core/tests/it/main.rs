//! The session of both roles over the model store: no clock, no socket, microseconds each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests may fail loudly, print what they counted, and have nobody outside"
)]

mod bench;
mod config;
mod misbehaviour;
mod random;
mod scenarios;
mod schedules;
mod scopes;
mod seen;
mod sharing;
mod world;
