//! Lines of a file or of stdin, numbered, read on a thread of their own: a read of stdin cannot be interrupted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use tokio::sync::mpsc;

/// A line with its number.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u32,
    /// Without its end; one byte more than [`MAX_LINE_BYTES`] when it is longer than that.
    pub(super) bytes: Vec<u8>,
}

/// The lines in order; an error is the last.
pub(super) type Lines = mpsc::Receiver<io::Result<Line>>;

/// The longest line. A record is far smaller, so that more is a mistake.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Lines read ahead; the reader waits when they are not taken.
const LINES_AHEAD: usize = 64;

/// Starts to read; `-` is stdin.
pub(super) fn open(path: &Path) -> anyhow::Result<Lines> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let reader = thread::Builder::new().name("lines".to_owned());
    let started = if path == Path::new("-") {
        reader.spawn(move || read(io::stdin().lock(), &sender))
    } else {
        let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        reader.spawn(move || read(BufReader::new(file), &sender))
    };
    started.context("no thread to read with")?;
    Ok(lines)
}

fn read(mut input: impl BufRead, lines: &mpsc::Sender<io::Result<Line>>) {
    for number in 1.. {
        let next = read_line(&mut input).map(|bytes| bytes.map(|bytes| Line { number, bytes }));
        let last = next.is_err();
        let Some(line) = next.transpose() else { return };
        if lines.blocking_send(line).is_err() || last {
            return;
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    input.take(most).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_the_last_needs_no_end() {
        let (sender, mut lines) = mpsc::channel(8);
        read(&b"a\n\nb"[..], &sender);
        drop(sender);
        let mut seen = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            let line = line.unwrap();
            seen.push((line.number, String::from_utf8(line.bytes).unwrap()));
        }
        assert_eq!(seen, [(1, "a".to_owned()), (2, String::new()), (3, "b".to_owned())]);
    }

    #[test]
    fn an_endless_line_takes_no_endless_memory() {
        let bytes = read_line(&mut BufReader::new(io::repeat(b'x'))).unwrap().unwrap();
        assert_eq!(bytes.len(), MAX_LINE_BYTES + 1);
    }
}
