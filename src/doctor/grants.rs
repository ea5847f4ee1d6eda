//! Whether what both sides grant and take leaves anything to do. Pure: where the two do not meet is decided in `core`;
//! here stands what that means and what to do.

use opmesh_core::model::KeyId;
use opmesh_core::permission::{
    Giver, Grant, GrantType, Grants, Overlap, Said, Scopes, Side as Holder, Unmet, unmet,
};

use super::check::{Check, CheckId, Side};
use super::words;
use crate::store::Role;

/// What is known of both sides' grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// What the peer is to us.
    pub(super) role: Role,
    /// What it is called here.
    pub(super) name: &'a str,
    /// By what this instance is found there.
    pub(super) own: &'a KeyId,
    /// What it may do with our things.
    pub(super) given: &'a Grants,
    /// What we may do with its things, in its words.
    pub(super) received: &'a [String],
    /// What the hub, whichever of the two it is, takes.
    pub(super) accepted: Option<&'a Scopes>,
}

/// One check for each thing that does not meet, or one that says what is shared.
pub(super) fn grants(known: Known<'_>) -> Vec<Check> {
    // A type of a newer program is none that could meet one of ours.
    let received: Grants = known.received.iter().filter_map(|text| text.parse::<Grant>().ok()).collect();
    let side = match known.role {
        Role::KnownHost => Holder::Owner,
        Role::AuthorizedClient => Holder::Hub,
    };
    let said = Said { side, given: known.given, received: &received, accepted: known.accepted };
    let unmet = unmet(said);
    if unmet.is_empty() {
        return vec![met(known)];
    }
    unmet.iter().map(|unmet| judged(known, unmet)).collect()
}

fn met(known: Known<'_>) -> Check {
    let all = |grants: &[String]| if grants.is_empty() { "nothing".to_owned() } else { words::list(grants) };
    let seen = format!("we grant {}; it grants {}", all(&known.given.to_strings()), all(known.received));
    Check::ok(CheckId::Grants, Side::Here, seen)
}

fn judged(known: Known<'_>, unmet: &Unmet) -> Check {
    let Known { name, own, .. } = known;
    let id = CheckId::Grants;
    let (ours, theirs) =
        (format!("here `opmesh peer grant {name}"), format!("on {name} `opmesh peer grant {own}"));
    let seen = unmet.to_string();
    match unmet {
        Unmet::NoOperations(holder) => {
            let (side, giver) = match holder {
                Holder::Owner => (Side::Here, ours),
                Holder::Hub => (Side::Peer, theirs),
            };
            let next =
                format!("{giver} {}:*`, or with the scopes that it may have", GrantType::ReadOperations);
            if known.given.is_empty() && known.received.is_empty() {
                Check::fail(id, side, seen, next)
            } else {
                Check::warning(id, side, seen, next)
            }
        }
        Unmet::Operations { overlap: Overlap::Some, .. } => Check::ok(id, Side::Here, seen),
        Unmet::Operations { side, overlap: Overlap::None, .. } => match side {
            Holder::Owner => {
                let next = format!(
                    "share more ({ours} {}:…`), or let the hub take more (there `opmesh peer set {own} --accept …`)",
                    GrantType::ReadOperations
                );
                Check::fail(id, Side::Peer, seen, next)
            }
            Holder::Hub => {
                let next = format!(
                    "take more (here `opmesh peer set {name} --accept …`), or let it share more ({theirs} {}:…`)",
                    GrantType::ReadOperations
                );
                Check::fail(id, Side::Here, seen, next)
            }
        },
        Unmet::OneSided { by: Giver::Us } => {
            Check::warning(id, Side::Peer, seen, format!("{theirs} {}:…`", GrantType::ReceiveSharedRepos))
        }
        Unmet::OneSided { by: Giver::Peer } => {
            Check::warning(id, Side::Here, seen, format!("{ours} {}:…`", GrantType::ReceiveSharedRepos))
        }
        Unmet::SharedApart { .. } => {
            let next = format!("name the same repositories: {ours} {}:…`", GrantType::ReceiveSharedRepos);
            Check::warning(id, Side::Here, seen, next)
        }
        Unmet::GivesNothing { by: Giver::Us, kind, .. } => {
            Check::warning(id, Side::Here, seen, format!("{ours} {kind}:…` with something that it includes"))
        }
        Unmet::GivesNothing { by: Giver::Peer, kind, .. } => Check::warning(
            id,
            Side::Peer,
            seen,
            format!("{theirs} {kind}:…` with something that it includes"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::PublicKey;

    use super::super::check::State;
    use super::*;

    fn found(role: Role, given: &[&str], received: &[&str], accepted: &str) -> (State, Side, String) {
        let given = Grants::parse(given).unwrap();
        let received: Vec<_> = received.iter().map(ToString::to_string).collect();
        let (own, accepted) = (PublicKey([1; 32]).key_id(), Scopes::from_wire(accepted).unwrap());
        let accepted = Some(&accepted);
        let known = Known { role, name: "nas", own: &own, given: &given, received: &received, accepted };
        let check = grants(known).swap_remove(0);
        (check.state, check.side, check.next)
    }

    #[test]
    fn nothing_in_common_is_a_fault_and_less_than_all_is_not() {
        let all = "READ_OPERATIONS:*";
        assert_eq!(found(Role::KnownHost, &[all], &[], "*").0, State::Ok);
        assert_eq!(found(Role::KnownHost, &[all], &[], "*,!repo:x").0, State::Ok);
        let (state, side, next) = found(Role::KnownHost, &[all], &[], "");
        assert_eq!((state, side), (State::Fail, Side::Peer));
        assert!(next.contains("--accept"), "{next}");
        let (state, side, _) = found(Role::AuthorizedClient, &[], &["READ_OPERATIONS:repo:a"], "repo:b");
        assert_eq!((state, side), (State::Fail, Side::Here));
    }

    #[test]
    fn a_pair_that_grants_nothing_at_all_is_a_fault_and_one_for_something_else_a_warning() {
        let (state, side, next) = found(Role::KnownHost, &[], &[], "*");
        assert_eq!((state, side), (State::Fail, Side::Here));
        assert!(next.contains("here `opmesh peer grant nas READ_OPERATIONS:*`"), "{next}");
        assert_eq!(found(Role::KnownHost, &["READ_CONFIG:*"], &[], "*").0, State::Warning);
        let (state, side, _) = found(Role::AuthorizedClient, &[], &[], "*");
        assert_eq!((state, side), (State::Fail, Side::Peer));
    }
}
