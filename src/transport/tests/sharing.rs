//! Requests and shown configs that no honest instance would send.

use opmesh_core::config::Guid;
use opmesh_core::config::{
    Change, EnvVar, Hook, Plan, PutRepo, RepoSettings, Retention, Secret, SharedRepo, Shown, Uri,
};
use opmesh_core::model::ConfigModno;
use opmesh_core::permission::Grant;
use opmesh_core::protocol::limits::SHOWN_A_MINUTE;
use opmesh_core::protocol::{EndReason, Message, Outcome, Request, Share, Write, WriteKey, Written};
use tonic::Code;

use super::raw::Raw;
use super::*;
use crate::wire;

fn me() -> Identity {
    Identity::from_seed(&[2; 32])
}

fn settings(id: &str) -> RepoSettings {
    RepoSettings {
        id: id.to_owned(),
        uri: Uri::new(format!("/srv/{id}")),
        password: Some(Secret::new("canary")),
        env: Vec::new(),
        flags: Vec::new(),
        command_prefix: Vec::new(),
        hooks: Vec::new(),
        schedule: String::new(),
        retention: Retention::default(),
        shared: true,
    }
}

fn plan(id: &str) -> Plan {
    Plan {
        id: id.to_owned(),
        repo: "nas".to_owned(),
        paths: vec!["/home".to_owned()],
        excludes: Vec::new(),
        iexcludes: Vec::new(),
        schedule: String::new(),
        retention: Retention::default(),
        hooks: Vec::new(),
        flags: Vec::new(),
    }
}

/// At modno 1: one repository and one plan.
async fn configured(instance: &Instance) {
    let put = |id| PutRepo { guid: None, settings: settings(id) };
    let change = Change {
        put_repos: vec![put("nas"), put("usb")],
        put_plans: vec![plan("home")],
        ..Change::default()
    };
    let judged = instance.local.store.apply_config(change).await.unwrap();
    assert_eq!(Outcome::from(judged), Outcome::Applied { modno: ConfigModno::new(1).unwrap() });
}

async fn modno(instance: &Instance) -> u64 {
    instance.local.store.config().await.unwrap().modno().get()
}

fn write(key: u8, base: u64, plan_id: &str) -> Write {
    let base = ConfigModno::new(base).unwrap();
    let change = Change { base, put_plans: vec![plan(plan_id)], ..Change::default() };
    Write { key: WriteKey([key; 16]), request: Request::Config(change) }
}

/// A hub with a config that lets [`me`] in, and a session with it.
async fn session(grants: &str) -> (Instance, Raw) {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    configured(&hub).await;
    hub.authorize(&me()).await;
    for grant in grants.split_whitespace() {
        hub.edit(me().key_id(), PeerEdit::Grant(grant.parse::<Grant>().unwrap())).await;
    }
    let mut raw = Raw::open(hub.url(), hub.key()).await;
    raw.shake_hands(&me(), None).await.unwrap();
    (hub, raw)
}

/// What comes next that is not what the hub shows.
async fn written(raw: &mut Raw) -> Written {
    loop {
        match wire::decode(raw.receive().await.unwrap()).unwrap() {
            Message::Share(Share::Written(written)) => return written,
            Message::Share(Share::Config(_) | Share::Resources(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn ask(raw: &mut Raw, write: Write) -> Outcome {
    let key = write.key;
    raw.say(Message::Share(Share::Write(write))).await;
    let written = written(raw).await;
    assert_eq!(written.key, key);
    written.outcome
}

fn rule(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(refused) => refused.rule,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_write_without_a_grant_or_after_it_was_taken_back_changes_nothing() {
    for grants in ["", "READ_OPERATIONS:* READ_CONFIG:* RECEIVE_SHARED_REPOS:*", "READ_WRITE_CONFIG:repo:usb"]
    {
        let (hub, mut raw) = session(grants).await;
        assert_eq!(rule(ask(&mut raw, write(1, 1, "new")).await), "out_of_scope", "{grants}");
        assert_eq!(modno(&hub).await, 1);
    }
    // Here nobody follows edits: the session learns from the store that its time is over.
    let (hub, mut raw) = session("READ_WRITE_CONFIG:*").await;
    let applied = Outcome::Applied { modno: ConfigModno::new(2).unwrap() };
    assert_eq!(ask(&mut raw, write(1, 1, "new")).await, applied);
    hub.edit(me().key_id(), PeerEdit::Revoke(vec!["READ_WRITE_CONFIG".to_owned()])).await;
    raw.say(Message::Share(Share::Write(write(2, 2, "newer")))).await;
    while let Ok(frame) = raw.receive().await {
        match wire::decode(frame).unwrap() {
            Message::Share(Share::Config(_) | Share::Resources(_)) => {}
            other => {
                assert_eq!(other, Message::End(EndReason::GrantsChanged));
                break;
            }
        }
    }
    assert_eq!(modno(&hub).await, 2);
}

#[tokio::test]
async fn a_key_that_comes_again_gets_the_same_answer_and_has_no_second_effect() {
    let (hub, mut raw) = session("READ_WRITE_CONFIG:*").await;
    let applied = Outcome::Applied { modno: ConfigModno::new(2).unwrap() };
    for base in [1, 2, 2] {
        assert_eq!(ask(&mut raw, write(7, base, "new")).await, applied);
    }
    assert_eq!(modno(&hub).await, 2);
    let stale = Outcome::Stale { modno: ConfigModno::new(2).unwrap() };
    assert_eq!(ask(&mut raw, write(8, 1, "newer")).await, stale);
}

#[tokio::test]
async fn a_client_shares_nothing_with_its_hub() {
    let (hub, mut raw) = session("RECEIVE_SHARED_REPOS:* READ_WRITE_CONFIG:*").await;
    let repos = vec![SharedRepo { guid: Guid::from_bytes([1; 32]), settings: settings("evil") }];
    let offer = Write { key: WriteKey([1; 16]), request: Request::Shared(repos) };
    assert_eq!(rule(ask(&mut raw, offer).await), "not_a_hub");
    assert_eq!(modno(&hub).await, 1);
}

#[tokio::test]
async fn what_is_shown_is_limited_to_ten_a_minute() {
    let (_hub, raw) = session("READ_CONFIG:*").await;
    for modno in 0..=u64::from(SHOWN_A_MINUTE) {
        let shown = Shown::new(ConfigModno::new(modno).unwrap(), Vec::new(), Vec::new()).unwrap();
        raw.say(Message::Share(Share::Config(shown))).await;
    }
    let ended = raw.end().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::ResourceExhausted, "more than 10 Config in a minute"));
}

#[tokio::test]
async fn a_peer_that_did_not_name_the_capability_is_shown_nothing_and_may_ask_nothing() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    configured(&hub).await;
    hub.authorize(&me()).await;
    hub.edit(me().key_id(), PeerEdit::Grant("READ_WRITE_CONFIG:*".parse().unwrap())).await;
    let mut raw = Raw::open(hub.url(), hub.key()).await;
    raw.capabilities.clear();
    raw.shake_hands(&me(), None).await.unwrap();
    raw.say(Message::Share(Share::Write(write(1, 1, "new")))).await;
    let ended = raw.receive().await.unwrap_err();
    assert_eq!(ended.code(), Code::InvalidArgument);
    assert!(ended.message().starts_with("Write is not expected while"), "{}", ended.message());
    assert_eq!(modno(&hub).await, 1);
}

/// A hub whose operator wrote its own program.
#[tokio::test]
async fn a_host_takes_nothing_from_a_hub_that_runs_programs() {
    let mut hub = Instance::hub(1, "127.0.0.1:0").await;
    let host = connected(2, &hub, "RECEIVE_SHARED_REPOS:*").await;
    hub.hears_connected(host.key()).await;
    let shared = |number: u8, change: fn(&mut RepoSettings)| {
        let mut settings = settings(&format!("repo-{number}"));
        change(&mut settings);
        SharedRepo { guid: Guid::from_bytes([number; 32]), settings }
    };
    let repos = vec![
        shared(1, |repo| {
            let command = Secret::new("rm -rf /");
            repo.hooks = vec![Hook { name: "evil".to_owned(), condition: String::new(), command }];
        }),
        shared(2, |repo| repo.command_prefix = vec!["sh".to_owned(), "-c".to_owned()]),
        shared(3, |repo| {
            let name = "RESTIC_PASSWORD_COMMAND".to_owned();
            repo.env = vec![EnvVar { name, value: Secret::new("rm -rf /") }];
        }),
        shared(4, |repo| repo.flags = vec!["--password-command=rm".to_owned()]),
        shared(5, |repo| repo.uri = Uri::new("sftp:-oProxyCommand=rm:/x")),
        shared(6, |_| {}),
    ];
    let offer = Write { key: WriteKey([1; 16]), request: Request::Shared(repos) };
    let outcome = hub.local.sessions.ask(&host.key(), offer).await.unwrap();
    let Outcome::Taken { taken, refused } = outcome else { panic!("{outcome:?}") };
    assert_eq!(taken, 1);
    assert_eq!(refused.iter().map(|refused| refused.rule.as_str()).collect::<Vec<_>>(), ["executable"; 5]);
    let config = host.local.store.config().await.unwrap();
    let taken: Vec<_> = config.repos().iter().map(|repo| (repo.id(), repo.settings.shared)).collect();
    assert_eq!(taken, [("repo-6", false)]);
}

#[tokio::test]
async fn a_host_takes_nothing_that_it_has_not_said_it_wants() {
    let mut hub = Instance::hub(1, "127.0.0.1:0").await;
    let host = connected(2, &hub, "READ_OPERATIONS:* READ_WRITE_CONFIG:*").await;
    hub.hears_connected(host.key()).await;
    let repos = vec![SharedRepo { guid: Guid::from_bytes([1; 32]), settings: settings("nas") }];
    let offer = Write { key: WriteKey([1; 16]), request: Request::Shared(repos) };
    let outcome = hub.local.sessions.ask(&host.key(), offer).await.unwrap();
    let Outcome::Taken { taken: 0, refused } = outcome else { panic!("{outcome:?}") };
    assert_eq!(refused[0].rule, "out_of_scope");
    assert_eq!(modno(&host).await, 0);
}
