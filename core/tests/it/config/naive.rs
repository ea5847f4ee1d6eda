//! The rules once more, from the words of the design and in the plainest way: lists, no early exits, every broken rule
//! named. Slow, and nothing is shared with what it is compared to but plain data.

use std::collections::BTreeSet;

use opmesh_core::config::{
    Allowed, Change, Config, EnvVar, Guid, Hook, Origin, Plan, PutRepo, Repo, RepoSettings, Secret,
    SharedRepo, Standing, Uri,
};
use opmesh_core::model::KeyId;

/// Whether grants, as text, allow a kind of access to a plan of a repository, or to a repository (no plan).
///
/// "Exclusion beats everything, and an operation is excluded if its repo or its plan is. WRITE implies READ. What is not
/// granted is refused."
fn granted(texts: &[String], kind: &str, repo: &str, plan: Option<&str>) -> bool {
    texts.iter().any(|text| {
        let (written, scopes) = text.split_once(':').unwrap();
        let implied = kind == "READ_CONFIG" && written == "READ_WRITE_CONFIG";
        if written != kind && !implied {
            return false;
        }
        let scopes: Vec<&str> = scopes.split(',').collect();
        let says = |sign: &str| {
            scopes.contains(&format!("{sign}repo:{repo}").as_str())
                || plan.is_some_and(|plan| scopes.contains(&format!("{sign}plan:{plan}").as_str()))
        };
        !says("!") && (scopes.contains(&"*") || says(""))
    })
}

fn hidden_uri(uri: &Uri) -> Uri {
    match uri.expose() {
        Some(text) if text.contains("u:") => Uri::Redacted("rest:https://***@h/x".to_owned()),
        Some(text) if text.starts_with("rclone:") => Uri::Redacted("rclone:***".to_owned()),
        _ => uri.clone(),
    }
}

fn hidden_hooks(hooks: &[Hook]) -> Vec<Hook> {
    hooks.iter().map(|hook| Hook { command: Secret::Redacted, ..hook.clone() }).collect()
}

/// "Shows repos and plans, secrets redacted, filtered."
pub fn shown(config: &Config, texts: &[String]) -> (Vec<Repo>, Vec<Plan>) {
    let mut repos = Vec::new();
    for repo in config.repos() {
        if granted(texts, "READ_CONFIG", repo.id(), None) {
            let settings = RepoSettings {
                uri: hidden_uri(&repo.settings.uri),
                password: if repo.settings.password.is_some() { Some(Secret::Redacted) } else { None },
                env: (repo.settings.env.iter())
                    .map(|variable| EnvVar { name: variable.name.clone(), value: Secret::Redacted })
                    .collect(),
                hooks: hidden_hooks(&repo.settings.hooks),
                ..repo.settings.clone()
            };
            repos.push(Repo { settings, ..repo.clone() });
        }
    }
    let mut plans = Vec::new();
    for plan in config.plans() {
        if granted(texts, "READ_CONFIG", &plan.repo, Some(&plan.id)) {
            plans.push(Plan { hooks: hidden_hooks(&plan.hooks), ..plan.clone() });
        }
    }
    (repos, plans)
}

pub fn resources(config: &Config, texts: &[String]) -> (Vec<String>, Vec<String>) {
    let may = |repo: &str, plan: Option<&str>| {
        granted(texts, "READ_CONFIG", repo, plan) || granted(texts, "READ_OPERATIONS", repo, plan)
    };
    let repos = config.repos().iter().map(|repo| repo.id().to_owned()).filter(|id| may(id, None));
    let plans = config.plans().iter().filter(|plan| may(&plan.repo, Some(&plan.id)));
    (repos.collect(), plans.map(|plan| plan.id.clone()).collect())
}

/// What should come of a change.
#[derive(Debug)]
pub enum Verdict {
    /// All the rules that it breaks.
    Breaks(BTreeSet<&'static str>),
    /// None; a repository without a guid is a new one, whose guid is random.
    Becomes { repos: Vec<(Option<Guid>, Option<Origin>, RepoSettings)>, plans: Vec<Plan>, changed: bool },
}

/// Whether a config is the one that the words demand.
pub fn same(
    config: &Config,
    before: &Config,
    repos: &[(Option<Guid>, Option<Origin>, RepoSettings)],
    plans: &[Plan],
) -> bool {
    let mut wanted = repos.to_vec();
    wanted.sort_by(|a, b| a.2.id.cmp(&b.2.id));
    let mut plans = plans.to_vec();
    plans.sort_by(|a, b| a.id.cmp(&b.id));
    let fresh = |guid: &Guid| before.repos().iter().all(|repo| repo.guid != *guid);
    config.plans() == plans
        && config.repos().len() == wanted.len()
        && config.repos().iter().zip(&wanted).all(|(repo, (guid, origin, settings))| {
            guid.map_or(fresh(&repo.guid), |guid| guid == repo.guid)
                && repo.origin == *origin
                && repo.settings == *settings
        })
}

/// "Nothing executable, unless allowed by name."
fn executable_hooks(new: &[Hook], held: &[Hook], allowed: &Allowed) -> bool {
    new.iter().any(|hook| !held.iter().any(|old| old == hook) && !allowed.hooks.contains(&hook.name))
}

fn executable_flags(new: &[String], held: &[String], allowed: &Allowed) -> bool {
    new != held
        && new.iter().any(|flag| match flag.as_str() {
            "--verbose" | "--tag=x" => false,
            "--rsh=sh" => !allowed.flags.contains("--rsh"),
            "--option=sftp.command=sh" => !allowed.flags.contains("--option=sftp.command"),
            other => panic!("{other} is not one of those that are made"),
        })
}

fn executable(new: &RepoSettings, held: Option<&RepoSettings>, allowed: &Allowed) -> bool {
    let nothing = RepoSettings {
        uri: Uri::new("never"),
        env: Vec::new(),
        flags: Vec::new(),
        command_prefix: Vec::new(),
        hooks: Vec::new(),
        ..new.clone()
    };
    let held = held.unwrap_or(&nothing);
    let prefix = new.command_prefix != held.command_prefix
        && !new.command_prefix.is_empty()
        && !allowed.command_prefixes.contains("nice -n19");
    let env = new
        .env
        .iter()
        .any(|variable| !held.env.iter().any(|old| old == variable) && !allowed.env.contains(&variable.name));
    let uri = new.uri != held.uri && new.uri.expose().unwrap().starts_with("rclone::");
    executable_hooks(&new.hooks, &held.hooks, allowed)
        || executable_flags(&new.flags, &held.flags, allowed)
        || prefix
        || env
        || uri
}

/// "A redacted value that is pushed back means: keep what is there."
fn resolve(said: &RepoSettings, held: Option<&RepoSettings>) -> Option<RepoSettings> {
    let mut new = said.clone();
    if said.uri.is_redacted() {
        let kept = held.map(|held| held.uri.clone()).filter(|uri| hidden_uri(uri) == said.uri);
        new.uri = kept?;
    }
    if said.password == Some(Secret::Redacted) {
        new.password = Some(held?.password.clone()?);
    }
    for variable in &mut new.env {
        if variable.value == Secret::Redacted {
            let kept = held?.env.iter().find(|old| old.name == variable.name)?;
            variable.value = kept.value.clone();
        }
    }
    new.hooks = resolve_hooks(&said.hooks, held.map_or(&[], |held| &held.hooks))?;
    Some(new)
}

fn resolve_hooks(said: &[Hook], held: &[Hook]) -> Option<Vec<Hook>> {
    let mut new = said.to_vec();
    for hook in &mut new {
        if hook.command == Secret::Redacted {
            hook.command = held.iter().find(|old| old.name == hook.name)?.command.clone();
        }
    }
    Some(new)
}

/// `texts` are the grants of the peer that asks; none = the operator.
pub fn apply(config: &Config, change: &Change, texts: Option<&[String]>, allowed: &Allowed) -> Verdict {
    if change.base != config.modno() {
        return Verdict::Breaks(BTreeSet::from(["stale"]));
    }
    let repos = config.repos().iter().map(|repo| (Some(repo.guid), repo.origin, repo.settings.clone()));
    let mut trial = Trial {
        config,
        texts,
        allowed,
        repos: repos.collect(),
        plans: config.plans().to_vec(),
        named_guids: Vec::new(),
        named_plans: Vec::new(),
        broken: BTreeSet::new(),
        changed: !change.delete_plans.is_empty() || !change.delete_repos.is_empty(),
    };
    change.delete_plans.iter().for_each(|id| trial.delete_plan(id));
    change.delete_repos.iter().for_each(|id| trial.delete_repo(id));
    change.put_repos.iter().for_each(|put| trial.put_repo(put));
    change.put_plans.iter().for_each(|put| trial.put_plan(put));
    trial.whole();
    let Trial { repos, plans, broken, changed, .. } = trial;
    if broken.is_empty() { Verdict::Becomes { repos, plans, changed } } else { Verdict::Breaks(broken) }
}

/// A change that is tried to the end, whatever it breaks.
struct Trial<'a> {
    config: &'a Config,
    texts: Option<&'a [String]>,
    allowed: &'a Allowed,
    repos: Vec<(Option<Guid>, Option<Origin>, RepoSettings)>,
    plans: Vec<Plan>,
    named_guids: Vec<Guid>,
    named_plans: Vec<String>,
    broken: BTreeSet<&'static str>,
    changed: bool,
}

impl Trial<'_> {
    fn may(&self, repo: &str, plan: Option<&str>) -> bool {
        self.texts.is_none_or(|texts| granted(texts, "READ_WRITE_CONFIG", repo, plan))
    }

    fn missing(&mut self) {
        self.broken.insert(if self.texts.is_some() { "out_of_scope" } else { "unknown" });
    }

    fn delete_plan(&mut self, id: &str) {
        match self.config.plans().iter().find(|plan| plan.id == id) {
            Some(plan) if self.may(&plan.repo, Some(id)) => {}
            _ => self.missing(),
        }
        self.named_plans.push(id.to_owned());
        self.plans.retain(|plan| plan.id != id);
    }

    fn delete_repo(&mut self, id: &str) {
        match self.config.repos().iter().find(|repo| repo.id() == id) {
            Some(repo) if self.may(id, None) => {
                let gone = repo.origin.is_some_and(|origin| origin.standing == Standing::Withdrawn);
                if repo.origin.is_some() && !(gone && self.texts.is_none()) {
                    self.broken.insert("read_only");
                }
                self.named_guids.push(repo.guid);
                self.repos.retain(|(guid, ..)| *guid != Some(repo.guid));
            }
            _ => self.missing(),
        }
    }

    fn put_repo(&mut self, put: &PutRepo) {
        let held = self.config.repos().iter().find(|repo| match put.guid {
            Some(guid) => repo.guid == guid,
            None => repo.id() == put.settings.id,
        });
        let in_scope = self.may(&put.settings.id, None) && held.is_none_or(|held| self.may(held.id(), None));
        if !in_scope || (self.texts.is_some() && held.is_none() && put.guid.is_some()) {
            self.broken.insert("out_of_scope");
        }
        self.named_guids.extend(held.map(|held| held.guid).or(put.guid));
        let Some(new) = resolve(&put.settings, held.map(|held| &held.settings)) else {
            self.broken.insert("nothing_to_keep");
            return;
        };
        if held.is_some_and(|held| held.settings == new) {
            return;
        }
        self.changed = true;
        if held.is_some_and(|held| held.origin.is_some()) {
            self.broken.insert("read_only");
        }
        if self.texts.is_some() {
            self.peers_repo(&put.settings, &new, held.map(|held| &held.settings));
        }
        let guid = held.map(|held| held.guid).or(put.guid);
        self.repos.retain(|(other, ..)| guid.is_none() || *other != guid);
        self.repos.push((guid, None, new));
    }

    fn peers_repo(&mut self, said: &RepoSettings, new: &RepoSettings, held: Option<&RepoSettings>) {
        if executable(new, held, self.allowed) {
            self.broken.insert("executable");
        }
        if new.shared && !held.is_some_and(|held| held.shared && held.id == new.id) {
            self.broken.insert("may_not_share");
        }
        let unseen = said.password == Some(Secret::Redacted)
            || said.env.iter().any(|variable| variable.value == Secret::Redacted);
        if unseen && held.is_some_and(|held| held.uri != new.uri) {
            self.broken.insert("secret_moved");
        }
    }

    fn put_plan(&mut self, put: &Plan) {
        let held = self.config.plans().iter().find(|plan| plan.id == put.id);
        let same_repo = held.is_some_and(|held| held.repo == put.repo);
        let in_scope = self.may(&put.repo, Some(&put.id))
            && held.is_none_or(|held| self.may(&held.repo, Some(&held.id)))
            && (same_repo || self.may(&put.repo, None));
        if !in_scope {
            self.broken.insert("out_of_scope");
        }
        self.named_plans.push(put.id.clone());
        let held_hooks = held.map_or(Vec::new(), |held| held.hooks.clone());
        let Some(hooks) = resolve_hooks(&put.hooks, &held_hooks) else {
            self.broken.insert("nothing_to_keep");
            return;
        };
        let new = Plan { hooks, ..put.clone() };
        if held == Some(&new) {
            return;
        }
        self.changed = true;
        let held_flags = held.map_or(Vec::new(), |held| held.flags.clone());
        let runs = executable_hooks(&new.hooks, &held_hooks, self.allowed)
            || executable_flags(&new.flags, &held_flags, self.allowed);
        if self.texts.is_some() && runs {
            self.broken.insert("executable");
        }
        self.plans.retain(|plan| plan.id != new.id);
        self.plans.push(new);
    }

    fn whole(&mut self) {
        if twice(&self.named_guids) || twice(&self.named_plans) {
            self.broken.insert("twice");
        }
        if twice(&self.repos.iter().map(|(.., settings)| settings.id.clone()).collect::<Vec<_>>()) {
            self.broken.insert("invalid");
        }
        for plan in &self.plans {
            if !self.repos.iter().any(|(.., settings)| settings.id == plan.repo) {
                let named = self.named_plans.contains(&plan.id);
                self.broken.insert(if named { "invalid" } else { "repo_in_use" });
            }
        }
    }
}

fn twice<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().any(|(at, one)| list[..at].contains(one))
}

/// What should come of an offer.
pub struct TakenNaively {
    pub repos: Vec<Repo>,
    pub refused: Vec<(Guid, &'static str)>,
}

/// "Takes repos that the hub shares, and nothing executable; received repos name their origin, are read-only, and are
/// not shared onward; un-sharing never deletes."
pub fn take(
    config: &Config,
    from: KeyId,
    texts: &[String],
    offer: &[SharedRepo],
    allowed: &Allowed,
) -> TakenNaively {
    let may = |id: &str| granted(texts, "RECEIVE_SHARED_REPOS", id, None);
    let mut repos = config.repos().to_vec();
    let mut refused = Vec::new();
    for (at, one) in offer.iter().enumerate() {
        let earlier = &offer[..at];
        let id = &one.settings.id;
        let others: Vec<Repo> = repos.iter().filter(|repo| repo.guid != one.guid).cloned().collect();
        let held = repos.iter().find(|repo| repo.guid == one.guid).cloned();
        let foreign = held.as_ref().is_some_and(|held| held.origin.is_none_or(|origin| origin.from != from));
        let stuck = held
            .as_ref()
            .is_some_and(|held| held.id() != id && config.plans().iter().any(|plan| plan.repo == held.id()));
        let mut rules = Vec::new();
        if one.settings.password == Some(Secret::Redacted) {
            rules.push("invalid");
        }
        if earlier.iter().any(|other| other.guid == one.guid || other.settings.id == *id) {
            rules.push("twice");
        }
        if !may(id) {
            rules.push("out_of_scope");
        }
        if executable(&one.settings, None, allowed) {
            rules.push("executable");
        }
        // Whichever of the others comes first by id or position; one of these is named.
        let taken: Vec<(usize, &'static str)> = repos
            .iter()
            .enumerate()
            .filter_map(|(at, repo)| {
                let rule = if repo.guid == one.guid {
                    if foreign {
                        "guid_taken"
                    } else if stuck {
                        "renamed_in_use"
                    } else {
                        return None;
                    }
                } else if repo.id() == id {
                    "id_taken"
                } else if repo.settings.uri == one.settings.uri {
                    "uri_taken"
                } else {
                    return None;
                };
                Some((at, rule))
            })
            .collect();
        rules.extend(taken.first().map(|(_, rule)| *rule));
        if let Some(rule) = rules.first() {
            refused.push((one.guid, *rule));
            continue;
        }
        let at = repos.iter().position(|repo| repo.guid == one.guid).unwrap_or(repos.len());
        repos = others;
        let settings = RepoSettings { shared: false, ..one.settings.clone() };
        let origin = Some(Origin { from, standing: Standing::Shared });
        repos.insert(at, Repo { guid: one.guid, origin, settings });
    }
    for repo in &mut repos {
        let listed = offer.iter().any(|one| one.guid == repo.guid);
        if let Some(origin) = &mut repo.origin
            && origin.from == from
            && !(listed && may(&repo.settings.id))
        {
            origin.standing = Standing::Withdrawn;
        }
    }
    repos.sort_by(|a, b| a.id().cmp(b.id()));
    TakenNaively { repos, refused }
}
