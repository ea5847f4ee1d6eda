//! Instances as they should be.

use opmesh_core::model::UnixMs;
use opmesh_core::permission::{Grant, Grants};
use opmesh_core::protocol::{EndReason, Message};
use opmesh_core::session::Finish;

use super::super::client::DialError;
use super::raw::Raw;
use super::relay::Relay;
use super::*;
use crate::store::{Joining, NewToken};

fn renewed(ending: &Ending) -> bool {
    matches!(ending, Ending::Finished(Finish::Closed(EndReason::GrantsChanged)))
}

#[tokio::test]
async fn operations_arrive_over_tls_before_and_while_connected() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = Instance::new(2);
    host.record("plan", "before").await;
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), hub.url(), ALL).await;
    host.hears_connected(hub.key()).await;
    hub.has(|rows| rows.len() == 1).await;
    let id = host.record("plan", "while").await;
    hub.has(|rows| rows.len() == 2).await;
    host.local.store.append(vec![OwnChange::Delete { id, expect_modno: None }]).await.unwrap();
    hub.has(|rows| rows.len() == 1).await;
    host.hears_proof_of(hub.key(), 1).await;
    let check = hub.local.store.verify_host(&host.key()).await.unwrap();
    assert!(check.equal());
    assert_eq!(check.computed.count(), 1);
    host.shut_down().await;
    hub.shut_down().await;
}

#[tokio::test]
async fn thousands_of_operations_arrive_although_every_connection_breaks_after_64_kib() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let relay = Relay::new(hub.url(), 64 * 1024).await;
    let mut host = Instance::new(2);
    host.record_many(3_000).await;
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), &relay.url, ALL).await;
    let mut broken = 0;
    loop {
        let ended = host.hears(hub.key(), |news| match news {
            SessionNews::Ended(_) => Some(true),
            SessionNews::Report(Report::Proved { set, .. }) if set.count() == 3_000 => Some(false),
            _ => None,
        });
        if !ended.await {
            break;
        }
        broken += 1;
        host.redial.notify_one();
    }
    assert!(broken >= 3, "{broken} connections broke");
    let check = hub.local.store.verify_host(&host.key()).await.unwrap();
    assert!(check.equal() && check.computed.count() == 3_000);
}

#[tokio::test]
async fn recording_does_not_wait_for_a_hub_that_takes_nothing() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let relay = Relay::new(hub.url(), usize::MAX).await;
    let mut host = Instance::new(2);
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), &relay.url, ALL).await;
    host.hears_connected(hub.key()).await;
    relay.stands_still.send_replace(true);
    tokio::time::timeout(PATIENCE, host.record_many(3_000)).await.unwrap();
    assert!(hub.rows().await.len() < 300);
    relay.stands_still.send_replace(false);
    host.hears_proof_of(hub.key(), 3_000).await;
}

#[tokio::test]
async fn plain_connections_work_on_loopback() {
    let hub = Instance::hub(1, "plain://127.0.0.1:0").await;
    let host = connected(2, &hub, ALL).await;
    host.record("plan", "x").await;
    hub.has(|rows| rows.len() == 1).await;
}

#[tokio::test]
async fn what_is_not_granted_is_not_sent_and_more_comes_when_more_is_granted() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = connected(2, &hub, "READ_OPERATIONS:plan:open").await;
    host.record("secret", "x").await;
    host.record("open", "y").await;
    hub.has(|rows| rows.len() == 1).await;
    let grant: Grant = ALL.parse().unwrap();
    host.edit(hub.key(), PeerEdit::Grant(grant)).await;
    host.local.sessions.end(&hub.key(), EndReason::GrantsChanged);
    assert!(renewed(&host.hears_ending(hub.key()).await));
    host.hears_connected(hub.key()).await;
    hub.has(|rows| rows.len() == 2).await;
}

#[tokio::test]
async fn a_pairing_token_lets_a_new_host_in_once() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let token = Identity::from_seed(&[99; 32]);
    let far = UnixMs(i64::MAX);
    let new_token = NewToken {
        public_key: token.public_key(),
        grants: Grants::default(),
        label: String::new(),
        expires: far,
        uses: 1,
    };
    hub.local.store.add_token(new_token).await.unwrap();
    let mut host = Instance::new(2);
    host.record("plan", "x").await;
    let dial = Dial { urls: vec![hub.url().to_string()], channel: Some("tls".to_owned()) };
    let joining = Some(Joining { seed: [99; 32], expires: far });
    let given = Grants::parse([ALL]).unwrap();
    let entry = NewPeer { roles: roles(Role::KnownHost), given, dial, joining, ..peer(hub.key()) };
    host.local.store.add_peer(entry).await.unwrap();
    host.tasks.spawn(dialer::run(host.local.clone(), hub.key(), host.redial.clone(), host.stop.clone()));
    host.hears_connected(hub.key()).await;
    hub.has(|rows| rows.len() == 1).await;
    assert!(hub.local.store.peer(&host.key()).await.unwrap().unwrap().verified);
    assert!(host.local.store.peer(&hub.key()).await.unwrap().unwrap().joining.is_none());

    let late = Identity::from_seed(&[3; 32]);
    let mut raw = Raw::open(hub.url(), hub.key()).await;
    let refused = raw.shake_hands(&late, Some(&token)).await.unwrap_err();
    assert_eq!(refused.message(), super::super::STRANGER);
}

#[tokio::test]
async fn another_instance_at_the_hubs_url_is_named() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = Instance::new(2);
    let meant = Identity::from_seed(&[9; 32]).key_id();
    host.dial(meant, hub.url(), ALL).await;
    let Ending::Dial(DialError::OtherKey { other, .. }) = host.hears_ending(meant).await else {
        panic!("another key answered");
    };
    assert_eq!((other.expected, other.presented), (meant, hub.key()));
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_unreachable_and_found_when_it_comes() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let (url, key) = (hub.url().clone(), hub.key());
    hub.shut_down().await;
    let mut host = Instance::new(2);
    host.dial(key, &url, ALL).await;
    assert!(matches!(host.hears_ending(key).await, Ending::Dial(DialError::Unreachable { .. })));
    let back = Instance::hub(1, &format!("{}:{}", url.host, url.port)).await;
    back.authorize(&host.local.me().identity).await;
    host.redial.notify_one();
    host.hears_connected(key).await;
}

#[tokio::test]
async fn a_blocked_host_is_ended_at_once_and_not_let_in_again() {
    let mut hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = connected(2, &hub, ALL).await;
    hub.hears_connected(host.key()).await;
    hub.edit(host.key(), PeerEdit::Block { reason: String::new() }).await;
    hub.local.sessions.end(&host.key(), EndReason::Revoked);
    let ended = host.hears_ending(hub.key()).await;
    assert_eq!(ended, Ending::Finished(Finish::PeerEnded(EndReason::Revoked)));
    host.redial.notify_one();
    assert!(matches!(host.hears_ending(hub.key()).await, Ending::TurnedAway(_)));
}

/// Here nobody follows edits, so that the session meets them in the store: the order of events that a host sees when
/// its next frame is faster than the node.
#[tokio::test]
async fn a_session_that_the_store_fences_off_ends_for_the_reason_that_an_operator_gave() {
    let edits = [
        (PeerEdit::Block { reason: "stolen laptop".to_owned() }, EndReason::Revoked),
        (PeerEdit::SetRoles(roles(Role::KnownHost)), EndReason::Revoked),
        (PeerEdit::Grant("READ_CONFIG:*".parse().unwrap()), EndReason::GrantsChanged),
        (PeerEdit::SetAccepts("plan:open".parse().unwrap()), EndReason::GrantsChanged),
    ];
    for (edit, reason) in edits {
        let hub = Instance::hub(1, "127.0.0.1:0").await;
        let mut host = connected(2, &hub, ALL).await;
        host.hears_proof_of(hub.key(), 0).await;
        hub.edit(host.key(), edit).await;
        host.record("plan", "x").await;
        let ended = host.hears_ending(hub.key()).await;
        assert_eq!(ended, Ending::Finished(Finish::PeerEnded(reason)));
        assert!(hub.rows().await.is_empty());
    }
}

#[tokio::test]
async fn a_session_whose_peer_was_removed_ends_as_revoked() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = connected(2, &hub, ALL).await;
    host.hears_proof_of(hub.key(), 0).await;
    hub.local.store.remove_peer(&host.key()).await.unwrap();
    host.record("plan", "x").await;
    let ended = host.hears_ending(hub.key()).await;
    assert_eq!(ended, Ending::Finished(Finish::PeerEnded(EndReason::Revoked)));
}

#[tokio::test]
async fn a_host_that_is_blocked_during_its_handshake_hears_the_same_end() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let me = Identity::from_seed(&[2; 32]);
    hub.authorize(&me).await;
    let mut raw = Raw::open(hub.url(), hub.key()).await;
    let (_, _, signing, request) = raw.greet(&me, None).await;
    let (waiting, proof) = signing.signed(me.sign(&request.identity), None);
    raw.send(proof).await;
    let accepted = crate::wire::accepted(raw.receive().await.unwrap()).unwrap();
    hub.edit(me.key_id(), PeerEdit::Block { reason: "stolen laptop".to_owned() }).await;
    raw.send(waiting.accepted(accepted).unwrap().1).await;
    let last = crate::wire::decode(raw.receive().await.unwrap()).unwrap();
    assert_eq!(last, Message::End(EndReason::Revoked));
    raw.end().await.unwrap();
}

#[tokio::test]
async fn stopping_says_so_to_the_peer_and_leaves_no_task() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut host = connected(2, &hub, ALL).await;
    host.hears_connected(hub.key()).await;
    let key = hub.key();
    hub.shut_down().await;
    let ended = host.hears_ending(key).await;
    assert_eq!(ended, Ending::Finished(Finish::PeerEnded(EndReason::Shutdown)));
    host.shut_down().await;
}

#[tokio::test]
async fn a_newer_session_of_the_same_key_displaces_the_older_one() {
    let mut hub = Instance::hub(1, "127.0.0.1:0").await;
    let me = Identity::from_seed(&[2; 32]);
    hub.authorize(&me).await;
    let mut first = Raw::open(hub.url(), hub.key()).await;
    first.shake_hands(&me, None).await.unwrap();
    hub.hears_connected(me.key_id()).await;
    let mut second = Raw::open(hub.url(), hub.key()).await;
    second.greet(&me, None).await;
    assert_eq!(hub.local.sessions.live(), [(me.key_id(), Role::AuthorizedClient)]);
    let mut third = Raw::open(hub.url(), hub.key()).await;
    third.shake_hands(&me, None).await.unwrap();
    let last = crate::wire::decode(first.receive().await.unwrap()).unwrap();
    assert_eq!(last, Message::End(EndReason::Displaced));
    first.end().await.unwrap();
    assert_eq!(hub.local.sessions.live(), [(me.key_id(), Role::AuthorizedClient)]);
}
