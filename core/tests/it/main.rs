//! The session of both roles over the model store: no clock, no socket, microseconds each.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may fail loudly, and print what they counted"
)]

mod random;
mod scenarios;
mod schedules;
mod world;
