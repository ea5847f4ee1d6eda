//! Repositories and plans in the store: what is kept, who may change it at the moment of the transaction, and which
//! audit record there is of it.

use opmesh::store::{NewPeer, PeerChange, PeerEdit, Role, Store, StoreError};
use opmesh_core::config::{
    Allowed, Change, Config, Hook, ListedPlan, Plan, PutRepo, Refusal, RepoSettings, Resources, Retention,
    Secret, SharedRepo, Shown, Standing, Uri,
};
use opmesh_core::model::{ConfigModno, KeyId};
use opmesh_core::permission::Grants;

use super::support::{Place, client, key, known_host};

fn settings(id: &str) -> RepoSettings {
    RepoSettings {
        id: id.to_owned(),
        uri: Uri::new(format!("sftp:backup@nas:/{id}")),
        password: Some(Secret::new("canary")),
        env: Vec::new(),
        flags: Vec::new(),
        command_prefix: Vec::new(),
        hooks: Vec::new(),
        schedule: String::new(),
        retention: Retention::default(),
        shared: false,
    }
}

fn plan(id: &str, repo: &str) -> Plan {
    Plan {
        id: id.to_owned(),
        repo: repo.to_owned(),
        paths: vec!["/home".to_owned()],
        excludes: Vec::new(),
        iexcludes: Vec::new(),
        schedule: "daily".to_owned(),
        retention: Retention::default(),
        hooks: Vec::new(),
        flags: Vec::new(),
    }
}

fn at(modno: u64) -> ConfigModno {
    ConfigModno::new(modno).unwrap()
}

fn put(base: u64, ids: &[&str]) -> Change {
    let repo = |id: &&str| PutRepo { guid: None, settings: settings(id) };
    Change { base: at(base), put_repos: ids.iter().map(repo).collect(), ..Change::default() }
}

fn offer(number: u8, id: &str) -> SharedRepo {
    SharedRepo { guid: opmesh_core::config::Guid::from_bytes([number; 32]), settings: settings(id) }
}

async fn applied(store: &Store, change: Change) -> Config {
    store.apply_config(change).await.unwrap().unwrap().config
}

/// A hub of ours that has these grants.
async fn hub(store: &Store, number: u8, grants: &[&str]) -> KeyId {
    let key = key(number).key_id();
    let peer = NewPeer {
        key,
        instance: Some(format!("hub-{number}").parse().unwrap()),
        roles: known_host(),
        verified: true,
        dial: opmesh::store::Dial::default(),
        given: Grants::parse(grants).unwrap(),
        joining: None,
    };
    store.add_peer(peer).await.unwrap();
    key
}

/// The records that a step wrote: event and detail.
async fn audited(store: &Store, after: &mut u64) -> Vec<(String, String)> {
    let records = store.audit(None, *after).await.unwrap();
    *after = records.last().map_or(*after, |record| record.number);
    records.into_iter().map(|record| (record.event, record.detail)).collect()
}

async fn write(store: &Store, peer: KeyId, change: Change) -> Result<Result<Config, Refusal>, StoreError> {
    let written = store.write_config(&peer, Role::KnownHost, None, change, Allowed::default()).await?;
    Ok(written.map(|applied| applied.config))
}

#[tokio::test]
async fn a_config_survives_with_its_secrets_and_its_modno() {
    let place = Place::new(0).await;
    let store = place.open();
    assert_eq!(store.config().await.unwrap(), Config::default());
    let changes = store.config_modno();
    applied(&store, put(0, &["a", "b"])).await;
    let mut edit =
        Change { put_plans: vec![plan("p", "a")], delete_repos: vec!["b".to_owned()], ..put(1, &["a"]) };
    edit.put_repos[0].settings.hooks.push(Hook {
        name: "mail".to_owned(),
        condition: "error".to_owned(),
        command: Secret::new("canary"),
    });
    let config = applied(&store, edit).await;
    assert_eq!((config.modno(), *changes.borrow()), (at(2), at(2)));
    let crashed = place.after_a_crash().open();
    assert_eq!(crashed.config().await.unwrap(), config);
    assert_eq!(*crashed.config_modno().borrow(), at(2));
    let mut after = 0;
    let records = audited(&store, &mut after).await;
    assert_eq!(
        records,
        [
            (
                "config_changed".to_owned(),
                "modno 1: created repository \"a\", created repository \"b\"".to_owned()
            ),
            (
                "config_changed".to_owned(),
                "modno 2: deleted repository \"b\", changed repository \"a\", created plan \"p\"".to_owned()
            ),
        ]
    );
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changes_or_the_operator_is_refused() {
    let store = Place::new(0).await.open();
    applied(&store, put(0, &["a"])).await;
    let mut after = 0;
    audited(&store, &mut after).await;
    let changes = store.config_modno();
    assert_eq!(applied(&store, put(1, &["a"])).await.modno(), at(1));
    let stale = store.apply_config(put(0, &["c"])).await.unwrap().unwrap_err();
    assert_eq!(stale, Refusal::Stale { base: at(0), current: at(1) });
    assert!(!changes.has_changed().unwrap());
    assert_eq!(audited(&store, &mut after).await, []);
}

#[tokio::test]
async fn a_peers_change_is_accepted_refused_or_stale_and_each_but_the_last_is_audited() {
    let store = Place::new(0).await.open();
    applied(&store, put(0, &["a", "secret"])).await;
    let peer = hub(&store, 2, &["READ_WRITE_CONFIG:*,!repo:secret"]).await;
    let mut after = 0;
    audited(&store, &mut after).await;

    let accepted = write(&store, peer, put(1, &["new"])).await.unwrap().unwrap();
    assert_eq!(accepted.modno(), at(2));
    assert_eq!(audited(&store, &mut after).await[0].0, "config_changed");
    let refused = write(&store, peer, put(2, &["new", "secret"])).await.unwrap().unwrap_err();
    assert_eq!(refused.rule(), "out_of_scope");
    let records = audited(&store, &mut after).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].0, "config_refused");
    assert!(records[0].1.starts_with("out_of_scope: repository \"secret\""), "{records:?}");
    assert_eq!(write(&store, peer, put(1, &["other"])).await.unwrap().unwrap_err().rule(), "stale");
    assert_eq!(audited(&store, &mut after).await, []);
    assert_eq!(store.config().await.unwrap(), accepted);
    let record = &store.audit(None, after - 2).await.unwrap()[0];
    assert_eq!(record.peer, Some(peer), "who did it");
}

#[tokio::test]
async fn a_revoked_peers_change_commits_nothing() {
    let place = Place::new(0).await;
    let store = place.open();
    applied(&store, put(0, &["a"])).await;
    let all = ["READ_WRITE_CONFIG:*"];
    for (number, edit, fenced) in [
        (2, PeerEdit::Revoke(vec!["READ_WRITE_CONFIG".to_owned()]), false),
        (3, PeerEdit::Block { reason: String::new() }, true),
        (4, PeerEdit::SetRoles(opmesh::store::Roles::default()), true),
    ] {
        let peer = hub(&store, number, &all).await;
        store.edit_peer(&peer, vec![edit]).await.unwrap();
        match write(&store, peer, put(1, &["new"])).await {
            Ok(refused) => assert_eq!((refused.unwrap_err().rule(), fenced), ("out_of_scope", false)),
            Err(error) => assert_eq!((error, fenced), (StoreError::Fenced, true)),
        }
    }
    let removed = hub(&store, 5, &all).await;
    store.remove_peer(&removed).await.unwrap();
    assert_eq!(write(&store, removed, put(1, &["new"])).await, Err(StoreError::Fenced));

    let (client, epoch) = client(&store, 6).await;
    let given = "READ_WRITE_CONFIG:*".parse().unwrap();
    store.edit_peer(&client, vec![PeerEdit::Grant(given)]).await.unwrap();
    let write = |epoch| {
        store.write_config(&client, Role::AuthorizedClient, Some(epoch), put(1, &["new"]), Allowed::default())
    };
    assert_eq!(write(epoch).await.unwrap_err(), StoreError::Fenced, "the grant began a new epoch");
    assert_eq!(store.config().await.unwrap().modno(), at(1));
    let epoch = store.take_over(&client).await.unwrap().epoch;
    assert_eq!(write(epoch).await.unwrap().unwrap().config.modno(), at(2));
}

#[tokio::test]
async fn shared_repositories_are_taken_refused_one_by_one_and_audited_once() {
    let store = Place::new(0).await.open();
    let hub = hub(&store, 2, &["RECEIVE_SHARED_REPOS:*"]).await;
    applied(&store, put(0, &["own"])).await;
    let mut after = 0;
    audited(&store, &mut after).await;
    let mut hooked = offer(3, "hooked");
    hooked.settings.hooks.push(Hook {
        name: "pwn".to_owned(),
        condition: "error".to_owned(),
        command: Secret::new("canary"),
    });
    let offered = vec![offer(1, "nas"), offer(2, "own"), hooked];
    let take = |offered: Vec<SharedRepo>| store.take_shared(&hub, offered, Allowed::default());
    let taken = take(offered.clone()).await.unwrap();
    assert_eq!(
        taken.refused.iter().map(|refused| refused.rule.name()).collect::<Vec<_>>(),
        ["id_taken", "executable"]
    );
    let records = audited(&store, &mut after).await;
    let events: Vec<&str> = records.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(events, ["shared_repos_taken", "shared_repo_refused"]);
    assert!(!format!("{records:?}").contains("canary"));

    let again = take(offered).await.unwrap();
    assert_eq!(again.config, store.config().await.unwrap());
    assert_eq!(audited(&store, &mut after).await, [], "the same again is no news");
    assert_eq!(take(vec![offer(1, "nas")]).await.unwrap().refused, []);
    assert_eq!(audited(&store, &mut after).await, []);
    let received = store.config().await.unwrap().repo("nas").unwrap().clone();
    assert_eq!(received.origin.unwrap().from, hub);
}

#[tokio::test]
async fn what_a_peer_shared_and_the_plans_on_it_outlive_the_peer() {
    let place = Place::new(0).await;
    let store = place.open();
    let hub = hub(&store, 2, &["RECEIVE_SHARED_REPOS:*"]).await;
    store.take_shared(&hub, vec![offer(1, "nas"), offer(2, "b2")], Allowed::default()).await.unwrap();
    let mine = Change { base: at(1), put_plans: vec![plan("mine", "nas")], ..Change::default() };
    applied(&store, mine).await;
    let standing = |config: &Config, id: &str| config.repo(id).unwrap().origin.unwrap().standing;

    let narrowed = "RECEIVE_SHARED_REPOS:repo:b2".parse().unwrap();
    store.edit_peer(&hub, vec![PeerEdit::Grant(narrowed)]).await.unwrap();
    let config = store.config().await.unwrap();
    assert_eq!((standing(&config, "nas"), standing(&config, "b2")), (Standing::Withdrawn, Standing::Shared));
    store.remove_peer(&hub).await.unwrap();
    let config = place.after_a_crash().open().config().await.unwrap();
    assert_eq!(
        (standing(&config, "nas"), standing(&config, "b2")),
        (Standing::Withdrawn, Standing::Withdrawn)
    );
    assert_eq!(config.plans(), [plan("mine", "nas")]);
    let mut after = 0;
    let events = audited(&store, &mut after).await;
    let withdrawn = events.iter().filter(|(event, _)| event == "shared_repos_withdrawn").count();
    assert_eq!(withdrawn, 2);
    assert_eq!(store.take_shared(&hub, Vec::new(), Allowed::default()).await, Err(StoreError::Fenced));
}

#[tokio::test]
async fn what_a_peer_shows_is_kept_whole_written_only_when_new_and_forgotten_with_it() {
    let place = Place::new(0).await;
    let store = place.open();
    let hub = hub(&store, 2, &["READ_CONFIG:*"]).await;
    let config = applied(&store, put(0, &["a"])).await;
    let shown = Shown::all(&config);
    let named =
        Resources { repos: Vec::new(), plans: vec![ListedPlan { id: "p".to_owned(), repo: "a".to_owned() }] };
    let mut events = store.peer_events();
    store.keep_shown(&hub, shown.clone()).await.unwrap();
    store.keep_resources(&hub, named.clone()).await.unwrap();
    store.keep_shown(&hub, shown.clone()).await.unwrap();
    store.keep_resources(&hub, named.clone()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(events.try_recv().unwrap().change, PeerChange::Shown);
    }
    assert!(events.try_recv().is_err(), "the same again is no change");
    let kept = place.after_a_crash().open().peer_config(&hub).await.unwrap();
    assert_eq!((kept.shown, kept.resources), (Some(shown.clone()), Some(named)));
    store.remove_peer(&hub).await.unwrap();
    assert_eq!(store.peer_config(&hub).await.unwrap(), opmesh::store::PeerConfig::default());
    assert_eq!(store.keep_shown(&hub, shown).await, Err(StoreError::Fenced));
}
