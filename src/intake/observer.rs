//! Watches a tool's output pass and says what it came to. Pure: bytes in, an [`Outcome`] out, memory bounded whatever
//! comes.

use super::command::Tool;
use super::dialect::{self, Worth};
use super::outcome::{Ending, Findings, Outcome};
use super::scan::{Content, Piece, Scanner};
use super::tail::Tail;

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The child's standard output.
    Stdout,
    /// The child's standard error.
    Stderr,
    /// A pipe that may carry both.
    Mixed,
}

/// One run, watched.
#[derive(Debug)]
pub struct Observer {
    tool: Tool,
    /// What `output` is: standard output or a mixed stream.
    output_source: Source,
    output: Scanner,
    errors: Scanner,
    findings: Findings,
    tail: Tail,
}

impl Observer {
    /// Nothing seen yet.
    pub fn new(tool: Tool) -> Self {
        let content = if tool == Tool::Other { Content::Text } else { Content::Json };
        Self {
            tool,
            output_source: Source::Stdout,
            output: Scanner::new(content),
            errors: Scanner::new(content),
            findings: Findings::default(),
            tail: Tail::default(),
        }
    }

    /// Takes the next bytes of one stream.
    pub fn feed(&mut self, source: Source, bytes: &[u8]) {
        let Self { tool, output_source, output, errors, findings, tail } = self;
        let scanner = if source == Source::Stderr {
            errors
        } else {
            *output_source = source;
            output
        };
        scanner.feed(bytes, &mut |piece| take(*tool, source, &piece, findings, tail));
    }

    /// The verdict over what was seen since the last one. `stopped`: somebody asked us to stop while the tool ran.
    pub fn finish(&mut self, ending: Ending, stopped: bool) -> Outcome {
        let Self { tool, output_source, output, errors, findings, tail } = self;
        output.finish(&mut |piece| take(*tool, *output_source, &piece, findings, tail));
        errors.finish(&mut |piece| take(*tool, Source::Stderr, &piece, findings, tail));
        std::mem::take(findings).judge(*tool, ending, stopped, std::mem::take(tail).into_text())
    }
}

fn take(tool: Tool, source: Source, piece: &Piece<'_>, findings: &mut Findings, tail: &mut Tail) {
    match piece {
        Piece::Text(line) => {
            tail.push_line(line);
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if !text.is_empty() {
                dialect::text(tool, source, text, findings);
            }
        }
        Piece::Value(value, bytes) => {
            if dialect::value(tool, source, value, findings) == Worth::Logging {
                tail.push_line(bytes);
            }
        }
    }
}
