//! borg 1.x and 2, and borgmatic.
//!
//! `--json` prints one pretty-printed object on standard output at the end; borgmatic an array of them. `--log-json`
//! prints lines keyed by `type` on standard error. The exit code stands in the stream only with `--show-rc`.

use serde_json::Value;

use super::{Worth, text_at};
use crate::intake::observer::Source;
use crate::intake::outcome::{Findings, MAX_SUMMARY_BYTES, Severity, Snapshot};
use crate::intake::redact;

/// The logger that tells the exit code.
const SHOW_RC: &str = "borg.output.show-rc";

pub(super) fn value(source: Source, value: &Value, findings: &mut Findings) -> Worth {
    if is_progress(value) {
        return Worth::Nothing;
    }
    if text_at(value, "/type") == "log_message" {
        log_message(value, findings);
        return Worth::Logging;
    }
    if source == Source::Stderr || value.get("type").is_some() {
        return Worth::Logging;
    }
    match value.as_array() {
        Some(repositories) if repositories.iter().any(is_created) => {
            for each in repositories {
                result(each, findings);
            }
        }
        _ => result(value, findings),
    }
    Worth::Nothing
}

pub(super) fn text(line: &str, findings: &mut Findings) {
    if line.starts_with("terminating with ") {
        told_code(line, findings);
    } else if let Some(id) = line.strip_prefix("Archive fingerprint: ") {
        findings.snapshot(Snapshot { snapshot_id: id.trim().to_owned(), ..Snapshot::default() });
    }
}

pub(super) fn is_progress(value: &Value) -> bool {
    matches!(text_at(value, "/type"), "archive_progress" | "progress_message" | "progress_percent")
}

fn is_created(value: &Value) -> bool {
    value.get("archive").is_some_and(Value::is_object)
}

fn result(value: &Value, findings: &mut Findings) {
    let json = redact::urls(&value.to_string());
    let repo_guid = text_at(value, "/repository/id").to_owned();
    if is_created(value) {
        findings.snapshot(Snapshot {
            snapshot_id: text_at(value, "/archive/id").to_owned(),
            summary_json: if json.len() <= MAX_SUMMARY_BYTES { json } else { String::new() },
            repo_guid,
        });
    } else {
        findings.repo_guid = repo_guid;
        findings.summary(json);
    }
}

fn log_message(value: &Value, findings: &mut Findings) {
    let message = text_at(value, "/message");
    if text_at(value, "/name") == SHOW_RC {
        return told_code(message, findings);
    }
    findings.set_last_line(message);
    match text_at(value, "/levelname") {
        "WARNING" => {
            findings.tell(Severity::Warning);
            findings.error(message);
        }
        "ERROR" | "CRITICAL" => {
            findings.tell(Severity::Error);
            findings.error(message);
        }
        _ => {}
    }
}

/// `terminating with … status, rc N`.
fn told_code(message: &str, findings: &mut Findings) {
    if let Some(code) = message.rsplit_once(" rc ").and_then(|(_, code)| code.trim().parse().ok()) {
        findings.told_code = Some(code);
        findings.summarized = true;
    }
}
