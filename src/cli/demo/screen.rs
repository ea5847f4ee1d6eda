//! The hub's table as it fills: redrawn in place on a terminal, one line for each run that ended elsewhere.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};

use crate::admin::pb;
use crate::cli::ops;
use crate::cli::output::Output;

/// What is on the screen.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    /// Lines to go up for the next drawing.
    drawn: usize,
    /// What the last drawing showed.
    last: Vec<String>,
    /// Runs whose line was printed.
    printed: BTreeSet<u64>,
}

/// The newest rows; more would scroll a small terminal.
const ROWS: usize = 14;

impl Screen {
    pub(super) fn new() -> Self {
        let able = std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb");
        Self {
            terminal: able && io::stdout().is_terminal(),
            drawn: 0,
            last: Vec::new(),
            printed: BTreeSet::new(),
        }
    }

    /// Draws no more; what ends from now on is a line each.
    pub(super) fn lines_from_now_on(&mut self) {
        self.terminal = false;
    }

    /// Shows what the hub holds, oldest first.
    pub(super) fn show(&mut self, output: &mut Output, operations: &[pb::Operation]) -> anyhow::Result<()> {
        if self.terminal { self.redraw(output, operations) } else { self.print(output, operations) }
    }

    fn redraw(&mut self, output: &mut Output, operations: &[pb::Operation]) -> anyhow::Result<()> {
        self.printed.extend(ended(operations).map(|operation| operation.id));
        let mut table = ops::columns();
        for operation in operations.iter().skip(operations.len().saturating_sub(ROWS)) {
            table.row(ops::row(operation));
        }
        let lines = table.lines();
        if lines == self.last {
            return Ok(());
        }
        if self.drawn > 0 {
            // Up to the first line of the last drawing, and wipe from there.
            output.control(&format!("\u{1b}[{}F\u{1b}[J", self.drawn))?;
        }
        for line in &lines {
            output.line(line)?;
        }
        self.drawn = lines.len();
        self.last = lines;
        Ok(())
    }

    fn print(&mut self, output: &mut Output, operations: &[pb::Operation]) -> anyhow::Result<()> {
        for operation in ended(operations) {
            if self.printed.insert(operation.id) {
                let [id, host, plan, repo, kind, status, start, took, snapshot, message] =
                    ops::row(operation);
                output.line(
                    format!("{id:>3}  {host:<6} {plan:<8} {repo:<9} {kind:<8} {status:<8} {start}  {took:>6}  {snapshot:<8}  {message}")
                        .trim_end(),
                )?;
            }
        }
        Ok(())
    }
}

fn ended(operations: &[pb::Operation]) -> impl Iterator<Item = &pb::Operation> {
    operations.iter().filter(|operation| operation.end_unix_ms.is_some())
}
