//! The record: an operation's encoded bytes as its owner wrote them.
//!
//! A record is an `opmesh.v1.Operation` message without the fields that each side numbers for itself. It is walked
//! here, never decoded: a hub must keep bytes it does not understand, and re-encoding would change them.

use std::fmt;

use super::operation::Scope;

/// The largest record in bytes. Intake cuts `log_tail` first to stay below it.
pub const MAX_RECORD_BYTES: usize = 192 * 1024;

/// Top-level fields that are kept beside the record, never in it: id, flow id, modno and the three originals.
const LEFT_OUT: [u32; 6] = [1, 10, 12, 13, 14, 16];

const REPO_ID: u32 = 2;
const PLAN_ID: u32 = 3;
const STATUS: u32 = 4;
const START_MS: u32 = 5;
const END_MS: u32 = 6;

/// An operation's bytes, walked once: they are well-formed, hold none of the left-out fields, and name a repository
/// and a plan.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    scope: Scope,
    columns: Columns,
}

/// What a store keeps beside the bytes so that lists need not walk them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Which tool step it was.
    pub kind: Kind,
    /// How it went.
    pub status: Status,
    /// When it began, in milliseconds since 1970; 0 when absent.
    pub start_unix_ms: i64,
    /// When it ended, in milliseconds since 1970; 0 when it has not.
    pub end_unix_ms: i64,
}

/// What sort of step an operation is. Names and numbers are the record's field numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// None of the known kinds; an owner newer than this program.
    Unknown,
    /// Field 100.
    Backup,
    /// Field 101: a snapshot was listed.
    Index,
    /// Field 102.
    Forget,
    /// Field 103.
    Prune,
    /// Field 104.
    Restore,
    /// Field 105.
    Stats,
    /// Field 106.
    Hook,
    /// Field 107.
    Check,
    /// Field 108: any other command.
    Command,
}

impl Kind {
    /// All kinds with their field number and their name in text.
    pub const ALL: [(Self, u32, &'static str); 9] = [
        (Self::Backup, 100, "backup"),
        (Self::Index, 101, "index"),
        (Self::Forget, 102, "forget"),
        (Self::Prune, 103, "prune"),
        (Self::Restore, 104, "restore"),
        (Self::Stats, 105, "stats"),
        (Self::Hook, 106, "hook"),
        (Self::Check, 107, "check"),
        (Self::Command, 108, "command"),
    ];

    /// The field of the record that says so; 0 for unknown.
    pub fn field(self) -> u32 {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, field, _)| *field)
    }

    /// From a field number; unknown ones are [`Kind::Unknown`].
    pub fn from_field(field: u32) -> Self {
        Self::ALL.iter().find(|(_, number, _)| *number == field).map_or(Self::Unknown, |(kind, ..)| *kind)
    }

    /// The name in text and JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("unknown", |(.., name)| *name)
    }

    /// From the name in text and JSON.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(.., text)| *text == name).map(|(kind, ..)| *kind)
    }
}

/// How an operation went. Numbers are those of the record's status field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// 0, or a number that this program does not know.
    Unknown,
    /// 1: planned.
    Pending,
    /// 2: running.
    InProgress,
    /// 3.
    Success,
    /// 4.
    Error,
    /// 5: stopped by the system.
    SystemCancelled,
    /// 6: stopped by a person.
    UserCancelled,
    /// 7: done, with something to look at.
    Warning,
}

impl Status {
    /// All statuses with their number and their name in text.
    pub const ALL: [(Self, u32, &'static str); 8] = [
        (Self::Unknown, 0, "unknown"),
        (Self::Pending, 1, "pending"),
        (Self::InProgress, 2, "inprogress"),
        (Self::Success, 3, "success"),
        (Self::Error, 4, "error"),
        (Self::SystemCancelled, 5, "system_cancelled"),
        (Self::UserCancelled, 6, "user_cancelled"),
        (Self::Warning, 7, "warning"),
    ];

    /// The number in the record.
    pub fn number(self) -> u32 {
        Self::ALL.iter().find(|(status, ..)| *status == self).map_or(0, |(_, number, _)| *number)
    }

    /// From the number in the record; unknown ones are [`Status::Unknown`].
    pub fn from_number(number: u32) -> Self {
        Self::ALL.iter().find(|(_, known, _)| *known == number).map_or(Self::Unknown, |(status, ..)| *status)
    }

    /// The name in text and JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(status, ..)| *status == self).map_or("unknown", |(.., name)| *name)
    }

    /// From the name in text and JSON.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(.., text)| *text == name).map(|(status, ..)| *status)
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// More than [`MAX_RECORD_BYTES`].
    #[error("record of {bytes} bytes exceeds the limit of {MAX_RECORD_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a sequence of protobuf fields.
    #[error("record is not well-formed protobuf at byte {at}")]
    Malformed {
        /// Where the field starts that cannot be read.
        at: usize,
    },
    /// A field that is kept beside the record stands in it.
    #[error("record carries left-out field {field}")]
    LeftOutField {
        /// Its number.
        field: u32,
    },
    /// `repo_id` or `plan_id` is missing, empty or not UTF-8.
    #[error("record has no usable {name}")]
    NoScope {
        /// Which one.
        name: &'static str,
    },
}

impl Record {
    /// Walks the top-level fields once. As in protobuf, the last of several equal scalar fields counts.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, RecordFault> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordFault::TooLarge { bytes: bytes.len() });
        }
        let mut repo = None;
        let mut plan = None;
        let mut columns =
            Columns { kind: Kind::Unknown, status: Status::Unknown, start_unix_ms: 0, end_unix_ms: 0 };
        let mut fields = Fields { bytes: &bytes, at: 0 };
        while let Some(field) = fields.next()? {
            match field {
                (number, _) if LEFT_OUT.contains(&number) => {
                    return Err(RecordFault::LeftOutField { field: number });
                }
                (REPO_ID, Value::Bytes(text)) => repo = Some(text),
                (PLAN_ID, Value::Bytes(text)) => plan = Some(text),
                (STATUS, Value::Varint(n)) => {
                    columns.status = Status::from_number(u32::try_from(n).unwrap_or(0));
                }
                (START_MS, Value::Varint(n)) => columns.start_unix_ms = n.cast_signed(),
                (END_MS, Value::Varint(n)) => columns.end_unix_ms = n.cast_signed(),
                (number, Value::Bytes(_)) if Kind::from_field(number) != Kind::Unknown => {
                    columns.kind = Kind::from_field(number);
                }
                _ => {}
            }
        }
        let scope = Scope { repo: named(repo, "repo_id")?, plan: named(plan, "plan_id")? };
        Ok(Self { bytes, scope, columns })
    }

    /// The owner's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The owner's bytes, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where the operation belongs.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What lists show without walking the bytes again.
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// A small record with a message, for tests.
    #[cfg(any(test, feature = "oracle"))]
    pub fn for_tests(repo: &str, plan: &str, message: &str) -> Self {
        let mut bytes = Vec::new();
        for (field, text) in [(2_u8, repo), (3, plan), (7, message)] {
            bytes.push(field << 3 | 2);
            bytes.push(u8::try_from(text.len()).unwrap_or(0));
            bytes.extend_from_slice(text.as_bytes());
        }
        Self {
            bytes,
            scope: Scope { repo: repo.to_owned(), plan: plan.to_owned() },
            columns: Columns {
                kind: Kind::Unknown,
                status: Status::Unknown,
                start_unix_ms: 0,
                end_unix_ms: 0,
            },
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}/{}, {} B)", self.scope.repo, self.scope.plan, self.bytes.len())
    }
}

fn named(text: Option<&[u8]>, name: &'static str) -> Result<String, RecordFault> {
    text.and_then(|bytes| std::str::from_utf8(bytes).ok())
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .ok_or(RecordFault::NoScope { name })
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, RecordFault> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let malformed = RecordFault::Malformed { at: self.at };
        self.field().ok_or(malformed).map(Some)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = u32::try_from(self.varint()?).ok()?;
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((number, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            let low = u64::from(byte & 0x7f);
            value |= low.checked_shl(shift).filter(|shifted| shifted >> shift == low)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_that_carries_a_left_out_field_is_refused_by_its_number() {
        for field in LEFT_OUT {
            let mut bytes = Record::for_tests("r", "p", "m").into_bytes();
            let key = field << 3;
            if key > 127 {
                bytes.push(u8::try_from(key & 0x7f).unwrap() | 0x80);
                bytes.push(u8::try_from(key >> 7).unwrap());
            } else {
                bytes.push(u8::try_from(key).unwrap());
            }
            bytes.push(5);
            assert_eq!(Record::parse(bytes), Err(RecordFault::LeftOutField { field }));
        }
    }

    #[test]
    fn unknown_fields_stay_in_the_bytes() {
        let mut bytes = Record::for_tests("r", "p", "m").into_bytes();
        bytes.extend_from_slice(&[0xf8, 0x3f, 1]); // field 1023, varint 1
        let record = Record::parse(bytes.clone()).unwrap();
        assert_eq!(record.as_bytes(), bytes);
        assert_eq!(record.scope(), &Scope { repo: "r".into(), plan: "p".into() });
    }

    #[test]
    fn a_record_without_repository_or_plan_is_refused() {
        assert_eq!(Record::parse(vec![]), Err(RecordFault::NoScope { name: "repo_id" }));
        assert_eq!(Record::parse(vec![0x12, 1, b'r']), Err(RecordFault::NoScope { name: "plan_id" }));
        assert_eq!(Record::parse(vec![0x12, 1, 0xff]), Err(RecordFault::NoScope { name: "repo_id" }));
    }

    #[test]
    fn a_truncated_record_is_refused_where_it_breaks() {
        let bytes = Record::for_tests("r", "p", "m").into_bytes();
        let after_the_plan = 6; // between two fields: what is left is a record
        for cut in (1..bytes.len()).filter(|cut| *cut != after_the_plan) {
            assert!(Record::parse(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        }
        assert_eq!(Record::parse(vec![0; 9]), Err(RecordFault::Malformed { at: 0 }));
        assert_eq!(
            Record::parse(vec![0; MAX_RECORD_BYTES + 1]),
            Err(RecordFault::TooLarge { bytes: MAX_RECORD_BYTES + 1 })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_a_fault_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = Record::parse(bytes.clone()) {
                prop_assert_eq!(record.into_bytes(), bytes);
            }
        }
    }
}
