//! Bytes to lines and JSON values, in bounded memory.
//!
//! Tools print JSON lines, one pretty-printed object, an array after the noise of hooks, or a value with plain text
//! behind it. A value may begin at the start of a line or, on one line, behind other text. What turns out not to be
//! JSON is text, line by line. Pure; used by the observer, one scanner a stream.

use serde_json::Value;

/// Bytes of one line, or of one JSON value over several, that are looked at; the rest of a longer line is dropped.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Nesting that is followed; `serde_json` gives up at the same depth.
const MAX_DEPTH: usize = 127;

/// What a stream is made of.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A line without its terminator, or what was kept of it.
    Text(&'a [u8]),
    /// A JSON object or array, parsed, with its bytes.
    Value(&'a Value, &'a [u8]),
}

/// Whether JSON is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Lines of text and JSON values.
    Json,
    /// Lines of text only.
    Text,
}

/// Splits one stream.
#[derive(Debug)]
pub(super) struct Scanner {
    content: Content,
    line: Vec<u8>,
    /// The line is longer than what is kept of it.
    truncated: bool,
    /// The last byte was a carriage return: it ends a line if a newline follows, and else takes the line back.
    returned: bool,
    /// Complete lines of a JSON value that is not complete yet.
    pending: Vec<u8>,
    json: JsonScan,
}

impl Scanner {
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            line: Vec::new(),
            truncated: false,
            returned: false,
            pending: Vec::new(),
            json: JsonScan::new(),
        }
    }

    /// Takes the next bytes of the stream and hands out what they complete.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.returned) && *first != b'\n' {
                // What is overwritten on a terminal is progress.
                self.line.clear();
                self.truncated = false;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
            let (segment, after) = rest.split_at(end);
            let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
            self.truncated |= segment.len() > room;
            self.line.extend_from_slice(segment.get(..room).unwrap_or(segment));
            match after.split_first() {
                Some((b'\n', _)) => self.end_line(sink),
                Some(_) => self.returned = true,
                None => {}
            }
            rest = after.get(1..).unwrap_or_default();
        }
    }

    /// The stream is over: hands out what is left.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        if !self.line.is_empty() {
            self.end_line(sink);
        }
        self.give_up_pending(sink);
    }

    /// Bytes held, for the test of the bound.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.line.capacity() + self.pending.capacity() + self.json.stack.capacity()
    }

    fn end_line(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let line = std::mem::take(&mut self.line);
        let truncated = std::mem::take(&mut self.truncated);
        match self.content {
            Content::Text => sink(Piece::Text(&line)),
            Content::Json => self.line_with_json(&line, truncated, sink),
        }
        // The allocation is kept for the next line unless it is unusually large.
        if line.capacity() <= MAX_LINE_BYTES / 16 {
            self.line = line;
            self.line.clear();
        }
    }

    fn line_with_json(&mut self, line: &[u8], truncated: bool, sink: &mut impl FnMut(Piece<'_>)) {
        let mut rest = line;
        loop {
            if self.pending.is_empty() {
                if !matches!(rest.trim_ascii_start().first(), Some(b'{' | b'[')) {
                    break;
                }
                self.json = JsonScan::new();
            }
            match self.json.line(rest) {
                Scan::Done(end) => {
                    let (value, after) = rest.split_at(end);
                    self.pending.extend_from_slice(value);
                    let bytes = std::mem::take(&mut self.pending);
                    emit_value(&bytes, sink);
                    rest = after;
                    if rest.trim_ascii().is_empty() {
                        return;
                    }
                }
                Scan::More if !truncated && self.pending.len() + rest.len() < MAX_LINE_BYTES => {
                    self.pending.extend_from_slice(rest);
                    self.pending.push(b'\n');
                    return;
                }
                Scan::More | Scan::Broken if self.pending.is_empty() => break,
                // The lines so far were not JSON; this one may begin a value of its own.
                Scan::More | Scan::Broken => self.give_up_pending(sink),
            }
        }
        emit_text(rest, sink);
    }

    fn give_up_pending(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let pending = std::mem::take(&mut self.pending);
        pending
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .for_each(|line| sink(Piece::Text(line)));
    }
}

fn emit_value(bytes: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
    match serde_json::from_str::<Value>(&String::from_utf8_lossy(bytes)) {
        Ok(value) => sink(Piece::Value(&value, bytes.trim_ascii())),
        Err(_) => bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .for_each(|line| sink(Piece::Text(line))),
    }
}

/// Text, or text with a value behind it: a hook that ends without a newline right before the tool's JSON.
fn emit_text(line: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
    let at = line.windows(2).position(|pair| matches!(pair, b"{\"" | b"[{"));
    if let Some((before, behind)) = at.map(|at| line.split_at(at))
        && let Ok(value) = serde_json::from_slice::<Value>(behind)
    {
        sink(Piece::Text(before));
        sink(Piece::Value(&value, behind));
    } else {
        sink(Piece::Text(line));
    }
}

/// Follows the structure of one JSON value, so that its end is known without the rest, and so that what is no JSON is
/// noticed at once. Numbers and literals are left to the parser.
#[derive(Debug)]
struct JsonScan {
    stack: Vec<Container>,
    expect: Expect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    Colon,
    CommaOrClose,
    InString(Text),
    InEscape(Text),
    InScalar,
}

/// Which text a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Key,
    Value,
}

#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// The value ends before this offset.
    Done(usize),
    More,
    Broken,
}

impl JsonScan {
    const fn new() -> Self {
        Self { stack: Vec::new(), expect: Expect::Value }
    }

    /// One line, or the first line of which the value may be only a part.
    fn line(&mut self, line: &[u8]) -> Scan {
        for (at, byte) in line.iter().enumerate() {
            if self.step(*byte).is_none() {
                return Scan::Broken;
            }
            if self.stack.is_empty() && self.expect == Expect::CommaOrClose {
                return Scan::Done(at + 1);
            }
        }
        match self.step(b'\n') {
            Some(()) => Scan::More,
            None => Scan::Broken,
        }
    }

    /// `None` when no JSON goes on like this.
    fn step(&mut self, byte: u8) -> Option<()> {
        match self.expect {
            Expect::InEscape(text) => self.expect = Expect::InString(text),
            Expect::InString(text) => match byte {
                b'\\' => self.expect = Expect::InEscape(text),
                b'"' if text == Text::Key => self.expect = Expect::Colon,
                b'"' => self.expect = Expect::CommaOrClose,
                0..0x20 => return None,
                _ => {}
            },
            Expect::InScalar if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') => {}
            Expect::InScalar => {
                self.expect = Expect::CommaOrClose;
                return self.step(byte);
            }
            _ if byte.is_ascii_whitespace() => {}
            Expect::Key | Expect::KeyOrClose if byte == b'"' => self.expect = Expect::InString(Text::Key),
            Expect::Colon if byte == b':' => self.expect = Expect::Value,
            Expect::Key | Expect::Colon => return None,
            Expect::CommaOrClose if byte == b',' => {
                self.expect = match self.stack.last()? {
                    Container::Object => Expect::Key,
                    Container::Array => Expect::Value,
                };
            }
            Expect::KeyOrClose | Expect::CommaOrClose => return self.close(byte),
            Expect::ValueOrClose if byte == b']' => return self.close(byte),
            Expect::Value | Expect::ValueOrClose => return self.open(byte),
        }
        Some(())
    }

    fn open(&mut self, byte: u8) -> Option<()> {
        self.expect = match byte {
            b'"' => Expect::InString(Text::Value),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Expect::InScalar,
            b'{' | b'[' if self.stack.len() >= MAX_DEPTH => return None,
            b'{' => {
                self.stack.push(Container::Object);
                Expect::KeyOrClose
            }
            b'[' => {
                self.stack.push(Container::Array);
                Expect::ValueOrClose
            }
            _ => return None,
        };
        Some(())
    }

    fn close(&mut self, byte: u8) -> Option<()> {
        match (self.stack.pop()?, byte) {
            (Container::Object, b'}') | (Container::Array, b']') => self.expect = Expect::CommaOrClose,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(chunks: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            seen.push(match piece {
                Piece::Text(line) => format!("text {}", String::from_utf8_lossy(line)),
                Piece::Value(value, _) => format!("value {value}"),
            });
        };
        let mut scanner = Scanner::new(Content::Json);
        for chunk in chunks {
            scanner.feed(chunk, &mut sink);
        }
        scanner.finish(&mut sink);
        seen
    }

    #[test]
    fn values_and_text_are_told_apart_however_they_are_mixed() {
        for (input, expected) in [
            ("{\"a\":1}\n{\"b\":2}\n", vec!["value {\"a\":1}", "value {\"b\":2}"]),
            ("{\n  \"a\": [\n1,\n {}]\n}\ntext", vec!["value {\"a\":[1,{}]}", "text text"]),
            ("noise\n[{\"a\":\"]\\\"\"}]", vec!["text noise", "value [{\"a\":\"]\\\"\"}]"]),
            ("noise[{\"a\":1}]\n", vec!["text noise", "value [{\"a\":1}]"]),
            ("[{}]loading {x}\n", vec!["value [{}]", "text loading {x}"]),
            ("{}{}\n", vec!["value {}", "value {}"]),
            ("[0:00] 100.00%  1 / 1\n", vec!["text [0:00] 100.00%  1 / 1"]),
            ("{\"cut\n{\"a\":1}\n", vec!["text {\"cut", "value {\"a\":1}"]),
            ("{\"a\":1,\n{\"b\":2}\n", vec!["text {\"a\":1,", "value {\"b\":2}"]),
            ("{\n\"a\":\nplain\n", vec!["text {", "text \"a\":", "text plain"]),
            ("{\"a\":1", vec!["text {\"a\":1"]),
            ("{unclosed\nnext\n", vec!["text {unclosed", "text next"]),
            ("10%\r50%\rdone\r\nnext", vec!["text done", "text next"]),
            ("", vec![]),
        ] {
            assert_eq!(pieces(&[input.as_bytes()]), expected, "{input:?}");
        }
    }

    #[test]
    fn an_endless_line_and_an_endless_value_stay_within_their_bounds() {
        for opening in [&b"x"[..], b"{\"a\":\"", b"[\n[1,\n", b"\xff\xfe"] {
            let mut scanner = Scanner::new(Content::Json);
            let mut texts = 0_usize;
            scanner.feed(opening, &mut |_| texts += 1);
            let filler =
                if opening.ends_with(b"\n") { b"1,\n".repeat(20_000) } else { vec![b'y'; 64 * 1024] };
            for _ in 0..(64 * 1024 * 1024 / filler.len()) {
                scanner.feed(&filler, &mut |_| texts += 1);
                assert!(scanner.held() <= 5 * MAX_LINE_BYTES, "{}", scanner.held());
            }
            scanner.finish(&mut |_| texts += 1);
            assert!(texts > 0);
        }
    }

    #[test]
    fn nesting_deeper_than_the_parser_follows_is_text() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert_eq!(pieces(&[deep.as_bytes()]), vec![format!("text {deep}")]);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_into_chunks_does_not_matter(
            input in "[\\[\\]{}\":,a1 \n\r\\\\]{0,60}", cut in 0_usize..60
        ) {
            let (left, right) = input.as_bytes().split_at(cut.min(input.len()));
            prop_assert_eq!(pieces(&[left, right]), pieces(&[input.as_bytes()]));
        }

        #[test]
        fn every_json_value_on_lines_of_its_own_is_found(numbers in proptest::collection::vec(any::<f64>(), 0..9), text in ".{0,9}") {
            let value = serde_json::json!({ "n": numbers, "nested": [{ "text": text }], "t": [true, null] });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(pieces(&[pretty.as_bytes()]), vec![format!("value {value}")]);
        }
    }
}
