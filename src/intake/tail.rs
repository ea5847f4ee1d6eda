//! The end of a stream in bounded memory.

use std::collections::VecDeque;

use crate::record::MAX_LOG_TAIL_BYTES;

/// The last [`MAX_LOG_TAIL_BYTES`] of what was pushed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    /// Adds a line without its terminator.
    pub(super) fn push_line(&mut self, line: &[u8]) {
        let keep = line.get(line.len().saturating_sub(MAX_LOG_TAIL_BYTES)..).unwrap_or_default();
        self.cut |= keep.len() < line.len();
        self.bytes.extend(keep);
        self.bytes.push_back(b'\n');
        let over = self.bytes.len().saturating_sub(MAX_LOG_TAIL_BYTES);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    /// The text, from the beginning of a line where it was cut, if a line begins in it.
    pub(super) fn into_text(self) -> String {
        let bytes = Vec::from(self.bytes);
        let first_line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let from = if self.cut && first_line < bytes.len() { first_line } else { 0 };
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_the_end_are_kept() {
        let mut tail = Tail::default();
        for n in 0..20_000 {
            tail.push_line(format!("line {n}").as_bytes());
        }
        let text = tail.into_text();
        assert!(text.len() <= MAX_LOG_TAIL_BYTES && text.len() > MAX_LOG_TAIL_BYTES - 20);
        assert!(text.starts_with("line ") && text.ends_with("line 19999\n"));
    }

    #[test]
    fn a_line_longer_than_the_tail_keeps_its_end() {
        let mut tail = Tail::default();
        tail.push_line(&vec![b'a'; 3 * MAX_LOG_TAIL_BYTES]);
        assert_eq!(tail.into_text().len(), MAX_LOG_TAIL_BYTES);
    }
}
