//! The first words of a program, for lists that anyone may see: without its comments and without quoted text, in which data
//! and secrets may be.

/// Characters of a title at the most.
const MAX_CHARACTERS: usize = 80;
/// Bytes of a program that are looked at.
const MAX_BYTES: usize = 16 << 10;
/// What stands where the program has quoted text.
const HIDDEN: &str = "'…'";

/// On one line; may be empty.
#[must_use]
pub fn title(sql: &str) -> String {
    let is_whole = sql.len() <= MAX_BYTES;
    let mut rest = &sql[..sql.floor_char_boundary(MAX_BYTES)];
    let mut words = String::new();
    let mut characters = 0;
    while let Some(next) = rest.chars().next() {
        if characters >= MAX_CHARACTERS {
            words.truncate(words.trim_end().len());
            words.push('…');
            return words;
        }
        let after = |end: &str, from: usize| {
            rest.get(from..).and_then(|it| it.find(end)).map_or("", |at| &rest[from + at + end.len()..])
        };
        let is_comment = rest.starts_with("--") || rest.starts_with("/*");
        if next.is_whitespace() || is_comment {
            rest = match () {
                () if rest.starts_with("--") => after("\n", 2),
                () if is_comment => after("*/", 2),
                () => &rest[next.len_utf8()..],
            };
            if !words.is_empty() && !words.ends_with(' ') {
                words.push(' ');
                characters += 1;
            }
            continue;
        }
        let quoted = match next {
            '\'' | '"' => Some(quoted(rest, next)),
            '$' if rest.starts_with("$$") => Some(after("$$", 2)),
            _ => None,
        };
        if let Some(behind) = quoted {
            words.push_str(HIDDEN);
            characters += HIDDEN.chars().count();
            rest = behind;
        } else {
            words.push(if next.is_control() { ' ' } else { next });
            characters += 1;
            rest = &rest[next.len_utf8()..];
        }
    }
    words.truncate(words.trim_end().len());
    if !is_whole {
        words.push('…');
    }
    words
}

/// What is behind the quoted text that `text` begins with; doubled quotes and escaped ones belong to it.
fn quoted(text: &str, quote: char) -> &str {
    let mut is_escaped = false;
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        let is_doubled = c == quote && characters.peek().is_some_and(|(_, next)| *next == quote);
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if is_doubled => is_escaped = true,
            _ if c == quote => return &text[at + c.len_utf8()..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_first_words_and_hides_what_is_quoted() {
        let cases = [
            ("SELECT 1;", "SELECT 1;"),
            ("-- nightly 'x\n/* for ana */ SELECT  a,\n\tb FROM t", "SELECT a, b FROM t"),
            ("SELECT 'it''s a secret', \"ana\\\"s\" FROM t", "SELECT '…', '…' FROM t"),
            ("SELECT 'a\\'b', 7", "SELECT '…', 7"),
            ("SELECT $$s'e$$, 7", "SELECT '…', 7"),
            ("SELECT 'never ends", "SELECT '…'"),
            ("-- nothing", ""),
            ("SELECT a/*b*/c", "SELECT a c"),
            ("é/*", "é"),
        ];
        for (sql, expected) in cases {
            assert_eq!(title(sql), expected, "{sql}");
        }
        let long = title(&"SELECT é, ".repeat(10_000));
        assert!(long.ends_with('…') && long.chars().count() <= MAX_CHARACTERS + 1, "{long}");
        assert_eq!(title(&format!("SELECT '{}' FROM t", "x".repeat(20_000))), "SELECT '…'…");
    }
}
