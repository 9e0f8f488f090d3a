//! A job's own output, made safe for a terminal: what a program prints must not move the cursor, change the title, or type
//! for the user. Line breaks, carriage returns and tabs stay, since progress bars use them.

use std::io::Write as _;

use sqlflow_text::escape::push_escaped;

/// Escapes control sequences in a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct TerminalText {
    /// The first bytes of an incomplete character, at most three.
    torn: Vec<u8>,
}

impl TerminalText {
    /// These bytes with control characters, and characters that reorder a line, written as escapes such as `\x1b`. Bytes
    /// that are not UTF-8 are written as escapes too: some terminals read them as control characters. An incomplete
    /// character at the end is kept for the next call.
    pub(crate) fn escaped(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.torn);
        all.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            push(&mut out, chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_incomplete(invalid) {
                self.torn = invalid.to_vec();
                break;
            }
            for byte in invalid {
                // Writing to a vector cannot fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
        out
    }

    /// The rest, at the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.torn).iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).collect()
    }
}

/// Whether a character may begin with these bytes, which are not one.
fn is_incomplete(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

fn push(out: &mut Vec<u8>, text: &str) {
    let mut escaped = String::with_capacity(text.len());
    for part in text.split_inclusive(['\n', '\r', '\t']) {
        let body = part.trim_end_matches(['\n', '\r', '\t']);
        push_escaped(&mut escaped, body);
        escaped.push_str(&part[body.len()..]);
    }
    out.extend_from_slice(escaped.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(parts: &[&[u8]]) -> String {
        let mut text = TerminalText::default();
        let mut out: Vec<u8> = parts.iter().flat_map(|part| text.escaped(part)).collect();
        out.extend(text.rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn control_sequences_are_escaped_and_lines_stay() {
        assert_eq!(escaped(&[b"a\x1b]0;title\x07\x1b[2J\r\n"]), "a\\x1b]0;title\\x07\\x1b[2J\r\n");
        assert_eq!(escaped(&[b"\r 10%|#\tx\n\n"]), "\r 10%|#\tx\n\n");
        assert_eq!(escaped(&["\u{9b}2J \u{202e}é漢".as_bytes()]), "\\u{9b}2J \\u{202e}é漢");
        assert_eq!(escaped(&[b"\x9b2J\x80\xff"]), "\\x9b2J\\x80\\xff");
    }

    #[test]
    fn characters_may_be_split_anywhere() {
        let text = "é漢😀\u{9b}".as_bytes();
        for at in 0..=text.len() {
            assert_eq!(escaped(&[&text[..at], &text[at..]]), "é漢😀\\u{9b}", "{at}");
        }
        assert_eq!(escaped(&[b"\xe6", b"\x1b"]), "\\xe6\\x1b");
        assert_eq!(escaped(&[b"\xe6\xbc"]), "\\xe6\\xbc");
    }
}
