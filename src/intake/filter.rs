//! Leaves progress lines out of what is passed on when nobody watches it; every other byte passes as it came.

use super::command::Tool;
use super::dialect;

/// A JSON line longer than this is no progress line.
const MAX_PROGRESS_BYTES: usize = 64 * 1024;

/// Filters one stream. Only a line that begins like a JSON object is held back until it is complete.
#[derive(Debug)]
pub(super) struct Filter {
    /// Whose progress is left out; none = everything passes.
    tool: Option<Tool>,
    held: Vec<u8>,
    /// The line under way is passed on as it comes.
    passing: bool,
}

impl Filter {
    /// Leaves out this tool's progress.
    pub(super) fn without_progress(tool: Tool) -> Self {
        Self { tool: Some(tool), held: Vec::new(), passing: false }
    }

    /// Passes everything.
    pub(super) fn none() -> Self {
        Self { tool: None, held: Vec::new(), passing: false }
    }

    /// Appends to `out` what may pass now.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(tool) = self.tool else {
            out.extend_from_slice(bytes);
            return;
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let at_line_start = !self.passing && self.held.is_empty();
            self.passing |= at_line_start && part.first() != Some(&b'{');
            let to = if self.passing { &mut *out } else { &mut self.held };
            to.extend_from_slice(part);
            if part.ends_with(b"\n") {
                if !dialect::is_progress(tool, &self.held) {
                    out.append(&mut self.held);
                }
                self.held.clear();
                self.passing = false;
            } else if self.held.len() > MAX_PROGRESS_BYTES {
                out.append(&mut self.held);
                self.passing = true;
            }
        }
    }

    /// The stream is over: appends what was held back.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered(tool: Tool, chunks: &[&[u8]]) -> Vec<u8> {
        let mut filter = Filter::without_progress(tool);
        let mut out = Vec::new();
        for chunk in chunks {
            filter.feed(chunk, &mut out);
        }
        filter.finish(&mut out);
        out
    }

    const RESTIC: &str = "plain\n{\"message_type\":\"status\",\"percent_done\":1}\n{\"message_type\":\"summary\"}\n\n{\n}\n{\"cut";
    const KEPT: &str = "plain\n{\"message_type\":\"summary\"}\n\n{\n}\n{\"cut";

    #[test]
    fn only_progress_lines_are_left_out() {
        assert_eq!(filtered(Tool::Restic, &[RESTIC.as_bytes()]), KEPT.as_bytes());
        assert_eq!(filtered(Tool::Other, &[RESTIC.as_bytes()]), RESTIC.as_bytes());
        let borg = b"{\"nfiles\": 0, \"type\": \"archive_progress\"}\n{\"type\": \"log_message\"}\n";
        assert_eq!(filtered(Tool::Borg, &[borg]), b"{\"type\": \"log_message\"}\n");
    }

    #[test]
    fn text_passes_before_its_line_ends_so_that_questions_are_seen() {
        let mut filter = Filter::without_progress(Tool::Borg);
        let mut out = Vec::new();
        filter.feed(b"Continue? [yN] ", &mut out);
        assert_eq!(out, b"Continue? [yN] ");
    }

    #[test]
    fn a_line_that_never_ends_is_passed_on_in_bounded_memory() {
        let mut filter = Filter::without_progress(Tool::Restic);
        let mut out = Vec::new();
        filter.feed(b"{\"", &mut out);
        let mut passed = 0;
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..1024 {
            filter.feed(&chunk, &mut out);
            passed += out.len();
            out.clear();
            assert!(filter.held.len() <= 2 * MAX_PROGRESS_BYTES);
        }
        assert_eq!(passed, 2 + 1024 * 64 * 1024);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(cut in 0..RESTIC.len()) {
            let (left, right) = RESTIC.as_bytes().split_at(cut);
            prop_assert_eq!(filtered(Tool::Restic, &[left, right]), KEPT.as_bytes());
        }

        #[test]
        fn bytes_without_progress_pass_unchanged(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            prop_assert_eq!(filtered(Tool::Restic, &[&bytes]), bytes);
        }
    }
}
