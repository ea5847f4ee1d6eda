//! A hub whose disk stands still: its sessions live on by heartbeats alone.

use opmesh_core::protocol::EndReason;
use opmesh_core::protocol::limits::DEAD_AFTER;
use opmesh_core::session::Finish;

use super::raw::Raw;
use super::*;
use crate::store::Edit;

/// Turns for every task after each second that passes; a frame needs a few of them to get from one end to the other.
const TURNS: usize = 100;

/// Lets time pass for timers and clocks of this runtime, without waiting, while everything else goes on.
async fn pass(time: Duration) {
    tokio::time::pause();
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::resume();
}

/// Keeps the hub's store busy until the sender is dropped.
async fn stall(hub: &Instance) -> std::sync::mpsc::Sender<()> {
    let id = hub.record("plan", "own").await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (began, beginning) = tokio::sync::oneshot::channel();
    let edit = Edit::new(move |record| {
        began.send(()).unwrap();
        // Ends with an error when the sender is dropped, which is what is waited for.
        held.recv().unwrap_err();
        Ok(record.clone())
    });
    let store = hub.local.store.clone();
    hub.tasks.spawn(async move {
        store.append(vec![OwnChange::Update { id, expect_modno: None, edit }]).await.unwrap();
    });
    beginning.await.unwrap();
    release
}

/// How the first session of `host` went on: to the proof of so many operations, or to an end.
async fn proof_in_the_same_session(host: &mut Instance, hub: KeyId, count: u64) -> Result<(), Ending> {
    host.hears(hub, |news| match news {
        SessionNews::Ended(ending) => Some(Err(ending.clone())),
        SessionNews::Report(Report::Proved { set, .. }) if set.count() == count => Some(Ok(())),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_hub_whose_commits_take_longer_than_a_minute_keeps_its_session_and_is_equal_afterwards() {
    let hub = Instance::with_clock(1, Clock::of_the_runtime()).listening("127.0.0.1:0").await;
    let mut host = Instance::with_clock(2, Clock::of_the_runtime());
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), hub.url(), ALL).await;
    host.hears_proof_of(hub.key(), 0).await;
    let release = stall(&hub).await;
    host.record_many(3_000).await;
    let begun = host.local.clock.monotonic();
    pass(2 * DEAD_AFTER).await;
    assert!(host.local.clock.monotonic() >= begun + 2 * DEAD_AFTER);
    assert_eq!(hub.local.sessions.live(), [(host.key(), Role::AuthorizedClient)]);
    drop(release);
    assert_eq!(proof_in_the_same_session(&mut host, hub.key(), 3_000).await, Ok(()));
    let check = hub.local.store.verify_host(&host.key()).await.unwrap();
    assert!(check.equal() && check.computed.count() == 3_000);
}

#[tokio::test]
async fn a_dialer_that_sends_no_heartbeat_is_given_up_after_a_minute() {
    let mut hub = Instance::with_clock(1, Clock::of_the_runtime()).listening("127.0.0.1:0").await;
    let me = Identity::from_seed(&[2; 32]);
    hub.authorize(&me).await;
    let mut silent = Raw::open(hub.url(), hub.key()).await;
    silent.shake_hands(&me, None).await.unwrap();
    silent.dialled.info.gate.authenticated();
    silent.dialled.info.gate.established();
    hub.hears_connected(me.key_id()).await;
    // Its minute begins once the store has answered it, which it does before it answers us.
    hub.local.store.subscribe().await.unwrap();
    pass(DEAD_AFTER + Duration::from_secs(1)).await;
    assert_eq!(silent.end().await.unwrap_err().code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_hub_whose_disk_stands_still_holds_the_session_and_takes_everything_later() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = connected(2, &hub, ALL).await;
    host.hears_proof_of(hub.key(), 0).await;
    let release = stall(&hub).await;
    host.record_many(3_000).await;
    drop(release);
    assert_eq!(proof_in_the_same_session(&mut host, hub.key(), 3_000).await, Ok(()));
}

#[tokio::test]
async fn a_session_can_be_ended_while_the_hubs_disk_stands_still() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = connected(2, &hub, ALL).await;
    host.hears_proof_of(hub.key(), 0).await;
    let release = stall(&hub).await;
    host.record_many(1_000).await;
    hub.local.sessions.end(&host.key(), EndReason::Revoked);
    let ended = host.hears_ending(hub.key()).await;
    assert_eq!(ended, Ending::Finished(Finish::PeerEnded(EndReason::Revoked)));
    drop(release);
}
