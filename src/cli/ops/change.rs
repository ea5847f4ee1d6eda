//! One line of `ops apply`: JSON to the change that it asks for. Unknown keys are errors, never ignored.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;

use super::apply::REFUSED;
use super::lines::{Line, MAX_LINE_BYTES};
use crate::admin::pb::{self, change::Change as Kind};

/// Reads a line; the error is the reason to print.
pub(super) fn parse(line: &Line) -> Result<pb::Change, String> {
    if line.bytes.len() > MAX_LINE_BYTES {
        return Err(format!("the line is longer than {MAX_LINE_BYTES} bytes"));
    }
    // Derived readers take a list for a struct.
    if line.bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("expected a JSON object".to_owned());
    }
    let written: Written = serde_json::from_slice(&line.bytes).map_err(|fault| without_place(&fault))?;
    let change = match (written.create, written.update, written.delete) {
        (Some(create), None, None) => Kind::Create(create.into()),
        (None, Some(update), None) => Kind::Update(update.into()),
        (None, None, Some(delete)) => Kind::Delete(pb::DeleteOperation {
            id: delete.id.0,
            expect_modno: delete.expect_modno.map(|n| n.0),
        }),
        _ => return Err("expected exactly one of create, update and delete".to_owned()),
    };
    Ok(pb::Change { line: line.number, change: Some(change) })
}

/// The parser's sentence with the column only: the line number is the caller's.
fn without_place(fault: &serde_json::Error) -> String {
    let text = fault.to_string();
    let sentence = text.rsplit_once(" at line ").map_or(text.as_str(), |(sentence, _)| sentence);
    format!("{sentence} at column {}", fault.column())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    create: Option<Create>,
    update: Option<Update>,
    delete: Option<Delete>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    kind: String,
    status: String,
    repo_id: String,
    plan_id: String,
    start_unix_ms: Option<Number<i64>>,
    end_unix_ms: Option<Number<i64>>,
    flow_id: Option<Number<u64>>,
    message: Option<String>,
    snapshot_id: Option<String>,
    repo_guid: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    id: Number<u64>,
    status: Option<String>,
    start_unix_ms: Option<Number<i64>>,
    end_unix_ms: Option<Number<i64>>,
    message: Option<String>,
    snapshot_id: Option<String>,
    details: Option<Details>,
    expect_modno: Option<Number<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    id: Number<u64>,
    expect_modno: Option<Number<u64>>,
}

/// As `ops show` prints them; all may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Details {
    tool: Option<String>,
    tool_version: Option<String>,
    exit_code: Option<i32>,
    argv: Option<Vec<String>>,
    summary: Option<Value>,
    errors: Option<Vec<String>>,
    error_count: Option<Number<u64>>,
    log_tail: Option<String>,
}

impl From<Create> for pb::CreateOperation {
    fn from(create: Create) -> Self {
        Self {
            kind: create.kind,
            status: create.status,
            repo_id: create.repo_id,
            plan_id: create.plan_id,
            start_unix_ms: create.start_unix_ms.map(|n| n.0),
            end_unix_ms: create.end_unix_ms.map(|n| n.0),
            flow_id: create.flow_id.map(|n| n.0),
            message: create.message.unwrap_or_default(),
            snapshot_id: create.snapshot_id.unwrap_or_default(),
            repo_guid: create.repo_guid.unwrap_or_default(),
            details: create.details.map(Into::into),
        }
    }
}

impl From<Update> for pb::UpdateOperation {
    fn from(update: Update) -> Self {
        Self {
            id: update.id.0,
            status: update.status,
            start_unix_ms: update.start_unix_ms.map(|n| n.0),
            end_unix_ms: update.end_unix_ms.map(|n| n.0),
            message: update.message,
            snapshot_id: update.snapshot_id,
            details: update.details.map(Into::into),
            expect_modno: update.expect_modno.map(|n| n.0),
        }
    }
}

impl From<Details> for pb::Details {
    fn from(details: Details) -> Self {
        let errors = details.errors.unwrap_or_default();
        let counted = u64::try_from(errors.len()).unwrap_or(u64::MAX);
        Self {
            tool: details.tool.unwrap_or_default(),
            tool_version: details.tool_version.unwrap_or_default(),
            exit_code: details.exit_code,
            argv: details.argv.unwrap_or_default(),
            summary_json: details.summary.map(|summary| summary.to_string()).unwrap_or_default(),
            error_count: details.error_count.map_or(counted, |n| n.0),
            errors,
            log_tail: details.log_tail.unwrap_or_default(),
        }
    }
}

/// A 64-bit number as this program prints it, a decimal string, or as a JSON number.
struct Number<T>(T);

impl<'de, T> Deserialize<'de> for Number<T>
where
    T: FromStr + TryFrom<u64> + TryFrom<i64>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor(std::marker::PhantomData)).map(Self)
    }
}

struct NumberVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr + TryFrom<u64> + TryFrom<i64>> Visitor<'_> for NumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or one as a decimal string")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// A refused line as it is printed.
pub(super) fn refused(line: &Line, reason: String) -> pb::ApplyResult {
    pb::ApplyResult {
        line: line.number,
        result: REFUSED.to_owned(),
        id: None,
        modno: None,
        reason: Some(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<pb::Change, String> {
        parse(&Line { number: 7, bytes: text.as_bytes().to_vec() })
    }

    #[test]
    fn numbers_come_as_strings_or_as_numbers() {
        for id in ["\"18446744073709551615\"", "18446744073709551615"] {
            let change = parsed(&format!("{{\"delete\":{{\"id\":{id}}}}}")).unwrap();
            let expected = Kind::Delete(pb::DeleteOperation { id: u64::MAX, expect_modno: None });
            assert_eq!((change.line, change.change), (7, Some(expected)));
        }
    }

    #[test]
    fn a_create_names_what_it_needs_and_takes_what_show_prints() {
        let change = parsed(
            r#"{"create":{"kind":"backup","status":"success","repo_id":"r","plan_id":"p","end_unix_ms":"-5",
                "details":{"tool":"restic","summary":{"files_new":3},"errors":["x"]}}}"#,
        );
        let Some(Kind::Create(create)) = change.unwrap().change else { panic!("no create") };
        assert_eq!(
            (create.kind.as_str(), create.end_unix_ms, create.start_unix_ms),
            ("backup", Some(-5), None)
        );
        let details = create.details.unwrap();
        assert_eq!((details.summary_json.as_str(), details.error_count), (r#"{"files_new":3}"#, 1));
        let missing = parsed(r#"{"create":{"kind":"backup","status":"success","repo_id":"r"}}"#).unwrap_err();
        assert!(missing.contains("plan_id"), "{missing}");
    }

    #[test]
    fn what_is_no_change_is_refused_by_name() {
        for (text, word) in [
            ("", "JSON object"),
            ("[]", "JSON object"),
            ("{}", "exactly one"),
            (r#"{"delete":{"id":1},"update":{"id":1}}"#, "exactly one"),
            (r#"{"delete":{"id":1,"force":true}}"#, "force"),
            (r#"{"remove":{"id":1}}"#, "remove"),
            (r#"{"delete":{"id":-1}}"#, "-1"),
            (r#"{"delete":{"id":"x"}}"#, "whole number"),
            (r#"{"delete":{"id":1.5}}"#, "1.5"),
            (r#"{"delete":{"id":1}} x"#, "trailing"),
        ] {
            let reason = parsed(text).unwrap_err();
            assert!(reason.contains(word), "{text}: {reason}");
            assert!(!reason.contains("at line"), "{reason}");
        }
    }
}
