//! The tokens of a select or view, without comments. The time is linear in the text, also if a quote or comment is not
//! closed.

use std::borrow::Cow;

use sqlflow_sql::Dialect;

use super::names::folded;

/// The tokens of a text. Twelve bytes each, since selects may be long.
pub(super) struct Tokens<'a> {
    text: &'a str,
    /// How names are compared without regard to case.
    fold: fn(&str) -> Cow<'_, str>,
    tokens: Vec<Token>,
}

/// Where a backslash escapes the next character.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Escapes {
    in_single_quotes: bool,
    in_double_quotes: bool,
}

impl Escapes {
    /// By an SQL mode of MySQL.
    pub(super) fn of_mode(mode: &str) -> Self {
        let in_single_quotes = !mode.contains("NO_BACKSLASH_ESCAPES");
        // What is in double quotes may be a name.
        Self { in_single_quotes, in_double_quotes: in_single_quotes && !mode.contains("ANSI_QUOTES") }
    }
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: TokenKind,
    start: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Word,
    /// A name in quotes.
    Quoted,
    /// A text in single quotes. SQLite may take it for a name.
    Literal,
    /// Any other character.
    Sign,
}

impl<'a> Tokens<'a> {
    /// The tokens of a text by MySQL's rules, without literals. Text in double quotes counts as a name.
    pub(super) fn of_mysql(text: &'a str, escapes: Escapes) -> Self {
        Scanner::new(text, Rules { dialect: Dialect::Mysql, escapes }).tokens()
    }

    /// The tokens of a text by SQLite's rules.
    pub(super) fn of_sqlite(text: &'a str) -> Self {
        Scanner::new(text, Rules { dialect: Dialect::Sqlite, escapes: Escapes::default() }).tokens()
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The text of a token with its quotes; empty beyond the last one.
    fn raw(&self, place: usize) -> &'a str {
        self.tokens.get(place).map_or("", |token| &self.text[token.start as usize..token.end as usize])
    }

    /// Whether there is one of these words, which are in lower case.
    pub(super) fn is_word(&self, place: usize, words: &[&str]) -> bool {
        let is_word = self.tokens.get(place).is_some_and(|token| token.kind == TokenKind::Word);
        is_word && words.iter().any(|word| word.eq_ignore_ascii_case(self.raw(place)))
    }

    pub(super) fn is_sign(&self, place: usize, sign: &str) -> bool {
        self.tokens.get(place).is_some_and(|token| token.kind == TokenKind::Sign) && self.raw(place) == sign
    }

    /// Whether there may be a name.
    pub(super) fn is_any_name(&self, place: usize) -> bool {
        self.tokens.get(place).is_some_and(|token| token.kind != TokenKind::Sign)
    }

    pub(super) fn is_number(&self, place: usize) -> bool {
        self.is_any_name(place) && self.raw(place).bytes().all(|byte| byte.is_ascii_digit())
    }

    /// Whether there is this name, which is in lower case.
    pub(super) fn is_name(&self, place: usize, name: &str) -> bool {
        self.name(place) == name
    }

    /// A token in lower case, without its quotes.
    pub(super) fn name(&self, place: usize) -> Cow<'a, str> {
        let raw = self.raw(place);
        let is_quoted = |it: &Token| matches!(it.kind, TokenKind::Quoted | TokenKind::Literal);
        if !self.tokens.get(place).is_some_and(is_quoted) {
            return (self.fold)(raw);
        }
        let (quote, name) = (&raw[..1], &raw[1..raw.len() - 1]);
        let folded = (self.fold)(name);
        let has_pairs = quote != "[" && name.contains(quote);
        if has_pairs { Cow::Owned(folded.replace(&quote.repeat(2), quote)) } else { folded }
    }
}

/// A name in lower case by SQLite's rules.
pub(super) fn ascii_folded(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[derive(Clone, Copy)]
struct Rules {
    dialect: Dialect,
    escapes: Escapes,
}

struct Scanner<'a> {
    text: &'a str,
    rules: Rules,
    at: usize,
    /// What is not closed. No later text of this sort is closed, either.
    unclosed: Vec<u8>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, rules: Rules) -> Self {
        Self { text, rules, at: 0, unclosed: Vec::new() }
    }

    fn tokens(mut self) -> Tokens<'a> {
        let mut tokens = Vec::new();
        while let Some(next) = self.text[self.at..].chars().next() {
            let start = self.at;
            let kind = self.next(next);
            // A text has at most the size of a row, 64 MiB.
            if let (Some(kind), Ok(start), Ok(end)) = (kind, u32::try_from(start), u32::try_from(self.at)) {
                tokens.push(Token { kind, start, end });
            }
        }
        let fold = if self.rules.dialect == Dialect::Sqlite { ascii_folded } else { folded };
        Tokens { text: self.text, fold, tokens }
    }

    /// Skips a token, whitespace or a comment, which begins with this character.
    fn next(&mut self, next: char) -> Option<TokenKind> {
        let is_sqlite = self.rules.dialect == Dialect::Sqlite;
        if self.skip_comment() {
            return None;
        }
        match next {
            '\'' if self.skip_quoted(b'\'', b'\'', self.rules.escapes.in_single_quotes) => {
                is_sqlite.then_some(TokenKind::Literal)
            }
            '"' if self.skip_quoted(b'"', b'"', self.rules.escapes.in_double_quotes) => {
                Some(TokenKind::Quoted)
            }
            '`' if self.skip_quoted(b'`', b'`', false) => Some(TokenKind::Quoted),
            '[' if is_sqlite && self.skip_quoted(b'[', b']', false) => Some(TokenKind::Quoted),
            it if self.is_letter(it) => {
                let rest = &self.text[self.at..];
                self.at += rest.find(|it| !self.is_letter(it)).unwrap_or(rest.len());
                Some(TokenKind::Word)
            }
            it => {
                self.at += it.len_utf8();
                let is_skipped = it.is_whitespace() || it == '\'' && !is_sqlite;
                (!is_skipped).then_some(TokenKind::Sign)
            }
        }
    }

    /// Names may have any character beyond ASCII; in MySQL, up to U+FFFF.
    fn is_letter(&self, it: char) -> bool {
        let is_far = it > '\u{ffff}' && self.rules.dialect == Dialect::Mysql;
        it.is_ascii_alphanumeric()
            || matches!(it, '_' | '$')
            || !it.is_ascii() && (!is_far || it.is_alphanumeric())
    }

    /// Skips a comment. Of a comment whose content MySQL executes, skips the signs around it.
    fn skip_comment(&mut self) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        let is_mysql = self.rules.dialect == Dialect::Mysql;
        let length = match rest {
            [b'/', b'*', b'!', rest @ ..] if is_mysql => 3 + digits(rest),
            [b'/', b'*', b'M', b'!', rest @ ..] if is_mysql => 4 + digits(rest),
            [b'/', b'*', ..] if self.unclosed.contains(&b'*') => return false,
            [b'/', b'*', ..] => match self.text[self.at + 2..].find("*/") {
                Some(length) => length + 4,
                None if is_mysql => {
                    self.unclosed.push(b'*');
                    return false;
                }
                // It may end with the text.
                None => rest.len(),
            },
            [b'*', b'/', ..] if is_mysql => 2,
            [b'-', b'-', after, ..] if is_mysql && !after.is_ascii_whitespace() => return false,
            [b'-', b'-'] if is_mysql => return false,
            [b'-', b'-', ..] => line_length(rest),
            [b'#', ..] if is_mysql => line_length(rest),
            _ => return false,
        };
        self.at += length;
        true
    }

    /// Skips a text in quotes, if it is closed.
    fn skip_quoted(&mut self, open: u8, close: u8, escapes: bool) -> bool {
        if self.unclosed.contains(&open) {
            return false;
        }
        let end = quoted_end(self.text.as_bytes(), self.at + 1, close, open == close, escapes);
        match end {
            Some(end) => self.at = end,
            None => self.unclosed.push(open),
        }
        end.is_some()
    }
}

/// Where a text in quotes ends. A doubled quote belongs to it.
fn quoted_end(text: &[u8], start: usize, close: u8, doubles: bool, escapes: bool) -> Option<usize> {
    let mut at = start;
    let mut last_pair = None;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            it if *it != close => 1,
            _ if doubles && text.get(at + 1) == Some(&close) => {
                last_pair = Some(at + 1);
                2
            }
            _ => return Some(at + 1),
        };
    }
    // The second quote of a pair is another text, which is not closed.
    last_pair
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn line_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| **byte != b'\n').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(tokens: &Tokens<'_>) -> Vec<String> {
        (0..tokens.len()).map(|place| tokens.name(place).into_owned()).collect()
    }

    fn of_mysql(text: &str, mode: &str) -> Vec<String> {
        names(&Tokens::of_mysql(text, Escapes::of_mode(mode)))
    }

    #[test]
    fn tokens_of_mysql_have_no_literals_and_comments() {
        for (text, expected) in [
            ("A.b, 'it''s' `c``D` \"e\"\"f\"", &["a", ".", "b", ",", "c`d", "e\"f"][..]),
            ("a /* b */ -- c\n--d # e\nf /*!50000 g */ /*M!h*/", &["a", "-", "-", "d", "f", "g", "h"]),
            ("'\\'a' b", &["b"]),
            ("a ' b ` c \" d /* e", &["a", "b", "`", "c", "\"", "d", "/", "*", "e"]),
            ("'a'' b", &["b"]),
            ("é😀", &["é", "😀"]),
        ] {
            assert_eq!(of_mysql(text, ""), expected, "{text}");
        }
        assert_eq!(of_mysql("'\\' a \"\\\"", "NO_BACKSLASH_ESCAPES"), ["a", "\\"]);
        let text = "'\\'' \"5\\\" a \"";
        assert_eq!(of_mysql(text, ""), ["5\\\" a "]);
        assert_eq!(of_mysql(text, "ANSI_QUOTES"), ["5\\", "a", "\""]);
    }

    #[test]
    fn tokens_of_sqlite_have_literals() {
        for (text, expected) in [
            ("A 'It''s' [B]]c \"d\"\"e\" `f` É", &["a", "it's", "b", "]", "c", "d\"e", "f", "É"][..]),
            ("a --b\n/* c */ # /* d", &["a", "#"]),
            ("a ' b [c", &["a", "'", "b", "[", "c"]),
            ("é😀", &["é😀"]),
        ] {
            assert_eq!(names(&Tokens::of_sqlite(text)), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[aé😀'\"`\\[\\]/*!M5#\n \\\\-]{0,40}") {
            for mode in ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"] {
                of_mysql(&text, mode);
            }
            names(&Tokens::of_sqlite(&text));
        }
    }
}
