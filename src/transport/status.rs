//! What a dialer is told when its session ends in an error: the one translation into `tonic::Status`.
//!
//! An authenticated peer is told which rule it broke. A stranger is told one thing, whatever the reason: it must not
//! learn which keys are listed, blocked or known. Nothing of ours but a general sentence goes out.

use opmesh_core::protocol::Violation;
use opmesh_core::session::Finish;
use tonic::{Code, Status};

use crate::store::StoreError;
use crate::wire::WireFault;

use super::ending::{Ending, channel_advice};
use super::seal::SealFault;

/// The one text for everybody who is not let in.
pub const STRANGER: &str = "not authorized";
/// Opens the text when two databases or processes use one identity, so that a peer can tell it from other conflicts.
pub const IDENTITY_CONFLICT: &str = "IDENTITY_CONFLICT";

/// The status that ends the stream; `None` when it ends well, or there is nobody left to tell.
pub(super) fn status(ending: &Ending) -> Option<Status> {
    match ending {
        Ending::Finished(finish) => finish_status(finish),
        Ending::Wire(fault) => Some(Status::new(wire_code(fault), fault.to_string())),
        Ending::OtherChannel { listener } => Some(Status::failed_precondition(channel_advice(*listener))),
        Ending::Seal(fault) => Some(Status::new(seal_code(*fault), fault.to_string())),
        Ending::Handshake(_) | Ending::HandshakeTimeout | Ending::Refused(_) | Ending::TooOften => {
            Some(Status::unauthenticated(STRANGER))
        }
        Ending::NotReading => Some(Status::unavailable(ending.to_string())),
        Ending::Rivals => Some(Status::failed_precondition(format!("{IDENTITY_CONFLICT}: {ending}"))),
        Ending::Store(error) => Some(store_status(error)),
        Ending::Randomness => Some(Status::internal("the hub cannot continue")),
        Ending::Interrupted(_)
        | Ending::TurnedAway(_)
        | Ending::HubError { .. }
        | Ending::Dial(_)
        | Ending::Address(_) => None,
    }
}

fn finish_status(finish: &Finish) -> Option<Status> {
    match finish {
        Finish::Closed(_) | Finish::PeerEnded(_) => None,
        Finish::Silent => Some(Status::unavailable("nothing was heard for a minute")),
        Finish::Violation(violation) => {
            let text = match violation {
                Violation::SupersededIncarnation { .. } => format!("{IDENTITY_CONFLICT}: {violation}"),
                _ => violation.to_string(),
            };
            Some(Status::new(violation_code(violation), text))
        }
    }
}

const fn seal_code(fault: SealFault) -> Code {
    match fault {
        SealFault::PublicKey | SealFault::Encapsulation => Code::InvalidArgument,
        SealFault::DoesNotOpen => Code::DataLoss,
        SealFault::Spent => Code::Unavailable,
    }
}

fn violation_code(violation: &Violation) -> Code {
    match violation {
        Violation::OutsideView { .. } => Code::PermissionDenied,
        Violation::BaseIsNotCursor { .. } | Violation::SupersededIncarnation { .. } => {
            Code::FailedPrecondition
        }
        Violation::CreditExceeded { .. }
        | Violation::TooManyManifests { .. }
        | Violation::TooOften { .. } => Code::ResourceExhausted,
        Violation::OutOfState { .. }
        | Violation::ManifestGap { .. }
        | Violation::DoesNotFitManifest { .. }
        | Violation::MarkNotAtEnd { .. }
        | Violation::UnknownMatchpoint(_)
        | Violation::SecondWrite
        | Violation::UnaskedAnswer
        | Violation::ImpossibleAck
        | Violation::ImpossibleVerdict { .. } => Code::InvalidArgument,
    }
}

fn wire_code(fault: &WireFault) -> Code {
    match fault {
        WireFault::TooMany { .. } | WireFault::TooLarge { .. } | WireFault::MessageTooLarge => {
            Code::ResourceExhausted
        }
        WireFault::Undecodable(_)
        | WireFault::UnknownBody
        | WireFault::OutOfPlace { .. }
        | WireFault::Missing { .. }
        | WireFault::Surplus { .. }
        | WireFault::Number(_)
        | WireFault::Length { .. }
        | WireFault::Record { .. }
        | WireFault::Entries { .. }
        | WireFault::Order { .. }
        | WireFault::ChainBeforeFirstChange
        | WireFault::Unknown { .. }
        | WireFault::TombstoneScope { .. }
        | WireFault::Document { .. }
        | WireFault::Scopes { .. }
        | WireFault::Succession(_)
        | WireFault::Name(_) => Code::InvalidArgument,
    }
}

/// Says whether to come back, and nothing about the machine.
fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Fenced => {
            Status::unavailable("a newer session or a change of grants came first; connect again")
        }
        StoreError::Stopped { .. } | StoreError::Closed => {
            Status::unavailable("the hub's store is not available; try again later")
        }
        StoreError::Exists { .. }
        | StoreError::Missing { .. }
        | StoreError::NotAStore { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::OtherIdentity { .. }
        | StoreError::Unusable { .. }
        | StoreError::DiskFull { .. }
        | StoreError::NotCopied { .. }
        | StoreError::NotABackup { .. }
        | StoreError::BadValue { .. }
        | StoreError::Engine { .. }
        | StoreError::OldEngine { .. }
        | StoreError::UnknownOwner(_)
        | StoreError::UnknownPosition(_)
        | StoreError::Exhausted(_) => Status::internal("the hub's store failed; its log has the reason"),
    }
}

/// What the hub's final status means for the dialer.
pub(super) fn ending_of_hub(status: &Status) -> Ending {
    let text = printable(status);
    match status.code() {
        _ if is_transport(status) => Ending::Interrupted(text),
        Code::Unauthenticated => Ending::TurnedAway(text),
        code => Ending::HubError { code: format!("{code:?}"), text },
    }
}

/// What an error in a dialer's stream means for the hub: a dialer sends no status, so that it is the connection's or
/// the decoder's.
pub(super) fn ending_of_dialer(status: &Status) -> Ending {
    match status.code() {
        _ if is_transport(status) => Ending::Interrupted(printable(status)),
        Code::OutOfRange => WireFault::MessageTooLarge.into(),
        _ => WireFault::Undecodable(printable(status)).into(),
    }
}

/// The library keeps the cause when the connection failed, and has none for what was said or decoded.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The text came from outside: shortened, and without control characters.
fn printable(status: &Status) -> String {
    const QUOTED_CHARS: usize = 300;
    status.message().chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use opmesh_core::handshake::HandshakeFault;
    use opmesh_core::protocol::EndReason;

    use super::*;
    use crate::store::Refusal;

    fn said(ending: Ending) -> (Code, String) {
        let status = status(&ending).unwrap();
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn whoever_is_not_let_in_hears_one_thing() {
        let refusals = Refusal::ALL.iter().map(|(refusal, ..)| Ending::Refused(*refusal));
        let faults = [
            HandshakeFault::WrongTarget,
            HandshakeFault::OwnKey,
            HandshakeFault::DialerSignature,
            HandshakeFault::TokenSignature,
            HandshakeFault::DialerConfirmation,
            HandshakeFault::NoCommonVersion { offered: vec![9] },
        ];
        for ending in
            refusals.chain(faults.map(Ending::Handshake)).chain([Ending::HandshakeTimeout, Ending::TooOften])
        {
            assert_eq!(said(ending), (Code::Unauthenticated, STRANGER.to_owned()));
        }
    }

    #[test]
    fn nothing_of_the_machine_goes_out() {
        let reason = "disk I/O error on /var/lib/opmesh/opmesh.db".to_owned();
        for error in [StoreError::Stopped { reason: reason.clone() }, StoreError::Engine { reason }] {
            let (_, text) = said(Ending::Store(error));
            assert!(!text.contains("disk") && !text.contains('/'), "{text}");
        }
    }

    #[test]
    fn a_session_that_was_ended_on_purpose_ends_well() {
        for reason in [EndReason::Shutdown, EndReason::GrantsChanged, EndReason::Revoked] {
            assert!(status(&Ending::Finished(Finish::Closed(reason))).is_none());
            assert!(status(&Ending::Finished(Finish::PeerEnded(reason))).is_none());
        }
    }

    #[test]
    fn what_a_hub_says_is_shortened_and_printable() {
        let hub = Status::new(Code::InvalidArgument, format!("\u{1b}[31m{}", "x".repeat(1000)));
        let Ending::HubError { code, text } = ending_of_hub(&hub) else { panic!("a hub said it") };
        assert_eq!(code, "InvalidArgument");
        assert!(text.len() < 400 && !text.contains('\u{1b}'), "{text}");
    }
}
