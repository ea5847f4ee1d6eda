//! What a peer sees of a config: its scopes decide which repositories and plans, and no secret is among it.

use super::check::{self, Fault, Markers, Object};
use super::model::{Config, Guid, Hook, Plan, Repo};
use super::secret::Secret;
use crate::model::{ConfigModno, Scope};
use crate::permission::{GrantType, Grants};

/// A config as a peer sees it: filtered, every secret redacted. Values of this type hold no secret, whoever made them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    modno: ConfigModno,
    repos: Vec<Repo>,
    plans: Vec<Plan>,
}

/// Which repositories and plans there are, without what is in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Repositories by id.
    pub repos: Vec<ListedRepo>,
    /// Plans by id.
    pub plans: Vec<ListedPlan>,
}

/// A repository's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRepo {
    /// What its owner calls it.
    pub id: String,
    /// Its identity.
    pub guid: Guid,
}

/// A plan's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPlan {
    /// What its owner calls it.
    pub id: String,
    /// Its repository's id.
    pub repo: String,
}

/// What `READ_CONFIG`, and `READ_WRITE_CONFIG` that implies it, show of a config.
pub fn shown(config: &Config, grants: &Grants) -> Shown {
    let allows = |scope: &Scope| grants.allows(GrantType::ReadConfig, scope);
    Shown {
        modno: config.modno(),
        repos: config
            .repos()
            .iter()
            .filter(|repo| allows(&repo_scope(repo.id())))
            .map(redacted_repo)
            .collect(),
        plans: config.plans().iter().filter(|plan| allows(&plan_scope(plan))).map(redacted_plan).collect(),
    }
}

/// What repositories and plans a peer may know of: those whose operations or whose config it may read.
pub fn resources(config: &Config, grants: &Grants) -> Resources {
    let allows = |scope: &Scope| {
        grants.allows(GrantType::ReadOperations, scope) || grants.allows(GrantType::ReadConfig, scope)
    };
    let repos = config.repos().iter().filter(|repo| allows(&repo_scope(repo.id())));
    let plans = config.plans().iter().filter(|plan| allows(&plan_scope(plan)));
    Resources {
        repos: repos.map(|repo| ListedRepo { id: repo.id().to_owned(), guid: repo.guid }).collect(),
        plans: plans.map(|plan| ListedPlan { id: plan.id.clone(), repo: plan.repo.clone() }).collect(),
    }
}

/// A repository as scopes judge it: no plan is called the empty text.
pub(super) fn repo_scope(id: &str) -> Scope {
    Scope { repo: id.to_owned(), plan: String::new() }
}

/// A plan as scopes judge it.
pub(super) fn plan_scope(plan: &Plan) -> Scope {
    Scope { repo: plan.repo.clone(), plan: plan.id.clone() }
}

impl Shown {
    /// From what a peer says it shows. Sizes and names are checked; a secret that the peer failed to redact is dropped
    /// here. The repository of a plan may be missing: it may be out of scope.
    pub fn new(modno: ConfigModno, repos: Vec<Repo>, plans: Vec<Plan>) -> Result<Self, Fault> {
        let mut repos: Vec<Repo> = repos.iter().map(redacted_repo).collect();
        let mut plans: Vec<Plan> = plans.iter().map(redacted_plan).collect();
        repos.sort_by(|a, b| a.id().cmp(b.id()));
        plans.sort_by(|a, b| a.id.cmp(&b.id));
        check::limits(&repos, &plans)?;
        repos.iter().try_for_each(|repo| check::settings(&repo.settings, Markers::Allowed))?;
        plans.iter().try_for_each(|plan| check::plan(plan, Markers::Allowed))?;
        Ok(Self { modno, repos, plans })
    }

    /// Everything of one's own config, for the operator's eyes: redacted all the same.
    pub fn all(config: &Config) -> Self {
        Self {
            modno: config.modno(),
            repos: config.repos().iter().map(redacted_repo).collect(),
            plans: config.plans().iter().map(redacted_plan).collect(),
        }
    }

    /// Of the config that it was taken from.
    pub const fn modno(&self) -> ConfigModno {
        self.modno
    }

    /// Repositories by id.
    pub fn repos(&self) -> &[Repo] {
        &self.repos
    }

    /// Plans by id.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }
}

impl Resources {
    /// Checks the sizes of what a peer says, and puts it in order.
    pub fn checked(mut self) -> Result<Self, Fault> {
        self.repos.sort_by(|a, b| a.id.cmp(&b.id));
        self.plans.sort_by(|a, b| a.id.cmp(&b.id));
        check::counts(self.repos.len(), self.plans.len())?;
        self.repos.iter().try_for_each(|repo| check::id(Object::repo(&repo.id), &repo.id))?;
        self.plans.iter().try_for_each(|plan| {
            check::id(Object::plan(&plan.id), &plan.id)?;
            check::id(Object::plan(&plan.id), &plan.repo)
        })?;
        Ok(self)
    }
}

fn redacted_repo(repo: &Repo) -> Repo {
    let mut repo = repo.clone();
    let settings = &mut repo.settings;
    settings.uri = settings.uri.shown();
    settings.password = settings.password.as_ref().map(|_| Secret::Redacted);
    settings.env.iter_mut().for_each(|variable| variable.value = Secret::Redacted);
    redact_hooks(&mut settings.hooks);
    repo
}

fn redacted_plan(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    redact_hooks(&mut plan.hooks);
    plan
}

fn redact_hooks(hooks: &mut [Hook]) {
    for hook in hooks {
        hook.command = Secret::Redacted;
    }
}
