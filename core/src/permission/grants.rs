//! Grants: what the other side may do with our things, one scope list for each type.
//!
//! Written `TYPE:SCOPE[,SCOPE…]`. What is not granted is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::scopes::{self, ScopeFault, Scopes, Term};
use crate::model::Scope;

/// What a grant allows the peer to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GrantType {
    /// Hold a copy of our operations.
    ReadOperations,
    /// Read our configuration, secrets redacted.
    ReadConfig,
    /// Read our configuration and ask us to change it.
    ReadWriteConfig,
    /// Receive the repositories that we share.
    ReceiveSharedRepos,
}

impl GrantType {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 4] =
        [Self::ReadOperations, Self::ReadConfig, Self::ReadWriteConfig, Self::ReceiveSharedRepos];

    /// The word that is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOperations => "READ_OPERATIONS",
            Self::ReadConfig => "READ_CONFIG",
            Self::ReadWriteConfig => "READ_WRITE_CONFIG",
            Self::ReceiveSharedRepos => "RECEIVE_SHARED_REPOS",
        }
    }

    /// The type that allows all that this one does, and more.
    const fn implied_by(self) -> Option<Self> {
        match self {
            Self::ReadConfig => Some(Self::ReadWriteConfig),
            Self::ReadOperations | Self::ReadWriteConfig | Self::ReceiveSharedRepos => None,
        }
    }
}

/// Why a text is not a grant, or cannot be revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantFault {
    /// Not one of the types.
    #[error(
        "{0:?} is not a type of grant: expected READ_OPERATIONS, READ_CONFIG, READ_WRITE_CONFIG or \
         RECEIVE_SHARED_REPOS"
    )]
    UnknownType(String),
    /// A type alone.
    #[error("{0} lacks its scopes: write `{0}:*` for everything, or `{0}:repo:ID`")]
    NoScopes(GrantType),
    /// The scopes are not a list.
    #[error("in the scopes of {kind}: {fault}")]
    Scopes {
        /// The type in front of them.
        kind: GrantType,
        /// What is wrong with them.
        #[source]
        fault: ScopeFault,
    },
    /// Revoking what is not granted at all.
    #[error(
        "{0} is not granted, so that nothing of it can be revoked: see the grants with `opmesh peer show`"
    )]
    NotGranted(GrantType),
    /// Revoking a scope that may be included, but not because it is listed.
    #[error("{scope} is not listed in `{kind}:{listed}`: to exclude it, grant `{kind}:{listed},!{scope}`")]
    NotListed {
        /// The scope.
        scope: String,
        /// Its type.
        kind: GrantType,
        /// The scopes that are.
        listed: String,
    },
    /// Revoking an exclusion, or everything, that is not listed; there is no `!SCOPE` that could be meant.
    #[error("{scope} is not listed in `{kind}:{listed}`: revoke a scope that is, or `{kind}` altogether")]
    NothingToRevoke {
        /// The scope.
        scope: String,
        /// Its type.
        kind: GrantType,
        /// The scopes that are.
        listed: String,
    },
}

/// One type with its scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What is allowed.
    pub kind: GrantType,
    /// With which operations, or with the configuration of which repositories and plans.
    pub scopes: Scopes,
}

/// What one peer may do: at most one list of scopes for each type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(BTreeMap<GrantType, Scopes>);

impl Grants {
    /// Reads grants, each `TYPE:SCOPE,…`. A type that comes twice gets the scopes of both.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, GrantFault> {
        let mut grants = Self::default();
        for text in texts {
            let grant: Grant = text.as_ref().parse()?;
            let kind = grant.kind;
            let scopes = grants.0.entry(kind).or_default();
            scopes.extend(grant.scopes);
            scopes.check_length().map_err(|fault| GrantFault::Scopes { kind, fault })?;
        }
        Ok(grants)
    }

    /// Reads what a peer says that it grants. What cannot be read is a newer version's, and left out.
    pub fn understood<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        texts.into_iter().filter_map(|text| text.as_ref().parse::<Grant>().ok()).collect()
    }

    /// Whether anything at all is granted of this type. Which other types imply it is not looked at.
    pub fn names(&self, kind: GrantType) -> bool {
        self.0.contains_key(&kind)
    }

    /// Puts this list in the place of the one that the type had. [`Scopes::nothing`] removes the type.
    pub fn replace(&mut self, grant: Grant) {
        if grant.scopes.has_inclusion() {
            self.0.insert(grant.kind, grant.scopes);
        } else {
            self.0.remove(&grant.kind);
        }
    }

    /// Takes back `TYPE`, or of `TYPE:SCOPE,…` exactly the scopes listed. A scope that is not in the list of its type
    /// is an error, and nothing changes. A type of which no inclusion is left goes altogether.
    pub fn revoke(&mut self, text: &str) -> Result<(), GrantFault> {
        let (kind, scopes) = match text.split_once(':') {
            Some((kind, scopes)) => (kind.parse::<GrantType>()?, Some(scopes)),
            None => (text.parse::<GrantType>()?, None),
        };
        let granted = self.0.get(&kind).ok_or(GrantFault::NotGranted(kind))?;
        let Some(scopes) = scopes else {
            self.0.remove(&kind);
            return Ok(());
        };
        let mut left = granted.clone();
        for term in scopes::terms(scopes).map_err(|fault| GrantFault::Scopes { kind, fault })? {
            if !left.remove(&term) {
                return Err(not_listed(&term, kind, granted));
            }
        }
        self.replace(Grant { kind, scopes: left });
        Ok(())
    }

    /// Whether the peer may do this with things of this repository and plan. The one decision over grants: a type
    /// that implies another allows what the other does, by its own list.
    pub fn allows(&self, kind: GrantType, scope: &Scope) -> bool {
        let listed = |kind: GrantType| self.0.get(&kind).is_some_and(|scopes| scopes.includes(scope));
        listed(kind) || kind.implied_by().is_some_and(listed)
    }

    /// The list written for this type; nothing if there is none. Which other types imply it is not in the list:
    /// decide with [`Grants::allows`].
    pub fn scopes_of(&self, kind: GrantType) -> Scopes {
        self.0.get(&kind).cloned().unwrap_or_default()
    }

    /// Each type with its list, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = Grant> + '_ {
        self.0.iter().map(|(kind, scopes)| Grant { kind: *kind, scopes: scopes.clone() })
    }

    /// Each grant as canonical text, in a fixed order: what [`Grants::parse`] reads.
    pub fn to_strings(&self) -> Vec<String> {
        self.iter().map(|grant| grant.to_string()).collect()
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The fault of revoking a scope that is not in the list; it names the `!SCOPE` that may have been meant.
fn not_listed(term: &Term, kind: GrantType, granted: &Scopes) -> GrantFault {
    let (scope, listed) = (term.to_string(), granted.to_string());
    match term {
        Term::Include(..) => GrantFault::NotListed { scope, kind, listed },
        Term::Everything | Term::Exclude(..) => GrantFault::NothingToRevoke { scope, kind, listed },
    }
}

impl FromIterator<Grant> for Grants {
    /// A type that comes twice gets the later list.
    fn from_iter<I: IntoIterator<Item = Grant>>(grants: I) -> Self {
        let mut all = Self::default();
        grants.into_iter().for_each(|grant| all.replace(grant));
        all
    }
}

impl fmt::Display for GrantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GrantType {
    type Err = GrantFault;

    fn from_str(text: &str) -> Result<Self, GrantFault> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| GrantFault::UnknownType(text.to_owned()))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.scopes)
    }
}

impl FromStr for Grant {
    type Err = GrantFault;

    fn from_str(text: &str) -> Result<Self, GrantFault> {
        let Some((kind, scopes)) = text.split_once(':') else {
            return Err(GrantFault::NoScopes(text.parse()?));
        };
        let kind = kind.parse()?;
        let scopes = scopes.parse().map_err(|fault| GrantFault::Scopes { kind, fault })?;
        Ok(Self { kind, scopes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scopes::tests::any_scopes;
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        Grants::parse(texts).unwrap()
    }

    fn scope(repo: &str, plan: &str) -> Scope {
        Scope { repo: repo.to_owned(), plan: plan.to_owned() }
    }

    #[test]
    fn write_implies_read_and_nothing_else_implies_anything() {
        let write = grants(&["READ_WRITE_CONFIG:repo:a"]);
        assert!(write.allows(GrantType::ReadConfig, &scope("a", "p")));
        assert!(!write.allows(GrantType::ReadConfig, &scope("b", "p")));
        assert!(!write.allows(GrantType::ReadOperations, &scope("a", "p")));
        let read = grants(&["READ_CONFIG:*"]);
        assert!(!read.allows(GrantType::ReadWriteConfig, &scope("a", "p")));
        assert!(GrantType::ALL.iter().all(|kind| !Grants::default().allows(*kind, &scope("a", "p"))));
    }

    #[test]
    fn what_a_newer_version_grants_is_left_out_of_what_is_understood() {
        let said = Grants::understood(["READ_CONFIG:*", "FLY_TO_THE_MOON:*", "READ_OPERATIONS:planet:x"]);
        assert_eq!(said.to_strings(), ["READ_CONFIG:*"]);
        assert!(said.names(GrantType::ReadConfig) && !said.names(GrantType::ReadOperations));
    }

    #[test]
    fn a_grant_without_usable_scopes_is_refused_with_the_fix() {
        let fault = |text: &str| text.parse::<Grant>().unwrap_err().to_string();
        assert!(fault("READ_OPERATIONS").contains("`READ_OPERATIONS:*`"));
        assert!(fault("READ_OPERATIONS:").contains("`*` for everything"));
        assert!(fault("READ_OPERATIONS:!plan:secret").contains("`*,!plan:secret`"));
        assert!(fault("READ:*").contains("READ_CONFIG"));
        assert!(fault("*").contains("not a type of grant"));
    }

    #[test]
    fn a_type_written_twice_has_the_scopes_of_both_and_replacing_it_has_the_new_ones() {
        let mut all = grants(&["READ_OPERATIONS:repo:b", "READ_CONFIG:*", "READ_OPERATIONS:repo:a,!plan:p"]);
        assert_eq!(all.to_strings(), ["READ_OPERATIONS:repo:a,repo:b,!plan:p", "READ_CONFIG:*"]);
        all.replace("READ_OPERATIONS:repo:c".parse().unwrap());
        assert_eq!(all.to_strings(), ["READ_OPERATIONS:repo:c", "READ_CONFIG:*"]);
        all.replace(Grant { kind: GrantType::ReadConfig, scopes: Scopes::nothing() });
        assert_eq!(all.to_strings(), ["READ_OPERATIONS:repo:c"]);
        assert_eq!(all.scopes_of(GrantType::ReadOperations).to_string(), "repo:c");
        assert!(all.scopes_of(GrantType::ReadConfig).is_nothing());
    }

    #[test]
    fn two_lists_of_one_type_are_together_no_longer_than_one_may_be() {
        let most =
            |id: &str| format!("READ_CONFIG:repo:{}", id.repeat(super::super::MAX_SCOPES_BYTES * 2 / 3));
        assert!(Grants::parse([most("a")]).is_ok());
        let fault = Grants::parse([most("a"), most("b")]).unwrap_err();
        assert!(matches!(fault, GrantFault::Scopes { fault: ScopeFault::TooLong { .. }, .. }));
    }

    #[test]
    fn revoking_takes_exactly_the_listed_scopes() {
        let mut all = grants(&["READ_OPERATIONS:*,repo:a,!plan:secret"]);
        all.revoke("READ_OPERATIONS:repo:a").unwrap();
        assert_eq!(all.to_strings(), ["READ_OPERATIONS:*,!plan:secret"]);
        all.revoke("READ_OPERATIONS:!plan:secret").unwrap();
        assert_eq!(all.to_strings(), ["READ_OPERATIONS:*"]);
    }

    #[test]
    fn a_type_without_inclusions_goes_and_so_does_one_revoked_by_name() {
        let mut all = grants(&["READ_OPERATIONS:repo:a,plan:b,!plan:c", "READ_CONFIG:*"]);
        all.revoke("READ_OPERATIONS:plan:b,repo:a").unwrap();
        assert_eq!(all.to_strings(), ["READ_CONFIG:*"]);
        all.revoke("READ_CONFIG").unwrap();
        assert!(all.is_empty());
        assert_eq!(all.revoke("READ_CONFIG"), Err(GrantFault::NotGranted(GrantType::ReadConfig)));
    }

    #[test]
    fn revoking_what_is_not_listed_changes_nothing_and_names_the_exclusion() {
        let mut all = grants(&["READ_OPERATIONS:*,repo:a"]);
        let before = all.clone();
        let fault = all.revoke("READ_OPERATIONS:repo:a,plan:x").unwrap_err();
        assert!(matches!(fault, GrantFault::NotListed { .. }));
        assert!(fault.to_string().contains("`READ_OPERATIONS:*,repo:a,!plan:x`"), "{fault}");
        for text in ["READ_OPERATIONS:!repo:a", "READ_OPERATIONS:repo:a,repo:a", "READ_OPERATIONS:", "READ"] {
            assert!(all.revoke(text).is_err(), "{text}");
        }
        assert_eq!(all, before);
    }

    proptest! {
        #[test]
        fn any_grants_survive_printing_and_reading(lists in proptest::array::uniform4(any_scopes())) {
            let all: Grants =
                GrantType::ALL.into_iter().zip(lists).map(|(kind, scopes)| Grant { kind, scopes }).collect();
            prop_assert_eq!(Grants::parse(all.to_strings()).unwrap(), all);
        }

        #[test]
        fn revoking_all_that_was_listed_leaves_nothing(scopes in any_scopes()) {
            let grant = Grant { kind: GrantType::ReadOperations, scopes };
            let mut all: Grants = [grant.clone()].into_iter().collect();
            if !all.is_empty() {
                all.revoke(&grant.to_string()).unwrap();
            }
            prop_assert!(all.is_empty());
        }
    }
}
