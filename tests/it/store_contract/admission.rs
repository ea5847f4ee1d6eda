//! Who is let in, what operators change about peers, and the audit log that tells of it.

use opmesh::store::{
    AuditVerdict, Authorization, Dial, Greeting, Joining, NewPeer, NewToken, PeerChange, PeerEdit, PeerError,
    Refusal, Role, Store, StoreError,
};
use opmesh_core::model::{Position, SetDigest, UnixMs};
use opmesh_core::permission::{Grants, Scopes};

use super::support::{OWN, Place, claim, client, key, known_host, token};

async fn refusal(store: &Store, peer: u8, token: Option<u8>) -> Refusal {
    let refused = match store.authorize(claim(peer, token)).await.unwrap() {
        Authorization::Refused(refusal) => Some(refusal),
        Authorization::Granted { .. } => None,
    };
    refused.unwrap()
}

fn new_peer(number: u8) -> NewPeer {
    NewPeer {
        key: key(number).key_id(),
        instance: None,
        roles: known_host(),
        verified: true,
        dial: Dial { urls: vec!["https://hub".to_owned()], channel: None },
        given: Grants::parse(["READ_OPERATIONS:*"]).unwrap(),
        joining: None,
    }
}

#[tokio::test]
async fn attacker_12_races_others_with_one_token_and_one_wins() {
    let place = Place::new(10).await;
    let store = place.open();
    store.add_token(token(90)).await.unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for peer in 2..12 {
        let store = store.clone();
        racers.spawn(async move { store.authorize(claim(peer, Some(90))).await.unwrap() });
    }
    let answers = racers.join_all().await;
    let paired = |answer: &&Authorization| matches!(answer, Authorization::Granted { paired: true, .. });
    assert_eq!(answers.iter().filter(paired).count(), 1);
    let spent = |answer: &&Authorization| **answer == Authorization::Refused(Refusal::TokenSpent);
    assert_eq!(answers.iter().filter(spent).count(), 9);
    assert_eq!(store.peers().await.unwrap().len(), 1);
    assert!(store.tokens().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dialer_is_refused_for_the_true_reason_which_is_audited() {
    let place = Place::new(10).await;
    let store = place.open();
    store.add_token(NewToken { expires: UnixMs(1), ..token(80) }).await.unwrap();
    assert_eq!(refusal(&store, 2, None).await, Refusal::Unknown);
    assert_eq!(refusal(&store, 2, Some(70)).await, Refusal::TokenUnknown);
    assert_eq!(refusal(&store, 2, Some(80)).await, Refusal::TokenExpired);
    let own = store.authorize(claim(1, None)).await.unwrap();
    assert_eq!(own, Authorization::Refused(Refusal::OwnKey));
    let (blocked, _) = client(&store, 3).await;
    store.edit_peer(&blocked, vec![PeerEdit::Block { reason: "lost".to_owned() }]).await.unwrap();
    store.add_token(token(81)).await.unwrap();
    assert_eq!(refusal(&store, 3, Some(81)).await, Refusal::Blocked);
    assert_eq!(store.tokens().await.unwrap().len(), 1, "a blocked key uses no token up");
    let unverified = NewPeer {
        verified: false,
        roles: opmesh::store::Roles { known_host: false, authorized_client: true },
        ..new_peer(4)
    };
    store.add_peer(unverified).await.unwrap();
    assert_eq!(refusal(&store, 4, None).await, Refusal::Unverified);
    store.add_peer(new_peer(5)).await.unwrap();
    assert_eq!(refusal(&store, 5, None).await, Refusal::NotAClient);
    let shown = store.peer(&key(4).key_id()).await.unwrap().unwrap();
    assert_eq!(shown.refused.unwrap().0, Refusal::Unverified);
    let audited = store.audit(None, 0).await.unwrap();
    let refused = audited.iter().filter(|record| record.event == "client_refused").count();
    assert_eq!(refused, 7);
}

#[tokio::test]
async fn nobody_can_fill_the_audit_log_with_refusals_and_strangers_hide_nobody_that_is_listed() {
    let place = Place::new(10).await;
    let store = place.open();
    let (blocked, _) = client(&store, 2).await;
    store.edit_peer(&blocked, vec![PeerEdit::Block { reason: String::new() }]).await.unwrap();
    let before = store.audit(None, 0).await.unwrap().len();
    for _ in 0..100 {
        assert_eq!(refusal(&store, 3, None).await, Refusal::Unknown);
        assert_eq!(refusal(&store, 3, Some(70)).await, Refusal::TokenUnknown);
    }
    for _ in 0..15 {
        assert_eq!(refusal(&store, 2, None).await, Refusal::Blocked);
    }
    store.close().await;
    let store = place.open();
    let audited = store.audit(None, 0).await.unwrap();
    let about = |peer: Option<u8>| {
        let peer = peer.map(|number| key(number).key_id());
        audited[before..].iter().filter(|record| record.peer == peer).count()
    };
    assert_eq!((about(Some(2)), about(Some(3)), about(None)), (11, 10, 1));
    let counted = |event: &str| audited.iter().find(|record| record.event == event).unwrap().detail.clone();
    assert_eq!(counted("strangers_refused"), "190 more within a minute");
    assert_eq!(counted("refusals_repeated"), "5 more within a minute");
    assert!(matches!(store.audit_verify().await.unwrap(), AuditVerdict::Whole { .. }));
}

#[tokio::test]
async fn a_listed_client_is_let_in_without_using_up_the_token_it_presents() {
    let place = Place::new(10).await;
    let store = place.open();
    client(&store, 2).await;
    store.add_token(token(80)).await.unwrap();
    let again = store.authorize(claim(2, Some(80))).await.unwrap();
    assert!(matches!(again, Authorization::Granted { paired: false, .. }));
    assert_eq!(store.tokens().await.unwrap().len(), 1);
}

#[tokio::test]
async fn attacker_10_presents_the_name_of_another_live_key_and_is_refused() {
    let place = Place::new(10).await;
    let store = place.open();
    client(&store, 2).await;
    client(&store, 3).await;
    let mut renamed = claim(2, None);
    renamed.instance = "host-3".parse().unwrap();
    let answer = store.authorize(renamed.clone()).await.unwrap();
    assert_eq!(answer, Authorization::Refused(Refusal::InstanceTaken));
    renamed.instance = "host-9".parse().unwrap();
    assert!(matches!(store.authorize(renamed).await.unwrap(), Authorization::Granted { .. }));
    let audited = store.audit(None, 0).await.unwrap();
    assert!(audited.iter().any(|record| record.event == "instance_renamed"));
}

#[tokio::test]
async fn what_changes_the_rights_of_a_peer_fences_its_session_and_tells_the_node() {
    let place = Place::new(10).await;
    let store = place.open();
    let (key, _) = client(&store, 2).await;
    let grant = || PeerEdit::Grant("READ_CONFIG:*".parse().unwrap());
    let edits: Vec<(fn() -> PeerEdit, PeerChange)> = vec![
        (|| PeerEdit::Grant("READ_CONFIG:*".parse().unwrap()), PeerChange::Grants),
        (|| PeerEdit::Revoke(vec!["READ_CONFIG".to_owned()]), PeerChange::Grants),
        (|| PeerEdit::SetAccepts("repo:a".parse().unwrap()), PeerChange::Grants),
        (|| PeerEdit::Block { reason: String::new() }, PeerChange::Revoked),
    ];
    let mut events = store.peer_events();
    for (edit, change) in edits {
        let epoch = store.take_over(&key).await.unwrap().epoch;
        store.edit_peer(&key, vec![edit()]).await.unwrap();
        assert_eq!(events.recv().await.unwrap().change, change);
        let mark = opmesh_core::protocol::Mark { position: Position::ZERO, set: SetDigest::EMPTY };
        let late = store.submit(&key, epoch, opmesh_core::replica::Transaction::Mark(mark)).await.await;
        assert_eq!(late, Err(StoreError::Fenced));
    }
    assert_eq!(store.take_over(&key).await, Err(StoreError::Fenced), "a blocked peer takes over nothing");
    store.edit_peer(&key, vec![PeerEdit::Unblock, grant()]).await.unwrap();
    assert_eq!(store.take_over(&key).await.unwrap().accepted, "repo:a".parse::<Scopes>().unwrap());
    store.remove_peer(&key).await.unwrap();
    assert_eq!(store.take_over(&key).await, Err(StoreError::Fenced));
}

#[tokio::test]
async fn edits_that_make_no_sense_are_refused_and_change_nothing() {
    let place = Place::new(10).await;
    let store = place.open();
    let (two, _) = client(&store, 2).await;
    let (three, _) = client(&store, 3).await;
    let before = store.peer(&two).await.unwrap();
    let audited = store.audit(None, 0).await.unwrap().len();
    let edits = vec![PeerEdit::Unblock, PeerEdit::Rename("host-3".to_owned())];
    assert_eq!(store.edit_peer(&two, edits).await, Err(PeerError::NameTaken("host-3".to_owned())));
    let verify = store.edit_peer(&two, vec![PeerEdit::Verify(three)]).await;
    assert!(matches!(verify, Err(PeerError::OtherKey { .. })));
    let revoke = store.edit_peer(&two, vec![PeerEdit::Revoke(vec!["READ_CONFIG".to_owned()])]).await;
    assert!(matches!(revoke, Err(PeerError::Grants(_))));
    assert_eq!(store.peer(&two).await.unwrap(), before);
    assert_eq!(store.audit(None, 0).await.unwrap().len(), audited);
    let own = NewPeer { key: OWN.key_id(), ..new_peer(9) };
    assert_eq!(store.add_peer(own).await, Err(PeerError::OwnKey(OWN.key_id())));
    store.add_peer(new_peer(9)).await.unwrap();
    assert!(matches!(store.add_peer(new_peer(9)).await, Err(PeerError::Exists { .. })));
    assert_eq!(store.cancel_token(12).await, Err(PeerError::NoSuchToken(12)));
}

#[tokio::test]
async fn a_peer_is_found_by_name_instance_key_or_its_beginning_and_never_by_guess() {
    let place = Place::new(10).await;
    let store = place.open();
    let (two, _) = client(&store, 2).await;
    store.add_token(token(80)).await.unwrap();
    let mut twin = claim(3, Some(80));
    twin.instance = "host-2".parse().unwrap();
    store.authorize(twin).await.unwrap();
    // One peer's name and what the other one calls itself: a peer must not take over another's name by its label.
    assert!(
        matches!(store.find_peer("host-2").await, Err(PeerError::Ambiguous { candidates, .. }) if candidates.len() == 2)
    );
    assert_eq!(store.find_peer(&two.to_string()).await.unwrap().key, two);
    assert_eq!(store.find_peer("host-2-2").await.unwrap().key, key(3).key_id());
    store.edit_peer(&two, vec![PeerEdit::Rename("web".to_owned())]).await.unwrap();
    store.edit_peer(&key(3).key_id(), vec![PeerEdit::Rename("db".to_owned())]).await.unwrap();
    assert!(
        matches!(store.find_peer("host-2").await, Err(PeerError::Ambiguous { candidates, .. }) if candidates.len() == 2)
    );
    let full = two.to_string();
    assert_eq!(store.find_peer(&full).await.unwrap().key, two);
    assert_eq!(store.find_peer(&full[..16]).await.unwrap().key, two);
    assert_eq!(store.find_peer(&full[8..16]).await.unwrap().key, two);
    assert!(matches!(store.find_peer(&full[..12]).await, Err(PeerError::Unknown(_))));
    assert_eq!(store.find_host("web").await.unwrap(), two);
    store.set_instance("hub".parse().unwrap()).await.unwrap();
    assert_eq!(store.find_host("hub").await.unwrap(), OWN.key_id());
}

#[tokio::test]
async fn a_peer_that_was_added_by_its_key_is_named_by_itself_unless_somebody_named_it() {
    let place = Place::new(10).await;
    let store = place.open();
    for number in [2, 3, 4] {
        let added = store.add_peer(new_peer(number)).await.unwrap();
        assert!(added.key.to_string().contains(&added.name));
    }
    let named = PeerEdit::Rename("mine".to_owned());
    store.edit_peer(&key(4).key_id(), vec![named]).await.unwrap();
    let greeting = |number| Greeting {
        role: Role::KnownHost,
        public_key: key(number),
        instance: "hub".parse().unwrap(),
        received: Vec::new(),
    };
    for (number, name) in [(2, "hub"), (3, "hub-2"), (4, "mine")] {
        for _ in 0..2 {
            store.greet(greeting(number)).await.unwrap();
            let shown = store.peer(&key(number).key_id()).await.unwrap().unwrap();
            assert_eq!(shown.name, name);
        }
    }
    let audited = store.audit(None, 0).await.unwrap();
    assert_eq!(audited.iter().filter(|record| record.event == "peer_renamed").count(), 3);
}

#[tokio::test]
async fn a_pairing_that_waits_survives_a_restart_and_ends_with_the_first_greeting() {
    let place = Place::new(10).await;
    let store = place.open();
    let joining = Some(Joining { seed: [5; 32], expires: UnixMs(77) });
    let peer = store.add_peer(NewPeer { joining: joining.clone(), ..new_peer(2) }).await.unwrap();
    store.close().await;
    let store = place.open();
    assert_eq!(store.peer(&peer.key).await.unwrap().unwrap().joining, joining);
    let greeting = Greeting {
        role: Role::KnownHost,
        public_key: key(2),
        instance: "hub".parse().unwrap(),
        received: vec!["READ_CONFIG:*".to_owned()],
    };
    store.greet(greeting).await.unwrap();
    let peer = store.peer(&peer.key).await.unwrap().unwrap();
    assert_eq!((peer.joining, peer.public_key), (None, Some(key(2))));
    assert_eq!(peer.received, vec!["READ_CONFIG:*".to_owned()]);
}

#[tokio::test]
async fn what_a_hub_acked_is_shown_at_once_and_kept_by_an_orderly_end() {
    let place = Place::new(10).await;
    let store = place.open();
    let peer = store.add_peer(new_peer(2)).await.unwrap().key;
    let set = SetDigest::from_parts([3; 16], 4);
    store.note_acked(&peer, Position::ZERO);
    store.note_proved(&peer, Position::ZERO, set);
    let shown = store.peer(&peer).await.unwrap().unwrap();
    assert_eq!(shown.progress.unwrap().proved, Some((Position::ZERO, set)));
    assert!(shown.last_seen.is_some());
    store.close().await;
    let kept = place.open().peer(&peer).await.unwrap().unwrap();
    assert_eq!((kept.progress, kept.last_seen), (shown.progress, shown.last_seen));
}
