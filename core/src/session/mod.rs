//! The protocol machine, one for each role, after the handshake.
//!
//! [`Owner`] is the dialer: it has operations. [`Hub`] is the acceptor: it wants them. Neither waits, reads a clock or
//! touches a store: they take [`Input`]s and push [`Output`]s, see [`effect`](Output). Called by `transport/driver.rs`,
//! and by the tests with a fake clock and a model store. [`Sharing`] runs beside either, for what is not operations.

mod effect;
mod hub;
mod liveness;
mod owner;
mod sharing;

pub use effect::{
    Changes, Compare, Finish, Found, Here, Input, ManifestPage, OperationsPage, Output, Pace, Read, Report,
};
pub use hub::{Hub, HubConfig};
pub use owner::{Owner, OwnerConfig};
pub use sharing::{Kept, Look, Offer, Sharing, SharingInput, SharingOutput};
