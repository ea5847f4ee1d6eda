//! Shared repositories: what a hub offers, and what the one that receives them makes of it.
//!
//! A received repository names its origin, cannot be changed here, is not shared onward, and is never deleted because
//! somebody else says so. One that is refused is left out by itself: the others are taken.

use std::collections::BTreeSet;
use std::fmt;

use super::allowed::{Allowed, Executable};
use super::change::{How, Touched};
use super::check::{self, Fault, MAX_CONFIG_BYTES, MAX_REPOS, Markers, Object};
use super::model::{Config, Guid, Origin, Plan, Repo, RepoSettings, Retention, SharedRepo, Standing};
use super::shown::repo_scope;
use crate::model::KeyId;
use crate::permission::{GrantType, Grants};

/// What came of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The config now.
    pub config: Config,
    /// What is different. Empty: nothing is, and the modno is the old one.
    pub touched: Vec<Touched>,
    /// What was left out, in the order of the offer.
    pub refused: Vec<RefusedShare>,
}

/// An offered repository that was not taken. What an earlier offer brought stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedShare {
    /// What its owner calls it.
    pub id: String,
    /// Its identity.
    pub guid: Guid,
    /// Why.
    pub rule: ShareRule,
}

/// Why an offered repository is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareRule {
    /// Not among what we accept from this peer.
    #[error("it is not in the scopes of the RECEIVE_SHARED_REPOS that this peer was given")]
    OutOfScope,
    /// It would run programs here.
    #[error("a peer may not set {0}")]
    Executable(Executable),
    /// Its identity is a local repository's, or one received from another peer.
    #[error("its guid is that of another repository here; compare the two with `opmesh config get`")]
    GuidTaken,
    /// Its id is.
    #[error("another repository here is called so; rename one of the two")]
    IdTaken,
    /// Its URI is.
    #[error("another repository here has its URI; delete the local one to use the shared one")]
    UriTaken,
    /// It has another id than before, and plans use the old one.
    #[error("it was called {0:?} and plans here use that name; move them first")]
    RenamedInUse(String),
    /// Named twice in one offer.
    #[error("its guid or its id comes twice in the offer; its owner must mend that")]
    Twice,
    /// Not a valid repository, or too much.
    #[error(transparent)]
    Invalid(Fault),
}

impl ShareRule {
    /// The rule, as answers and audit records name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OutOfScope => "out_of_scope",
            Self::Executable(_) => "executable",
            Self::GuidTaken => "guid_taken",
            Self::IdTaken => "id_taken",
            Self::UriTaken => "uri_taken",
            Self::RenamedInUse(_) => "renamed_in_use",
            Self::Twice => "twice",
            Self::Invalid(_) => "invalid",
        }
    }
}

impl fmt::Display for RefusedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository {:?} ({}): {}", self.id, self.guid, self.rule)
    }
}

/// What a peer is offered: our own repositories that are shared and in the scopes of its `RECEIVE_SHARED_REPOS`, with
/// the secrets that opening them needs. Hooks and command prefixes are never sent, and maintenance stays with us.
pub fn shared_for(config: &Config, grants: &Grants) -> Vec<SharedRepo> {
    let offered = |repo: &&Repo| {
        repo.origin.is_none()
            && repo.settings.shared
            && grants.allows(GrantType::ReceiveSharedRepos, &repo_scope(repo.id()))
    };
    config.repos().iter().filter(offered).map(offer).collect()
}

fn offer(repo: &Repo) -> SharedRepo {
    let settings = RepoSettings {
        hooks: Vec::new(),
        command_prefix: Vec::new(),
        schedule: String::new(),
        retention: Retention::default(),
        ..repo.settings.clone()
    };
    SharedRepo { guid: repo.guid, settings }
}

/// Takes what a peer offers, within the scopes of the `RECEIVE_SHARED_REPOS` that we gave it. An offer is whole: what
/// came from this peer before and is not named any more is marked as withdrawn.
pub fn take_shared(
    config: &Config,
    from: KeyId,
    grants: &Grants,
    offered: &[SharedRepo],
    allowed: &Allowed,
) -> Result<Taken, Fault> {
    let mut work = Work::new(config, from);
    let mut refused = Vec::new();
    for (index, offer) in offered.iter().enumerate() {
        let earlier = offered.get(..index).unwrap_or_default();
        let taken = if index < MAX_REPOS {
            work.take(offer, earlier, grants, allowed)
        } else {
            // Nobody has so many, and looking at each would cost more than reading it.
            Err(too_many(offered.len()))
        };
        if let Err(rule) = taken {
            refused.push(RefusedShare { id: shortened(&offer.settings.id), guid: offer.guid, rule });
        }
    }
    let named: BTreeSet<Guid> = offered.iter().map(|offer| offer.guid).collect();
    let still = |repo: &Repo| may_come(grants, repo.id()) && named.contains(&repo.guid);
    work.withdraw_unless(still);
    let (config, touched) = work.finish()?;
    Ok(Taken { config, touched, refused })
}

/// Marks what came from this peer and may not come any more as withdrawn: all of it when the peer was removed, which
/// is said by grants of nothing. Nothing is deleted.
pub fn withdraw(config: &Config, from: KeyId, grants: &Grants) -> Result<Taken, Fault> {
    let mut work = Work::new(config, from);
    work.withdraw_unless(|repo| may_come(grants, repo.id()));
    let (config, touched) = work.finish()?;
    Ok(Taken { config, touched, refused: Vec::new() })
}

fn may_come(grants: &Grants, id: &str) -> bool {
    grants.allows(GrantType::ReceiveSharedRepos, &repo_scope(id))
}

fn too_many(count: usize) -> ShareRule {
    ShareRule::Invalid(Fault::TooMany { what: "repositories", count, max: MAX_REPOS })
}

/// An id for a report, also when it is longer than an id may be.
fn shortened(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(check::MAX_ID_BYTES).collect()
}

/// An offer that is being taken.
struct Work<'a> {
    config: &'a Config,
    from: KeyId,
    repos: Vec<Repo>,
    bytes: usize,
    touched: Vec<Touched>,
}

impl<'a> Work<'a> {
    fn new(config: &'a Config, from: KeyId) -> Self {
        let bytes = config.repos().iter().map(|repo| check::weight_of_repo(&repo.settings)).sum::<usize>()
            + config.plans().iter().map(check::weight_of_plan).sum::<usize>();
        Self { config, from, repos: config.repos().to_vec(), bytes, touched: Vec::new() }
    }

    fn take(
        &mut self,
        offer: &SharedRepo,
        earlier: &[SharedRepo],
        grants: &Grants,
        allowed: &Allowed,
    ) -> Result<(), ShareRule> {
        let settings = RepoSettings { shared: false, ..offer.settings.clone() };
        check::settings(&settings, Markers::Refused).map_err(ShareRule::Invalid)?;
        let same = |other: &SharedRepo| other.guid == offer.guid || other.settings.id == settings.id;
        if earlier.iter().any(same) {
            return Err(ShareRule::Twice);
        }
        if !may_come(grants, &settings.id) {
            return Err(ShareRule::OutOfScope);
        }
        if let Some(executable) = allowed.refuses_repo(&settings, None) {
            return Err(ShareRule::Executable(executable));
        }
        let held = self.repos.iter().position(|repo| repo.guid == offer.guid);
        self.check_others(offer.guid, &settings)?;
        let repo = Repo {
            guid: offer.guid,
            origin: Some(Origin { from: self.from, standing: Standing::Shared }),
            settings,
        };
        let weight = check::weight_of_repo(&repo.settings);
        let Some(held) = held.and_then(|at| self.repos.get_mut(at)) else {
            self.check_room(1, weight)?;
            self.bytes += weight;
            self.touched.push(Touched { object: Object::repo(repo.id()), how: How::Created });
            self.repos.push(repo);
            return Ok(());
        };
        if *held != repo {
            let before = check::weight_of_repo(&held.settings);
            if self.bytes - before + weight > MAX_CONFIG_BYTES {
                return Err(ShareRule::Invalid(Fault::TooLarge { bytes: self.bytes - before + weight }));
            }
            self.bytes = self.bytes - before + weight;
            self.touched.push(Touched { object: Object::repo(repo.id()), how: How::Changed });
            *held = repo;
        }
        Ok(())
    }

    /// What is here already and must not be touched by this peer.
    fn check_others(&self, guid: Guid, settings: &RepoSettings) -> Result<(), ShareRule> {
        for other in &self.repos {
            if other.guid == guid {
                if other.origin.is_none_or(|origin| origin.from != self.from) {
                    return Err(ShareRule::GuidTaken);
                }
                let renamed = other.id() != settings.id;
                let used = |plan: &Plan| plan.repo == other.id();
                if renamed && self.config.plans().iter().any(used) {
                    return Err(ShareRule::RenamedInUse(other.id().to_owned()));
                }
            } else if other.id() == settings.id {
                return Err(ShareRule::IdTaken);
            } else if other.settings.uri == settings.uri {
                return Err(ShareRule::UriTaken);
            }
        }
        Ok(())
    }

    fn check_room(&self, repos: usize, weight: usize) -> Result<(), ShareRule> {
        let (count, bytes) = (self.repos.len() + repos, self.bytes + weight);
        if count > MAX_REPOS {
            return Err(too_many(count));
        }
        if bytes > MAX_CONFIG_BYTES {
            return Err(ShareRule::Invalid(Fault::TooLarge { bytes }));
        }
        Ok(())
    }

    fn withdraw_unless(&mut self, still: impl Fn(&Repo) -> bool) {
        let shared = Origin { from: self.from, standing: Standing::Shared };
        for repo in &mut self.repos {
            if repo.origin == Some(shared) && !still(repo) {
                repo.origin = Some(Origin { standing: Standing::Withdrawn, ..shared });
                self.touched.push(Touched { object: Object::repo(repo.id()), how: How::Withdrawn });
            }
        }
    }

    fn finish(self) -> Result<(Config, Vec<Touched>), Fault> {
        if self.touched.is_empty() {
            return Ok((self.config.clone(), self.touched));
        }
        let config = self.config.changed(self.repos, self.config.plans().to_vec())?;
        Ok((config, self.touched))
    }
}
