//! What is remembered of those who are not let in, or not yet: one for each process, shared by listeners and handshakes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use opmesh_core::model::KeyId;

use crate::limits::Limits;

use super::admission::Admission;
use super::attempts::{Attempt, Attempts, TooOften};
use super::noise::NoiseLevel;

/// The limits in force, and what counts against them.
#[derive(Debug)]
pub struct Doorman {
    limits: Arc<Limits>,
    pub(super) admission: Admission,
    /// Connections of sealed listeners, apart so that strangers there and elsewhere do not displace each other.
    pub(super) upstreams: Admission,
    /// And the streams on them.
    pub(super) streams: Admission,
    attempts: Attempts,
    pub(super) noise: NoiseLevel,
}

impl Doorman {
    /// Nobody has come yet.
    pub fn new(limits: Limits) -> Self {
        let limits = Arc::new(limits);
        Self {
            admission: Admission::new(limits.clone()),
            upstreams: Admission::new(limits.clone()),
            streams: Admission::new(limits.clone()),
            attempts: Attempts::new(&limits),
            noise: NoiseLevel::default(),
            limits,
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Somebody with this key is not let in as it is: how long it has to wait before it is heard. Behind a proxy it has
    /// no address of its own.
    pub(super) fn attempt(
        &self,
        key: KeyId,
        address: Option<IpAddr>,
        token: bool,
        now: Duration,
    ) -> Result<Duration, TooOften> {
        self.attempts.take(
            Attempt { key, address: address.and_then(|address| self.admission.address(address)), token },
            now,
        )
    }
}
