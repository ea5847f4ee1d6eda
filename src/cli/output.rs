//! Where words go: answers to stdout, everything said about them to stderr.
//!
//! A list in JSON is one array written as its rows arrive, so that a million rows need no memory. A reader that went
//! away is not an error to talk about: it is [`StdoutClosed`], which ends the command quietly.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::admin::{Failure, Reason};

/// Nobody reads stdout any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stdout was closed")]
pub(crate) struct StdoutClosed;

/// When to colour, as `--color` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set; `CLICOLOR_FORCE` colours elsewhere too.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people: tables and lines.
    Text,
    /// For programs: the documented JSON.
    Json,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Volume {
    /// Errors only (`-q`).
    Quiet,
    /// What the operator should know.
    Normal,
    /// What a developer wants (`-v`, `-vv`).
    Verbose(u8),
}

/// A command's stdout and stderr.
pub(crate) struct Output {
    stdout: BufWriter<AutoStream<io::Stdout>>,
    format: Format,
    volume: Volume,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("format", &self.format)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// The streams of this process.
    pub(crate) fn new(format: Format, color: Color, volume: Volume) -> Self {
        let choice = color.choice();
        choice.write_global();
        Self { stdout: BufWriter::new(AutoStream::new(io::stdout(), choice)), format, volume }
    }

    /// Whether answers are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// How much is said on stderr.
    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// One line of an answer, visible at once.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> anyhow::Result<()> {
        writeln!(self.stdout, "{text}").map_err(stdout_fault)?;
        self.flush()
    }

    /// One JSON value on a line of its own, visible at once.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value)?)
    }

    /// One JSON value a line, visible together.
    pub(crate) fn json_lines(&mut self, values: &[impl Serialize]) -> anyhow::Result<()> {
        for value in values {
            self.write(&serde_json::to_string(value)?)?;
            self.write("\n")?;
        }
        self.flush()
    }

    /// One JSON object as the whole answer, indented.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// Starts the one array of a list.
    pub(crate) fn array(&mut self) -> Array<'_> {
        Array { output: self, empty: true }
    }

    /// A terminal's control sequence; passes even where colours do not.
    pub(crate) fn control(&mut self, sequence: &str) -> anyhow::Result<()> {
        self.flush()?;
        io::stdout().write_all(sequence.as_bytes()).map_err(stdout_fault)
    }

    /// Prints a table; nothing at all when it has no rows, since the reason is said on stderr.
    pub(crate) fn table(&mut self, table: &Columns) -> anyhow::Result<()> {
        if table.is_empty() {
            return Ok(());
        }
        for row in table.lines() {
            self.write(&row)?;
            self.write("\n")?;
        }
        self.flush()
    }

    /// One thing for people: a name and a value a line. What is empty is left out.
    pub(crate) fn fields<const N: usize>(&mut self, fields: [(&str, String); N]) -> anyhow::Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            self.write(&format!("{name:<width$}  {}\n", visible(value)))?;
        }
        self.flush()
    }

    /// Columns of one row, each as wide as said, visible at once; the first word may have a colour. For answers that
    /// come bit by bit, where a table would have to wait.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(&str, usize); N]) -> anyhow::Result<()> {
        let mut line = String::new();
        for (cell, width) in cells {
            let shown = visible(cell);
            let gap = " ".repeat(width.saturating_sub(shown.chars().count()) + usize::from(COLUMN_GAP));
            line.push_str(&painted(cell, &shown));
            line.push_str(&gap);
        }
        self.line(line.trim_end())
    }

    /// Something to know that is not part of the answer. Silent with `-q`.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if self.volume > Volume::Quiet {
            say(text);
        }
    }

    /// Shows on stderr that something goes on, where somebody watches; it is wiped when the value is dropped.
    pub(crate) fn progress(&self, text: &'static str) -> Progress {
        if self.volume == Volume::Quiet || !io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new_spinner().with_message(text);
        bar.enable_steady_tick(SPINNER_TICK);
        Progress { bar }
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.stdout.write_all(text.as_bytes()).map_err(stdout_fault)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.stdout.flush().map_err(stdout_fault)
    }
}

/// A list being written as one JSON array.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    output: &'a mut Output,
    empty: bool,
}

impl Array<'_> {
    /// The next row.
    pub(crate) fn push(&mut self, row: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(row)?;
        self.output.write(if self.empty { "[\n" } else { ",\n" })?;
        self.empty = false;
        self.output.write(&text)
    }

    /// Closes the array; without this the list is visibly cut off.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.output.write(if self.empty { "[]\n" } else { "\n]\n" })?;
        self.output.flush()
    }
}

/// A spinner on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// What goes on now.
    pub(crate) fn set(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    /// A table with these column names.
    pub(crate) fn new<const N: usize>(names: [&str; N]) -> Self {
        let mut table = Table::new();
        // Whether colours pass is decided where the lines go.
        table.load_style(presets::NOTHING).enforce_styling().set_header(names.to_vec());
        Self { table }
    }

    /// One more row. Control characters are shown, not sent to the terminal.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells.iter().map(|cell| {
            let shown = Cell::new(visible(cell));
            match tone(cell) {
                Some(color) => shown.fg(color),
                None => shown,
            }
        }));
    }

    fn is_empty(&self) -> bool {
        self.table.row_count() == 0
    }

    /// The lines of the table, folded to the terminal's width where stdout is one.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut table = self.table.clone();
        let terminal = io::stdout().is_terminal();
        table.set_content_arrangement(if terminal {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        for column in table.column_iter_mut() {
            column.set_padding((0, COLUMN_GAP));
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

impl Color {
    fn choice(self) -> ColorChoice {
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        }
    }
}

/// Text with its control characters written out, since what a peer or a tool wrote must not steer a terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

/// The colour of a word that says how something stands; the word itself says it, too.
fn tone(word: &str) -> Option<comfy_table::Color> {
    match word {
        "success" | "live" | "ok" => Some(comfy_table::Color::Green),
        "warning" | "late" | "unverified" | "needs decision" => Some(comfy_table::Color::Yellow),
        "error" | "fail" | "failing" | "stale" | "refused" | "blocked" | "quarantined"
        | "identity conflict" | "NO" => Some(comfy_table::Color::Red),
        "inprogress" | "running" | "connecting" | "catching up" => Some(comfy_table::Color::Cyan),
        _ => None,
    }
}

/// The shown word in the colour of [`tone`].
fn painted(word: &str, shown: &str) -> String {
    let color = match tone(word) {
        Some(comfy_table::Color::Green) => 32,
        Some(comfy_table::Color::Yellow) => 33,
        Some(comfy_table::Color::Red) => 31,
        Some(comfy_table::Color::Cyan) => 36,
        _ => return shown.to_owned(),
    };
    format!("\u{1b}[{color}m{shown}\u{1b}[0m")
}

/// One line to stderr. A stderr that is gone leaves nobody to tell.
pub(crate) fn say(text: impl std::fmt::Display) {
    writeln!(anstream::stderr().lock(), "{text}").unwrap_or_default();
}

/// Asks where somebody can answer; elsewhere `--yes` is the answer.
pub(super) fn confirmed(deed: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let failure =
            Failure::new(Reason::InvalidArgument, format!("to {deed} needs a yes, and nobody can be asked"));
        return Err(failure.hint("add --yes").into());
    }
    say(format_args!("{deed}? [y/N]"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn stdout_fault(fault: io::Error) -> anyhow::Error {
    if fault.kind() == io::ErrorKind::BrokenPipe {
        anyhow::Error::new(StdoutClosed)
    } else {
        anyhow::Error::new(fault).context("stdout cannot be written")
    }
}

/// How often a spinner turns.
const SPINNER_TICK: Duration = Duration::from_millis(120);
/// Spaces between two columns.
const COLUMN_GAP: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_columns_without_a_trailing_blank() {
        let mut table = Columns::new(["NAME", "STATE"]);
        table.row(["web-1".to_owned(), "paused".to_owned()]);
        table.row(["a-longer-name".to_owned(), "offline".to_owned()]);
        insta::assert_snapshot!(table.lines().join("\n"), @r"
        NAME           STATE
        web-1          paused
        a-longer-name  offline
        ");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(visible("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(visible("büro"), "büro");
    }
}
