//! Who may see what: scope lists, the grants made of them, and the view that two lists leave over.
//!
//! A scope list says which operations are meant, by repository and plan. A grant says what a peer may do with them.
//! A [`View`] is what one hub may see of one owner: what the owner grants and the hub accepts. Everything that is not
//! included is refused. Nothing here knows sessions or stores; both ends evaluate the same lists by the same
//! function, [`Scopes::includes`], so that they cannot disagree.

mod grants;
mod meet;
mod scopes;

use crate::model::Scope;

pub use grants::{Grant, GrantFault, GrantType, Grants};
pub use meet::{Giver, Overlap, Said, Side, Unmet, unmet};
pub use scopes::{MAX_SCOPES_BYTES, ScopeFault, Scopes};

/// What one hub may see of one owner: what the owner grants and the hub accepts.
///
/// Two views are equal when their lists are; whether a change of lists changes what can be seen is another question,
/// half of which [`View::widens`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    granted: Scopes,
    accepted: Scopes,
}

impl View {
    /// The view that an owner's grant and a hub's own limits leave over.
    pub const fn new(granted: Scopes, accepted: Scopes) -> Self {
        Self { granted, accepted }
    }

    /// What the owner lets the hub read.
    pub const fn granted(&self) -> &Scopes {
        &self.granted
    }

    /// What the hub takes.
    pub const fn accepted(&self) -> &Scopes {
        &self.accepted
    }

    /// Whether an operation of this repository and plan is in the view. The ids are compared byte for byte.
    pub fn includes(&self, scope: &Scope) -> bool {
        self.granted.includes(scope) && self.accepted.includes(scope)
    }

    /// Whether any (repository, plan) at all is in this view and not in `old`. Exact: it is true if and only if such
    /// a pair of ids exists, whether or not an operation has them.
    pub fn widens(&self, old: &Self) -> bool {
        scopes::covers_more([&self.granted, &self.accepted], [&old.granted, &old.accepted])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::scopes::tests::any_scopes;
    use super::*;

    fn view(granted: &str, accepted: &str) -> View {
        View::new(Scopes::from_wire(granted).unwrap(), Scopes::from_wire(accepted).unwrap())
    }

    fn scope(repo: &str, plan: &str) -> Scope {
        Scope { repo: repo.to_owned(), plan: plan.to_owned() }
    }

    #[test]
    fn a_view_is_what_both_sides_agree_to() {
        let both = view("*,!plan:secret", "repo:a,repo:b");
        assert!(both.includes(&scope("a", "daily")));
        assert!(!both.includes(&scope("c", "daily")));
        assert!(!both.includes(&scope("a", "secret")));
        assert!(!view("*", "").includes(&scope("a", "daily")));
        assert!(!View::default().includes(&scope("a", "daily")));
    }

    #[test]
    fn a_rewording_does_not_widen_and_one_more_id_does() {
        assert!(!view("*,repo:a", "*").widens(&view("*", "*")));
        assert!(!view("repo:a", "*").widens(&view("*", "repo:a")));
        assert!(view("repo:a,repo:b", "*").widens(&view("repo:a", "*")));
        assert!(view("*", "*").widens(&view("*,!repo:a", "*")));
        assert!(!view("*", "*,!repo:a").widens(&view("*,!repo:a", "*")));
        assert!(view("plan:p", "*").widens(&view("repo:r", "*")));
        assert!(!view("plan:p,!plan:p", "*").widens(&view("", "")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The lists name ids from `a` to `c`; `z` stands for every id that none of them names.
        #[test]
        fn widens_is_exactly_that_some_pair_of_ids_joined(
            lists in proptest::array::uniform4(any_scopes()),
        ) {
            let [granted, accepted, old_granted, old_accepted] = lists;
            let (new, old) = (View::new(granted, accepted), View::new(old_granted, old_accepted));
            let mut joined = false;
            for repo in ["a", "b", "c", "z"] {
                for plan in ["a", "b", "c", "z"] {
                    let scope = scope(repo, plan);
                    joined |= new.includes(&scope) && !old.includes(&scope);
                }
            }
            prop_assert_eq!(new.widens(&old), joined);
        }
    }
}
