//! How much of the log strangers may fill: so many lines a minute of each kind, and the rest as one line of counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines of each kind in each [`NOISE_WINDOW`].
const NOISE_LINES: u64 = 10;
/// See [`NOISE_LINES`].
pub(super) const NOISE_WINDOW: Duration = Duration::from_mins(1);

/// What strangers cause to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noise {
    /// A connection was closed before anything was read from it.
    TurnedAway,
    /// A connection had to make room for another one.
    MadeRoom,
    /// No TLS, or no HTTP/2.
    NoChannel,
    /// A handshake that did not come to an end.
    Handshake,
    /// A key that is not let in.
    Refused,
    /// A key that is not let in and asked too often.
    TooOften,
}

/// How often each happened in the present minute. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct NoiseLevel {
    counts: Arc<Mutex<Counts>>,
}

/// How often each happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    turned_away: u64,
    made_room: u64,
    no_channel: u64,
    handshake: u64,
    refused: u64,
    too_often: u64,
}

impl Counts {
    fn of(&mut self, noise: Noise) -> &mut u64 {
        match noise {
            Noise::TurnedAway => &mut self.turned_away,
            Noise::MadeRoom => &mut self.made_room,
            Noise::NoChannel => &mut self.no_channel,
            Noise::Handshake => &mut self.handshake,
            Noise::Refused => &mut self.refused,
            Noise::TooOften => &mut self.too_often,
        }
    }

    /// Whether some of it was not logged.
    fn is_loud(self) -> bool {
        let Self { turned_away, made_room, no_channel, handshake, refused, too_often } = self;
        [turned_away, made_room, no_channel, handshake, refused, too_often]
            .into_iter()
            .any(|count| count > NOISE_LINES)
    }
}

impl NoiseLevel {
    /// One more; whether it gets a line of its own.
    pub(super) fn may_log(&self, noise: Noise) -> bool {
        let mut counts = self.counts();
        let count = counts.of(noise);
        *count = count.saturating_add(1);
        *count <= NOISE_LINES
    }

    /// A window is over: says what was not said in it. Never returns.
    pub(super) async fn sum_up(self) {
        loop {
            tokio::time::sleep(NOISE_WINDOW).await;
            let counts = std::mem::take(&mut *self.counts());
            if counts.is_loud() {
                tracing::warn!(
                    turned_away = counts.turned_away,
                    made_room = counts.made_room,
                    no_channel = counts.no_channel,
                    failed_handshakes = counts.handshake,
                    refused = counts.refused,
                    too_often = counts.too_often,
                    "strangers, in the last minute; not all of it was logged"
                );
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counts are changed by single steps that cannot panic half-way.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_a_minute_of_each_kind() {
        let level = NoiseLevel::default();
        let mut summing = tokio::task::JoinSet::new();
        summing.spawn(level.clone().sum_up());
        for line in 1..=11 {
            assert_eq!(level.may_log(Noise::Refused), line <= NOISE_LINES);
        }
        assert!(level.counts().is_loud());
        assert!(level.may_log(Noise::Handshake));
        tokio::time::sleep(NOISE_WINDOW + Duration::from_secs(1)).await;
        assert_eq!(*level.counts(), Counts::default());
        assert!(level.may_log(Noise::Refused));
        summing.abort_all();
    }
}
