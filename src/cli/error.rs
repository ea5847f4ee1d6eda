//! The one translation of failures to an exit code, a sentence and a hint.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde::Serialize;

use super::output::{self, StdoutClosed};
use crate::admin::{Exit, Failure, Reason};

/// As a shell shows a program that SIGPIPE ended.
const STDOUT_CLOSED: u8 = 141;
/// What `run` answers to arguments it does not understand: 1 to 124 belong to its child.
const RUN_USAGE: u8 = 125;

/// A failure as `--json` writes it: one line on stderr.
#[derive(Debug, Serialize)]
struct Line {
    error: Explained,
}

/// What an operator and a script are told.
#[derive(Debug, Serialize)]
struct Explained {
    exit_code: u8,
    reason: &'static str,
    message: String,
    hint: String,
}

/// Says what went wrong on stderr and answers with the exit code. A closed stdout is not talked about.
pub(super) fn report(fault: &anyhow::Error, json: bool) -> ExitCode {
    if fault.is::<StdoutClosed>() {
        return ExitCode::from(STDOUT_CLOSED);
    }
    let failure = explain(fault);
    let explained = Explained {
        exit_code: failure.exit().code(),
        reason: failure.reason.name(),
        message: failure.message,
        hint: failure.hint,
    };
    say(explained, json)
}

/// Answers to arguments that do not parse; help and version that were asked for are no failure.
pub(super) fn usage(fault: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if matches!(fault.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match fault.print() {
            Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(STDOUT_CLOSED),
            _ => ExitCode::SUCCESS,
        };
    }
    // Parsed once more without complaints, to learn who was called and how it should answer.
    let lenient = super::command().ignore_errors(true).try_get_matches_from(arguments).ok();
    let run = lenient.as_ref().and_then(clap::ArgMatches::subcommand_name) == Some("run");
    let exit_code = if run { RUN_USAGE } else { Exit::Usage.code() };
    if lenient.is_some_and(|found| found.get_flag("json")) {
        let text = fault.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let explained = Explained {
            exit_code,
            reason: Reason::InvalidArgument.name(),
            message,
            hint: "`opmesh help` lists commands and options".to_owned(),
        };
        return say(explained, true);
    }
    // Without a stderr there is nobody to tell.
    fault.print().unwrap_or_default();
    ExitCode::from(exit_code)
}

fn say(explained: Explained, json: bool) -> ExitCode {
    let exit_code = ExitCode::from(explained.exit_code);
    if json {
        output::say(serde_json::to_string(&Line { error: explained }).unwrap_or_default());
        return exit_code;
    }
    output::say(format_args!("error: {}", explained.message));
    for hint in explained.hint.lines() {
        output::say(format_args!(" hint: {hint}"));
    }
    exit_code
}

/// Every failure in the words that travel between handlers and callers.
fn explain(fault: &anyhow::Error) -> Failure {
    let message = format!("{fault:#}");
    if let Some(failure) = fault.downcast_ref::<Failure>() {
        return Failure { message, ..failure.clone() };
    }
    let system = fault.chain().any(<dyn std::error::Error>::is::<io::Error>);
    Failure::new(if system { Reason::Io } else { Reason::Internal }, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_exit_and_hint_under_added_context() {
        let failure =
            Failure::new(Reason::Refused, "the hub refused this instance").hint("ask for a new token");
        let explained = explain(&anyhow::Error::new(failure).context("pairing"));
        assert_eq!(explained.exit().code(), 4);
        assert_eq!(explained.hint, "ask for a new token");
        assert!(explained.message.starts_with("pairing"));
    }

    #[test]
    fn what_the_system_says_is_an_error_of_its_own_kind() {
        let fault = anyhow::Error::new(io::Error::other("no space left")).context("writing x");
        assert_eq!(explain(&fault).reason, Reason::Io);
        assert_eq!(explain(&anyhow::anyhow!("odd")).reason, Reason::Internal);
    }
}
