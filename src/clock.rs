//! The only reader of time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opmesh_core::model::UnixMs;

/// Reads wall time and monotonic time. Cheap to copy; all copies share one origin.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Origin,
}

/// Where monotonic time began.
#[derive(Debug, Clone, Copy)]
enum Origin {
    System(Instant),
    /// The runtime's time, which a test can stop and move.
    #[cfg(test)]
    Runtime(tokio::time::Instant),
}

impl Clock {
    /// The system's clock; monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn system() -> Self {
        Self { origin: Origin::System(Instant::now()) }
    }

    /// The clock by which this runtime's timers go, so that a test can let minutes pass.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub(crate) fn of_the_runtime() -> Self {
        Self { origin: Origin::Runtime(tokio::time::Instant::now()) }
    }

    /// Wall time, for showing and for windows of hours; never for ordering.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn wall(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Time since the clock was made; never steps back.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn monotonic(&self) -> Duration {
        match self.origin {
            Origin::System(origin) => origin.elapsed(),
            #[cfg(test)]
            Origin::Runtime(origin) => origin.elapsed(),
        }
    }
}
