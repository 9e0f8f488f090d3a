//! Escaping of untrusted text, so that data, messages and names cannot control the terminal.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Appends `text` with control characters, and characters that reorder a line, written as escapes such as `\n`,
/// `\x1b` or `\u{202e}`. A backslash stays as it is, so paths read well; JSON output is there for exactness.
pub fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x7f' if c.is_control() => push_formatted(out, format_args!("\\x{:02x}", u32::from(c))),
            _ if c.is_control() || reorders(c) => {
                push_formatted(out, format_args!("\\u{{{:x}}}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
}

/// `text` on one line; see [`push_escaped`].
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_escaped(&mut out, text);
    out
}

/// `text` with its line breaks kept, and everything else escaped.
pub fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// Width of `text` in terminal columns.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Wraps a line at this many terminal columns, between words where possible.
pub fn broken(line: &str, columns: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = line;
    while let Some(fitting) = too_much(rest, columns) {
        // At least one character, even if it is too wide.
        let fitting = fitting.max(rest.chars().next().map_or(0, char::len_utf8));
        let end_of_word = match rest[fitting..].starts_with(' ') {
            true => Some(fitting),
            false => rest[..fitting].rfind(' ').filter(|at| !rest[..*at].trim().is_empty()),
        };
        let (line, after) = rest.split_at(end_of_word.unwrap_or(fitting));
        lines.push(line.trim_end());
        rest = if end_of_word.is_some() { after.trim_start() } else { after };
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Offset of the first character that does not fit into this many columns.
fn too_much(line: &str, columns: usize) -> Option<usize> {
    let mut taken = 0;
    let beyond = line.char_indices().find(|(_, c)| {
        taken += c.width().unwrap_or(0);
        taken > columns
    });
    beyond.map(|(at, _)| at)
}

/// Appends formatted text; writing to a string cannot fail.
pub fn push_formatted(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a string takes everything");
}

/// Direction marks, and separators of lines and paragraphs.
fn reorders(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\x1b[2Jb"), "a\\x1b[2Jb");
        assert_eq!(escaped("one\ntwo\r\t\0\x7f"), "one\\ntwo\\r\\t\\x00\\x7f");
        assert_eq!(escaped("\u{9b}31m \u{202e}evil"), "\\u{9b}31m \\u{202e}evil");
        assert_eq!(escaped(r"C:\dir é 漢"), r"C:\dir é 漢");
    }

    #[test]
    fn line_breaks_can_be_kept() {
        assert_eq!(escaped_lines("a\nb\x07\r\n"), "a\nb\\x07");
    }

    #[test]
    fn long_line_is_wrapped_between_words() {
        assert_eq!(broken("one two  three", 7), ["one two", "three"]);
        assert_eq!(broken("one two", 6), ["one", "two"]);
        assert_eq!(broken("abcdefg hi", 3), ["abc", "def", "g", "hi"]);
        assert_eq!(broken("漢字漢", 5), ["漢字", "漢"]);
        assert_eq!(broken("漢字", 1), ["漢", "字"], "no room at all");
        assert_eq!(broken("   indented", 6), ["   ind", "ented"]);
        assert_eq!(broken("", 4), [""]);
    }

    #[test]
    fn wide_characters_have_two_columns() {
        assert_eq!(width("漢字"), 4);
        assert_eq!(width("e\u{301}"), 1);
    }
}
