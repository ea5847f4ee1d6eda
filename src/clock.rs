//! The only reader of time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opmesh_core::model::UnixMs;

/// Reads wall time and monotonic time. Cheap to copy; all copies share one origin.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// The system's clock; monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn system() -> Self {
        Self { origin: Instant::now() }
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
        self.origin.elapsed()
    }
}
