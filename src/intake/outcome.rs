//! What was found in a tool's output, and the verdict over it.

use opmesh_core::model::Status;

use super::command::Tool;
use super::redact;
use crate::record::{Details, Draft, MAX_ERRORS, head};

/// Snapshots of one run that become operations of their own.
const MAX_SNAPSHOTS: usize = 64;
/// Bytes of one error line that are kept.
const MAX_ERROR_BYTES: usize = 1024;
/// Bytes of the message.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Bytes of a summary that are kept; a larger one is left out, because a cut one would not parse.
pub(super) const MAX_SUMMARY_BYTES: usize = 64 * 1024;
/// Bytes of the summaries of all snapshots of a run, so that its result fits one message to the daemon.
const MAX_SUMMARIES_BYTES: usize = 1024 * 1024;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// What a shell reports of a child killed by a signal is this and the signal.
pub(super) const SIGNAL_BASE: i32 = 128;

/// How the tool ended, as far as anybody saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It never started; with the code that a shell would report: 126 or 127.
    NotStarted(i32),
    /// Nobody saw it.
    Unknown,
}

impl Ending {
    /// The code as a shell reports it.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited(code) | Self::NotStarted(code) => Some(code),
            Self::Killed(signal) => Some(SIGNAL_BASE + signal),
            Self::Unknown => None,
        }
    }
}

/// One snapshot that the run made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Verbatim from the tool.
    pub snapshot_id: String,
    /// The tool's own object as JSON text; empty when it printed none.
    pub summary_json: String,
    /// The repository's own identity, when the tool tells it.
    pub repo_guid: String,
}

/// What a run comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it went.
    pub status: Status,
    /// Why it failed, or the last thing that it said; one line.
    pub message: String,
    /// What it made; each becomes an operation.
    pub snapshots: Vec<Snapshot>,
    /// The tool's object when it made no snapshot.
    pub summary_json: String,
    /// The first [`MAX_ERRORS`].
    pub errors: Vec<String>,
    /// All of them.
    pub error_count: u64,
    /// As the tool says it; empty when it does not.
    pub tool_version: String,
    /// Seen by us or told by the tool.
    pub exit_code: Option<i32>,
    /// The end of the output.
    pub log_tail: String,
    /// The repository's own identity, when the tool tells it.
    pub repo_guid: String,
}

impl Outcome {
    /// The operations of this run: the one that `started` at its beginning, ended, and one for each further snapshot.
    pub fn operations(self, started: &Draft, end_unix_ms: i64) -> Vec<Draft> {
        let mut snapshots = self.snapshots.into_iter();
        let first = snapshots.next().unwrap_or_else(|| Snapshot {
            summary_json: self.summary_json.clone(),
            repo_guid: self.repo_guid.clone(),
            ..Snapshot::default()
        });
        let draft = |snapshot: Snapshot, details: Details| Draft {
            status: self.status,
            end_unix_ms: Some(end_unix_ms),
            message: self.message.clone(),
            snapshot_id: snapshot.snapshot_id,
            repo_guid: snapshot.repo_guid,
            details: Details {
                tool_version: self.tool_version.clone(),
                exit_code: self.exit_code,
                summary_json: snapshot.summary_json,
                tool: started.details.tool.clone(),
                argv: started.details.argv.clone(),
                ..details
            },
            ..started.clone()
        };
        let whole = Details {
            errors: self.errors,
            error_count: self.error_count,
            log_tail: self.log_tail,
            ..Details::default()
        };
        let mut operations = vec![draft(first, whole)];
        operations.extend(snapshots.map(|snapshot| draft(snapshot, Details::default())));
        operations
    }
}

/// How bad a log line says it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    #[default]
    Nothing,
    Warning,
    Error,
}

/// Collected while the output passes.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) tool_version: String,
    pub(super) repo_guid: String,
    /// The tool's own exit report: its code, if it names one, and its text.
    pub(super) exit_error: Option<(Option<i32>, String)>,
    /// The tool's exit code, told in its output.
    pub(super) told_code: Option<i32>,
    /// The tool said how it ended.
    pub(super) summarized: bool,
    /// The summary speaks of errors, or something was left out; the exit code may not say so.
    pub(super) incomplete: bool,
    pub(super) last_line: String,
    /// The worst that log lines told; an exit code knows better.
    told: Severity,
    snapshots: Vec<Snapshot>,
    summary: String,
    errors: Vec<String>,
    error_count: u64,
}

impl Findings {
    pub(super) fn error(&mut self, text: &str) {
        self.error_count = self.error_count.saturating_add(1);
        // The last one is the message, so it takes the last place when there are too many.
        self.errors.truncate(MAX_ERRORS - 1);
        self.errors.push(head(text, MAX_ERROR_BYTES).to_owned());
    }

    pub(super) fn snapshot(&mut self, mut snapshot: Snapshot) {
        self.summarized = true;
        let kept: usize = self.snapshots.iter().map(|snapshot| snapshot.summary_json.len()).sum();
        if kept + snapshot.summary_json.len() > MAX_SUMMARIES_BYTES {
            snapshot.summary_json.clear();
        }
        if self.snapshots.len() < MAX_SNAPSHOTS && !self.snapshots.contains(&snapshot) {
            self.snapshots.push(snapshot);
        }
    }

    pub(super) fn summary(&mut self, json: String) {
        self.summarized = true;
        if json.len() <= MAX_SUMMARY_BYTES {
            self.summary = json;
        }
    }

    pub(super) fn tell(&mut self, severity: Severity) {
        self.told = self.told.max(severity);
    }

    pub(super) fn set_last_line(&mut self, text: &str) {
        // A rule of dashes says nothing.
        if text.contains(char::is_alphanumeric) {
            head(text, MAX_MESSAGE_BYTES).clone_into(&mut self.last_line);
        }
    }

    /// The verdict. `stopped`: somebody asked us to stop while the tool ran.
    pub(super) fn judge(self, tool: Tool, ending: Ending, stopped: bool, log_tail: String) -> Outcome {
        let told = self.exit_error.as_ref().and_then(|(code, _)| *code).or(self.told_code);
        let code = ending.code().or(told);
        let status = self.status(tool, ending, code, stopped);
        Outcome {
            status,
            message: redact::urls(&self.message(status, ending, code)),
            snapshots: self.snapshots,
            summary_json: redact::urls(&self.summary),
            errors: self.errors.iter().map(|line| redact::urls(line)).collect(),
            error_count: self.error_count,
            tool_version: self.tool_version,
            exit_code: code,
            log_tail: redact::urls(&log_tail),
            repo_guid: self.repo_guid,
        }
    }

    fn status(&self, tool: Tool, ending: Ending, code: Option<i32>, stopped: bool) -> Status {
        let stopped_code = |code| code == SIGNAL_BASE + SIGINT || code == SIGNAL_BASE + SIGTERM;
        let complete = code == Some(0) || (code.is_none() && self.summarized);
        if code.is_some_and(stopped_code) || (stopped && !complete) {
            return Status::UserCancelled;
        }
        match code {
            Some(0) if self.incomplete => Status::Warning,
            Some(0) => Status::Success,
            Some(code) if matches!(ending, Ending::Exited(_) | Ending::Unknown) && warns(tool, code) => {
                Status::Warning
            }
            Some(_) => Status::Error,
            None if self.exit_error.is_some() || self.told == Severity::Error || !self.summarized => {
                Status::Error
            }
            None if self.incomplete || self.told == Severity::Warning => Status::Warning,
            None => Status::Success,
        }
    }

    fn message(&self, status: Status, ending: Ending, code: Option<i32>) -> String {
        let said = self.exit_error.as_ref().map(|(_, text)| text.as_str()).filter(|text| !text.is_empty());
        let said = said.or(self.errors.last().map(String::as_str)).unwrap_or(&self.last_line);
        let told = self.summarized || self.exit_error.is_some() || self.told == Severity::Error;
        if code.is_none() && !told {
            return match said {
                "" => "ended without summary".to_owned(),
                said => one_line(&format!("ended without summary: {said}")),
            };
        }
        match (said, status, ending) {
            ("", Status::Success, _) => String::new(),
            ("", _, Ending::Killed(signal)) => format!("killed by signal {signal}"),
            ("", ..) => code.map(|code| format!("exit code {code}")).unwrap_or_default(),
            (said, ..) => one_line(said),
        }
    }
}

/// The exit codes of a tool that stand for a warning: the work was done, with something to look at.
fn warns(tool: Tool, code: i32) -> bool {
    match tool {
        Tool::Restic | Tool::Rustic => code == 3,
        Tool::Borg => code == 1 || (100..=127).contains(&code),
        Tool::Borgmatic | Tool::Kopia | Tool::Other => false,
    }
}

fn one_line(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    head(&line, MAX_MESSAGE_BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(tool: Tool, ending: Ending, stopped: bool, findings: Findings) -> (Status, String) {
        let outcome = findings.judge(tool, ending, stopped, String::new());
        (outcome.status, outcome.message)
    }

    #[test]
    fn the_exit_code_decides_by_the_tools_own_table() {
        for (tool, ending, status) in [
            (Tool::Restic, Ending::Exited(0), Status::Success),
            (Tool::Restic, Ending::Exited(1), Status::Error),
            (Tool::Restic, Ending::Exited(3), Status::Warning),
            (Tool::Restic, Ending::Exited(12), Status::Error),
            (Tool::Restic, Ending::Exited(130), Status::UserCancelled),
            (Tool::Restic, Ending::Killed(15), Status::UserCancelled),
            (Tool::Restic, Ending::Killed(2), Status::UserCancelled),
            (Tool::Restic, Ending::Killed(9), Status::Error),
            (Tool::Borg, Ending::Exited(1), Status::Warning),
            (Tool::Borg, Ending::Exited(2), Status::Error),
            (Tool::Borg, Ending::Exited(99), Status::Error),
            (Tool::Borg, Ending::Exited(107), Status::Warning),
            (Tool::Borg, Ending::Exited(143), Status::UserCancelled),
            (Tool::Borg, Ending::NotStarted(127), Status::Error),
            (Tool::Borgmatic, Ending::Exited(1), Status::Error),
            (Tool::Kopia, Ending::Exited(1), Status::Error),
            (Tool::Other, Ending::Exited(3), Status::Error),
            (Tool::Other, Ending::Exited(0), Status::Success),
            (Tool::Other, Ending::Unknown, Status::Error),
        ] {
            assert_eq!(judged(tool, ending, false, Findings::default()).0, status, "{tool:?} {ending:?}");
        }
        assert_eq!(judged(Tool::Borg, Ending::Exited(2), true, Findings::default()).0, Status::UserCancelled);
        assert_eq!(judged(Tool::Borg, Ending::Exited(0), true, Findings::default()).0, Status::Success);
    }

    #[test]
    fn neither_code_nor_summary_is_an_error_that_says_so() {
        let (status, message) = judged(Tool::Restic, Ending::Unknown, false, Findings::default());
        assert_eq!((status, message.as_str()), (Status::Error, "ended without summary"));
        let findings = Findings { summarized: true, ..Findings::default() };
        assert_eq!(judged(Tool::Restic, Ending::Unknown, false, findings).0, Status::Success);
        let findings = Findings { summarized: true, incomplete: true, ..Findings::default() };
        assert_eq!(judged(Tool::Restic, Ending::Unknown, false, findings).0, Status::Warning);
    }

    #[test]
    fn the_message_is_the_exit_error_then_the_last_error_then_the_last_line() {
        let mut findings = Findings::default();
        findings.set_last_line("line\u{1b}[1m\nmore");
        assert_eq!(judged(Tool::Other, Ending::Exited(1), false, findings).1, "line [1m more");
        let mut findings = Findings { last_line: "line".to_owned(), ..Findings::default() };
        findings.error("first");
        findings.error("second");
        assert_eq!(judged(Tool::Restic, Ending::Exited(1), false, findings).1, "second");
        let mut findings =
            Findings { exit_error: Some((Some(10), "fatal".to_owned())), ..Findings::default() };
        findings.error("second");
        assert_eq!(judged(Tool::Restic, Ending::Exited(1), false, findings).1, "fatal");
        assert_eq!(
            judged(Tool::Other, Ending::Killed(9), false, Findings::default()).1,
            "killed by signal 9"
        );
        assert_eq!(judged(Tool::Other, Ending::Exited(4), false, Findings::default()).1, "exit code 4");
    }

    #[test]
    fn the_result_of_a_run_with_many_large_snapshots_fits_one_message() {
        let mut findings = Findings::default();
        for n in 0..1000 {
            let summary_json = "s".repeat(MAX_SUMMARY_BYTES);
            findings.snapshot(Snapshot { snapshot_id: n.to_string(), summary_json, ..Snapshot::default() });
        }
        let outcome = findings.judge(Tool::Kopia, Ending::Exited(0), false, String::new());
        assert_eq!(outcome.snapshots.len(), MAX_SNAPSHOTS);
        let bytes: usize = outcome.snapshots.iter().map(|snapshot| snapshot.summary_json.len()).sum();
        assert_eq!(bytes, MAX_SUMMARIES_BYTES);
    }

    #[test]
    fn more_errors_than_are_kept_are_counted_and_the_last_one_stays() {
        let mut findings = Findings::default();
        (0..1000).for_each(|n| findings.error(&format!("error {n}")));
        let outcome = findings.judge(Tool::Restic, Ending::Exited(1), false, String::new());
        assert_eq!((outcome.errors.len(), outcome.error_count), (MAX_ERRORS, 1000));
        assert_eq!(outcome.message, "error 999");
    }
}
