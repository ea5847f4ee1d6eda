//! What a valid repository, plan and config are: sizes, names, and how they hang together.
//!
//! The same rules hold for what the operator writes, what a peer writes, what a peer shares and what a peer shows.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{EnvVar, Hook, Plan, Repo, RepoSettings, Retention};
use super::secret::Secret;
use crate::model::NumberFault;

/// Most repositories of one instance. The largest installations that were heard of have some dozens.
pub const MAX_REPOS: usize = 1_000;
/// Most plans of one instance.
pub const MAX_PLANS: usize = 1_000;
/// The longest id in bytes: it stands in every operation, and in scope lists.
pub const MAX_ID_BYTES: usize = 128;
/// The longest URI, path, exclude, flag or word of a command prefix in bytes: `PATH_MAX` of Linux.
pub const MAX_TEXT_BYTES: usize = 4_096;
/// The longest secret in bytes: room for a hook that is a script, or a key file as a variable.
pub const MAX_SECRET_BYTES: usize = 16 * 1024;
/// Most entries of one list of a repository or plan.
pub const MAX_ENTRIES: usize = 1_000;
/// The longest schedule or condition in bytes.
pub const MAX_WORDS_BYTES: usize = 256;
/// Largest number in a retention: a snapshot an hour for more than ten years.
pub const MAX_RETENTION: u32 = 100_000;
/// The whole config in bytes, so that it fits the largest message of an authenticated peer (1 MiB) with room to spare.
/// Counted so that no encoding of ours is larger: see [`weight_of_repo`].
pub const MAX_CONFIG_BYTES: usize = 768 * 1024;

/// What a text costs besides its bytes in any encoding of ours: a key of two bytes, a length of at most four.
const TEXT_OVERHEAD: usize = 8;
/// What an object costs besides its texts: guid, origin, retention, flags that are set, and its own framing.
const OBJECT_OVERHEAD: usize = 160;

/// What a rule or an error is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The repository that is called so.
    Repo(String),
    /// The plan that is called so.
    Plan(String),
}

impl Object {
    pub(super) fn repo(id: &str) -> Self {
        Self::Repo(id.to_owned())
    }

    pub(super) fn plan(id: &str) -> Self {
        Self::Plan(id.to_owned())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(id) => write!(f, "repository {id:?}"),
            Self::Plan(id) => write!(f, "plan {id:?}"),
        }
    }
}

/// Why parts are not a config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More objects than there may be.
    #[error("there are {count} {what}, at most {max} are allowed; delete some first")]
    TooMany {
        /// repositories or plans.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// More bytes than there may be.
    #[error(
        "the config takes {bytes} bytes, at most {MAX_CONFIG_BYTES} are allowed; shorten hooks and lists"
    )]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Two objects of one kind have one id.
    #[error("there is another {0} already; choose another id")]
    IdTaken(Object),
    /// Two repositories have one identity.
    #[error("{0} has the guid of another repository; leave the guid empty for a new one")]
    GuidTaken(Object),
    /// A plan without its repository.
    #[error(
        "plan {plan:?} needs repository {repo:?}, which does not exist; create it in the same change, or name another"
    )]
    NoRepo {
        /// The plan.
        plan: String,
        /// What it names.
        repo: String,
    },
    /// All numbers of changes are used up.
    #[error(transparent)]
    Exhausted(#[from] NumberFault),
    /// A field that is not valid.
    #[error("{field} of {object} {problem}")]
    Field {
        /// Whose.
        object: Object,
        /// Which.
        field: &'static str,
        /// What is wrong, and what was expected.
        problem: Problem,
    },
}

/// What is wrong with a field. Never says what the field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Empty.
    #[error("is empty; it must not be")]
    Empty,
    /// Too long.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// Too many of them.
    #[error("has more than {0} entries")]
    TooMany(usize),
    /// Two entries have one name.
    #[error("has two entries of one name; each name may come once")]
    Twice,
    /// A control character, or a NUL in a secret.
    #[error("contains a control character; write it without")]
    Control,
    /// Would be read as an argument of the tool.
    #[error(
        "begins with `-`, so that a tool would take it for a flag; write `./-…` for a file of such a name"
    )]
    Dash,
    /// Not a name that an environment can have.
    #[error("is not the name of an environment variable: expected letters, digits and `_`")]
    NotAName,
    /// Too large a number.
    #[error("is above {0}")]
    TooLargeNumber(u32),
    /// A marker where the value is needed.
    #[error("is only the marker of a value that is not shown; give the value")]
    Redacted,
}

/// Whether redacted values are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Markers {
    /// In what is shown, and in what is pushed back.
    Allowed,
    /// In what is kept and used.
    Refused,
}

/// Checks a whole config whose parts are sorted by id.
pub(super) fn whole(repos: &[Repo], plans: &[Plan]) -> Result<(), Fault> {
    limits(repos, plans)?;
    for repo in repos {
        settings(&repo.settings, Markers::Refused)?;
    }
    for each in plans {
        plan(each, Markers::Refused)?;
    }
    let mut guids = BTreeSet::new();
    if let Some(repo) = repos.iter().find(|repo| !guids.insert(repo.guid)) {
        return Err(Fault::GuidTaken(Object::repo(repo.id())));
    }
    let ids: BTreeSet<&str> = repos.iter().map(Repo::id).collect();
    match plans.iter().find(|plan| !ids.contains(plan.repo.as_str())) {
        Some(plan) => Err(Fault::NoRepo { plan: plan.id.clone(), repo: plan.repo.clone() }),
        None => Ok(()),
    }
}

/// Checks numbers, sizes and that ids are unique; parts are sorted by id.
pub(super) fn limits(repos: &[Repo], plans: &[Plan]) -> Result<(), Fault> {
    counts(repos.len(), plans.len())?;
    let bytes = repos.iter().map(|repo| weight_of_repo(&repo.settings)).sum::<usize>()
        + plans.iter().map(weight_of_plan).sum::<usize>();
    if bytes > MAX_CONFIG_BYTES {
        return Err(Fault::TooLarge { bytes });
    }
    for pair in repos.windows(2) {
        if let [a, b] = pair
            && a.id() == b.id()
        {
            return Err(Fault::IdTaken(Object::repo(b.id())));
        }
    }
    for pair in plans.windows(2) {
        if let [a, b] = pair
            && a.id == b.id
        {
            return Err(Fault::IdTaken(Object::plan(&b.id)));
        }
    }
    Ok(())
}

/// Checks numbers alone.
pub(super) fn counts(repos: usize, plans: usize) -> Result<(), Fault> {
    for (what, count, max) in [("repositories", repos, MAX_REPOS), ("plans", plans, MAX_PLANS)] {
        if count > max {
            return Err(Fault::TooMany { what, count, max });
        }
    }
    Ok(())
}

/// Checks one id by itself.
pub(super) fn id(object: Object, id: &str) -> Result<(), Fault> {
    Fields { object, markers: Markers::Refused }.id("id", id)
}

/// What a repository counts against [`MAX_CONFIG_BYTES`]: no less than any encoding of ours takes, redacted or not.
pub fn weight_of_repo(settings: &RepoSettings) -> usize {
    let texts = [&settings.id, &settings.schedule];
    OBJECT_OVERHEAD
        + settings.uri.len()
        + texts
            .into_iter()
            .chain(&settings.flags)
            .chain(&settings.command_prefix)
            .map(|text| weigh(text))
            .sum::<usize>()
        + settings.password.iter().map(weigh_secret).sum::<usize>()
        + settings
            .env
            .iter()
            .map(|variable| TEXT_OVERHEAD + weigh(&variable.name) + weigh_secret(&variable.value))
            .sum::<usize>()
        + weigh_hooks(&settings.hooks)
}

/// What a plan counts against [`MAX_CONFIG_BYTES`].
pub fn weight_of_plan(plan: &Plan) -> usize {
    let texts = [&plan.id, &plan.repo, &plan.schedule];
    let lists = [&plan.paths, &plan.excludes, &plan.iexcludes, &plan.flags];
    OBJECT_OVERHEAD
        + texts.into_iter().chain(lists.into_iter().flatten()).map(|text| weigh(text)).sum::<usize>()
        + weigh_hooks(&plan.hooks)
}

fn weigh(text: &str) -> usize {
    TEXT_OVERHEAD + text.len()
}

fn weigh_secret(secret: &Secret) -> usize {
    2 * TEXT_OVERHEAD + secret.expose().map_or(0, str::len)
}

fn weigh_hooks(hooks: &[Hook]) -> usize {
    let weigh = |hook: &Hook| {
        TEXT_OVERHEAD + weigh(&hook.name) + weigh(&hook.condition) + weigh_secret(&hook.command)
    };
    hooks.iter().map(weigh).sum()
}

/// Checks one repository by itself.
pub(super) fn settings(settings: &RepoSettings, markers: Markers) -> Result<(), Fault> {
    let fields = Fields { object: Object::repo(&settings.id), markers };
    fields.id("id", &settings.id)?;
    if settings.uri.len() == 0 {
        return Err(fields.fault("uri", Problem::Empty));
    }
    fields.text("uri", &settings.uri.shown_text())?;
    if settings.uri.len() > MAX_TEXT_BYTES {
        return Err(fields.fault("uri", Problem::TooLong(MAX_TEXT_BYTES)));
    }
    if settings.uri.expose().is_some_and(|text| text.chars().any(char::is_control)) {
        return Err(fields.fault("uri", Problem::Control));
    }
    if markers == Markers::Refused && settings.uri.is_redacted() {
        return Err(fields.fault("uri", Problem::Redacted));
    }
    settings.password.iter().try_for_each(|password| fields.secret("password", password))?;
    fields.env(&settings.env)?;
    fields.words("flags", &settings.flags)?;
    fields.words("command_prefix", &settings.command_prefix)?;
    fields.hooks(&settings.hooks)?;
    fields.short("schedule", &settings.schedule)?;
    fields.retention(&settings.retention)
}

/// Checks one plan by itself.
pub(super) fn plan(plan: &Plan, markers: Markers) -> Result<(), Fault> {
    let fields = Fields { object: Object::plan(&plan.id), markers };
    fields.id("id", &plan.id)?;
    fields.id("repo", &plan.repo)?;
    fields.list("paths", &plan.paths)?;
    fields.list("excludes", &plan.excludes)?;
    fields.list("iexcludes", &plan.iexcludes)?;
    fields.words("flags", &plan.flags)?;
    fields.hooks(&plan.hooks)?;
    fields.short("schedule", &plan.schedule)?;
    fields.retention(&plan.retention)
}

/// The fields of one object.
struct Fields {
    object: Object,
    markers: Markers,
}

impl Fields {
    fn fault(&self, field: &'static str, problem: Problem) -> Fault {
        Fault::Field { object: self.object.clone(), field, problem }
    }

    fn id(&self, field: &'static str, id: &str) -> Result<(), Fault> {
        self.sized(field, id, MAX_ID_BYTES)?;
        if id.is_empty() { Err(self.fault(field, Problem::Empty)) } else { Ok(()) }
    }

    fn sized(&self, field: &'static str, text: &str, max: usize) -> Result<(), Fault> {
        if text.len() > max {
            Err(self.fault(field, Problem::TooLong(max)))
        } else if text.chars().any(char::is_control) {
            Err(self.fault(field, Problem::Control))
        } else {
            Ok(())
        }
    }

    fn short(&self, field: &'static str, text: &str) -> Result<(), Fault> {
        self.sized(field, text, MAX_WORDS_BYTES)
    }

    /// A value that a tool gets as an argument of its own.
    fn text(&self, field: &'static str, text: &str) -> Result<(), Fault> {
        self.sized(field, text, MAX_TEXT_BYTES)?;
        if text.starts_with('-') { Err(self.fault(field, Problem::Dash)) } else { Ok(()) }
    }

    fn count<T>(&self, field: &'static str, list: &[T]) -> Result<(), Fault> {
        if list.len() > MAX_ENTRIES { Err(self.fault(field, Problem::TooMany(MAX_ENTRIES))) } else { Ok(()) }
    }

    fn list(&self, field: &'static str, list: &[String]) -> Result<(), Fault> {
        self.words(field, list)?;
        list.iter().try_for_each(|text| self.text(field, text))
    }

    fn words(&self, field: &'static str, list: &[String]) -> Result<(), Fault> {
        self.count(field, list)?;
        list.iter().try_for_each(|text| {
            self.sized(field, text, MAX_TEXT_BYTES)?;
            if text.is_empty() { Err(self.fault(field, Problem::Empty)) } else { Ok(()) }
        })
    }

    fn secret(&self, field: &'static str, secret: &Secret) -> Result<(), Fault> {
        let Some(value) = secret.expose() else {
            return match self.markers {
                Markers::Allowed => Ok(()),
                Markers::Refused => Err(self.fault(field, Problem::Redacted)),
            };
        };
        if value.len() > MAX_SECRET_BYTES {
            Err(self.fault(field, Problem::TooLong(MAX_SECRET_BYTES)))
        } else if value.contains('\0') {
            Err(self.fault(field, Problem::Control))
        } else {
            Ok(())
        }
    }

    fn env(&self, env: &[EnvVar]) -> Result<(), Fault> {
        self.count("env", env)?;
        let mut names = BTreeSet::new();
        env.iter().try_for_each(|variable| {
            self.sized("env", &variable.name, MAX_ID_BYTES)?;
            if !is_variable(&variable.name) {
                return Err(self.fault("env", Problem::NotAName));
            }
            if !names.insert(&variable.name) {
                return Err(self.fault("env", Problem::Twice));
            }
            self.secret("env", &variable.value)
        })
    }

    fn hooks(&self, hooks: &[Hook]) -> Result<(), Fault> {
        self.count("hooks", hooks)?;
        let mut names = BTreeSet::new();
        hooks.iter().try_for_each(|hook| {
            self.id("hooks", &hook.name)?;
            if !names.insert(&hook.name) {
                return Err(self.fault("hooks", Problem::Twice));
            }
            self.short("hooks", &hook.condition)?;
            self.secret("hooks", &hook.command)
        })
    }

    fn retention(&self, retention: &Retention) -> Result<(), Fault> {
        let Retention { last, hourly, daily, weekly, monthly, yearly } = *retention;
        if [last, hourly, daily, weekly, monthly, yearly].iter().any(|number| *number > MAX_RETENTION) {
            return Err(self.fault("retention", Problem::TooLargeNumber(MAX_RETENTION)));
        }
        Ok(())
    }
}

fn is_variable(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
