//! Tokens of extended clauses, by rules that are the same for every database.

use super::error::{Found, SqlError};
use super::position::{Position, PositionCursor};

/// Keywords of extended clauses. In a clause they are reserved; in standard SQL they have no meaning here.
pub(super) const KEYWORDS: [&str; 20] = [
    "TO",
    "TRAIN",
    "PREDICT",
    "EXPLAIN",
    "EVALUATE",
    "RUN",
    "MAXIMIZE",
    "MINIMIZE",
    "SHOW",
    "WITH",
    "COLUMN",
    "LABEL",
    "USING",
    "INTO",
    "FOR",
    "CMD",
    "CONSTRAINT",
    "AND",
    "OR",
    "NOT",
];

/// Kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LexemeKind {
    /// A name that is not a keyword.
    Name,
    /// A name in backquotes, with any characters.
    Quoted,
    /// One of [`KEYWORDS`], in any case.
    Keyword,
    /// A number.
    Number,
    /// A string, in single or double quotes.
    String,
    /// An operator, a bracket, or an unexpected character.
    Symbol,
    /// The `;`.
    Semicolon,
    /// The end of the program.
    End,
}

/// A token with its position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexeme<'a> {
    pub(super) kind: LexemeKind,
    pub(super) text: &'a str,
    pub(super) end: usize,
    pub(super) position: Position,
}

impl<'a> Lexeme<'a> {
    /// Whether it is this word: a keyword, or a name, since the words of `GROUP BY` are not reserved.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self.kind, LexemeKind::Name | LexemeKind::Keyword) && self.text.eq_ignore_ascii_case(word)
    }

    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == LexemeKind::Symbol && self.text == symbol
    }

    /// The name without its backquotes; `None` if the token is no name.
    pub(super) fn name(&self) -> Option<String> {
        match self.kind {
            LexemeKind::Name => Some(self.text.to_owned()),
            LexemeKind::Quoted => {
                self.text.strip_prefix('`')?.strip_suffix('`').map(|inner| inner.replace("``", "`"))
            }
            _ => None,
        }
    }

    pub(super) fn found(&self) -> Found<'a> {
        match self.kind {
            LexemeKind::End => Found::End,
            _ => Found::Text(self.text),
        }
    }
}

/// Reads tokens one by one.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    sql: &'a str,
    pos: usize,
    cursor: PositionCursor<'a>,
}

impl<'a> Lexer<'a> {
    /// Starts at byte `pos` of `sql`. `cursor` must not be beyond it.
    pub(super) const fn new(sql: &'a str, pos: usize, cursor: PositionCursor<'a>) -> Self {
        Self { sql, pos, cursor }
    }

    /// The next token after whitespace and comments.
    pub(super) fn next(&mut self) -> Result<Lexeme<'a>, SqlError> {
        self.skip_trivia()?;
        let start = self.pos;
        let position = self.cursor.advance(start);
        let rest = &self.sql[start..];
        let (kind, length) = match rest.chars().next() {
            None => (LexemeKind::End, 0),
            Some(';') => (LexemeKind::Semicolon, 1),
            Some(quote @ ('\'' | '"')) => {
                let Some(length) = string_length(rest, quote) else {
                    let expected = if quote == '"' { "a closing \"" } else { "a closing '" };
                    return Err(SqlError::syntax(position, Found::Text(rest), &[expected]));
                };
                (LexemeKind::String, length)
            }
            Some('`') => {
                let Some(length) = quoted_length(rest) else {
                    return Err(SqlError::syntax(position, Found::Text(rest), &["a closing `"]));
                };
                (LexemeKind::Quoted, length)
            }
            Some(c) if c.is_alphabetic() => {
                let length = name_length(rest);
                let reserved = KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(&rest[..length]));
                (if reserved { LexemeKind::Keyword } else { LexemeKind::Name }, length)
            }
            Some(c) => match number_length(rest) {
                Some(length) => (LexemeKind::Number, length),
                None if ["<=", ">=", "!=", "<>"].iter().any(|operator| rest.starts_with(operator)) => {
                    (LexemeKind::Symbol, 2)
                }
                None => (LexemeKind::Symbol, c.len_utf8()),
            },
        };
        self.pos += length;
        Ok(Lexeme { kind, text: &rest[..length], end: self.pos, position })
    }

    fn skip_trivia(&mut self) -> Result<(), SqlError> {
        loop {
            let rest = self.sql[self.pos..].trim_start();
            self.pos = self.sql.len() - rest.len();
            let length = if rest.starts_with('#') || rest.starts_with("--") {
                rest.find('\n').unwrap_or(rest.len())
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let Some(close) = comment.find("*/") else {
                    let position = self.cursor.advance(self.pos);
                    return Err(SqlError::syntax(position, Found::Text(rest), &["a closing */"]));
                };
                close + 4
            } else {
                return Ok(());
            };
            self.pos += length;
        }
    }
}

/// Length of the string at the start of `rest`, with its quotes; `None` if it is unclosed.
fn string_length(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// Length of the name in backquotes at the start of `rest`, with them. A doubled backquote stands for one.
fn quoted_length(rest: &str) -> Option<usize> {
    let mut quotes = rest.match_indices('`').map(|(at, _)| at).skip(1);
    while let Some(at) = quotes.next() {
        if !rest[at + 1..].starts_with('`') {
            return Some(at + 1);
        }
        quotes.next();
    }
    None
}

/// Length of the name at the start of `rest`. Names may contain `-` and `/`, but a comment ends a name: `m/* c */`, `m-- c`.
fn name_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    rest.char_indices()
        .find(|&(at, c)| match c {
            '/' => bytes.get(at + 1) == Some(&b'*'),
            '-' => bytes.get(at + 1) == Some(&b'-') && bytes.get(at + 2).is_none_or(u8::is_ascii_whitespace),
            '_' | ':' | '.' => false,
            _ => !c.is_alphanumeric(),
        })
        .map_or(rest.len(), |(at, _)| at)
}

/// Length of the number at the start of `rest`: `[0-9]*[.]?[0-9]+([eE][+-]?[0-9]+)?`.
fn number_length(rest: &str) -> Option<usize> {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut length = match rest[whole..].strip_prefix('.').map(|_| digits(whole + 1)) {
        Some(fraction) if fraction > 0 => whole + 1 + fraction,
        _ if whole > 0 => whole,
        _ => return None,
    };
    if rest[length..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<(LexemeKind, String)> {
        let mut lexer = Lexer::new(sql, 0, PositionCursor::new(sql));
        let mut texts = Vec::new();
        loop {
            let lexeme = lexer.next().expect("the clause is well formed");
            if lexeme.kind == LexemeKind::End {
                return texts;
            }
            texts.push((lexeme.kind, lexeme.text.to_owned()));
        }
    }

    #[test]
    fn names_numbers_and_operators_are_tokens() {
        use LexemeKind::{Keyword, Name, Number, Quoted, Semicolon, String, Symbol};
        let got = texts("`a b;``c` hub.io/a:v1/Net-x wItH .5e-3<>1.5.2 2e x-- c\nm/* ; */'a\"\\'b';");
        let want = [
            (Quoted, "`a b;``c`"),
            (Name, "hub.io/a:v1/Net-x"),
            (Keyword, "wItH"),
            (Number, ".5e-3"),
            (Symbol, "<>"),
            (Number, "1.5"),
            (Number, ".2"),
            (Number, "2"),
            (Name, "e"),
            (Name, "x"),
            (Name, "m"),
            (String, "'a\"\\'b'"),
            (Semicolon, ";"),
        ];
        assert_eq!(got, want.map(|(kind, text)| (kind, text.to_owned())));
    }
}
