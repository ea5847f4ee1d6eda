//! One operation log for every backup host.
//!
//! `ARCHITECTURE.md` names the parts and what each may not do; `tests/it/tidy.rs` holds that table.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod config_doc;
pub mod daemon;
pub mod doctor;
pub mod identity;
pub mod intake;
pub mod limits;
pub mod node;
pub mod pairing;
pub mod places;
pub mod record;
pub mod store;
pub mod transport;
pub mod wire;
