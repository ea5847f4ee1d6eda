//! Sharing, one rule at a time.

use opmesh_core::config::{
    Allowed, Config, EnvVar, Executable, Guid, Hook, How, MAX_REPOS, Repo, RepoSettings, Secret, ShareRule,
    SharedRepo, Standing, Taken, Uri, shared_for, take_shared, withdraw,
};
use opmesh_core::model::KeyId;

use super::rules::{config, grants, guid, hook, plan, repo, settings};

fn hub() -> KeyId {
    KeyId::from_bytes([7; 32])
}

/// A repository that runs nothing.
fn plain(id: &str) -> RepoSettings {
    RepoSettings {
        uri: Uri::new(format!("sftp:backup@nas:/{id}")),
        env: Vec::new(),
        hooks: Vec::new(),
        shared: true,
        ..settings(id)
    }
}

fn offer(number: u8, settings: RepoSettings) -> SharedRepo {
    SharedRepo { guid: guid(number), settings }
}

fn take(config: &Config, offered: &[SharedRepo]) -> Taken {
    take_shared(config, hub(), &grants(&["RECEIVE_SHARED_REPOS:*"]), offered, &Allowed::default()).unwrap()
}

#[test]
fn a_shared_repository_with_a_hook_is_refused_and_the_others_are_taken() {
    let hooked = RepoSettings { hooks: vec![hook("pwn", "sh")], ..plain("hooked") };
    let taken = take(&config(Vec::new(), Vec::new()), &[offer(1, hooked), offer(2, plain("good"))]);
    assert!(taken.config.repo("hooked").is_none());
    assert_eq!(taken.config.repo("good").unwrap().origin.unwrap().from, hub());
    let refused: Vec<String> = taken.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [format!(
            "repository \"hooked\" ({}): a peer may not set hook \"pwn\"; the operator of that instance may allow it \
             by name: sharing.allow_hooks in opmesh.toml",
            guid(1)
        )]
    );
}

#[test]
fn nothing_executable_is_taken_unless_the_receiver_allows_it_by_name() {
    let variable = EnvVar { name: "LD_PRELOAD".to_owned(), value: Secret::new("/x.so") };
    let flag = "--password-command=sh".to_owned();
    let cases = [
        (RepoSettings { hooks: vec![hook("h", "sh")], ..plain("x") }, Some(Executable::Hook("h".to_owned()))),
        (
            RepoSettings { command_prefix: vec!["sh".to_owned()], ..plain("x") },
            Some(Executable::CommandPrefix("sh".to_owned())),
        ),
        (RepoSettings { env: vec![variable], ..plain("x") }, Some(Executable::Env("LD_PRELOAD".to_owned()))),
        (
            RepoSettings { flags: vec![flag], ..plain("x") },
            Some(Executable::Flag("--password-command".to_owned())),
        ),
        (RepoSettings { uri: Uri::new("rclone::sftp,ssh=sh:/"), ..plain("x") }, Some(Executable::Uri)),
        (plain("x"), None),
    ];
    let nothing = config(Vec::new(), Vec::new());
    for (settings, refused) in cases {
        let taken = take(&nothing, &[offer(1, settings.clone())]);
        let rule = taken.refused.first().map(|refused| refused.rule.clone());
        assert_eq!(rule, refused.clone().map(ShareRule::Executable), "{settings:?}");
        let allowed = Allowed {
            hooks: ["h".to_owned()].into(),
            command_prefixes: ["sh".to_owned()].into(),
            env: ["LD_PRELOAD".to_owned()].into(),
            flags: ["--password-command".to_owned()].into(),
        };
        let accepts = grants(&["RECEIVE_SHARED_REPOS:*"]);
        let taken = take_shared(&nothing, hub(), &accepts, &[offer(1, settings)], &allowed).unwrap();
        assert_eq!(taken.refused.is_empty(), refused != Some(Executable::Uri));
    }
}

#[test]
fn an_honest_owner_sends_no_hook_and_only_what_is_shared_and_in_scope() {
    let shared = |number, id: &str| Repo {
        settings: RepoSettings { shared: true, ..settings(id) },
        ..repo(number, id)
    };
    let owner = config(vec![shared(1, "a"), shared(2, "b"), repo(3, "private")], vec![plan("p", "a")]);
    let sent = shared_for(&owner, &grants(&["RECEIVE_SHARED_REPOS:*,!repo:b"]));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].guid, guid(1));
    assert_eq!(sent[0].settings.hooks, Vec::<Hook>::new());
    assert_eq!(sent[0].settings.password, Some(Secret::new("canary")), "it must be usable");
    assert_eq!(shared_for(&owner, &grants(&["READ_WRITE_CONFIG:*", "READ_OPERATIONS:*"])), Vec::new());
}

#[test]
fn a_received_repository_is_not_shared_onward() {
    let taken = take(&config(Vec::new(), Vec::new()), &[offer(1, plain("nas"))]);
    let received = taken.config.repo("nas").unwrap();
    assert!(!received.settings.shared);
    assert_eq!(shared_for(&taken.config, &grants(&["RECEIVE_SHARED_REPOS:*"])), Vec::new());
    let lying =
        Repo { settings: RepoSettings { shared: true, ..received.settings.clone() }, ..received.clone() };
    let lying = config(vec![lying], Vec::new());
    assert_eq!(shared_for(&lying, &grants(&["RECEIVE_SHARED_REPOS:*"])), Vec::new());
}

/// Backrest deletes the repositories of a removed peer and the plans on them.
#[test]
fn neither_un_sharing_nor_removing_a_peer_deletes_anything() {
    let first =
        take(&config(Vec::new(), Vec::new()), &[offer(1, plain("nas")), offer(2, plain("b2"))]).config;
    let with_plan = Config::new(first.modno(), first.repos().to_vec(), vec![plan("mine", "nas")]).unwrap();
    let again = take(&with_plan, &[offer(1, plain("nas")), offer(2, plain("b2"))]);
    assert_eq!(
        (again.config, again.touched),
        (with_plan.clone(), Vec::new()),
        "an equal offer changes nothing"
    );

    let unshared = take(&with_plan, &[offer(2, plain("b2"))]);
    let narrowed = withdraw(&with_plan, hub(), &grants(&["RECEIVE_SHARED_REPOS:repo:b2"])).unwrap();
    for taken in [&unshared, &narrowed] {
        assert_eq!(taken.config.repo("nas").unwrap().origin.unwrap().standing, Standing::Withdrawn);
        assert_eq!(taken.config.repo("b2").unwrap().origin.unwrap().standing, Standing::Shared);
        assert_eq!(taken.config.plans(), with_plan.plans());
        assert_eq!(taken.touched.len(), 1);
        assert_eq!(taken.touched[0].how, How::Withdrawn);
        assert_eq!(taken.config.modno(), with_plan.modno().next().unwrap());
    }
    let removed = withdraw(&with_plan, hub(), &grants(&[])).unwrap().config;
    assert_eq!(removed.repos().len(), 2);
    assert_eq!(removed.plans(), with_plan.plans());
    assert!(removed.repos().iter().all(|repo| repo.origin.unwrap().standing == Standing::Withdrawn));
    let back = take(&removed, &[offer(1, plain("nas")), offer(2, plain("b2"))]).config;
    assert_eq!(back.repos(), with_plan.repos(), "and comes back as it was");
    let others = withdraw(&with_plan, KeyId::from_bytes([8; 32]), &grants(&[])).unwrap();
    assert_eq!(others.config, with_plan, "another peer's removal is nothing to it");
}

/// In Backrest a copy of a local repository ends the session, again and again.
#[test]
fn a_copy_of_a_local_repository_is_refused_by_itself() {
    let mut own = repo(1, "own");
    own.settings.uri = Uri::new("/srv/own");
    let local = config(vec![own.clone()], Vec::new());
    let uri = RepoSettings { uri: own.settings.uri.clone(), ..plain("other") };
    for (offered, rule) in [
        (offer(1, plain("other")), "guid_taken"),
        (offer(2, plain("own")), "id_taken"),
        (offer(2, uri), "uri_taken"),
    ] {
        let taken = take(&local, &[offered, offer(9, plain("good"))]);
        assert_eq!(taken.refused.len(), 1);
        assert_eq!(taken.refused[0].rule.name(), rule);
        assert_eq!(taken.config.repo("own"), Some(&own), "{rule}");
        assert!(taken.config.repo("good").is_some(), "{rule}");
    }
}

#[test]
fn a_peer_cannot_take_over_what_another_peer_shares() {
    let first = take(&config(Vec::new(), Vec::new()), &[offer(1, plain("nas"))]).config;
    let other = KeyId::from_bytes([8; 32]);
    let accepts = grants(&["RECEIVE_SHARED_REPOS:*"]);
    let evil = RepoSettings { uri: Uri::new("/evil"), ..plain("nas") };
    let taken = take_shared(&first, other, &accepts, &[offer(1, evil)], &Allowed::default()).unwrap();
    assert_eq!((taken.config, taken.refused[0].rule.name()), (first, "guid_taken"));
}

#[test]
fn a_new_name_waits_for_the_plans_that_use_the_old_one() {
    let first = take(&config(Vec::new(), Vec::new()), &[offer(1, plain("nas"))]).config;
    let renamed = [offer(1, RepoSettings { uri: plain("nas").uri, ..plain("store") })];
    assert_eq!(take(&first, &renamed).config.repos()[0].id(), "store");
    let used = Config::new(first.modno(), first.repos().to_vec(), vec![plan("mine", "nas")]).unwrap();
    let taken = take(&used, &renamed);
    assert_eq!((taken.config, taken.refused[0].rule.name()), (used, "renamed_in_use"));
}

#[test]
fn an_offer_of_more_than_there_may_be_is_taken_up_to_the_limit() {
    let many: Vec<SharedRepo> = (0..=MAX_REPOS)
        .map(|number| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            SharedRepo { guid: Guid::from_bytes(bytes), settings: plain(&number.to_string()) }
        })
        .collect();
    let taken = take(&config(Vec::new(), Vec::new()), &many);
    assert_eq!(taken.config.repos().len(), MAX_REPOS);
    assert_eq!(taken.refused.len(), 1);
    assert_eq!((taken.refused[0].id.as_str(), taken.refused[0].rule.name()), ("1000", "invalid"));
    let again = take(&taken.config, &many);
    assert_eq!((again.config, again.touched), (taken.config, Vec::new()));
}
