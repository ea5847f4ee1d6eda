//! Random configs, grants, changes and offers over a handful of names, so that they meet often.

use std::collections::BTreeSet;

use opmesh_core::config::{
    Allowed, Change, Config, EnvVar, Guid, Hook, Origin, Plan, PutRepo, Repo, RepoSettings, Retention,
    Secret, SharedRepo, Standing, Uri,
};
use opmesh_core::model::{ConfigModno, KeyId};
use opmesh_core::permission::Grants;

use crate::random::Random;

pub const REPO_IDS: [&str; 4] = ["a", "b", "c", "d"];
pub const PLAN_IDS: [&str; 4] = ["p", "q", "r", "s"];
/// Two with credentials, and one that names a program.
pub const URIS: [&str; 5] =
    ["/srv/a", "/srv/b", "rest:https://u:one@h/x", "rest:https://u:two@h/x", "rclone::sftp,ssh=sh:/"];
/// The last two are dangerous.
pub const FLAGS: [&str; 4] = ["--verbose", "--tag=x", "--rsh=sh", "--option=sftp.command=sh"];

/// Grants as text and as read.
#[derive(Debug)]
pub struct MadeGrants {
    pub texts: Vec<String>,
    pub parsed: Grants,
}

pub struct Maker {
    pub random: Random,
}

impl Maker {
    pub fn new(random: Random) -> Self {
        Self { random }
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let index = self.random.index(of.len());
        &of[index]
    }

    fn some<T: Clone>(&mut self, of: &[T], percent: u64) -> Vec<T> {
        of.iter().filter(|_| self.random.chance(percent)).cloned().collect()
    }

    pub fn key(&mut self) -> KeyId {
        KeyId::from_bytes([u8::try_from(1 + self.random.below(2)).unwrap(); 32])
    }

    fn guid(&mut self) -> Guid {
        Guid::from_bytes([u8::try_from(self.random.below(6)).unwrap(); 32])
    }

    /// Mostly with `*`, so that there is something to exclude from.
    pub fn grants(&mut self) -> MadeGrants {
        let kinds = ["READ_OPERATIONS", "READ_CONFIG", "READ_WRITE_CONFIG", "RECEIVE_SHARED_REPOS"];
        let mut texts = Vec::new();
        for kind in kinds {
            if self.random.chance(30) {
                continue;
            }
            let mut scopes = Vec::new();
            if self.random.chance(60) {
                scopes.push("*".to_owned());
            }
            for (dimension, ids) in [("repo", REPO_IDS), ("plan", PLAN_IDS)] {
                scopes.extend(self.some(&ids, 25).iter().map(|id| format!("{dimension}:{id}")));
            }
            if scopes.is_empty() {
                continue;
            }
            for (dimension, ids) in [("!repo", REPO_IDS), ("!plan", PLAN_IDS)] {
                scopes.extend(self.some(&ids, 10).iter().map(|id| format!("{dimension}:{id}")));
            }
            texts.push(format!("{kind}:{}", scopes.join(",")));
        }
        MadeGrants { parsed: Grants::parse(&texts).unwrap(), texts }
    }

    pub fn allowed(&mut self) -> Allowed {
        let mut names = |of: &[&str], percent: u64| -> BTreeSet<String> {
            self.some(of, percent).into_iter().map(str::to_owned).collect()
        };
        Allowed {
            hooks: names(&["h", "i"], 30),
            command_prefixes: names(&["nice -n19"], 30),
            env: names(&["A", "B"], 30),
            flags: names(&["--rsh", "--option=sftp.command"], 30),
        }
    }

    fn secret(&mut self) -> Secret {
        Secret::new(*self.one(&["x", "y"]))
    }

    fn hooks(&mut self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        for name in ["h", "i"] {
            if self.random.chance(12) {
                let condition = (*self.one(&["error", "success"])).to_owned();
                hooks.push(Hook { name: name.to_owned(), condition, command: self.secret() });
            }
        }
        hooks
    }

    fn flags(&mut self) -> Vec<String> {
        let mut flags = self.some(&FLAGS[..2], 20);
        flags.extend(self.some(&FLAGS[2..], 5));
        flags.into_iter().map(str::to_owned).collect()
    }

    fn retention(&mut self) -> Retention {
        Retention { last: u32::try_from(self.random.below(2)).unwrap(), ..Retention::default() }
    }

    fn settings(&mut self, id: &str) -> RepoSettings {
        let mut env = Vec::new();
        for name in ["A", "B"] {
            if self.random.chance(12) {
                env.push(EnvVar { name: name.to_owned(), value: self.secret() });
            }
        }
        let prefix =
            if self.random.chance(8) { vec!["nice".to_owned(), "-n19".to_owned()] } else { Vec::new() };
        let uri = if self.random.chance(4) { URIS[4] } else { *self.one(&URIS[..4]) };
        RepoSettings {
            id: id.to_owned(),
            uri: Uri::new(uri),
            password: if self.random.chance(60) { Some(self.secret()) } else { None },
            env,
            flags: self.flags(),
            command_prefix: prefix,
            hooks: self.hooks(),
            schedule: String::new(),
            retention: self.retention(),
            shared: self.random.chance(30),
        }
    }

    fn plan(&mut self, id: &str, repo: &str) -> Plan {
        let paths = if self.random.chance(50) { vec!["/home".to_owned()] } else { Vec::new() };
        Plan {
            id: id.to_owned(),
            repo: repo.to_owned(),
            paths,
            excludes: Vec::new(),
            iexcludes: Vec::new(),
            schedule: String::new(),
            retention: self.retention(),
            hooks: self.hooks(),
            flags: self.flags(),
        }
    }

    pub fn config(&mut self) -> Config {
        let ids = self.some(&REPO_IDS, 60);
        let mut guids = BTreeSet::new();
        let mut repos = Vec::new();
        for id in &ids {
            let guid = self.guid();
            if !guids.insert(guid) {
                continue;
            }
            let origin = if self.random.chance(30) {
                let standing = *self.one(&[Standing::Shared, Standing::Withdrawn]);
                Some(Origin { from: self.key(), standing })
            } else {
                None
            };
            repos.push(Repo { guid, origin, settings: self.settings(id) });
        }
        let mut plans = Vec::new();
        if !repos.is_empty() {
            for id in self.some(&PLAN_IDS, 40) {
                let repo = self.one(&repos).id().to_owned();
                plans.push(self.plan(id, &repo));
            }
        }
        Config::new(ConfigModno::new(5).unwrap(), repos, plans).unwrap()
    }

    /// Up to three puts and deletes; mostly of what is there, pushed back as it was shown with a thing or two changed.
    pub fn change(&mut self, config: &Config) -> Change {
        let base = if self.random.chance(3) { 4 + 2 * self.random.below(2) } else { 5 };
        let mut change = Change { base: ConfigModno::new(base).unwrap(), ..Change::default() };
        for _ in 0..=self.random.below(3) {
            match self.random.below(10) {
                0..=4 => change.put_repos.push(self.put_repo(config)),
                5..=7 => change.put_plans.push(self.put_plan(config)),
                8 => change.delete_repos.push((*self.one(&REPO_IDS)).to_owned()),
                _ => change.delete_plans.push((*self.one(&PLAN_IDS)).to_owned()),
            }
        }
        change
    }

    fn put_repo(&mut self, config: &Config) -> PutRepo {
        let id = *self.one(&REPO_IDS);
        let fresh = self.settings(id);
        let held = if config.repos().is_empty() { None } else { Some(self.one(config.repos()).clone()) };
        let Some(held) = held.filter(|_| self.random.chance(75)) else {
            let guid = if self.random.chance(20) { Some(self.guid()) } else { None };
            let mut settings = fresh;
            if self.random.chance(10) {
                settings.password = Some(Secret::Redacted);
            }
            return PutRepo { guid, settings };
        };
        let mut settings = held.settings.clone();
        let redact = self.random.chance(60);
        if redact {
            settings.uri = settings.uri.shown();
            settings.password = settings.password.map(|_| Secret::Redacted);
            settings.env.iter_mut().for_each(|variable| variable.value = Secret::Redacted);
            settings.hooks.iter_mut().for_each(|hook| hook.command = Secret::Redacted);
        }
        if self.random.chance(80) {
            match self.random.below(10) {
                0 => settings.id = fresh.id,
                1 => settings.uri = fresh.uri,
                2 => settings.password = fresh.password,
                3 => settings.env = fresh.env,
                4 => settings.flags = fresh.flags,
                5 => settings.command_prefix = fresh.command_prefix,
                6 => settings.hooks = fresh.hooks,
                7 => settings.shared = fresh.shared,
                8 => "daily".clone_into(&mut settings.schedule),
                _ => settings.retention = fresh.retention,
            }
        }
        PutRepo { guid: if self.random.chance(60) { Some(held.guid) } else { None }, settings }
    }

    fn put_plan(&mut self, config: &Config) -> Plan {
        let (id, repo) = (*self.one(&PLAN_IDS), *self.one(&REPO_IDS));
        let fresh = self.plan(id, repo);
        let held = if config.plans().is_empty() { None } else { Some(self.one(config.plans()).clone()) };
        let Some(mut plan) = held.filter(|_| self.random.chance(75)) else { return fresh };
        if self.random.chance(60) {
            plan.hooks.iter_mut().for_each(|hook| hook.command = Secret::Redacted);
        }
        if self.random.chance(80) {
            match self.random.below(6) {
                0 => plan.id = fresh.id,
                1 => plan.repo = fresh.repo,
                2 => plan.hooks = fresh.hooks,
                3 => plan.flags = fresh.flags,
                4 => plan.paths = fresh.paths,
                _ => "daily".clone_into(&mut plan.schedule),
            }
        }
        plan
    }

    pub fn offer(&mut self, config: &Config) -> Vec<SharedRepo> {
        let mut offer = Vec::new();
        for _ in 0..self.random.below(4) {
            let id = *self.one(&REPO_IDS);
            let mut settings = self.settings(id);
            if self.random.chance(5) {
                settings.password = Some(Secret::Redacted);
            }
            let mut guid = self.guid();
            if !config.repos().is_empty() && self.random.chance(60) {
                let held = self.one(config.repos()).clone();
                guid = held.guid;
                settings = RepoSettings { shared: true, ..held.settings };
                match self.random.below(4) {
                    0 => id.clone_into(&mut settings.id),
                    1 => settings.password = Some(self.secret()),
                    _ => {}
                }
            }
            offer.push(SharedRepo { guid, settings });
        }
        offer
    }
}
