//! Changes to a config: who may make which, and what comes of it. All or nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::allowed::{Allowed, Executable};
use super::check::{self, Fault, Markers, Object};
use super::model::{Config, Guid, GuidSeed, Hook, Origin, Plan, Repo, RepoSettings, Standing};
use super::secret::{Secret, Uri};
use super::shown::{plan_scope, repo_scope};
use crate::model::{ConfigModno, KeyId, Scope};
use crate::permission::{GrantType, Grants};

/// What is to be changed. What is not named stays; deleting is said, never meant by leaving out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The config that the writer looked at: exactly the current one, or nothing happens.
    pub base: ConfigModno,
    /// Repositories to create or to replace.
    pub put_repos: Vec<PutRepo>,
    /// Plans to create or to replace, found by id.
    pub put_plans: Vec<Plan>,
    /// Ids of repositories to delete.
    pub delete_repos: Vec<String>,
    /// Ids of plans to delete.
    pub delete_plans: Vec<String>,
}

/// A repository to create or to replace. Where it comes from cannot be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRepo {
    /// Which one; none = the one that is called so, or a new one.
    pub guid: Option<Guid>,
    /// What it shall be. A redacted secret keeps what is there.
    pub settings: RepoSettings,
}

/// Who makes a change.
#[derive(Debug, Clone, Copy)]
pub enum Authority<'a> {
    /// The operator of this instance.
    Operator,
    /// A peer, within the scopes of its `READ_WRITE_CONFIG`.
    Peer {
        /// What it may do with our things.
        grants: &'a Grants,
        /// What of that may run programs.
        allowed: &'a Allowed,
    },
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The config now.
    pub config: Config,
    /// What is different. Empty: nothing is, and the modno is the old one.
    pub touched: Vec<Touched>,
}

/// One object that is different now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// By its new id, or by the one that it had.
    pub object: Object,
    /// In which way.
    pub how: How,
}

/// In which way an object is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was not there.
    Created,
    /// It was otherwise.
    Changed,
    /// It is gone.
    Deleted,
    /// It stays, and its peer does not share it any more.
    Withdrawn,
}

/// Why a change did not happen. Names the rule, the object and the next step, and nothing that its writer may not see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The config is not the one that the writer looked at.
    #[error(
        "the config is at modno {current}, the change was made for {base}; look at it again and repeat the change"
    )]
    Stale {
        /// What the writer looked at.
        base: ConfigModno,
        /// What it is.
        current: ConfigModno,
    },
    /// Not in the peer's scopes; it may not even be there.
    #[error(
        "{object}, or what it would replace, is not there or not in the scopes of READ_WRITE_CONFIG; ask that instance's operator to grant it"
    )]
    OutOfScope {
        /// As the writer called it.
        object: Object,
    },
    /// Nothing to delete.
    #[error("there is no {object}; see `opmesh config get`")]
    Unknown {
        /// As the writer called it.
        object: Object,
    },
    /// Received from a peer.
    #[error("repository {repo:?} is received from {from} and read-only here; {}", next_step(*standing))]
    ReadOnly {
        /// Its id.
        repo: String,
        /// Who shares it, or did.
        from: KeyId,
        /// Whether it still does.
        standing: Standing,
    },
    /// Plans would be left without their repository.
    #[error("repository {repo:?} is used by {}; delete or move them in the same change", users(plans, *others))]
    RepoInUse {
        /// Its id.
        repo: String,
        /// The plans that the writer may see.
        plans: Vec<String>,
        /// How many more there are.
        others: usize,
    },
    /// A peer may not set this.
    #[error("{object}: a peer may not set {executable}")]
    Executable {
        /// Where.
        object: Object,
        /// What.
        executable: Executable,
    },
    /// A peer may not take secrets that it cannot see to another place.
    #[error(
        "repository {repo:?} would take its secrets to another URI unseen; give its password and environment anew"
    )]
    SecretMoved {
        /// Its id.
        repo: String,
    },
    /// A peer may not hand our secrets to everyone who receives shared repositories.
    #[error(
        "repository {repo:?} can be shared, or called something else while it is shared, by its own instance's operator \
         only; leave `shared` and its id as they are"
    )]
    MayNotShare {
        /// Its id.
        repo: String,
    },
    /// A marker where nothing is kept.
    #[error("{field} of {object} is the marker of a value that is not there; give the value")]
    NothingToKeep {
        /// Whose.
        object: Object,
        /// Which.
        field: &'static str,
    },
    /// Named twice in one change.
    #[error("{object} comes twice in the change; name it once")]
    Twice {
        /// As the writer called it.
        object: Object,
    },
    /// The result would not be a config.
    #[error(transparent)]
    Invalid(#[from] Fault),
}

fn next_step(standing: Standing) -> &'static str {
    match standing {
        Standing::Shared => "change it there",
        Standing::Withdrawn => "it is shared no longer: the operator may delete it",
    }
}

fn users(plans: &[String], others: usize) -> String {
    let named = plans.iter().map(|id| format!("plan {id:?}"));
    let others = (others > 0).then(|| format!("{others} that may not be shown"));
    named.chain(others).collect::<Vec<_>>().join(", ")
}

impl Refusal {
    /// The rule, as answers and audit records name it.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Stale { .. } => "stale",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::Unknown { .. } => "unknown",
            Self::ReadOnly { .. } => "read_only",
            Self::RepoInUse { .. } => "repo_in_use",
            Self::Executable { .. } => "executable",
            Self::SecretMoved { .. } => "secret_moved",
            Self::MayNotShare { .. } => "may_not_share",
            Self::NothingToKeep { .. } => "nothing_to_keep",
            Self::Twice { .. } => "twice",
            Self::Invalid(_) => "invalid",
        }
    }

    /// What it is about, where it is about one thing.
    pub fn object(&self) -> Option<Object> {
        match self {
            Self::OutOfScope { object }
            | Self::Unknown { object }
            | Self::Executable { object, .. }
            | Self::NothingToKeep { object, .. }
            | Self::Twice { object }
            | Self::Invalid(
                Fault::IdTaken(object) | Fault::GuidTaken(object) | Fault::Field { object, .. },
            ) => Some(object.clone()),
            Self::ReadOnly { repo, .. }
            | Self::RepoInUse { repo, .. }
            | Self::SecretMoved { repo }
            | Self::MayNotShare { repo } => Some(Object::repo(repo)),
            Self::Invalid(Fault::NoRepo { plan, .. }) => Some(Object::plan(plan)),
            Self::Stale { .. }
            | Self::Invalid(Fault::TooMany { .. } | Fault::TooLarge { .. } | Fault::Exhausted(_)) => None,
        }
    }
}

/// Applies a change. The seed is for the guids of new repositories.
pub fn apply(config: &Config, change: Change, by: Authority<'_>, seed: GuidSeed) -> Result<Applied, Refusal> {
    if change.base != config.modno() {
        return Err(Refusal::Stale { base: change.base, current: config.modno() });
    }
    check::counts(change.put_repos.len(), change.put_plans.len())?;
    let mut work = Work::new(config, by, seed);
    change.delete_plans.iter().try_for_each(|id| work.delete_plan(id))?;
    change.delete_repos.iter().try_for_each(|id| work.delete_repo(id))?;
    change.put_repos.into_iter().try_for_each(|put| work.put_repo(put))?;
    change.put_plans.into_iter().try_for_each(|plan| work.put_plan(plan))?;
    work.finish()
}

/// A change that is being applied.
struct Work<'a> {
    config: &'a Config,
    by: Authority<'a>,
    seed: GuidSeed,
    repos: BTreeMap<Guid, Repo>,
    plans: BTreeMap<String, Plan>,
    named_repos: BTreeSet<Guid>,
    named_plans: BTreeSet<String>,
    created: u64,
    touched: Vec<Touched>,
}

impl<'a> Work<'a> {
    fn new(config: &'a Config, by: Authority<'a>, seed: GuidSeed) -> Self {
        Self {
            config,
            by,
            seed,
            repos: config.repos().iter().map(|repo| (repo.guid, repo.clone())).collect(),
            plans: config.plans().iter().map(|plan| (plan.id.clone(), plan.clone())).collect(),
            named_repos: BTreeSet::new(),
            named_plans: BTreeSet::new(),
            created: 0,
            touched: Vec::new(),
        }
    }

    fn delete_plan(&mut self, id: &str) -> Result<(), Refusal> {
        let object = Object::plan(id);
        let held = self.config.plan(id).filter(|plan| self.may(&plan_scope(plan)));
        if held.is_none() {
            return Err(self.not_there(object));
        }
        self.name_plan(id)?;
        self.plans.remove(id);
        self.touch(object, How::Deleted);
        Ok(())
    }

    fn delete_repo(&mut self, id: &str) -> Result<(), Refusal> {
        let object = Object::repo(id);
        let held = self.config.repo(id).filter(|repo| self.may(&repo_scope(repo.id())));
        let Some(held) = held else { return Err(self.not_there(object)) };
        let withdrawn = held.origin.is_none_or(|origin| origin.standing == Standing::Withdrawn);
        match (held.origin, self.by) {
            (None, _) => {}
            (Some(_), Authority::Operator) if withdrawn => {}
            (Some(origin), _) => return Err(read_only(held, origin)),
        }
        self.name_repo(held.guid, object.clone())?;
        self.repos.remove(&held.guid);
        self.touch(object, How::Deleted);
        Ok(())
    }

    fn put_repo(&mut self, put: PutRepo) -> Result<(), Refusal> {
        let object = Object::repo(&put.settings.id);
        check::settings(&put.settings, Markers::Allowed)?;
        if !self.may(&repo_scope(&put.settings.id)) {
            return Err(Refusal::OutOfScope { object });
        }
        let held = match put.guid {
            Some(guid) => self.config.repo_by_guid(&guid),
            None => self.config.repo(&put.settings.id),
        };
        let hidden = match (held, put.guid) {
            (Some(held), _) => !self.may(&repo_scope(held.id())),
            // Only the owner says which identity a repository that is new here has.
            (None, Some(_)) => matches!(self.by, Authority::Peer { .. }),
            (None, None) => false,
        };
        if hidden {
            return Err(Refusal::OutOfScope { object });
        }
        let settings = resolve_repo(put.settings.clone(), held.map(|held| &held.settings), &object)?;
        let guid = held.map(|held| held.guid).or(put.guid).unwrap_or_else(|| self.new_guid());
        self.name_repo(guid, object.clone())?;
        if held.is_some_and(|held| held.settings == settings) {
            return Ok(());
        }
        if let Some(held) = held
            && let Some(origin) = held.origin
        {
            return Err(read_only(held, origin));
        }
        self.check_peers_repo(&put.settings, &settings, held)?;
        self.touch(object, if held.is_some() { How::Changed } else { How::Created });
        self.repos.insert(guid, Repo { guid, origin: None, settings });
        Ok(())
    }

    /// What a peer may not do with a repository that is in its scopes; `said` still has the markers.
    fn check_peers_repo(
        &self,
        said: &RepoSettings,
        new: &RepoSettings,
        held: Option<&Repo>,
    ) -> Result<(), Refusal> {
        let Authority::Peer { allowed, .. } = self.by else { return Ok(()) };
        let held = held.map(|held| &held.settings);
        // By its id it is judged who receives it: another id is another audience.
        if new.shared && held.is_none_or(|held| !held.shared || held.id != new.id) {
            return Err(Refusal::MayNotShare { repo: new.id.clone() });
        }
        let keeps = said.password.as_ref().is_some_and(Secret::is_redacted)
            || said.env.iter().any(|variable| variable.value.is_redacted());
        if keeps && held.is_some_and(|held| held.uri != new.uri) {
            return Err(Refusal::SecretMoved { repo: new.id.clone() });
        }
        match allowed.refuses_repo(new, held) {
            Some(executable) => Err(Refusal::Executable { object: Object::repo(&new.id), executable }),
            None => Ok(()),
        }
    }

    fn put_plan(&mut self, plan: Plan) -> Result<(), Refusal> {
        let object = Object::plan(&plan.id);
        check::plan(&plan, Markers::Allowed)?;
        let held = self.config.plan(&plan.id);
        let stays = held.is_some_and(|held| held.repo == plan.repo);
        let may = self.may(&plan_scope(&plan))
            && held.is_none_or(|held| self.may(&plan_scope(held)))
            && (stays || self.may(&repo_scope(&plan.repo)));
        if !may {
            return Err(Refusal::OutOfScope { object });
        }
        let plan = resolve_plan(plan, held, &object)?;
        self.name_plan(&plan.id)?;
        if held == Some(&plan) {
            return Ok(());
        }
        if let Authority::Peer { allowed, .. } = self.by
            && let Some(executable) = allowed.refuses_plan(&plan, held)
        {
            return Err(Refusal::Executable { object, executable });
        }
        self.touch(object, if held.is_some() { How::Changed } else { How::Created });
        self.plans.insert(plan.id.clone(), plan);
        Ok(())
    }

    fn finish(self) -> Result<Applied, Refusal> {
        if self.touched.is_empty() {
            return Ok(Applied { config: self.config.clone(), touched: self.touched });
        }
        self.check_users()?;
        let config =
            self.config.changed(self.repos.into_values().collect(), self.plans.into_values().collect())?;
        Ok(Applied { config, touched: self.touched })
    }

    /// Whether every plan that is not part of the change still has the repository that it had.
    fn check_users(&self) -> Result<(), Refusal> {
        let ids: BTreeSet<&str> = self.repos.values().map(Repo::id).collect();
        let left = |plan: &&Plan| !ids.contains(plan.repo.as_str()) && !self.named_plans.contains(&plan.id);
        let left: Vec<&Plan> = self.plans.values().filter(left).collect();
        let Some(first) = left.first() else { return Ok(()) };
        let repo = first.repo.clone();
        let users = left.iter().filter(|plan| plan.repo == repo);
        let (seen, unseen): (Vec<&Plan>, Vec<&Plan>) = users.partition(|plan| self.may(&plan_scope(plan)));
        let plans = seen.iter().map(|plan| plan.id.clone()).collect();
        Err(Refusal::RepoInUse { repo, plans, others: unseen.len() })
    }

    fn may(&self, scope: &Scope) -> bool {
        match self.by {
            Authority::Operator => true,
            Authority::Peer { grants, .. } => grants.allows(GrantType::ReadWriteConfig, scope),
        }
    }

    /// A peer does not learn whether what it may not change exists.
    fn not_there(&self, object: Object) -> Refusal {
        match self.by {
            Authority::Operator => Refusal::Unknown { object },
            Authority::Peer { .. } => Refusal::OutOfScope { object },
        }
    }

    fn name_repo(&mut self, guid: Guid, object: Object) -> Result<(), Refusal> {
        if self.named_repos.insert(guid) { Ok(()) } else { Err(Refusal::Twice { object }) }
    }

    fn name_plan(&mut self, id: &str) -> Result<(), Refusal> {
        if self.named_plans.insert(id.to_owned()) {
            Ok(())
        } else {
            Err(Refusal::Twice { object: Object::plan(id) })
        }
    }

    /// An identity that no repository has, also when a seed is used twice.
    fn new_guid(&mut self) -> Guid {
        loop {
            let guid = self.seed.guid(self.created);
            self.created += 1;
            if self.config.repo_by_guid(&guid).is_none() && !self.repos.contains_key(&guid) {
                return guid;
            }
        }
    }

    fn touch(&mut self, object: Object, how: How) {
        self.touched.push(Touched { object, how });
    }
}

fn read_only(repo: &Repo, origin: Origin) -> Refusal {
    Refusal::ReadOnly { repo: repo.id().to_owned(), from: origin.from, standing: origin.standing }
}

/// Puts the values that are held in the places of their markers.
fn resolve_repo(
    mut new: RepoSettings,
    held: Option<&RepoSettings>,
    object: &Object,
) -> Result<RepoSettings, Refusal> {
    let nothing = |field| Refusal::NothingToKeep { object: object.clone(), field };
    if let Uri::Redacted(text) = &new.uri {
        let kept = held.map(|held| &held.uri).filter(|uri| uri.shown_text() == *text);
        new.uri = kept.ok_or_else(|| nothing("uri"))?.clone();
    }
    if let Some(password) = &mut new.password {
        let kept = held.and_then(|held| held.password.as_ref());
        keep(password, kept).ok_or_else(|| nothing("password"))?;
    }
    for variable in &mut new.env {
        let kept = held.and_then(|held| held.env.iter().find(|other| other.name == variable.name));
        keep(&mut variable.value, kept.map(|kept| &kept.value)).ok_or_else(|| nothing("env"))?;
    }
    resolve_hooks(&mut new.hooks, held.map_or(&[], |held| &held.hooks)).ok_or_else(|| nothing("hooks"))?;
    Ok(new)
}

fn resolve_plan(mut new: Plan, held: Option<&Plan>, object: &Object) -> Result<Plan, Refusal> {
    resolve_hooks(&mut new.hooks, held.map_or(&[], |held| &held.hooks))
        .ok_or_else(|| Refusal::NothingToKeep { object: object.clone(), field: "hooks" })?;
    Ok(new)
}

fn resolve_hooks(hooks: &mut [Hook], held: &[Hook]) -> Option<()> {
    hooks.iter_mut().try_for_each(|hook| {
        let kept = held.iter().find(|other| other.name == hook.name);
        keep(&mut hook.command, kept.map(|kept| &kept.command))
    })
}

fn keep(secret: &mut Secret, held: Option<&Secret>) -> Option<()> {
    if secret.is_redacted() {
        *secret = held?.clone();
    }
    Some(())
}
