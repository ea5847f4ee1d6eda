//! Inquiry and Findings ⇄ frames: what a dialer may ask instead of beginning a session.

use opmesh_core::model::UnixMs;
use opmesh_core::protocol::{Findings, Inquiry, MAX_VERSION_BYTES, Room, Standing};

use super::decode::name;
use super::fault::WireFault;
use super::pb::{self, Frame, findings as word, frame::Body};

/// Whether a dialer that was let in only asks.
pub fn is_inquiry(frame: &Frame) -> bool {
    matches!(frame.body, Some(Body::Inquiry(_)))
}

/// The dialer's question.
pub fn inquiry(frame: Frame) -> Result<Inquiry, WireFault> {
    match frame.body.ok_or(WireFault::UnknownBody)? {
        Body::Inquiry(inquiry) => {
            Ok(Inquiry { at: UnixMs(inquiry.unix_ms), version: version("inquiry.version", inquiry.version)? })
        }
        body => Err(WireFault::OutOfPlace { message: name(&body), expected: "Inquiry" }),
    }
}

/// The acceptor's answer.
pub fn findings(frame: Frame) -> Result<Findings, WireFault> {
    let findings = match frame.body.ok_or(WireFault::UnknownBody)? {
        Body::Findings(findings) => findings,
        body => return Err(WireFault::OutOfPlace { message: name(&body), expected: "Findings" }),
    };
    Ok(Findings {
        at: UnixMs(findings.unix_ms),
        version: version("findings.version", findings.version)?,
        protocol_versions: findings.protocol_versions,
        grants_received: findings.grants_received,
        standing: standing(findings.standing)?,
        // An acceptor that does not know is no reason to refuse what else it says.
        room: match word::Room::try_from(findings.room) {
            Ok(word::Room::Enough) => Room::Enough,
            Ok(word::Room::Low) => Room::Low,
            Ok(word::Room::Full) => Room::Full,
            Ok(word::Room::Unknown) | Err(_) => Room::Unknown,
        },
        schema: findings.schema,
    })
}

fn standing(value: i32) -> Result<Standing, WireFault> {
    match word::Standing::try_from(value) {
        Ok(word::Standing::Well) => Ok(Standing::Well),
        Ok(word::Standing::CatchingUp) => Ok(Standing::CatchingUp),
        Ok(word::Standing::NeedsDecision) => Ok(Standing::NeedsDecision),
        Ok(word::Standing::Quarantined) => Ok(Standing::Quarantined),
        Ok(word::Standing::IdentityConflict) => Ok(Standing::IdentityConflict),
        Ok(word::Standing::Unknown) | Err(_) => Err(WireFault::Unknown { field: "findings.standing", value }),
    }
}

fn version(what: &'static str, text: String) -> Result<String, WireFault> {
    if text.len() > MAX_VERSION_BYTES {
        return Err(WireFault::TooLarge { what, bytes: text.len(), limit: MAX_VERSION_BYTES });
    }
    Ok(text)
}

impl From<Inquiry> for Frame {
    fn from(inquiry: Inquiry) -> Self {
        let body = pb::Inquiry { unix_ms: inquiry.at.0, version: inquiry.version };
        Self { body: Some(Body::Inquiry(body)) }
    }
}

impl From<Findings> for Frame {
    fn from(findings: Findings) -> Self {
        let standing = match findings.standing {
            Standing::Well => word::Standing::Well,
            Standing::CatchingUp => word::Standing::CatchingUp,
            Standing::NeedsDecision => word::Standing::NeedsDecision,
            Standing::Quarantined => word::Standing::Quarantined,
            Standing::IdentityConflict => word::Standing::IdentityConflict,
        };
        let room = match findings.room {
            Room::Enough => word::Room::Enough,
            Room::Low => word::Room::Low,
            Room::Full => word::Room::Full,
            Room::Unknown => word::Room::Unknown,
        };
        let body = pb::Findings {
            unix_ms: findings.at.0,
            version: findings.version,
            protocol_versions: findings.protocol_versions,
            grants_received: findings.grants_received,
            standing: standing.into(),
            room: room.into(),
            schema: findings.schema,
        };
        Self { body: Some(Body::Findings(body)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Findings {
        Findings {
            at: UnixMs(1_700_000_000_000),
            version: "0.1.0".to_owned(),
            protocol_versions: vec![1, 2],
            grants_received: vec!["READ_OPERATIONS:*".to_owned()],
            standing: Standing::NeedsDecision,
            room: Room::Low,
            schema: 2,
        }
    }

    #[test]
    fn a_question_and_its_answer_come_out_as_they_went_in() {
        let asked = Inquiry { at: UnixMs(-5), version: "0.1.0".to_owned() };
        let frame = Frame::from(asked.clone());
        assert!(is_inquiry(&frame) && !is_inquiry(&Frame::from(answer())));
        assert_eq!(inquiry(frame).unwrap(), asked);
        assert_eq!(findings(answer().into()).unwrap(), answer());
    }

    #[test]
    fn a_long_version_and_an_unknown_standing_are_refused_by_name() {
        let asked = Inquiry { at: UnixMs(0), version: "x".repeat(MAX_VERSION_BYTES + 1) };
        assert!(inquiry(asked.into()).unwrap_err().to_string().starts_with("inquiry.version"));
        let mut frame = Frame::from(answer());
        let Some(Body::Findings(body)) = &mut frame.body else { panic!("findings were made") };
        body.standing = 77;
        assert_eq!(
            findings(frame).unwrap_err(),
            WireFault::Unknown { field: "findings.standing", value: 77 }
        );
    }
}
