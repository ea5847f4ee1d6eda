//! One operation log for every backup host.
//!
//! `ARCHITECTURE.md` names the parts and what each may not do; `tests/it/tidy.rs` holds that table.

pub mod clock;
pub mod intake;
pub mod record;
pub mod store;
