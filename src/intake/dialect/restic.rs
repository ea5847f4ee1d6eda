//! restic 0.14 to 0.19, and rustic where it speaks alike.
//!
//! JSON lines keyed by `message_type`: `status` and `summary` on standard output, `error` and `exit_error` on standard
//! error between plain text. `snapshots`, `forget` and `stats` print one value without that key; `forget --prune` up to
//! 0.19 and `check` before 0.18 print text. Fields with zero values may be missing.

use serde_json::{Value, json};

use super::{Worth, number_at, text_at};
use crate::intake::observer::Source;
use crate::intake::outcome::{Findings, MAX_SUMMARY_BYTES, Severity, Snapshot};
use crate::intake::redact;

pub(super) fn value(source: Source, value: &Value, findings: &mut Findings) -> Worth {
    match value.get("message_type").and_then(Value::as_str) {
        Some("status") => return Worth::Nothing,
        Some("summary") => {
            findings.incomplete |= number_at(value, "/num_errors") > 0;
            summary(value, text_at(value, "/snapshot_id"), findings);
            return Worth::Nothing;
        }
        Some("error") => {
            findings.error(&error_text(value));
            findings.incomplete = true;
        }
        Some("exit_error") => {
            let code = value.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
            findings.exit_error = Some((code, text_at(value, "/message").to_owned()));
        }
        Some("initialized") => {
            text_at(value, "/id").clone_into(&mut findings.repo_guid);
            findings.summary(redact::urls(&value.to_string()));
        }
        None if source != Source::Stderr => {
            result(value, findings);
            return Worth::Nothing;
        }
        Some(_) | None => {}
    }
    Worth::Logging
}

pub(super) fn text(source: Source, line: &str, findings: &mut Findings) {
    if let Some(id) = line.strip_prefix("snapshot ").and_then(|rest| rest.strip_suffix(" saved")) {
        findings.snapshot(Snapshot { snapshot_id: id.to_owned(), ..Snapshot::default() });
    } else if line == "no errors were found" {
        findings.summarized = true;
    } else if let Some(version) =
        line.strip_prefix("restic ").and_then(|rest| rest.split_once(" compiled with"))
    {
        version.0.clone_into(&mut findings.tool_version);
    }
    if source == Source::Stdout {
        return;
    }
    if line.ends_with(" does not exist, skipping") {
        findings.incomplete = true;
        findings.error(line);
    } else if line.starts_with("Fatal: ") {
        findings.tell(Severity::Error);
        findings.error(line);
    } else if line.starts_with("error: ") {
        findings.incomplete = true;
        findings.error(line);
    }
}

pub(super) fn is_progress(value: &Value) -> bool {
    text_at(value, "/message_type") == "status"
}

/// A value without a type: what a listing command was asked for, or rustic's snapshot.
fn result(value: &Value, findings: &mut Findings) {
    let first = value.get(0).unwrap_or(value);
    if let Some(version) = text_at(first, "/program_version").split_whitespace().last() {
        version.clone_into(&mut findings.tool_version);
    }
    if value.get("tree").is_some() && value.get("summary").is_some() {
        return summary(value, text_at(value, "/id"), findings);
    }
    let is_forget = first.get("keep").is_some() || first.get("remove").is_some();
    if is_forget && value.to_string().len() > MAX_SUMMARY_BYTES {
        return findings.summary(forget_counts(value).to_string());
    }
    summary(value, "", findings);
}

/// What stands in for a list of kept and removed snapshots that is too long to keep.
fn forget_counts(groups: &Value) -> Value {
    let groups = groups.as_array().map(Vec::as_slice).unwrap_or_default();
    let count = |name| -> usize {
        groups.iter().filter_map(|group| group.get(name)).filter_map(Value::as_array).map(Vec::len).sum()
    };
    json!({ "groups": groups.len(), "keep": count("keep"), "remove": count("remove") })
}

fn summary(value: &Value, snapshot_id: &str, findings: &mut Findings) {
    let json = redact::urls(&value.to_string());
    if snapshot_id.is_empty() {
        findings.summary(json);
    } else {
        let summary_json = if json.len() <= MAX_SUMMARY_BYTES { json } else { String::new() };
        let snapshot_id = snapshot_id.to_owned();
        findings.snapshot(Snapshot { snapshot_id, summary_json, repo_guid: String::new() });
    }
}

fn error_text(value: &Value) -> String {
    let told = ["/error/message", "/error", "/message"].iter().map(|path| text_at(value, path));
    let told = told.filter(|text| !text.is_empty()).map(str::to_owned).next();
    // Before 0.17 there is no text: Go's errors were encoded as an empty object.
    let told = told.unwrap_or_else(|| format!("error during {}", text_at(value, "/during")));
    let item = text_at(value, "/item");
    if item.is_empty() || told.contains(item) { told } else { format!("{item}: {told}") }
}
