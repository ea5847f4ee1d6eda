//! One record for each security event, in the transaction of its effect.

use std::path::Path;

use opmesh::store::{
    AuditEvent, AuditKind, Dial, Greeting, Joining, NewPeer, NewToken, PeerEdit, Resolution, Role, Roles,
    Store, StoreError,
};
use opmesh_core::model::{
    Chain, FlowId, Incarnation, Modno, OpId, Operation, Position, ProcessNonce, Record, Scope, SetDigest,
    Tombstone, UnixMs,
};
use opmesh_core::permission::{Grants, Scopes};
use opmesh_core::protocol::{Matchpoint, Ops, State};
use opmesh_core::replica::{StaleOps, Transaction};

use super::support::{Place, claim, client, key, known_host, token};

/// The test that drives each kind of event. A new kind does not compile until it has one.
#[expect(clippy::too_many_lines, reason = "one table, a line for each kind")]
const fn driven_by(kind: AuditKind) -> &'static str {
    match kind {
        AuditKind::Initialized | AuditKind::Started | AuditKind::Stopped => {
            "an_instance_records_its_beginning_and_every_start_and_end"
        }
        AuditKind::StoreStopped => "why_a_store_stopped_is_recorded_by_the_next_process",
        AuditKind::TokenMade
        | AuditKind::TokenCancelled
        | AuditKind::TokenExpired
        | AuditKind::ClientPaired
        | AuditKind::PairedWithHub
        | AuditKind::ClientConnected
        | AuditKind::HubConnected
        | AuditKind::ClientRefused
        | AuditKind::InstanceRenamed => "who_is_let_in_and_refused_is_recorded_once",
        AuditKind::RefusalsRepeated | AuditKind::StrangersRefused => {
            "nobody_can_fill_the_audit_log_with_refusals_and_strangers_hide_nobody_that_is_listed"
        }
        AuditKind::PeerAdded
        | AuditKind::PeerVerified
        | AuditKind::PeerUnverified
        | AuditKind::PeerBlocked
        | AuditKind::PeerUnblocked
        | AuditKind::PeerRemoved
        | AuditKind::PeerRenamed
        | AuditKind::PeerDialChanged
        | AuditKind::PairingChanged
        | AuditKind::RolesChanged
        | AuditKind::GrantsChanged
        | AuditKind::AcceptsChanged => "each_edit_of_a_peer_is_recorded_once",
        AuditKind::IdentityConflict
        | AuditKind::ConflictAccepted
        | AuditKind::ConflictRefused
        | AuditKind::IncarnationChanged
        | AuditKind::OwnerForked
        | AuditKind::OwnRollback
        | AuditKind::DeletesGuarded
        | AuditKind::OwnerReleased => "what_histories_show_is_recorded_once",
        AuditKind::HandshakeFailed | AuditKind::ScopeDenied => {
            "what_sessions_come_to_is_recorded_once_on_the_side_that_sees_it"
        }
        AuditKind::AdminTokenMade | AuditKind::AdminTokenRevoked => {
            "a_token_is_kept_as_a_hash_listed_without_it_and_useless_once_revoked"
        }
        AuditKind::AdminRefused | AuditKind::AdminRefusalsRepeated => {
            "callers_that_may_not_are_recorded_and_counted"
        }
        AuditKind::KeyRotationBegun | AuditKind::KeyRotationAborted => {
            "a_new_key_can_be_given_up_and_asked_for_again"
        }
        AuditKind::KeyRotated | AuditKind::KeyAnnounced | AuditKind::KeySucceeded => {
            "a_hub_and_a_host_get_new_keys_while_a_laptop_sleeps_and_nothing_is_sent_again"
        }
        AuditKind::KeyReplaced => "a_forced_key_is_verified_by_hand_where_nobody_heard_of_it",
        AuditKind::HostAdopted | AuditKind::AdoptionUndone => {
            "what_a_lost_key_wrote_is_listed_under_the_host_that_adopts_it_and_the_key_stays_out"
        }
        AuditKind::ConfigChanged | AuditKind::ConfigRefused => {
            "a_peers_change_is_accepted_refused_or_stale_and_each_but_the_last_is_audited"
        }
        AuditKind::SharedReposTaken | AuditKind::SharedRepoRefused => {
            "shared_repositories_are_taken_refused_one_by_one_and_audited_once"
        }
        AuditKind::SharedReposWithdrawn => "what_a_peer_shared_and_the_plans_on_it_outlive_the_peer",
        AuditKind::RefusedByHub | AuditKind::OtherKeyAnswered => {
            "a_host_records_that_it_was_turned_away_and_that_another_key_answered"
        }
        AuditKind::ConfigPushed => {
            "a_push_is_applied_unchanged_stale_or_refused_and_both_sides_have_it_in_their_audit"
        }
        AuditKind::StoreBackedUp | AuditKind::StoreRestored => {
            "a_backup_is_refused_over_a_file_and_a_restore_without_its_key_or_with_another"
        }
        AuditKind::OwnInstanceRenamed => {
            "a_renamed_instance_is_learnt_in_the_next_session_and_both_sides_note_it"
        }
        AuditKind::HostForgetBegun | AuditKind::HostForgotten => {
            "a_forgotten_host_leaves_nothing_and_its_numbers_are_never_given_out_again"
        }
    }
}

#[test]
fn every_kind_of_event_is_driven_by_a_test() {
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    for kind in AuditKind::ALL {
        let test = format!("fn {}(", driven_by(*kind));
        assert!(sources.contains(&test), "{} is driven by no test: {test}", kind.name());
    }
}

/// All tests of this package.
fn sources(root: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    text
}

/// The records that a step adds, by their kind.
struct Ledger {
    store: Store,
    seen: u64,
}

impl Ledger {
    fn new(store: &Store) -> Self {
        Self { store: store.clone(), seen: 0 }
    }

    /// Exactly these were written since the last look, in this order.
    async fn shows(&mut self, expected: &[AuditKind]) {
        let new = self.store.audit(None, self.seen).await.unwrap();
        self.seen += u64::try_from(new.len()).unwrap();
        let events: Vec<_> = new.iter().map(|record| record.event.as_str()).collect();
        let expected: Vec<_> = expected.iter().map(|kind| kind.name()).collect();
        assert_eq!(events, expected);
    }

    async fn forgets(&mut self) {
        self.seen += u64::try_from(self.store.audit(None, self.seen).await.unwrap().len()).unwrap();
    }
}

fn hub(number: u8, joining: Option<Joining>) -> NewPeer {
    NewPeer {
        key: key(number).key_id(),
        instance: None,
        roles: known_host(),
        verified: true,
        dial: Dial { urls: vec!["https://hub".to_owned()], channel: None },
        given: Grants::parse(["READ_OPERATIONS:*"]).unwrap(),
        joining,
    }
}

#[tokio::test]
async fn who_is_let_in_and_refused_is_recorded_once() {
    let place = Place::new(10).await;
    let store = place.open();
    let mut ledger = Ledger::new(&store);
    let made = store.add_token(token(90)).await.unwrap();
    ledger.shows(&[AuditKind::TokenMade]).await;
    store.cancel_token(made.id).await.unwrap();
    ledger.shows(&[AuditKind::TokenCancelled]).await;
    store.add_token(NewToken { expires: UnixMs(1), ..token(91) }).await.unwrap();
    ledger.shows(&[AuditKind::TokenMade]).await;
    store.note_expired_tokens().await.unwrap();
    ledger.shows(&[AuditKind::TokenExpired]).await;
    store.note_expired_tokens().await.unwrap();
    ledger.shows(&[]).await;

    store.authorize(claim(9, Some(91))).await.unwrap();
    ledger.shows(&[AuditKind::ClientRefused]).await;
    store.add_token(token(92)).await.unwrap();
    ledger.shows(&[AuditKind::TokenMade]).await;
    store.authorize(claim(2, Some(92))).await.unwrap();
    ledger.shows(&[AuditKind::ClientPaired]).await;
    store.authorize(claim(2, None)).await.unwrap();
    ledger.shows(&[]).await;
    store.take_over(&key(2).key_id()).await.unwrap();
    ledger.shows(&[AuditKind::ClientConnected]).await;
    let mut renamed = claim(2, None);
    renamed.instance = "other".parse().unwrap();
    store.authorize(renamed).await.unwrap();
    ledger.shows(&[AuditKind::InstanceRenamed]).await;

    let joining = Some(Joining { seed: [5; 32], expires: UnixMs(i64::MAX) });
    store.add_peer(NewPeer { instance: Some("hub".parse().unwrap()), ..hub(3, joining) }).await.unwrap();
    ledger.shows(&[AuditKind::PeerAdded]).await;
    for expected in [&[AuditKind::PairedWithHub, AuditKind::HubConnected][..], &[AuditKind::HubConnected]] {
        let greeting = Greeting {
            role: Role::KnownHost,
            public_key: key(3),
            instance: "hub".parse().unwrap(),
            received: Vec::new(),
        };
        store.greet(greeting).await.unwrap();
        ledger.shows(expected).await;
    }
}

#[tokio::test]
async fn each_edit_of_a_peer_is_recorded_once() {
    let place = Place::new(10).await;
    let store = place.open();
    let mut ledger = Ledger::new(&store);
    let peer = store.add_peer(hub(3, None)).await.unwrap().key;
    ledger.shows(&[AuditKind::PeerAdded]).await;
    let both = Roles { known_host: true, authorized_client: true };
    let revoked = vec!["READ_CONFIG".to_owned()];
    for (edit, expected) in [
        (PeerEdit::Rename("mine".to_owned()), AuditKind::PeerRenamed),
        (PeerEdit::Verify(peer), AuditKind::PeerVerified),
        (PeerEdit::Unverify, AuditKind::PeerUnverified),
        (PeerEdit::Grant("READ_CONFIG:*".parse().unwrap()), AuditKind::GrantsChanged),
        (PeerEdit::Revoke(revoked), AuditKind::GrantsChanged),
        (PeerEdit::Block { reason: "lost".to_owned() }, AuditKind::PeerBlocked),
        (PeerEdit::Unblock, AuditKind::PeerUnblocked),
        (PeerEdit::SetDial(Dial::default()), AuditKind::PeerDialChanged),
        (PeerEdit::SetAccepts(Scopes::nothing()), AuditKind::AcceptsChanged),
        (PeerEdit::SetRoles(both), AuditKind::RolesChanged),
        (PeerEdit::SetJoining(None), AuditKind::PairingChanged),
    ] {
        store.edit_peer(&peer, vec![edit]).await.unwrap();
        ledger.shows(&[expected]).await;
    }
    store.remove_peer(&peer).await.unwrap();
    ledger.shows(&[AuditKind::PeerRemoved]).await;
    assert!(store.remove_peer(&peer).await.is_err());
    ledger.shows(&[]).await;
}

fn at(modno: u64) -> Position {
    Position { modno: Modno::new(modno).unwrap(), chain: Chain([1; 16]) }
}

fn label(n: u64) -> Incarnation {
    Incarnation::new(n).unwrap()
}

fn state(incarnation: u64) -> Transaction {
    let state = State {
        incarnation: label(incarnation),
        process: ProcessNonce::new(1).unwrap(),
        head: at(300),
        granted: Scopes::everything(),
        set: SetDigest::from_parts([9; 16], 7),
    };
    Transaction::State { state, accepted: Scopes::everything() }
}

fn ops(base: Position, end: u64, operations: Vec<Operation>, tombstones: Vec<Tombstone>) -> Transaction {
    let ops = Ops { base, end: at(end), as_of: at(end), operations, tombstones };
    Transaction::Ops { ops, stale: StaleOps::Refuse }
}

#[tokio::test]
async fn what_histories_show_is_recorded_once() {
    let place = Place::new(10).await;
    let store = place.open();
    let mut ledger = Ledger::new(&store);
    let (owner, epoch) = client(&store, 2).await;
    let submit = async |transaction: Transaction| store.submit(&owner, epoch, transaction).await.await;
    ledger.forgets().await;
    submit(state(1)).await.unwrap().unwrap();
    ledger.shows(&[]).await;
    submit(state(2)).await.unwrap().unwrap();
    ledger.shows(&[AuditKind::IncarnationChanged]).await;
    for expected in [&[AuditKind::IdentityConflict][..], &[]] {
        submit(state(1)).await.unwrap().unwrap();
        ledger.shows(expected).await;
    }
    store.resolve(&owner, Resolution::Refuse).await.unwrap();
    ledger.shows(&[AuditKind::ConflictRefused]).await;
    let epoch = store.take_over(&owner).await.unwrap().epoch;
    let submit = async |transaction: Transaction| store.submit(&owner, epoch, transaction).await.await;
    submit(state(1)).await.unwrap().unwrap();
    ledger.shows(&[AuditKind::ClientConnected, AuditKind::IdentityConflict]).await;
    store.resolve(&owner, Resolution::AcceptPresented).await.unwrap();
    ledger.shows(&[AuditKind::ConflictAccepted]).await;

    let epoch = store.take_over(&owner).await.unwrap().epoch;
    let submit = async |transaction: Transaction| store.submit(&owner, epoch, transaction).await.await;
    submit(state(1)).await.unwrap().unwrap();
    ledger.shows(&[AuditKind::ClientConnected]).await;
    let create = |n: u64| Operation {
        id: OpId::new(n).unwrap(),
        flow_id: FlowId::new(n).unwrap(),
        modno: Modno::new(n).unwrap(),
        record: Record::for_tests("repo", "plan", "m"),
    };
    submit(ops(Position::ZERO, 200, (1..=200).map(create).collect(), Vec::new())).await.unwrap().unwrap();
    ledger.shows(&[]).await;
    let scope = Scope { repo: "repo".to_owned(), plan: "plan".to_owned() };
    let gone = |n: u64| Tombstone {
        id: OpId::new(n).unwrap(),
        modno: Modno::new(200 + n).unwrap(),
        scope: scope.clone(),
    };
    submit(ops(at(200), 400, Vec::new(), (1..=200).map(gone).collect())).await.unwrap().unwrap();
    ledger.shows(&[AuditKind::DeletesGuarded]).await;
    let forked = Matchpoint { position: Some(at(200)), incarnation: label(5) };
    submit(Transaction::Matchpoint(forked)).await.unwrap().unwrap();
    ledger.shows(&[AuditKind::OwnerForked]).await;
    store.release(&owner).await.unwrap();
    ledger.shows(&[AuditKind::OwnerReleased]).await;
    assert_eq!(submit(state(9)).await, Err(StoreError::Fenced));
    ledger.shows(&[]).await;

    store.take_incarnation().await.unwrap();
    ledger.shows(&[AuditKind::OwnRollback]).await;
}

#[tokio::test]
async fn an_end_without_a_word_is_recorded_by_the_next_start() {
    let place = Place::new(10).await;
    let store = place.open();
    store.note_started("1").await.unwrap();
    let crashed = place.after_a_crash();
    store.note_stopped().await.unwrap();
    store.close().await;
    for (place, expected) in
        [(place, "version 2"), (crashed, "version 2; the one before it ended without a word")]
    {
        let store = place.open();
        store.note_started("2").await.unwrap();
        let records = store.audit(None, 0).await.unwrap();
        assert_eq!(records.last().unwrap().detail, expected);
        store.close().await;
    }
}

#[tokio::test]
async fn why_a_store_stopped_is_recorded_by_the_next_process() {
    let place = Place::new(10).await;
    place.damage("audit");
    let store = place.open();
    let event = AuditEvent { event: AuditKind::PeerRemoved, peer: None, detail: String::new() };
    let stopped = store.note_audit(event).await.unwrap_err();
    assert!(matches!(stopped, StoreError::Stopped { .. }), "{stopped:?}");
    store.close().await;
    // Another database takes the place of the damaged one, as an operator would restore it.
    let sound = Place::new(10).await;
    std::fs::copy(sound.path(), place.path()).unwrap();
    for suffix in ["-wal", "-shm"] {
        let path = format!("{}{suffix}", place.path().display());
        std::fs::remove_file(path).unwrap_or_default();
    }
    for _ in 0..2 {
        let store = place.open();
        // The writer's first deed; whoever hands something in waits for it.
        store.subscribe().await.unwrap();
        let records = store.audit(None, 0).await.unwrap();
        assert_eq!(records.len(), 1, "once");
        assert_eq!(records[0].event, AuditKind::StoreStopped.name());
        assert!(stopped.to_string().contains(&records[0].detail), "{}", records[0].detail);
        store.close().await;
    }
}

#[tokio::test]
async fn callers_that_may_not_are_recorded_and_counted() {
    let place = Place::new(10).await;
    let store = place.open();
    for _ in 0..15 {
        let detail = "BlockPeer by uid 1000".to_owned();
        let event = AuditEvent { event: AuditKind::AdminRefused, peer: None, detail };
        store.note_refusal(event).await.unwrap();
    }
    store.close().await;
    let records = place.open().audit(None, 0).await.unwrap();
    let of = |kind: AuditKind| records.iter().filter(|record| record.event == kind.name()).count();
    assert_eq!((of(AuditKind::AdminRefused), of(AuditKind::AdminRefusalsRepeated)), (10, 1));
    assert_eq!(records.last().unwrap().detail, "5 more within a minute");
}
