//! What is wrong with the configuration file, shown where it is wrong.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{0}")]
    Wrong(Wrong),
}

/// Something wrong at a place in the file.
#[derive(Debug)]
pub struct Wrong {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub title: String,
    /// The next step; may be empty.
    pub hint: String,
    shown: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A place in the file.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) span: Range<usize>,
}

impl ConfigError {
    pub(super) fn wrong(place: Place<'_>, title: &str, hint: &str) -> Self {
        let before = place.text.get(..place.span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Self::Wrong(Wrong {
            path: place.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            title: title.to_owned(),
            hint: hint.to_owned(),
            shown: render(&place, title, hint),
        })
    }
}

fn render(place: &Place<'_>, title: &str, hint: &str) -> String {
    let path = place.path.display().to_string();
    let end = place.span.end.min(place.text.len());
    let start = place.span.start.min(end);
    let snippet =
        Snippet::source(place.text).path(path.as_str()).annotation(AnnotationKind::Primary.span(start..end));
    let mut group = Level::ERROR.no_name().primary_title(title).element(snippet);
    if !hint.is_empty() {
        group = group.element(Level::HELP.message(hint));
    }
    Renderer::plain().render(&[group])
}
