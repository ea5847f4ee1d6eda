//! kopia: `snapshot create --json` prints one object for each source, also when files failed; `list` an array of them.

use serde_json::Value;

use super::{Worth, number_at, text_at};
use crate::intake::observer::Source;
use crate::intake::outcome::{Findings, MAX_SUMMARY_BYTES, Severity, Snapshot};
use crate::intake::redact;

const FAILED: &str = "/rootEntry/summ/numFailed";
const IGNORED: &str = "/rootEntry/summ/numIgnoredErrors";
const ERRORS: &str = "/rootEntry/summ/errors";

pub(super) fn value(source: Source, value: &Value, findings: &mut Findings) -> Worth {
    if source == Source::Stderr {
        return Worth::Logging;
    }
    let json = redact::urls(&value.to_string());
    if value.get("source").is_none() || text_at(value, "/id").is_empty() {
        findings.summary(json);
        return Worth::Nothing;
    }
    let incomplete = text_at(value, "/incomplete");
    if !incomplete.is_empty() {
        findings.error(&format!("{}: incomplete: {incomplete}", text_at(value, "/source/path")));
    }
    for error in value.pointer(ERRORS).and_then(Value::as_array).into_iter().flatten() {
        findings.error(&format!("{}: {}", text_at(error, "/path"), text_at(error, "/error")));
    }
    if number_at(value, FAILED) > 0 {
        findings.tell(Severity::Error);
    }
    findings.incomplete |=
        !incomplete.is_empty() || number_at(value, FAILED) > 0 || number_at(value, IGNORED) > 0;
    findings.snapshot(Snapshot {
        snapshot_id: text_at(value, "/id").to_owned(),
        summary_json: if json.len() <= MAX_SUMMARY_BYTES { json } else { String::new() },
        repo_guid: String::new(),
    });
    Worth::Nothing
}
