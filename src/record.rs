//! Records from drafts, drafts from records, and edits that touch nothing else.
//!
//! An operation is written once: [`Draft::encode`] makes the bytes that every side then keeps verbatim. A later change
//! is an [`Edit`] on those bytes: fields that this program does not know stay where they are. Reading
//! ([`Draft::decode`]) never fails, because a replica's bytes are another program's and must be shown all the same.
//!
//! This is the only file that names the generated `opmesh.v1` types. Called by intake, the admin handlers and lists.

use opmesh_core::model::{Kind, MAX_RECORD_BYTES, Record, RecordFault, Status};
use prost::Message as _;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::{Deserialize, Serialize};

#[allow(warnings, clippy::pedantic, clippy::restriction, reason = "generated code")]
mod pb {
    tonic::include_proto!("opmesh.v1");
}

/// Error lines that a record keeps; `error_count` counts all of them.
pub const MAX_ERRORS: usize = 100;
/// Bytes of a tool's output that a record keeps.
pub const MAX_LOG_TAIL_BYTES: usize = 64 * 1024;

/// Key and length of the details field: two bytes for the key, three for a length below 2²¹.
const DETAILS_FRAMING: usize = 5;
const _: () = assert!(MAX_RECORD_BYTES < 1 << 21, "the length of details fits three bytes");

const STATUS: u32 = 4;
const START: u32 = 5;
const END: u32 = 6;
const MESSAGE: u32 = 7;
const SNAPSHOT_ID: u32 = 8;
const REPO_GUID: u32 = 15;
const DETAILS: u32 = 1000;
/// Fields of details that this program knows: 1 to this one.
const LAST_DETAIL: u32 = 8;

/// An operation before its owner wrote it, or as this program reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// What sort of step it was. Never changes.
    #[serde(with = "kind_name")]
    pub kind: Kind,
    /// How it went.
    #[serde(with = "status_name")]
    pub status: Status,
    /// The repository. Never empty, never changes.
    pub repo_id: String,
    /// The plan. Never empty, never changes.
    pub plan_id: String,
    /// When it began.
    pub start_unix_ms: i64,
    /// When it ended; none while it runs.
    pub end_unix_ms: Option<i64>,
    /// One line for people.
    #[serde(default)]
    pub message: String,
    /// Verbatim from the tool.
    #[serde(default)]
    pub snapshot_id: String,
    /// The repository's own identity, when the tool tells it.
    #[serde(default)]
    pub repo_guid: String,
    /// What intake knows beyond that.
    #[serde(default)]
    pub details: Details,
}

/// What a tool's run left behind. All empty = nobody recorded any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// restic, borg, borgmatic, kopia, or the command's base name.
    pub tool: String,
    /// As the tool says it.
    pub tool_version: String,
    /// None when nobody saw it.
    pub exit_code: Option<i32>,
    /// The command line; credentials in URLs are replaced by `***`.
    pub argv: Vec<String>,
    /// The tool's own summary object as JSON text; empty when there is none.
    pub summary_json: String,
    /// The tool's error lines; a record keeps the first [`MAX_ERRORS`].
    pub errors: Vec<String>,
    /// All of them, kept or not.
    pub error_count: u64,
    /// The end of the tool's output; a record keeps the last [`MAX_LOG_TAIL_BYTES`].
    pub log_tail: String,
}

/// What an update changes; `None` leaves a field alone. Repository, plan and kind are not here: a move is a delete and
/// a create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// How it went.
    pub status: Option<Status>,
    /// When it began.
    pub start_unix_ms: Option<i64>,
    /// When it ended; 0 takes the time away.
    pub end_unix_ms: Option<i64>,
    /// One line for people.
    pub message: Option<String>,
    /// Verbatim from the tool.
    pub snapshot_id: Option<String>,
    /// The repository's own identity.
    pub repo_guid: Option<String>,
    /// All that this program knows of the details; unknown fields inside stay.
    pub details: Option<Details>,
}

/// Why a draft or an edit does not become a record. Always the writer's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftFault {
    /// No kind was named.
    #[error(
        "the operation has no kind: name one of backup, index, forget, prune, restore, stats, hook, check, command"
    )]
    NoKind,
    /// Too large even without log tail and errors.
    #[error(
        "the operation takes {bytes} bytes even without log_tail and errors, the limit is {MAX_RECORD_BYTES}: shorten its message, argv or summary"
    )]
    TooLarge {
        /// Its size without them.
        bytes: usize,
    },
    /// Not a record for another reason.
    #[error(transparent)]
    Refused(#[from] RecordFault),
}

impl Draft {
    /// A draft without anything that is known only later.
    pub fn new(kind: Kind, status: Status, repo_id: &str, plan_id: &str, start_unix_ms: i64) -> Self {
        Self {
            kind,
            status,
            repo_id: repo_id.to_owned(),
            plan_id: plan_id.to_owned(),
            start_unix_ms,
            end_unix_ms: None,
            message: String::new(),
            snapshot_id: String::new(),
            repo_guid: String::new(),
            details: Details::default(),
        }
    }

    /// The record of this draft. What does not fit is cut: the log tail from its beginning, then errors from the last.
    pub fn encode(&self) -> Result<Record, DraftFault> {
        let mut message = pb::Operation {
            repo_id: self.repo_id.clone(),
            plan_id: self.plan_id.clone(),
            status: status_number(self.status),
            start_unix_ms: self.start_unix_ms,
            end_unix_ms: self.end_unix_ms.unwrap_or(0),
            message: self.message.clone(),
            snapshot_id: self.snapshot_id.clone(),
            repo_guid: self.repo_guid.clone(),
            kind: Some(kind_field(self.kind).ok_or(DraftFault::NoKind)?),
            ..pb::Operation::default()
        };
        let room = room_for_details(message.encoded_len())?;
        message.details = Some(self.details.fit(room, 0)?).filter(|details| details.encoded_len() > 0);
        Ok(Record::parse(message.encode_to_vec())?)
    }

    /// What a record says, as far as this program understands it. Text that is not UTF-8 is shown with replacement
    /// characters; fields of another type than expected are passed over.
    pub fn decode(record: &Record) -> Self {
        let columns = record.columns();
        let scope = record.scope();
        let mut draft =
            Self::new(columns.kind, columns.status, &scope.repo, &scope.plan, columns.start_unix_ms);
        draft.end_unix_ms = Some(columns.end_unix_ms).filter(|end| *end != 0);
        for field in Fields(record.as_bytes()) {
            match (field.number, field.value) {
                (MESSAGE, Value::Bytes(text)) => draft.message = lossy(text),
                (SNAPSHOT_ID, Value::Bytes(text)) => draft.snapshot_id = lossy(text),
                (REPO_GUID, Value::Bytes(text)) => draft.repo_guid = lossy(text),
                (DETAILS, Value::Bytes(nested)) => draft.details.merge(nested),
                _ => {}
            }
        }
        draft
    }
}

impl Details {
    /// Reads the fields of an encoded message over this one, as protobuf merges repeated submessages.
    fn merge(&mut self, bytes: &[u8]) {
        for field in Fields(bytes) {
            match (field.number, field.value) {
                (1, Value::Bytes(text)) => self.tool = lossy(text),
                (2, Value::Bytes(text)) => self.tool_version = lossy(text),
                // An int32 travels as a sign-extended 64-bit number; the lower half is the number.
                (3, Value::Varint(n)) => {
                    let low = u32::try_from(n & u64::from(u32::MAX)).unwrap_or(0);
                    self.exit_code = Some(low.cast_signed());
                }
                (4, Value::Bytes(text)) => self.argv.push(lossy(text)),
                (5, Value::Bytes(text)) => self.summary_json = lossy(text),
                (6, Value::Bytes(text)) => self.errors.push(lossy(text)),
                (7, Value::Varint(n)) => self.error_count = n,
                (8, Value::Bytes(text)) => self.log_tail = lossy(text),
                _ => {}
            }
        }
    }

    /// The message within `room` bytes, `kept` of which are taken by unknown fields.
    fn fit(&self, room: usize, kept: usize) -> Result<pb::Details, DraftFault> {
        let mut message = pb::Details {
            tool: self.tool.clone(),
            tool_version: self.tool_version.clone(),
            exit_code: self.exit_code,
            argv: self.argv.clone(),
            summary_json: self.summary_json.clone(),
            errors: self.errors.iter().take(MAX_ERRORS).cloned().collect(),
            error_count: self.error_count.max(u64::try_from(self.errors.len()).unwrap_or(u64::MAX)),
            log_tail: tail(&self.log_tail, MAX_LOG_TAIL_BYTES).to_owned(),
        };
        let over = |message: &pb::Details| (message.encoded_len() + kept).saturating_sub(room);
        let excess = over(&message);
        if excess > 0 {
            let cut = tail(&message.log_tail, message.log_tail.len().saturating_sub(excess)).to_owned();
            message.log_tail = cut;
        }
        while over(&message) > 0 && message.errors.pop().is_some() {}
        match over(&message) {
            0 => Ok(message),
            excess => Err(DraftFault::TooLarge { bytes: MAX_RECORD_BYTES + excess }),
        }
    }
}

impl Edit {
    /// The record with this edit applied. Every other byte stays, fields unknown to this program included; edited
    /// fields move to the end.
    pub fn apply(&self, record: &Record) -> Result<Record, DraftFault> {
        let mut bytes = Vec::with_capacity(record.as_bytes().len());
        let mut unknown_details = Vec::new();
        for field in Fields(record.as_bytes()) {
            match field.value {
                Value::Bytes(nested) if field.number == DETAILS && self.details.is_some() => {
                    Fields(nested)
                        .filter(|inner| inner.number > LAST_DETAIL)
                        .for_each(|inner| unknown_details.extend_from_slice(inner.raw));
                }
                _ if self.touches(field.number) => {}
                _ => bytes.extend_from_slice(field.raw),
            }
        }
        let edited = pb::Operation {
            status: self.status.map_or(0, status_number),
            start_unix_ms: self.start_unix_ms.unwrap_or(0),
            end_unix_ms: self.end_unix_ms.unwrap_or(0),
            message: self.message.clone().unwrap_or_default(),
            snapshot_id: self.snapshot_id.clone().unwrap_or_default(),
            repo_guid: self.repo_guid.clone().unwrap_or_default(),
            ..pb::Operation::default()
        };
        bytes.extend_from_slice(&edited.encode_to_vec());
        if let Some(details) = &self.details {
            let room = room_for_details(bytes.len())?;
            let mut nested = details.fit(room, unknown_details.len())?.encode_to_vec();
            nested.extend_from_slice(&unknown_details);
            if !nested.is_empty() {
                prost::encoding::bytes::encode(DETAILS, &nested, &mut bytes);
            }
        }
        match Record::parse(bytes) {
            Err(RecordFault::TooLarge { bytes }) => Err(DraftFault::TooLarge { bytes }),
            other => Ok(other?),
        }
    }

    fn touches(&self, field: u32) -> bool {
        match field {
            STATUS => self.status.is_some(),
            START => self.start_unix_ms.is_some(),
            END => self.end_unix_ms.is_some(),
            MESSAGE => self.message.is_some(),
            SNAPSHOT_ID => self.snapshot_id.is_some(),
            REPO_GUID => self.repo_guid.is_some(),
            DETAILS => self.details.is_some(),
            _ => false,
        }
    }
}

impl From<Draft> for Edit {
    /// The edit that brings a record to where `draft` is; its kind, repository and plan are passed over.
    fn from(draft: Draft) -> Self {
        Self {
            status: Some(draft.status),
            start_unix_ms: Some(draft.start_unix_ms),
            end_unix_ms: Some(draft.end_unix_ms.unwrap_or(0)),
            message: Some(draft.message),
            snapshot_id: Some(draft.snapshot_id),
            repo_guid: Some(draft.repo_guid),
            details: Some(draft.details),
        }
    }
}

/// The last `bytes` of a text, from a character border on.
pub fn tail(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    (from..=text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}

/// The first `bytes` of a text, up to a character border.
pub fn head(text: &str, bytes: usize) -> &str {
    let to = text.len().min(bytes);
    (0..=to).rev().find_map(|at| text.get(..at)).unwrap_or_default()
}

fn room_for_details(others: usize) -> Result<usize, DraftFault> {
    (MAX_RECORD_BYTES - DETAILS_FRAMING).checked_sub(others).ok_or(DraftFault::TooLarge { bytes: others })
}

fn status_number(status: Status) -> i32 {
    i32::try_from(status.number()).unwrap_or(0)
}

fn kind_field(kind: Kind) -> Option<pb::operation::Kind> {
    use pb::operation::Kind as Field;
    Some(match kind {
        Kind::Unknown => return None,
        Kind::Backup => Field::Backup(pb::Backup {}),
        Kind::Index => Field::Index(pb::Index {}),
        Kind::Forget => Field::Forget(pb::Forget {}),
        Kind::Prune => Field::Prune(pb::Prune {}),
        Kind::Restore => Field::Restore(pb::Restore {}),
        Kind::Stats => Field::Stats(pb::Stats {}),
        Kind::Hook => Field::Hook(pb::Hook {}),
        Kind::Check => Field::Check(pb::Check {}),
        Kind::Command => Field::Command(pb::Command {}),
    })
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// The fields of an encoded message with the bytes of each; ends at the first that cannot be read.
struct Fields<'a>(&'a [u8]);

struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Key and value as they stand.
    raw: &'a [u8],
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.0;
        let mut rest = start;
        let (number, wire) = decode_key(&mut rest).ok()?;
        let value = match wire {
            WireType::Varint => Value::Varint(decode_varint(&mut rest).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                Value::Bytes(bytes)
            }
            other => {
                skip_field(other, number, &mut rest, DecodeContext::default()).ok()?;
                Value::Other
            }
        };
        self.0 = rest;
        Some(Field { number, value, raw: start.get(..start.remaining() - rest.remaining())? })
    }
}

/// Kinds by name in files.
mod kind_name {
    use opmesh_core::model::Kind;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let name = String::deserialize(from)?;
        Kind::from_name(&name).ok_or_else(|| de::Error::custom(format!("unknown kind {name:?}")))
    }
}

/// Statuses by name in files.
mod status_name {
    use opmesh_core::model::Status;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(status: &Status, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(status.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Status, D::Error> {
        let name = String::deserialize(from)?;
        Status::from_name(&name).ok_or_else(|| de::Error::custom(format!("unknown status {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn details() -> impl Strategy<Value = Details> {
        (
            (".{0,9}", ".{0,9}", any::<Option<i32>>(), proptest::collection::vec(".{0,9}", 0..4)),
            (".{0,20}", proptest::collection::vec(".{0,9}", 0..4), 4_u64..99, ".{0,40}"),
        )
            .prop_map(
                |((tool, tool_version, exit_code, argv), (summary_json, errors, error_count, log_tail))| {
                    Details {
                        tool,
                        tool_version,
                        exit_code,
                        argv,
                        summary_json,
                        errors,
                        error_count,
                        log_tail,
                    }
                },
            )
    }

    fn draft() -> impl Strategy<Value = Draft> {
        (
            (0_usize..9, 0_usize..8, ".{1,9}", ".{1,9}", any::<i64>()),
            (proptest::option::of(1_i64..), ".{0,9}", ".{0,9}", ".{0,9}", details()),
        )
            .prop_map(
                |((kind, status, repo, plan, start), (end, message, snapshot, guid, details))| Draft {
                    end_unix_ms: end,
                    message,
                    snapshot_id: snapshot,
                    repo_guid: guid,
                    details,
                    ..Draft::new(Kind::ALL[kind].0, Status::ALL[status].0, &repo, &plan, start)
                },
            )
    }

    /// Field 1023 with a varint, field 1022 fixed, field 2000 with bytes.
    const UNKNOWN: &[&[u8]] =
        &[&[0xf8, 0x3f, 7], &[0xf5, 0x3f, 1, 2, 3, 4], &[0x82, 0x7d, 3, b'a', b'b', b'c']];

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    proptest! {
        #[test]
        fn a_record_says_what_its_draft_said(draft in draft()) {
            prop_assert_eq!(Draft::decode(&draft.encode().unwrap()), draft);
        }

        #[test]
        fn an_edit_changes_what_it_names_and_keeps_unknown_fields(
            before in draft(), after in draft(), pick in 0..UNKNOWN.len(), nested in any::<bool>()
        ) {
            let mut bytes = UNKNOWN[pick].to_vec();
            bytes.extend_from_slice(before.encode().unwrap().as_bytes());
            if nested {
                prost::encoding::bytes::encode(DETAILS, &UNKNOWN[pick].to_vec(), &mut bytes);
            }
            let record = Record::parse(bytes).unwrap();
            let edited = Edit::from(after.clone()).apply(&record).unwrap();
            let Draft { kind, repo_id, plan_id, .. } = before;
            prop_assert_eq!(Draft::decode(&edited), Draft { kind, repo_id, plan_id, ..after });
            prop_assert!(edited.as_bytes().starts_with(UNKNOWN[pick]));
            if nested {
                let tail = Fields(edited.as_bytes()).last().unwrap();
                prop_assert!(contains(tail.raw, UNKNOWN[pick]));
            }
        }

        #[test]
        fn an_empty_edit_leaves_every_byte(draft in draft()) {
            let record = draft.encode().unwrap();
            prop_assert_eq!(Edit::default().apply(&record).unwrap(), record);
        }

        #[test]
        fn any_bytes_that_are_a_record_can_be_shown_and_edited(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut record = Draft::new(Kind::Backup, Status::Success, "r", "p", 1).encode().unwrap().into_bytes();
            record.extend_from_slice(&bytes);
            if let Ok(record) = Record::parse(record) {
                Draft::decode(&record);
                Edit { message: Some("x".to_owned()), ..Edit::default() }.apply(&record).unwrap();
            }
        }
    }

    #[test]
    fn an_edit_of_one_field_leaves_the_bytes_of_all_others() {
        let draft = Draft::new(Kind::Backup, Status::InProgress, "r", "p", 5);
        let record = draft.encode().unwrap();
        let edited = Edit { message: Some("gone".to_owned()), ..Edit::default() }.apply(&record).unwrap();
        assert!(edited.as_bytes().starts_with(record.as_bytes()));
        assert_eq!(Draft::decode(&edited), Draft { message: "gone".to_owned(), ..draft });
    }

    #[test]
    fn a_draft_that_is_too_large_loses_its_log_then_its_errors_then_is_refused() {
        let mut draft = Draft::new(Kind::Backup, Status::Error, "r", "p", 5);
        draft.details.log_tail = "ä".repeat(MAX_LOG_TAIL_BYTES);
        draft.details.errors = vec!["e".repeat(1000); 150];
        let kept = Draft::decode(&draft.encode().unwrap()).details;
        assert_eq!((kept.errors.len(), kept.error_count), (MAX_ERRORS, 150));
        assert_eq!(kept.log_tail.len(), MAX_LOG_TAIL_BYTES);

        draft.details.summary_json = "s".repeat(60_000);
        let record = draft.encode().unwrap();
        let kept = Draft::decode(&record).details;
        assert_eq!(kept.errors.len(), MAX_ERRORS);
        assert!((1..MAX_LOG_TAIL_BYTES).contains(&kept.log_tail.len()));
        assert!((MAX_RECORD_BYTES - 8..=MAX_RECORD_BYTES).contains(&record.as_bytes().len()));

        draft.details.summary_json = "s".repeat(140_000);
        let kept = Draft::decode(&draft.encode().unwrap()).details;
        assert_eq!(kept.log_tail, "");
        assert!((1..MAX_ERRORS).contains(&kept.errors.len()));
        assert_eq!(kept.error_count, 150);

        draft.details.summary_json = "s".repeat(200_000);
        assert!(matches!(draft.encode(), Err(DraftFault::TooLarge { .. })));
        draft.message = "m".repeat(200_000);
        assert!(matches!(draft.encode(), Err(DraftFault::TooLarge { .. })));
    }

    #[test]
    fn a_draft_without_kind_repository_or_plan_is_refused() {
        let draft = |kind, repo, plan| Draft::new(kind, Status::Success, repo, plan, 1).encode().unwrap_err();
        assert_eq!(draft(Kind::Unknown, "r", "p"), DraftFault::NoKind);
        assert!(matches!(draft(Kind::Check, "", "p"), DraftFault::Refused(_)));
        assert!(matches!(draft(Kind::Check, "r", ""), DraftFault::Refused(_)));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!((tail("aäb", 2), tail("aäb", 3), tail("aäb", 9)), ("b", "äb", "aäb"));
        assert_eq!((head("aäb", 2), head("aäb", 3), head("aäb", 0)), ("a", "aä", ""));
    }
}
