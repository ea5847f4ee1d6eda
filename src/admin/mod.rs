//! The administration face: `opmesh.admin.v1` on a unix socket, and the client that the command line speaks through.
//!
//! The messages of [`pb`] are the contract with scripts: they serialize to the documented JSON. No other module but
//! this one and the command line names them.

mod bearer;
mod client;
mod config_json;
mod error;
mod failures;
mod guard;
mod json;
mod reach;
mod remote;
mod server;
mod socket;
mod tcp;

pub use client::{Client, Operations, Replies};
pub use error::{Exit, Failure, Reason};
pub use guard::{Role, role_of};
pub use reach::{Reached, daemon, reach};
pub use remote::Remote;
pub use socket::{MAX_SOCKET_PATH_BYTES, Socket, SocketError};
pub use tcp::{AdminListenError, AdminListener};

/// Generated from `proto/opmesh/admin/v1/admin.proto`.
#[allow(warnings, clippy::pedantic, clippy::restriction, reason = "generated code")]
pub mod pb {
    tonic::include_proto!("opmesh.admin.v1");
}

/// What reflection serves about [`pb`].
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin.descriptors.bin"));

/// The service's full name.
pub const SERVICE: &str = "opmesh.admin.v1.Admin";
