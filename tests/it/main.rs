//! The one integration binary: what needs real files, sockets or processes, and the shape of the house itself.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests: a broken assumption is a failed test"
)]

mod admin;
mod admin_doors;
mod attack;
mod audit;
mod bytes;
mod canary;
mod cli;
mod cli_contract;
mod cli_ops;
mod cli_peers;
mod cli_remote;
mod cli_serve;
mod config_federation;
mod contract;
mod doctor;
mod federation;
mod fleet;
mod intake;
mod intake_real;
mod intake_store;
mod life;
mod manual;
mod peer_watch;
mod proxies;
mod revocations;
mod rotation;
mod store_contract;
mod tidy;
mod vectors;
