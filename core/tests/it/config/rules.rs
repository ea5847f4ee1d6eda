//! Changes, one rule at a time.

use opmesh_core::config::{
    Allowed, Applied, Authority, Change, Config, EnvVar, Fault, Guid, GuidSeed, Hook, How, MAX_ID_BYTES,
    MAX_REPOS, MAX_SECRET_BYTES, Object, Origin, Plan, Problem, PutRepo, Refusal, Repo, RepoSettings,
    Retention, Secret, Shown, Standing, Uri, apply, shown,
};
use opmesh_core::model::{ConfigModno, KeyId};
use opmesh_core::permission::Grants;

pub fn guid(number: u8) -> Guid {
    Guid::from_bytes([number; 32])
}

pub fn settings(id: &str) -> RepoSettings {
    RepoSettings {
        id: id.to_owned(),
        uri: Uri::new(format!("rest:https://user:canary@nas/{id}")),
        password: Some(Secret::new("canary")),
        env: vec![EnvVar { name: "AWS_REGION".to_owned(), value: Secret::new("canary") }],
        flags: vec!["--verbose".to_owned()],
        command_prefix: Vec::new(),
        hooks: vec![hook("mail", "canary")],
        schedule: "weekly".to_owned(),
        retention: Retention { daily: 7, ..Retention::default() },
        shared: false,
    }
}

pub fn hook(name: &str, command: &str) -> Hook {
    Hook { name: name.to_owned(), condition: "error".to_owned(), command: Secret::new(command) }
}

pub fn repo(number: u8, id: &str) -> Repo {
    Repo { guid: guid(number), origin: None, settings: settings(id) }
}

pub fn plan(id: &str, repo: &str) -> Plan {
    Plan {
        id: id.to_owned(),
        repo: repo.to_owned(),
        paths: vec!["/home".to_owned()],
        excludes: Vec::new(),
        iexcludes: Vec::new(),
        schedule: "daily".to_owned(),
        retention: Retention::default(),
        hooks: vec![hook("mail", "canary")],
        flags: Vec::new(),
    }
}

pub fn config(repos: Vec<Repo>, plans: Vec<Plan>) -> Config {
    Config::new(at(5), repos, plans).unwrap()
}

pub fn at(modno: u64) -> ConfigModno {
    ConfigModno::new(modno).unwrap()
}

pub fn grants(texts: &[&str]) -> Grants {
    Grants::parse(texts).unwrap()
}

fn change() -> Change {
    Change { base: at(5), ..Change::default() }
}

fn put(guid: Option<Guid>, settings: RepoSettings) -> Change {
    Change { put_repos: vec![PutRepo { guid, settings }], ..change() }
}

fn by_operator(config: &Config, change: Change) -> Result<Applied, Refusal> {
    apply(config, change, Authority::Operator, GuidSeed([9; 32]))
}

fn by_peer(config: &Config, texts: &[&str], change: Change) -> Result<Applied, Refusal> {
    let allowed = Allowed::default();
    let by = Authority::Peer { grants: &grants(texts), allowed: &allowed };
    apply(config, change, by, GuidSeed([9; 32]))
}

fn two() -> Config {
    config(vec![repo(1, "mine"), repo(2, "secret")], vec![plan("p", "mine"), plan("hidden", "secret")])
}

/// Backrest checks the incoming id and overwrites what it finds by guid.
#[test]
fn permission_is_checked_on_what_would_be_overwritten() {
    let config = two();
    let write = ["READ_WRITE_CONFIG:repo:mine,repo:new"];
    for id in ["mine", "new"] {
        let refusal = by_peer(&config, &write, put(Some(guid(2)), settings(id))).unwrap_err();
        assert_eq!(refusal, Refusal::OutOfScope { object: Object::Repo(id.to_owned()) });
        assert!(!refusal.to_string().contains("secret"), "nothing is said about what is there: {refusal}");
    }
    let renamed = put(Some(guid(1)), settings("secret2"));
    assert_eq!(
        by_peer(&config, &write, renamed).unwrap_err().rule(),
        "out_of_scope",
        "what it would become counts, too"
    );
    let unknown = put(Some(guid(7)), settings("new"));
    assert_eq!(
        by_peer(&config, &write, unknown).unwrap_err().rule(),
        "out_of_scope",
        "a guid that is not there says no more"
    );
}

#[test]
fn a_plan_is_changed_only_by_who_may_change_it_and_its_repository() {
    let config = two();
    let moved = |texts: &[&str], id: &str, repo: &str| {
        by_peer(
            &config,
            texts,
            Change { put_plans: vec![Plan { hooks: Vec::new(), ..plan(id, repo) }], ..change() },
        )
    };
    assert!(moved(&["READ_WRITE_CONFIG:*"], "p", "secret").is_ok());
    assert!(moved(&["READ_WRITE_CONFIG:plan:p"], "p", "mine").is_ok());
    for (scopes, id, repo) in [
        ("*,!repo:secret", "p", "secret"),
        ("*,!repo:secret", "hidden", "mine"),
        ("*,!plan:p", "p", "mine"),
        ("plan:p", "p", "secret"),
        ("plan:new", "new", "mine"),
        ("repo:mine", "hidden", "mine"),
    ] {
        let refused = moved(&[&format!("READ_WRITE_CONFIG:{scopes}")], id, repo).unwrap_err();
        assert_eq!(refused.rule(), "out_of_scope", "{scopes}: {id} to {repo}");
    }
    assert!(moved(&["READ_CONFIG:*", "READ_OPERATIONS:*"], "p", "mine").is_err(), "reading is not writing");
}

#[test]
fn what_was_shown_can_be_pushed_back_and_changes_nothing() {
    let config = two();
    let write = ["READ_WRITE_CONFIG:*"];
    let view = shown(&config, &grants(&write));
    assert_eq!(view, Shown::all(&config));
    let back = Change {
        put_repos: (view.repos().iter())
            .map(|repo| PutRepo { guid: Some(repo.guid), settings: repo.settings.clone() })
            .collect(),
        put_plans: view.plans().to_vec(),
        ..change()
    };
    for applied in [by_operator(&config, back.clone()), by_peer(&config, &write, back)] {
        let applied = applied.unwrap();
        assert_eq!((applied.config, applied.touched), (config.clone(), Vec::new()));
    }
}

#[test]
fn a_marker_keeps_what_is_there_and_nothing_else() {
    let config = two();
    let mut new = Shown::all(&config).repos()[0].settings.clone();
    new.schedule = "monthly".to_owned();
    let applied = by_peer(&config, &["READ_WRITE_CONFIG:*"], put(None, new.clone())).unwrap();
    let expected = RepoSettings { schedule: "monthly".to_owned(), ..settings("mine") };
    assert_eq!(applied.config.repo("mine").unwrap().settings, expected);
    assert_eq!(applied.config.modno(), at(6));

    let created = put(None, RepoSettings { id: "new".to_owned(), ..new.clone() });
    assert!(matches!(by_operator(&config, created), Err(Refusal::NothingToKeep { field: "uri", .. })));
    new.uri = Uri::Redacted("rest:https://***@elsewhere/mine".to_owned());
    assert!(matches!(
        by_operator(&config, put(None, new.clone())),
        Err(Refusal::NothingToKeep { field: "uri", .. })
    ));
    new.uri = settings("mine").uri;
    new.env.push(EnvVar { name: "OTHER".to_owned(), value: Secret::Redacted });
    assert!(matches!(by_operator(&config, put(None, new)), Err(Refusal::NothingToKeep { field: "env", .. })));
}

#[test]
fn a_peer_cannot_send_secrets_that_it_does_not_know_to_another_place() {
    let config = two();
    let write = ["READ_WRITE_CONFIG:*"];
    let mut moved = Shown::all(&config).repos()[0].settings.clone();
    moved.uri = Uri::new("rest:https://attacker/x");
    let refused = by_peer(&config, &write, put(None, moved.clone())).unwrap_err();
    assert_eq!(refused, Refusal::SecretMoved { repo: "mine".to_owned() });
    assert!(by_operator(&config, put(None, moved.clone())).is_ok());
    moved.password = Some(Secret::new("its own"));
    moved.env.clear();
    assert!(by_peer(&config, &write, put(None, moved)).is_ok());

    let shared = RepoSettings { shared: true, ..Shown::all(&config).repos()[0].settings.clone() };
    let refused = by_peer(&config, &write, put(None, shared.clone())).unwrap_err();
    assert_eq!(refused.rule(), "may_not_share", "it would receive the password");
    let config = by_operator(&config, put(None, shared)).unwrap().config;
    let held = &config.repos()[0];
    let renamed =
        RepoSettings { id: "renamed".to_owned(), ..Shown::all(&config).repos()[0].settings.clone() };
    let rename = Change { base: config.modno(), ..put(Some(held.guid), renamed) };
    let refused = by_peer(&config, &write, rename.clone()).unwrap_err();
    assert_eq!(refused.rule(), "may_not_share", "who receives it is judged by its id");
    let by_operator = by_operator(&config, rename).unwrap_err();
    assert_ne!(
        by_operator.rule(),
        "may_not_share",
        "an operator may, once its plans go with it: {by_operator}"
    );
}

#[test]
fn a_peer_cannot_set_what_runs_programs_unless_it_is_allowed_by_name() {
    let config = two();
    let hooked = |id: &str| {
        let mut settings = Shown::all(&config).repo_settings(id);
        settings.hooks.push(hook("pwn", "sh"));
        put(None, settings)
    };
    let refused = by_peer(&config, &["READ_WRITE_CONFIG:*"], hooked("mine")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "repository \"mine\": a peer may not set hook \"pwn\"; the operator of that instance may allow it by name: \
         sharing.allow_hooks in opmesh.toml"
    );
    let planned =
        Change { put_plans: vec![Plan { hooks: vec![hook("pwn", "sh")], ..plan("p", "mine") }], ..change() };
    assert_eq!(by_peer(&config, &["READ_WRITE_CONFIG:*"], planned).unwrap_err().rule(), "executable");

    let allowed = Allowed { hooks: ["pwn".to_owned()].into(), ..Allowed::default() };
    let by = Authority::Peer { grants: &grants(&["READ_WRITE_CONFIG:*"]), allowed: &allowed };
    assert!(apply(&config, hooked("mine"), by, GuidSeed([9; 32])).is_ok());
    assert!(by_operator(&config, hooked("mine")).is_ok());
}

trait Settings {
    fn repo_settings(&self, id: &str) -> RepoSettings;
}

impl Settings for Shown {
    fn repo_settings(&self, id: &str) -> RepoSettings {
        self.repos().iter().find(|repo| repo.id() == id).unwrap().settings.clone()
    }
}

#[test]
fn only_the_exact_base_is_taken() {
    let config = two();
    for base in [4, 6, 0] {
        let stale = Change { base: at(base), delete_plans: vec!["p".to_owned()], ..change() };
        let refused = by_operator(&config, stale).unwrap_err();
        assert_eq!(refused, Refusal::Stale { base: at(base), current: at(5) });
    }
}

#[test]
fn a_repository_in_use_goes_only_with_its_plans() {
    let config = two();
    let delete = |plans: &[&str]| Change {
        delete_repos: vec!["mine".to_owned()],
        delete_plans: plans.iter().map(ToString::to_string).collect(),
        ..change()
    };
    let refused = by_operator(&config, delete(&[])).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "repository \"mine\" is used by plan \"p\"; delete or move them in the same change"
    );
    let applied = by_operator(&config, delete(&["p"])).unwrap();
    assert!(applied.config.repo("mine").is_none() && applied.config.plan("p").is_none());
    assert!(applied.touched.iter().all(|touched| touched.how == How::Deleted));

    let refused = by_peer(&config, &["READ_WRITE_CONFIG:*,!plan:p"], delete(&[])).unwrap_err();
    assert_eq!(refused, Refusal::RepoInUse { repo: "mine".to_owned(), plans: Vec::new(), others: 1 });
    let renamed = put(Some(guid(1)), settings("other"));
    assert_eq!(by_operator(&config, renamed).unwrap_err().rule(), "repo_in_use");
}

#[test]
fn what_is_out_of_scope_cannot_be_told_from_what_is_not_there() {
    let config = two();
    let write = ["READ_WRITE_CONFIG:*,!repo:secret,!repo:nowhere"];
    let refused = |change: Change| by_peer(&config, &write, change).unwrap_err().to_string();
    let delete = |id: &str| refused(Change { delete_repos: vec![id.to_owned()], ..change() });
    assert_eq!(delete("secret").replace("secret", ""), delete("nowhere").replace("nowhere", ""));
    let delete = |id: &str| refused(Change { delete_plans: vec![id.to_owned()], ..change() });
    assert_eq!(delete("hidden").replace("hidden", ""), delete("nowhere").replace("nowhere", ""));
    assert_eq!(refused(put(Some(guid(2)), settings("new"))), refused(put(Some(guid(8)), settings("new"))));
}

#[test]
fn nothing_of_a_refused_change_happens() {
    let config = two();
    let half = Change {
        put_plans: vec![plan("new", "mine")],
        delete_plans: vec!["p".to_owned()],
        put_repos: vec![PutRepo {
            guid: None,
            settings: RepoSettings { id: String::new(), ..settings("x") },
        }],
        ..change()
    };
    assert_eq!(by_operator(&config, half).unwrap_err().rule(), "invalid");
    let twice = Change { put_plans: vec![plan("n", "mine"), plan("n", "secret")], ..change() };
    assert_eq!(by_operator(&config, twice).unwrap_err().rule(), "twice");
    let both =
        Change { put_plans: vec![plan("p", "secret")], delete_plans: vec!["p".to_owned()], ..change() };
    assert_eq!(by_operator(&config, both).unwrap_err().rule(), "twice");
}

#[test]
fn a_received_repository_is_read_only_and_names_its_origin() {
    let from = KeyId::from_bytes([7; 32]);
    let received = |standing| Repo { origin: Some(Origin { from, standing }), ..repo(3, "hub") };
    let shared = config(vec![received(Standing::Shared)], vec![plan("p", "hub")]);
    let mut changed = settings("hub");
    changed.schedule.clear();
    for refused in [
        by_operator(&shared, put(None, changed.clone())),
        by_operator(&shared, put(Some(guid(3)), changed.clone())),
        by_peer(&shared, &["READ_WRITE_CONFIG:*"], put(None, changed)),
        by_operator(&shared, Change { delete_repos: vec!["hub".to_owned()], ..change() }),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.rule(), "read_only");
        assert!(refused.to_string().contains(&from.to_string()), "{refused}");
    }
    let own_plan =
        Change { put_plans: vec![plan("q", "hub")], delete_plans: vec!["p".to_owned()], ..change() };
    assert!(by_operator(&shared, own_plan).is_ok(), "the plans on it are ours");

    let withdrawn = config(vec![received(Standing::Withdrawn)], Vec::new());
    let delete = || Change { delete_repos: vec!["hub".to_owned()], ..change() };
    assert!(by_operator(&withdrawn, delete()).is_ok());
    assert_eq!(by_peer(&withdrawn, &["READ_WRITE_CONFIG:*"], delete()).unwrap_err().rule(), "read_only");
}

#[test]
fn the_owner_makes_the_guid_of_a_new_repository() {
    let config = two();
    let new = |id: &str| PutRepo { guid: None, settings: settings(id) };
    let change = Change { put_repos: vec![new("x"), new("y")], ..change() };
    let applied = by_peer(&config, &["READ_WRITE_CONFIG:*"], change);
    assert_eq!(applied.unwrap_err().rule(), "executable", "environment and hooks of a new repository count");
    let plain = |id: &str| PutRepo {
        guid: None,
        settings: RepoSettings { hooks: Vec::new(), env: Vec::new(), ..settings(id) },
    };
    let change = Change { put_repos: vec![plain("x"), plain("y")], base: at(5), ..Change::default() };
    let applied = by_peer(&config, &["READ_WRITE_CONFIG:*"], change).unwrap();
    let made: Vec<Guid> = ["x", "y"].map(|id| applied.config.repo(id).unwrap().guid).to_vec();
    assert!(made[0] != made[1] && !made.contains(&guid(1)));
    let named = by_operator(&config, put(Some(guid(8)), settings("z"))).unwrap();
    assert_eq!(named.config.repo("z").unwrap().guid, guid(8), "the operator may know the tool's");
}

#[test]
fn every_limit_holds_at_it_and_breaks_one_past_it() {
    let empty = config(Vec::new(), Vec::new());
    let field = |settings: RepoSettings| match by_operator(&empty, put(None, settings)) {
        Ok(_) => None,
        Err(Refusal::Invalid(Fault::Field { field, problem, .. })) => Some((field, problem)),
        Err(other) => panic!("{other}"),
    };
    let id = |bytes: usize| RepoSettings { id: "i".repeat(bytes), ..settings("x") };
    assert_eq!(field(id(MAX_ID_BYTES)), None);
    assert_eq!(field(id(MAX_ID_BYTES + 1)), Some(("id", Problem::TooLong(MAX_ID_BYTES))));
    assert_eq!(field(id(0)), Some(("id", Problem::Empty)));
    let password =
        |bytes: usize| RepoSettings { password: Some(Secret::new("p".repeat(bytes))), ..settings("x") };
    assert_eq!(field(password(MAX_SECRET_BYTES)), None);
    assert_eq!(field(password(MAX_SECRET_BYTES + 1)), Some(("password", Problem::TooLong(MAX_SECRET_BYTES))));
    let env = |name: &str| RepoSettings {
        env: vec![EnvVar { name: name.to_owned(), value: Secret::new("") }],
        ..settings("x")
    };
    assert_eq!(field(env("A=B")), Some(("env", Problem::NotAName)));
    assert_eq!(field(RepoSettings { uri: Uri::new("-x"), ..settings("x") }), Some(("uri", Problem::Dash)));
    assert_eq!(
        field(RepoSettings { uri: Uri::new("a\nb"), ..settings("x") }),
        Some(("uri", Problem::Control))
    );
    let hooks = RepoSettings { hooks: vec![hook("a", "x"), hook("a", "y")], ..settings("x") };
    assert_eq!(field(hooks), Some(("hooks", Problem::Twice)));

    let small = |number: usize| PutRepo {
        guid: None,
        settings: RepoSettings {
            id: number.to_string(),
            uri: Uri::new("/x"),
            env: Vec::new(),
            hooks: Vec::new(),
            ..settings("x")
        },
    };
    let many = |count: usize| Change { put_repos: (0..count).map(small).collect(), ..change() };
    let full = by_operator(&empty, many(MAX_REPOS)).unwrap().config;
    assert!(by_operator(&empty, many(MAX_REPOS + 1)).is_err());
    let one_more = Change { base: full.modno(), put_repos: vec![small(MAX_REPOS)], ..Change::default() };
    let refused = by_operator(&full, one_more).unwrap_err();
    assert!(matches!(refused, Refusal::Invalid(Fault::TooMany { count: 1_001, .. })), "{refused}");
    let large = Change {
        put_plans: (0..100)
            .map(|number| Plan {
                hooks: (0..1).map(|_| hook("h", &"x".repeat(MAX_SECRET_BYTES))).collect(),
                ..plan(&number.to_string(), "r")
            })
            .collect(),
        ..put(None, settings("r"))
    };
    assert!(matches!(by_operator(&empty, large), Err(Refusal::Invalid(Fault::TooLarge { .. }))));
}

#[test]
fn what_a_peer_shows_is_checked_and_may_lack_the_repository_of_a_plan() {
    let own = repo(1, "mine");
    let view = Shown::new(at(5), vec![own.clone()], vec![plan("p", "hidden")]).unwrap();
    assert_eq!((view.repos().len(), view.plans().len()), (1, 1));
    assert_eq!(view.repos()[0].settings.password, Some(Secret::Redacted), "also if its sender did not");
    let twice = Shown::new(at(5), vec![own.clone(), own.clone()], Vec::new()).unwrap_err();
    assert_eq!(twice, Fault::IdTaken(Object::Repo("mine".to_owned())));
    let many = Shown::new(at(5), vec![own; MAX_REPOS + 1], Vec::new()).unwrap_err();
    assert!(matches!(many, Fault::TooMany { .. }));
    let bad = Plan { id: "a\nb".to_owned(), ..plan("p", "mine") };
    assert!(matches!(
        Shown::new(at(5), Vec::new(), vec![bad]),
        Err(Fault::Field { problem: Problem::Control, .. })
    ));
}
