//! Keeps one known host connected: dial, run the session, wait, again.
//!
//! The peer's entry is read anew for each attempt, so that an edit counts at once. Called by the node, one task for
//! each known host; the node says when to stop and when not to wait any longer.

use std::sync::Arc;
use std::time::Duration;

use opmesh_core::model::KeyId;
use opmesh_core::protocol::EndReason;
use opmesh_core::session::{Finish, Pace};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::store::{Peer, Role};

use super::Local;
use super::address::{AddressFault, Channel, HubUrl};
use super::driver::Delivered;
use super::ending::Ending;
use super::event::SessionNews;
use super::session::{self, Outcome, Target};

/// The longest first wait.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait of all.
const BACKOFF_LONGEST: Duration = Duration::from_mins(5);
/// A session that ran for so long has shown that the hub is well: waits begin at the first one again.
const PROGRESS: Duration = Duration::from_mins(1);

/// How long to wait between attempts: a random part of a limit that doubles ("full jitter"), so that hosts that lost
/// the same hub do not come back at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    limit: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { limit: BACKOFF_FIRST }
    }
}

impl Backoff {
    /// The next wait, between nothing and the limit, chosen by `random`; the limit doubles.
    pub fn wait(&mut self, random: u32) -> Duration {
        let wait = self.limit.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.limit = self.limit.saturating_mul(2).min(BACKOFF_LONGEST);
        wait
    }

    /// Notes how long a session ran.
    pub fn ran(&mut self, lasted: Duration) {
        if lasted >= PROGRESS {
            *self = Self::default();
        }
    }
}

/// Dials the hub until told to stop, or until it is no known host any more. `redial` ends a wait at once.
pub async fn run(local: Arc<Local>, hub: KeyId, redial: Arc<Notify>, stop: CancellationToken) {
    let mut way = Way::default();
    while !stop.is_cancelled() {
        let peer = match local.store.peer(&hub).await {
            Ok(Some(peer)) if peer.roles.known_host => peer,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(peer = %hub, %error, "the hub's entry could not be read");
                return;
            }
        };
        let next =
            if may_dial(&peer) { attempt(&local, &peer, &mut way, &stop).await } else { Next::WhenTold };
        pause(next, &redial, &stop).await;
    }
}

/// An entry that nobody vouched for, that is blocked, or that has no URL is left alone until it is edited.
fn may_dial(peer: &Peer) -> bool {
    peer.is_trusted() && !peer.dial.urls.is_empty()
}

/// When to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    After(Duration),
    WhenTold,
}

async fn pause(next: Next, redial: &Notify, stop: &CancellationToken) {
    let waiting = async {
        match next {
            // Told or not, the entry is looked at again.
            Next::After(wait) => drop(tokio::time::timeout(wait, redial.notified()).await),
            Next::WhenTold => redial.notified().await,
        }
    };
    stop.run_until_cancelled(waiting).await;
}

async fn attempt(local: &Arc<Local>, peer: &Peer, way: &mut Way, stop: &CancellationToken) -> Next {
    local.tell(peer.key, Role::KnownHost, SessionNews::Dialing).await;
    let target = match target(local, peer, &mut way.urls) {
        Ok(target) => target,
        Err(fault) => {
            tracing::warn!(peer = %peer.key, reason = %fault, "the hub's entry cannot be dialled");
            local.tell(peer.key, Role::KnownHost, SessionNews::Ended(fault.into())).await;
            return Next::WhenTold;
        }
    };
    let channel = target.url.channel;
    let outcome = session::dial(local, target, way.pace, stop.clone()).await;
    if let Some(next) = peer.keys.next.filter(|next| may_be(&outcome.ending, channel, &next.key_id()))
        && took_over(local, peer, next.key_id(), &mut way.urls, stop).await
    {
        return Next::After(Duration::ZERO);
    }
    way.learn(&outcome);
    let random = getrandom::u32().unwrap_or(u32::MAX);
    let wait = way.backoff.wait(random);
    tracing::debug!(peer = %peer.key, wait_ms = wait.as_millis(), "the hub will be dialled again");
    Next::After(wait)
}

/// Whether a hub that was not found under its key may have taken the one that it announced. Without TLS it shows no key
/// to whoever means another.
fn may_be(ending: &Ending, channel: Channel, next: &KeyId) -> bool {
    ending.other_key() == Some(*next) || (channel != Channel::Tls && matches!(ending, Ending::TurnedAway(_)))
}

/// Meets the hub under the key that it announced, and files its entry under that one. This task ends with the old
/// entry; the node begins another for the new one.
async fn took_over(
    local: &Arc<Local>,
    peer: &Peer,
    next: KeyId,
    urls: &mut Rotation,
    stop: &CancellationToken,
) -> bool {
    urls.stay();
    let Ok(target) = target(local, peer, urls) else { return false };
    let target = Target { hub: next, ..target };
    if let Err(ending) = session::meet(local, &target, stop).await {
        tracing::warn!(peer = %peer.key, reason = %ending, "the hub was not met under the key that it announced");
        return false;
    }
    match local.store.take_announced(&peer.key).await {
        Ok(moved) => moved.is_some(),
        Err(error) => {
            tracing::warn!(peer = %peer.key, %error, "the hub's new key could not be stored");
            false
        }
    }
}

/// What the attempts so far have taught about the way to the hub.
#[derive(Debug)]
struct Way {
    urls: Rotation,
    backoff: Backoff,
    pace: Pace,
}

impl Default for Way {
    fn default() -> Self {
        Self { urls: Rotation::default(), backoff: Backoff::default(), pace: Pace::Full }
    }
}

impl Way {
    fn learn(&mut self, outcome: &Outcome) {
        let Some(lasted) = outcome.lasted else { return };
        self.backoff.ran(lasted);
        self.urls.stay();
        let delivered = outcome.delivered == Delivered::Something;
        // A hub that takes what it is sent is there, however soon something on the way cuts each stream.
        if delivered || is_renewal(&outcome.ending) {
            self.backoff = Backoff::default();
        }
        if matches!(outcome.ending, Ending::Finished(_)) || lasted >= PROGRESS {
            self.pace = Pace::Full;
        } else if delivered {
            self.pace = Pace::Careful;
        }
    }
}

/// The session ended so that the next one has another view, or new keys.
fn is_renewal(ending: &Ending) -> bool {
    matches!(
        ending,
        Ending::Finished(
            Finish::Closed(EndReason::GrantsChanged | EndReason::Aged)
                | Finish::PeerEnded(EndReason::GrantsChanged | EndReason::Aged)
        )
    )
}

fn target(local: &Local, peer: &Peer, urls: &mut Rotation) -> Result<Target, AddressFault> {
    let channel = peer.dial.channel.as_deref().map(str::parse::<Channel>).transpose()?;
    let url = HubUrl::parse(urls.next(&peer.dial.urls), channel)?;
    let joining = peer.joining.as_ref().filter(|joining| local.clock.wall() < joining.expires);
    Ok(Target {
        hub: peer.key,
        url,
        grants: peer.given.clone(),
        token: joining.map(|joining| Identity::from_seed(&joining.seed)),
    })
}

/// Which of the hub's URLs is next: the one that worked last, otherwise one after the other.
#[derive(Debug, Default)]
struct Rotation {
    next: usize,
}

impl Rotation {
    fn next<'a>(&mut self, urls: &'a [String]) -> &'a str {
        let at = self.next.checked_rem(urls.len()).unwrap_or_default();
        self.next = at + 1;
        urls.get(at).map_or("", String::as_str)
    }

    fn stay(&mut self) {
        self.next = self.next.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_second_to_five_minutes_and_are_random_below_that() {
        let mut backoff = Backoff::default();
        let longest: Vec<_> = (0..11).map(|_| backoff.wait(u32::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(Backoff::default().wait(0), Duration::ZERO);
        let half = Backoff::default().wait(u32::MAX / 2);
        assert!(half.as_millis().abs_diff(500) <= 1);
    }

    #[test]
    fn only_a_minute_of_progress_makes_waits_short_again() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.wait(0);
        }
        backoff.ran(Duration::from_secs(59));
        assert_eq!(backoff.wait(u32::MAX).as_secs(), 32);
        backoff.ran(PROGRESS);
        assert_eq!(backoff.wait(u32::MAX).as_secs(), 1);
    }

    #[test]
    fn where_something_cuts_streams_the_next_one_comes_soon_and_is_careful() {
        let cut = |delivered, lasted| Outcome {
            ending: Ending::Interrupted("reset".to_owned()),
            lasted: Some(Duration::from_secs(lasted)),
            delivered,
        };
        let mut way = Way::default();
        for _ in 0..5 {
            way.backoff.wait(0);
        }
        way.learn(&cut(Delivered::Nothing, 1));
        assert_eq!((way.pace, way.backoff.limit.as_secs()), (Pace::Full, 32));
        way.learn(&cut(Delivered::Something, 1));
        assert_eq!((way.pace, way.backoff.limit), (Pace::Careful, BACKOFF_FIRST));
        way.learn(&cut(Delivered::Something, 60));
        assert_eq!(way.pace, Pace::Full);
    }

    #[test]
    fn urls_are_tried_in_turn_and_the_one_that_worked_is_kept() {
        let urls = ["a".to_owned(), "b".to_owned()];
        let mut rotation = Rotation::default();
        assert_eq!([rotation.next(&urls), rotation.next(&urls), rotation.next(&urls)], ["a", "b", "a"]);
        rotation.stay();
        assert_eq!([rotation.next(&urls), rotation.next(&urls)], ["a", "b"]);
    }
}
