//! Scope lists: the text `SCOPE,SCOPE` and the one function that decides what it includes.
//!
//! A scope is `*`, `repo:ID`, `plan:ID`, `!repo:ID` or `!plan:ID`. In an id, `%`, `,` and control characters stand
//! percent-encoded, so that a list is one line and splits at its commas.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::model::Scope;

/// The longest scope list as text. Four grants of this size take a sixteenth of the largest message of an
/// authenticated peer; it holds some five hundred ids of ordinary length.
pub const MAX_SCOPES_BYTES: usize = 16 * 1024;

/// A list that says which operations are meant, or nothing at all.
///
/// An operation is excluded if its repository or its plan is, whatever else the list says; otherwise it is included
/// by `*`, its repository or its plan. The list is kept as it was written, without order and repetition, also where
/// one scope makes another superfluous: what was granted can be revoked word for word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes {
    everything: bool,
    repos: Ids,
    plans: Ids,
}

/// The ids of one dimension that a list names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ids {
    included: BTreeSet<String>,
    excluded: BTreeSet<String>,
}

/// What a list says about one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    included: bool,
    excluded: bool,
}

/// One member of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    Everything,
    Include(Dimension, String),
    Exclude(Dimension, String),
}

/// What an id is the id of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    Repo,
    Plan,
}

/// Why a text is not a scope list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeFault {
    /// No scope at all.
    #[error("the list of scopes is empty: write `*` for everything, or `repo:ID` or `plan:ID`")]
    Empty,
    /// Only exclusions: they take from what is included, and nothing is.
    #[error("{0} only excludes, so that nothing would be included: add `*` before it, as in `*,{0}`")]
    OnlyExclusions(String),
    /// Not one of the five forms.
    #[error("{0:?} is not a scope: expected `*`, `repo:ID`, `plan:ID`, `!repo:ID` or `!plan:ID`")]
    NotAScope(String),
    /// `repo:` or the like with nothing after it.
    #[error("{0:?} names no id: write one after the colon, or `*` for everything")]
    NoId(String),
    /// A `%` that is not followed by two hex digits, or bytes that are not UTF-8.
    #[error("{0:?} is not percent-encoded UTF-8: write `%25` for a percent sign and `%2C` for a comma")]
    Encoding(String),
    /// A control character as it is.
    #[error("{0:?} contains a control character: write it percent-encoded, as in `%0A`")]
    Control(String),
    /// Longer than any list may be.
    #[error(
        "the list of scopes has {bytes} bytes, {MAX_SCOPES_BYTES} are allowed: name plans by their repository"
    )]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

impl Scopes {
    /// The list that includes nothing. It prints as the empty text.
    pub const fn nothing() -> Self {
        Self { everything: false, repos: Ids::none(), plans: Ids::none() }
    }

    /// The list `*`.
    pub const fn everything() -> Self {
        Self { everything: true, repos: Ids::none(), plans: Ids::none() }
    }

    /// Reads a list that a program wrote: a peer or a store. The empty text is [`Scopes::nothing`]; what a person
    /// writes is read by [`FromStr`], where an empty list is an error.
    pub fn from_wire(text: &str) -> Result<Self, ScopeFault> {
        if text.is_empty() { Ok(Self::nothing()) } else { text.parse() }
    }

    /// Whether an operation of this repository and plan is included. The ids are compared byte for byte.
    pub fn includes(&self, scope: &Scope) -> bool {
        self.decide(self.repos.standing(Some(&scope.repo)), self.plans.standing(Some(&scope.plan)))
    }

    /// Whether the list includes nothing because it is empty.
    pub fn is_nothing(&self) -> bool {
        *self == Self::nothing()
    }

    /// The rule itself.
    const fn decide(&self, repo: Standing, plan: Standing) -> bool {
        let excluded = repo.excluded || plan.excluded;
        !excluded && (self.everything || repo.included || plan.included)
    }

    /// Whether any scope includes something.
    pub(super) fn has_inclusion(&self) -> bool {
        self.everything || !self.repos.included.is_empty() || !self.plans.included.is_empty()
    }

    /// Adds a scope; true if it was not in the list.
    pub(super) fn insert(&mut self, term: Term) -> bool {
        match term {
            Term::Everything => !std::mem::replace(&mut self.everything, true),
            Term::Include(dimension, id) => self.ids_mut(dimension).included.insert(id),
            Term::Exclude(dimension, id) => self.ids_mut(dimension).excluded.insert(id),
        }
    }

    /// Takes a scope out; false if it was not in the list.
    pub(super) fn remove(&mut self, term: &Term) -> bool {
        match term {
            Term::Everything => std::mem::replace(&mut self.everything, false),
            Term::Include(dimension, id) => self.ids_mut(*dimension).included.remove(id),
            Term::Exclude(dimension, id) => self.ids_mut(*dimension).excluded.remove(id),
        }
    }

    /// Adds every scope of another list.
    pub(super) fn extend(&mut self, other: Self) {
        self.everything |= other.everything;
        for (ours, theirs) in [(&mut self.repos, other.repos), (&mut self.plans, other.plans)] {
            ours.included.extend(theirs.included);
            ours.excluded.extend(theirs.excluded);
        }
    }

    const fn ids_mut(&mut self, dimension: Dimension) -> &mut Ids {
        match dimension {
            Dimension::Repo => &mut self.repos,
            Dimension::Plan => &mut self.plans,
        }
    }

    /// Refuses a list whose text could not be read back.
    pub(super) fn check_length(&self) -> Result<(), ScopeFault> {
        limit(&self.to_string())
    }

    /// Every scope, in the order of the canonical text.
    fn terms(&self) -> impl Iterator<Item = Term> + '_ {
        let by = |ids: &'_ BTreeSet<String>, make: fn(String) -> Term| -> Vec<Term> {
            ids.iter().cloned().map(make).collect()
        };
        self.everything
            .then_some(Term::Everything)
            .into_iter()
            .chain(by(&self.repos.included, |id| Term::Include(Dimension::Repo, id)))
            .chain(by(&self.plans.included, |id| Term::Include(Dimension::Plan, id)))
            .chain(by(&self.repos.excluded, |id| Term::Exclude(Dimension::Repo, id)))
            .chain(by(&self.plans.excluded, |id| Term::Exclude(Dimension::Plan, id)))
    }
}

impl Ids {
    const fn none() -> Self {
        Self { included: BTreeSet::new(), excluded: BTreeSet::new() }
    }

    /// What is said about an id; `None` stands for any id that is not named.
    fn standing(&self, id: Option<&str>) -> Standing {
        let named_in = |ids: &BTreeSet<String>| id.is_some_and(|id| ids.contains(id));
        Standing { included: named_in(&self.included), excluded: named_in(&self.excluded) }
    }
}

/// Whether some (repository, plan) is in both lists of `new` and not in both of `old`.
///
/// Lists can tell ids apart only by naming them, so that all ids about which the four lists say the same are one
/// class: at most 256 in each dimension, however long the lists are. One class is that of the ids that no list names.
pub(super) fn covers_more(new: [&Scopes; 2], old: [&Scopes; 2]) -> bool {
    let [granted, accepted] = new;
    let [old_granted, old_accepted] = old;
    let lists = [granted, accepted, old_granted, old_accepted];
    let repos = classes(lists.map(|list| &list.repos));
    let plans = classes(lists.map(|list| &list.plans));
    repos.iter().any(|[r1, r2, r3, r4]| {
        plans.iter().any(|[p1, p2, p3, p4]| {
            let now = granted.decide(*r1, *p1) && accepted.decide(*r2, *p2);
            let before = old_granted.decide(*r3, *p3) && old_accepted.decide(*r4, *p4);
            now && !before
        })
    })
}

/// All the things that four lists say about an id of one dimension.
fn classes(lists: [&Ids; 4]) -> BTreeSet<[Standing; 4]> {
    let named = lists.iter().flat_map(|ids| ids.included.iter().chain(&ids.excluded));
    let everyone = named.map(|id| Some(id.as_str())).chain([None]);
    everyone.map(|id| lists.map(|ids| ids.standing(id))).collect()
}

impl fmt::Display for Scopes {
    /// The canonical text: `*`, repositories, plans, excluded repositories, excluded plans, each sorted by bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            term.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = ScopeFault;

    /// Reads what a person writes: there must be a scope, and one that includes something.
    fn from_str(text: &str) -> Result<Self, ScopeFault> {
        let mut scopes = Self::nothing();
        for term in terms(text)? {
            scopes.insert(term);
        }
        if scopes.has_inclusion() { Ok(scopes) } else { Err(ScopeFault::OnlyExclusions(scopes.to_string())) }
    }
}

/// The scopes of a comma-separated text, at least one.
pub(super) fn terms(text: &str) -> Result<Vec<Term>, ScopeFault> {
    if text.is_empty() {
        return Err(ScopeFault::Empty);
    }
    limit(text)?;
    text.split(',').map(str::parse).collect()
}

const fn limit(text: &str) -> Result<(), ScopeFault> {
    if text.len() > MAX_SCOPES_BYTES {
        return Err(ScopeFault::TooLong { bytes: text.len() });
    }
    Ok(())
}

impl FromStr for Term {
    type Err = ScopeFault;

    fn from_str(text: &str) -> Result<Self, ScopeFault> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let (make, named): (fn(Dimension, String) -> Self, &str) = match text.strip_prefix('!') {
            Some(rest) => (Self::Exclude, rest),
            None => (Self::Include, text),
        };
        let (dimension, id) = match named.split_once(':') {
            Some(("repo", id)) => (Dimension::Repo, id),
            Some(("plan", id)) => (Dimension::Plan, id),
            _ => return Err(ScopeFault::NotAScope(text.to_owned())),
        };
        if id.is_empty() {
            return Err(ScopeFault::NoId(text.to_owned()));
        }
        if id.chars().any(char::is_control) {
            return Err(ScopeFault::Control(text.to_owned()));
        }
        let id = decode(id).ok_or_else(|| ScopeFault::Encoding(text.to_owned()))?;
        Ok(make(dimension, id))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, dimension, id) = match self {
            Self::Everything => return f.write_char('*'),
            Self::Include(dimension, id) => ("", dimension, id),
            Self::Exclude(dimension, id) => ("!", dimension, id),
        };
        let dimension = match dimension {
            Dimension::Repo => "repo",
            Dimension::Plan => "plan",
        };
        write!(f, "{sign}{dimension}:")?;
        encode(id, f)
    }
}

/// Writes an id, the characters that would end it or spoil a line percent-encoded, byte by byte, in upper case.
fn encode(id: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in id.chars() {
        if c == '%' || c == ',' || c.is_control() {
            c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// The id that a percent-encoded text means; none if the encoding is wrong.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn scopes(text: &str) -> Scopes {
        text.parse().unwrap()
    }

    fn scope(repo: &str, plan: &str) -> Scope {
        Scope { repo: repo.to_owned(), plan: plan.to_owned() }
    }

    /// Lists over few ids, so that they meet; also the empty one.
    pub(in crate::permission) fn any_scopes() -> impl Strategy<Value = Scopes> {
        let id = prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(str::to_owned);
        let dimension = prop_oneof![Just(Dimension::Repo), Just(Dimension::Plan)];
        let term = prop_oneof![
            1 => Just(Term::Everything),
            3 => (dimension.clone(), id.clone()).prop_map(|(dimension, id)| Term::Include(dimension, id)),
            3 => (dimension, id).prop_map(|(dimension, id)| Term::Exclude(dimension, id)),
        ];
        vec(term, 0..6).prop_map(|terms| {
            let mut list = Scopes::nothing();
            for term in terms {
                list.insert(term);
            }
            if list.has_inclusion() { list } else { Scopes::nothing() }
        })
    }

    /// The rule once more, straight from the words of the text: no parsing into sets, no decoding.
    fn naive_includes(text: &str, repo: &str, plan: &str) -> bool {
        let words: Vec<&str> = text.split(',').collect();
        let names = |prefix: &str, id: &str| words.contains(&format!("{prefix}{id}").as_str());
        if names("!repo:", repo) || names("!plan:", plan) {
            return false;
        }
        words.contains(&"*") || names("repo:", repo) || names("plan:", plan)
    }

    #[test]
    fn exclusion_beats_everything_and_either_dimension_excludes() {
        let list = scopes("*,repo:a,plan:p,!repo:a,!plan:secret");
        assert!(!list.includes(&scope("a", "p")));
        assert!(!list.includes(&scope("b", "secret")));
        assert!(list.includes(&scope("b", "p")));
    }

    #[test]
    fn repository_or_plan_includes_and_the_rest_is_refused() {
        let list = scopes("repo:a,plan:p");
        assert!(list.includes(&scope("a", "x")));
        assert!(list.includes(&scope("x", "p")));
        assert!(!list.includes(&scope("x", "y")));
        assert!(!list.includes(&scope("p", "a")), "a repository's id is not a plan's");
        assert!(!list.includes(&scope("A", "P")), "ids are compared byte for byte");
        assert!(!Scopes::nothing().includes(&scope("a", "p")));
        assert!(Scopes::everything().includes(&scope("", "")));
    }

    #[test]
    fn an_empty_list_is_an_error_for_a_person_and_nothing_on_the_wire() {
        assert_eq!("".parse::<Scopes>(), Err(ScopeFault::Empty));
        assert_eq!(Scopes::from_wire(""), Ok(Scopes::nothing()));
        assert_eq!(Scopes::nothing().to_string(), "");
        assert!(Scopes::nothing().is_nothing());
    }

    #[test]
    fn a_list_of_exclusions_is_refused_with_the_fix() {
        for read in [Scopes::from_wire, |text: &str| text.parse::<Scopes>()] {
            let fault = read("!plan:secret").unwrap_err();
            assert_eq!(fault, ScopeFault::OnlyExclusions("!plan:secret".to_owned()));
            assert!(fault.to_string().contains("`*,!plan:secret`"), "{fault}");
        }
    }

    #[test]
    fn what_is_not_a_scope_is_refused_by_name() {
        for bad in ["", "repo", "host:x", "!*", "!!repo:a", " repo:a", "REPO:a", "**"] {
            let list = format!("*,{bad}");
            assert_eq!(list.parse::<Scopes>(), Err(ScopeFault::NotAScope(bad.to_owned())));
        }
        for bad in ["repo:", "!plan:"] {
            assert_eq!(bad.parse::<Scopes>(), Err(ScopeFault::NoId(bad.to_owned())));
        }
        for bad in ["repo:%", "repo:%2", "repo:%zz", "repo:100%", "plan:%FF", "plan:%+1"] {
            assert_eq!(bad.parse::<Scopes>(), Err(ScopeFault::Encoding(bad.to_owned())));
        }
        for bad in ["repo:a\nb", "repo:\u{7f}", "repo:\u{85}"] {
            assert_eq!(bad.parse::<Scopes>(), Err(ScopeFault::Control(bad.to_owned())));
        }
    }

    #[test]
    fn a_list_may_be_as_long_as_the_limit_and_no_longer() {
        let at_limit = format!("repo:{}", "x".repeat(MAX_SCOPES_BYTES - "repo:".len()));
        assert!(at_limit.parse::<Scopes>().is_ok());
        let above = format!("{at_limit}x");
        assert_eq!(above.parse::<Scopes>(), Err(ScopeFault::TooLong { bytes: MAX_SCOPES_BYTES + 1 }));
    }

    #[test]
    fn the_canonical_text_is_sorted_and_encoded_and_keeps_superfluous_scopes() {
        let written = "!plan:z,plan:b%2ca,repo:b,repo:a,repo:a,*,!repo:100%25,plan:x%0a,plan:%41";
        let canonical = "*,repo:a,repo:b,plan:A,plan:b%2Ca,plan:x%0A,!repo:100%25,!plan:z";
        assert_eq!(scopes(written).to_string(), canonical);
        assert!(scopes(canonical).includes(&scope("q", "b,a")));
        assert!(!scopes(canonical).includes(&scope("100%", "q")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_decision_is_the_one_that_the_words_of_the_text_say(
            list in any_scopes(),
            repo in "[a-d]",
            plan in "[a-d]",
        ) {
            let expected = naive_includes(&list.to_string(), &repo, &plan);
            prop_assert_eq!(list.includes(&scope(&repo, &plan)), expected);
        }

        #[test]
        fn any_list_of_any_ids_survives_printing_and_reading(
            ids in vec((any::<bool>(), any::<bool>(), "\\PC{1,4}|[%,\u{0}-\u{20}\u{7f}-\u{9f}:!*]{1,4}"), 0..8),
        ) {
            let mut list = Scopes::everything();
            for (exclude, plan, id) in ids {
                let dimension = if plan { Dimension::Plan } else { Dimension::Repo };
                list.insert(if exclude { Term::Exclude(dimension, id) } else { Term::Include(dimension, id) });
            }
            let text = list.to_string();
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(text.parse::<Scopes>().unwrap(), list.clone());
            prop_assert_eq!(Scopes::from_wire(&text).unwrap().to_string(), text);
        }

        #[test]
        fn no_text_makes_reading_panic_and_what_is_read_has_a_fixed_text(text in "[*!:,%a-f0-9repolan]{0,40}|\\PC*") {
            if let Ok(list) = Scopes::from_wire(&text) {
                let canonical = list.to_string();
                prop_assert!(canonical.len() <= text.len());
                prop_assert_eq!(Scopes::from_wire(&canonical).unwrap(), list);
            }
        }
    }
}
