//! Where the two sides' grants do not meet: what one side gives and the other does not take, or asks for and does not
//! get.
//!
//! Decides nothing: what may be sent is decided by [`super::View`] and [`Grants::allows`]. This is for the operator who
//! wonders why a session is up and nothing comes.

use std::fmt;

use super::scopes::covers_more;
use super::{GrantType, Grants, Scopes};

/// Which of the two this side is, for operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The peer is a hub of ours: operations go from us to it.
    Owner,
    /// The peer's operations lie here: they come from it to us.
    Hub,
}

/// What both sides said, as far as this side has heard.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// What this side is.
    pub side: Side,
    /// What the peer may do with our things.
    pub given: &'a Grants,
    /// What we may do with the peer's.
    pub received: &'a Grants,
    /// What the hub, whichever of the two that is, takes of the owner's operations; none: not heard yet.
    pub accepted: Option<&'a Scopes>,
}

/// One thing that does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// No operation may go from the owner to the hub, because none is granted.
    NoOperations(Side),
    /// The hub takes less than the owner grants, or asks for more, or for something else.
    Operations {
        /// What this side is.
        side: Side,
        /// What the owner grants.
        granted: Scopes,
        /// What the hub takes.
        accepted: Scopes,
        /// Whether anything is in both lists.
        overlap: Overlap,
    },
    /// Repositories are shared only where both sides give `RECEIVE_SHARED_REPOS`: the sharer lets the other one have
    /// them, the receiver lets the other one hand them over.
    OneSided {
        /// Who gives it.
        by: Giver,
    },
    /// Both sides give `RECEIVE_SHARED_REPOS`, and no repository is in both lists.
    SharedApart {
        /// Our list.
        given: Scopes,
        /// The peer's list.
        received: Scopes,
    },
    /// The list excludes all that it includes.
    GivesNothing {
        /// Who gives it.
        by: Giver,
        /// What it would allow.
        kind: GrantType,
        /// The list.
        scopes: Scopes,
    },
}

/// Whether two lists have anything in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// They have.
    Some,
    /// They have not.
    None,
}

/// Whose grant it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Giver {
    /// Ours.
    Us,
    /// The peer's.
    Peer,
}

/// Everything that does not meet, in a fixed order; empty when all does.
pub fn unmet(said: Said<'_>) -> Vec<Unmet> {
    let mut found = Vec::new();
    for (by, grants) in [(Giver::Us, said.given), (Giver::Peer, said.received)] {
        let void = grants.iter().filter(|grant| !includes_any(&grant.scopes));
        found.extend(void.map(|grant| Unmet::GivesNothing { by, kind: grant.kind, scopes: grant.scopes }));
    }
    found.extend(operations(said));
    found.extend(shared(said.given, said.received));
    found
}

fn operations(said: Said<'_>) -> Option<Unmet> {
    let owner = match said.side {
        Side::Owner => said.given,
        Side::Hub => said.received,
    };
    let granted = owner.scopes_of(GrantType::ReadOperations);
    if granted.is_nothing() {
        return Some(Unmet::NoOperations(said.side));
    }
    // A hub that takes everything asks for nothing in particular: the owner's list alone decides.
    let accepted = said.accepted.filter(|accepted| **accepted != Scopes::everything())?;
    let all = Scopes::everything();
    let left_out = covers_more([&granted, &all], [&granted, accepted]);
    let asked_in_vain = covers_more([accepted, &all], [&granted, accepted]);
    if !left_out && !asked_in_vain {
        return None;
    }
    let overlap = overlap(&granted, accepted);
    Some(Unmet::Operations { side: said.side, granted, accepted: accepted.clone(), overlap })
}

fn shared(given: &Grants, received: &Grants) -> Option<Unmet> {
    let kind = GrantType::ReceiveSharedRepos;
    let (given, received) = (given.scopes_of(kind), received.scopes_of(kind));
    match (given.is_nothing(), received.is_nothing()) {
        (true, true) => None,
        (false, true) => Some(Unmet::OneSided { by: Giver::Us }),
        (true, false) => Some(Unmet::OneSided { by: Giver::Peer }),
        (false, false) if overlap(&given, &received) == Overlap::Some => None,
        (false, false) => Some(Unmet::SharedApart { given, received }),
    }
}

fn includes_any(scopes: &Scopes) -> bool {
    overlap(scopes, &Scopes::everything()) == Overlap::Some
}

fn overlap(left: &Scopes, right: &Scopes) -> Overlap {
    let nothing = Scopes::nothing();
    if covers_more([left, right], [&nothing, &nothing]) { Overlap::Some } else { Overlap::None }
}

impl fmt::Display for Unmet {
    /// The type, then both sides' lists, from this side's view.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOperations(Side::Owner) => {
                f.write_str("READ_OPERATIONS: we do not grant it, so that no operation is sent")
            }
            Self::NoOperations(Side::Hub) => {
                f.write_str("READ_OPERATIONS: it does not grant it, so that no operation comes")
            }
            Self::Operations { side, granted, accepted, overlap } => {
                let (grants, accepts) = match side {
                    Side::Owner => ("we grant", "it accepts"),
                    Side::Hub => ("it grants", "we accept"),
                };
                write!(f, "READ_OPERATIONS: {grants} {granted}, {accepts} {accepted}")?;
                f.write_str(match overlap {
                    Overlap::Some => "; only what is in both is sent",
                    Overlap::None => "; nothing is in both",
                })
            }
            Self::OneSided { by: Giver::Us } => f.write_str(
                "RECEIVE_SHARED_REPOS: we give it, the peer does not: nothing is shared before both do",
            ),
            Self::OneSided { by: Giver::Peer } => f.write_str(
                "RECEIVE_SHARED_REPOS: the peer gives it, we do not: nothing is shared before both do",
            ),
            Self::SharedApart { given, received } => write!(
                f,
                "RECEIVE_SHARED_REPOS: we give {given}, the peer gives {received}; no repository is in both"
            ),
            Self::GivesNothing { by, kind, scopes } => {
                let who = match by {
                    Giver::Us => "we give",
                    Giver::Peer => "it gives",
                };
                write!(f, "{kind}: {who} {scopes}, which excludes all that it includes")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Grant;
    use super::super::scopes::tests::any_scopes;
    use super::*;
    use crate::model::Scope;

    fn lines(side: Side, given: &[&str], received: &[&str], accepted: Option<&str>) -> Vec<String> {
        let (given, received) = (Grants::parse(given).unwrap(), Grants::parse(received).unwrap());
        let accepted = accepted.map(|text| text.parse::<Scopes>().unwrap());
        let said = Said { side, given: &given, received: &received, accepted: accepted.as_ref() };
        unmet(said).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn grants_that_meet_say_nothing() {
        let nothing: [String; 0] = [];
        assert_eq!(lines(Side::Owner, &["READ_OPERATIONS:*"], &[], Some("*")), nothing);
        assert_eq!(lines(Side::Owner, &["READ_OPERATIONS:*"], &[], None), nothing);
        assert_eq!(lines(Side::Hub, &[], &["READ_OPERATIONS:repo:a"], Some("*")), nothing);
        assert_eq!(lines(Side::Hub, &[], &["READ_OPERATIONS:repo:a"], Some("repo:a")), nothing);
        let both = ["READ_OPERATIONS:*", "RECEIVE_SHARED_REPOS:repo:a"];
        assert_eq!(lines(Side::Owner, &both, &["RECEIVE_SHARED_REPOS:*"], None), nothing);
    }

    #[test]
    fn an_owner_that_grants_nothing_is_pointed_out_on_both_sides() {
        assert_eq!(
            lines(Side::Owner, &["READ_CONFIG:*"], &["READ_OPERATIONS:*"], None),
            ["READ_OPERATIONS: we do not grant it, so that no operation is sent"]
        );
        assert_eq!(
            lines(Side::Hub, &["READ_OPERATIONS:*"], &[], Some("*")),
            ["READ_OPERATIONS: it does not grant it, so that no operation comes"]
        );
    }

    #[test]
    fn a_hub_that_takes_less_or_asks_for_more_is_shown_with_both_lists() {
        assert_eq!(
            lines(Side::Hub, &[], &["READ_OPERATIONS:repo:y"], Some("plan:x")),
            ["READ_OPERATIONS: it grants repo:y, we accept plan:x; only what is in both is sent"]
        );
        assert_eq!(
            lines(Side::Owner, &["READ_OPERATIONS:repo:y"], &[], Some("repo:x")),
            ["READ_OPERATIONS: we grant repo:y, it accepts repo:x; nothing is in both"]
        );
        assert_eq!(
            lines(Side::Owner, &["READ_OPERATIONS:*"], &[], Some("*,!repo:x")),
            ["READ_OPERATIONS: we grant *, it accepts *,!repo:x; only what is in both is sent"]
        );
        assert_eq!(
            lines(Side::Hub, &[], &["READ_OPERATIONS:repo:a"], Some("repo:a,repo:b")),
            ["READ_OPERATIONS: it grants repo:a, we accept repo:a,repo:b; only what is in both is sent"]
        );
    }

    #[test]
    fn repositories_are_shared_only_where_both_sides_say_so() {
        let operations = "READ_OPERATIONS:*";
        let shared = "RECEIVE_SHARED_REPOS:repo:a";
        assert_eq!(
            lines(Side::Owner, &[operations, shared], &[], None),
            ["RECEIVE_SHARED_REPOS: we give it, the peer does not: nothing is shared before both do"]
        );
        assert_eq!(
            lines(Side::Owner, &[operations], &[shared], None),
            ["RECEIVE_SHARED_REPOS: the peer gives it, we do not: nothing is shared before both do"]
        );
        assert_eq!(
            lines(Side::Owner, &[operations, shared], &["RECEIVE_SHARED_REPOS:repo:b"], None),
            ["RECEIVE_SHARED_REPOS: we give repo:a, the peer gives repo:b; no repository is in both"]
        );
    }

    #[test]
    fn a_list_that_excludes_all_that_it_includes_gives_nothing() {
        let write = "READ_WRITE_CONFIG:repo:a,!repo:a";
        assert_eq!(
            lines(Side::Owner, &["READ_OPERATIONS:*", write], &[], None),
            ["READ_WRITE_CONFIG: we give repo:a,!repo:a, which excludes all that it includes"]
        );
        assert_eq!(
            lines(Side::Hub, &[], &["READ_OPERATIONS:*", write], None),
            ["READ_WRITE_CONFIG: it gives repo:a,!repo:a, which excludes all that it includes"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The lists name ids from `a` to `c`; `z` stands for every id that none of them names.
        #[test]
        fn operations_meet_exactly_when_each_pair_of_ids_is_in_both_lists_or_in_none(
            lists in proptest::array::uniform2(any_scopes()),
        ) {
            let [granted, accepted] = lists;
            let (mut apart, mut common) = (false, false);
            for repo in ["a", "b", "c", "z"] {
                for plan in ["a", "b", "c", "z"] {
                    let scope = Scope { repo: repo.to_owned(), plan: plan.to_owned() };
                    let both = (granted.includes(&scope), accepted.includes(&scope));
                    apart |= both.0 != both.1;
                    common |= both == (true, true);
                }
            }
            let given: Grants =
                [Grant { kind: GrantType::ReadOperations, scopes: granted }].into_iter().collect();
            prop_assume!(!given.is_empty() && accepted != Scopes::everything());
            let received = Grants::default();
            let said =
                Said { side: Side::Owner, given: &given, received: &received, accepted: Some(&accepted) };
            let found = unmet(said).into_iter().find_map(|line| match line {
                Unmet::Operations { overlap, .. } => Some(overlap),
                _ => None,
            });
            let expected = apart.then_some(if common { Overlap::Some } else { Overlap::None });
            prop_assert_eq!(found, expected);
        }
    }
}
