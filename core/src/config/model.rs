//! Repositories, plans and the config that holds them: plain data.
//!
//! A [`Config`] that exists is valid: see [`super::check`]. What comes from outside comes as parts, as
//! [`super::Change`] or as [`SharedRepo`], and becomes part of a config by a rule only.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use super::check::{self, Fault};
use super::secret::{Secret, Uri};
use crate::model::{ConfigModno, KeyId};

/// The repositories and plans of one instance, ordered by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    modno: ConfigModno,
    repos: Vec<Repo>,
    plans: Vec<Plan>,
}

/// A repository that an instance knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// Its own identity, whatever it is called.
    pub guid: Guid,
    /// Where it comes from; none when it is this instance's own.
    pub origin: Option<Origin>,
    /// All that can be changed.
    pub settings: RepoSettings,
}

/// What may be changed of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSettings {
    /// The name that operations, plans and scopes use.
    pub id: String,
    /// Where it lies.
    pub uri: Uri,
    /// What opens it.
    pub password: Option<Secret>,
    /// Environment of the tool.
    pub env: Vec<EnvVar>,
    /// Arguments of the tool, each one whole and never split.
    pub flags: Vec<String>,
    /// What is put before the tool's name.
    pub command_prefix: Vec<String>,
    /// What is run when something happens.
    pub hooks: Vec<Hook>,
    /// When it is maintained, in the words of whoever runs it; empty = never.
    pub schedule: String,
    /// What maintenance keeps.
    pub retention: Retention,
    /// Offered to the peers that may receive shared repositories.
    pub shared: bool,
}

/// A backup plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The name that operations and scopes use.
    pub id: String,
    /// The repository's id.
    pub repo: String,
    /// What is backed up.
    pub paths: Vec<String>,
    /// What is left out.
    pub excludes: Vec<String>,
    /// What is left out, upper and lower case being one.
    pub iexcludes: Vec<String>,
    /// When it runs, in the words of whoever runs it; empty = only by hand.
    pub schedule: String,
    /// Which snapshots stay.
    pub retention: Retention,
    /// What is run when something happens.
    pub hooks: Vec<Hook>,
    /// Arguments of the tool's backup command, each one whole and never split.
    pub flags: Vec<String>,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
}

/// A command that is run when something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What it is called; unique among the hooks of its repository or plan.
    pub name: String,
    /// When it is run, in the words of whoever runs it.
    pub condition: String,
    /// What is run.
    pub command: Secret,
}

/// How many snapshots stay; all zero = every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The newest ones.
    pub last: u32,
    /// One an hour.
    pub hourly: u32,
    /// One a day.
    pub daily: u32,
    /// One a week.
    pub weekly: u32,
    /// One a month.
    pub monthly: u32,
    /// One a year.
    pub yearly: u32,
}

/// Which peer shares a received repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Its key.
    pub from: KeyId,
    /// Whether it still does.
    pub standing: Standing,
}

/// Whether a received repository is still shared with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Shared,
    /// It is not any more: un-shared, out of scope, or its peer was removed. It stays until the operator deletes it.
    Withdrawn,
}

/// A repository as it is shared: with the secrets that opening it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRepo {
    /// Its identity, the same at every instance.
    pub guid: Guid,
    /// Everything else.
    pub settings: RepoSettings,
}

/// A repository's identity: 32 bytes, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid([u8; 32]);

/// Randomness for the repositories that one change creates.
#[derive(Clone, Copy)]
pub struct GuidSeed(pub [u8; 32]);

/// Separates these hashes from every other use of BLAKE3.
const GUID_CONTEXT: &str = "opmesh repo guid 1";

/// A text that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a guid: expected 64 lower-case hex digits, or nothing for a new repository")]
pub struct GuidFault(pub String);

impl Config {
    /// Puts parts together in the order of their ids, if they are valid together.
    pub fn new(modno: ConfigModno, mut repos: Vec<Repo>, mut plans: Vec<Plan>) -> Result<Self, Fault> {
        repos.sort_by(|a, b| a.settings.id.cmp(&b.settings.id));
        plans.sort_by(|a, b| a.id.cmp(&b.id));
        check::whole(&repos, &plans)?;
        Ok(Self { modno, repos, plans })
    }

    /// The next config, with these parts.
    pub(super) fn changed(&self, repos: Vec<Repo>, plans: Vec<Plan>) -> Result<Self, Fault> {
        Self::new(self.modno.next()?, repos, plans)
    }

    /// How often it has been changed.
    pub const fn modno(&self) -> ConfigModno {
        self.modno
    }

    /// All repositories, own and received, by id.
    pub fn repos(&self) -> &[Repo] {
        &self.repos
    }

    /// All plans, by id.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// The repository that is called so.
    pub fn repo(&self, id: &str) -> Option<&Repo> {
        self.repos.iter().find(|repo| repo.settings.id == id)
    }

    /// The repository with this identity.
    pub fn repo_by_guid(&self, guid: &Guid) -> Option<&Repo> {
        self.repos.iter().find(|repo| repo.guid == *guid)
    }

    /// The plan that is called so.
    pub fn plan(&self, id: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.id == id)
    }
}

impl Repo {
    /// The name that operations, plans and scopes use.
    pub fn id(&self) -> &str {
        &self.settings.id
    }
}

impl Guid {
    /// From 32 bytes, as a tool or a store keeps it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl GuidSeed {
    /// The identity of the n-th repository that this change creates.
    pub(super) fn guid(&self, number: u64) -> Guid {
        let mut hasher = blake3::Hasher::new_derive_key(GUID_CONTEXT);
        Guid(hasher.update(&self.0).update(&number.to_le_bytes()).finalize().into())
    }
}

impl fmt::Debug for GuidSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuidSeed(..)")
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guid(")?;
        fmt::Display::fmt(self, f)?;
        f.write_char(')')
    }
}

impl FromStr for Guid {
    type Err = GuidFault;

    fn from_str(text: &str) -> Result<Self, GuidFault> {
        let fault = || GuidFault(text.chars().take(80).collect());
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return Err(fault());
        }
        let mut digits = text.chars().map(|c| c.to_digit(16).filter(|_| !c.is_ascii_uppercase()));
        for byte in &mut bytes {
            let mut digit = || digits.next().flatten().and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err(fault()) };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_64_lower_case_hex_digits() {
        let guid = GuidSeed([7; 32]).guid(0);
        assert_eq!(guid.to_string().parse::<Guid>().unwrap(), guid);
        assert_ne!(guid, GuidSeed([7; 32]).guid(1));
        let text = guid.to_string();
        for bad in [
            "",
            "ab",
            &text.to_uppercase(),
            &format!("{text}0"),
            &format!("g{}", &text[1..]),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Guid>().is_err(), "{bad}");
        }
    }
}
