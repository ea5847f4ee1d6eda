//! What the tools say, each in its own file: values and lines to findings. Unknown types and fields are passed over:
//! they may appear at any time.

mod borg;
mod kopia;
mod restic;

use serde_json::Value;

use super::command::Tool;
use super::observer::Source;
use super::outcome::Findings;

/// Whether a JSON value belongs in the log tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is progress, or is kept as a summary.
    Nothing,
    /// Nobody else keeps it.
    Logging,
}

/// Reads a JSON value of the tool's output.
pub(super) fn value(tool: Tool, source: Source, value: &Value, findings: &mut Findings) -> Worth {
    match tool {
        Tool::Restic | Tool::Rustic => restic::value(source, value, findings),
        Tool::Borg | Tool::Borgmatic => borg::value(source, value, findings),
        Tool::Kopia => kopia::value(source, value, findings),
        Tool::Other => Worth::Logging,
    }
}

/// Reads a line of text; trimmed and not empty.
pub(super) fn text(tool: Tool, source: Source, line: &str, findings: &mut Findings) {
    if source != Source::Stdout && !(source == Source::Mixed && findings.summarized) {
        findings.set_last_line(line);
    }
    match tool {
        Tool::Restic | Tool::Rustic => restic::text(source, line, findings),
        Tool::Borg | Tool::Borgmatic => borg::text(line, findings),
        Tool::Kopia | Tool::Other => {}
    }
}

/// Whether a JSON line tells nothing but how far the tool is.
pub(super) fn is_progress(tool: Tool, line: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return false };
    match tool {
        Tool::Restic | Tool::Rustic => restic::is_progress(&value),
        Tool::Borg | Tool::Borgmatic => borg::is_progress(&value),
        Tool::Kopia | Tool::Other => false,
    }
}

fn text_at<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn number_at(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}
