//! Tokens of standard SQL: words, quoted names, strings and comments, by the lexical rules of each database.
//!
//! The scanner does not validate. It has to agree with the database on where strings, quoted names and comments end,
//! because a `;` or a `TO` in one of them is data. The rules are those of the manuals of MySQL, PostgreSQL and SQLite.

use super::dialect::Dialect;

/// Kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// An unquoted name or keyword.
    Word,
    /// A number, or another token that begins with a digit.
    Number,
    /// A quoted name. In MySQL also a string in double quotes, which looks the same.
    Quoted,
    /// A string.
    String,
    /// MySQL's `/*! … */`: a comment whose content is executed.
    Executed,
    /// Any other character.
    Symbol,
}

/// A token with its byte offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token<'_> {
    /// Whether it is this keyword. A quoted name is no keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    pub(super) fn is_one_of(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }

    pub(super) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol && self.text.starts_with(symbol)
    }

    /// The name without its quotes, in lower case so that two spellings compare equal. `None` if the token is no name.
    pub(super) fn name(&self) -> Option<String> {
        match self.kind {
            TokenKind::Word => Some(self.text.to_lowercase()),
            TokenKind::Quoted => {
                let quote = if self.text.starts_with('[') { "]" } else { &self.text[..1] };
                let inner = &self.text[1..self.text.len() - 1];
                Some(inner.replace(&quote.repeat(2), quote).to_lowercase())
            }
            TokenKind::Number | TokenKind::String | TokenKind::Executed | TokenKind::Symbol => None,
        }
    }
}

impl<'a> Token<'a> {
    /// Content of an executed comment: `SET NAMES utf8` of `/*!40101 SET NAMES utf8 */`.
    pub(super) fn executed(&self) -> Option<&'a str> {
        let inner = self.text.strip_suffix("*/").filter(|_| self.kind == TokenKind::Executed)?;
        let inner = inner.trim_start_matches(['/', '*', 'M', '!']);
        Some(inner.trim_start_matches(|c: char| c.is_ascii_digit()))
    }

    /// Content of a string as written, without its quotes.
    pub(super) fn string(&self) -> Option<&'a str> {
        let opening = match self.kind {
            TokenKind::String if self.text.starts_with('$') => self.text[1..].find('$')? + 2,
            // Perhaps after an E.
            TokenKind::String => self.text.find('\'')? + 1,
            _ => return None,
        };
        let closing = if self.text.starts_with('$') { opening } else { 1 };
        self.text.get(opening..self.text.len() - closing)
    }
}

/// A string, quoted name or comment that begins at `start` and has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unclosed {
    pub(super) start: usize,
    /// Missing end, as text for a message.
    pub(super) expected: &'static str,
}

/// Reads tokens one by one. Clone it to look ahead.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    sql: &'a str,
    dialect: Dialect,
    pos: usize,
    /// Whether a backslash in a string escapes the next character.
    backslash: bool,
    /// Offset up to which no `]` follows. Keeps the time linear if a line has many unclosed `[`.
    no_bracket_before: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at byte `pos` of `sql`.
    pub(super) const fn new(sql: &'a str, dialect: Dialect, pos: usize) -> Self {
        let backslash = matches!(dialect, Dialect::Mysql);
        Self { sql, dialect, pos, backslash, no_bracket_before: 0 }
    }

    /// Starts with the opposite of the default rule for backslashes in strings: the rule of MySQL's `NO_BACKSLASH_ESCAPES`,
    /// or of PostgreSQL without `standard_conforming_strings`.
    pub(super) const fn with_other_backslash(sql: &'a str, dialect: Dialect, pos: usize) -> Self {
        let mut scanner = Self::new(sql, dialect, pos);
        scanner.backslash = !scanner.backslash;
        scanner
    }

    /// The next token after whitespace and comments; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, Unclosed> {
        self.skip_trivia()?;
        let start = self.pos;
        let Some(first) = self.rest().chars().next() else {
            return Ok(None);
        };
        let kind = match first {
            '\'' => self.string(start, self.backslash)?,
            '"' => {
                let backslash = self.backslash && self.dialect == Dialect::Mysql;
                self.quoted('"', backslash, start, "a closing \"")?;
                TokenKind::Quoted
            }
            '`' if self.dialect != Dialect::Postgresql => {
                self.quoted('`', false, start, "a closing `")?;
                TokenKind::Quoted
            }
            '[' if self.dialect == Dialect::Sqlite && self.bracketed() => TokenKind::Quoted,
            '$' if self.dialect == Dialect::Postgresql && self.dollar_quoted()? => TokenKind::String,
            '/' if self.at_executed_comment() => {
                self.block_comment()?;
                TokenKind::Executed
            }
            c if c.is_ascii_digit() => {
                // In PostgreSQL a `$` ends a number: `1$$x$$` has a string.
                let dollar = self.dialect != Dialect::Postgresql;
                self.take_while(|c| c == '.' || (is_word(c) && (dollar || c != '$')));
                TokenKind::Number
            }
            'e' | 'E' if self.dialect == Dialect::Postgresql && self.rest()[1..].starts_with('\'') => {
                self.pos += 1;
                self.string(start, true)?;
                // A string may continue after a line break, by the rules of its first part.
                while let Some(at) = self.continuation() {
                    self.pos = at;
                    self.string(start, true)?;
                }
                TokenKind::String
            }
            c if is_word(c) && !(c == '$' && self.dialect == Dialect::Postgresql) => {
                self.take_while(is_word);
                TokenKind::Word
            }
            c => {
                self.pos += c.len_utf8();
                TokenKind::Symbol
            }
        };
        Ok(Some(Token { kind, text: &self.sql[start..self.pos], start, end: self.pos }))
    }

    fn rest(&self) -> &'a str {
        &self.sql[self.pos..]
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.pos += rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    }

    fn skip_trivia(&mut self) -> Result<(), Unclosed> {
        loop {
            self.take_while(char::is_whitespace);
            if self.at_line_comment() {
                self.line_comment();
            } else if self.rest().starts_with("/*") && !self.at_executed_comment() {
                self.block_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    fn at_line_comment(&self) -> bool {
        let rest = self.rest();
        match (self.dialect, rest.strip_prefix("--")) {
            // MySQL reads `5--1` as 5 - (-1): its comments need whitespace after the dashes.
            (Dialect::Mysql, Some(after)) => {
                after.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
            }
            (Dialect::Postgresql | Dialect::Sqlite, Some(_)) => true,
            (Dialect::Mysql, None) => rest.starts_with('#'),
            (Dialect::Postgresql | Dialect::Sqlite, None) => false,
        }
    }

    /// In PostgreSQL, a carriage return ends the line, too.
    fn line_comment(&mut self) {
        let carriage_return = self.dialect == Dialect::Postgresql;
        self.take_while(|c| !(c == '\n' || carriage_return && c == '\r'));
    }

    fn at_executed_comment(&self) -> bool {
        self.dialect == Dialect::Mysql && (self.rest().starts_with("/*!") || self.rest().starts_with("/*M!"))
    }

    fn block_comment(&mut self) -> Result<(), Unclosed> {
        let start = self.pos;
        let nests = self.dialect == Dialect::Postgresql;
        let bytes = self.sql.as_bytes();
        let mut open = 1_usize;
        self.pos += 2;
        while let Some(pair) = bytes.get(self.pos..self.pos + 2) {
            match pair {
                b"*/" => open -= 1,
                b"/*" if nests => open += 1,
                _ => {
                    self.pos += 1;
                    continue;
                }
            }
            self.pos += 2;
            if open == 0 {
                return Ok(());
            }
        }
        self.pos = self.sql.len();
        // SQLite accepts a comment that extends to the end of the input.
        match self.dialect {
            Dialect::Sqlite => Ok(()),
            Dialect::Mysql | Dialect::Postgresql => Err(Unclosed { start, expected: "a closing */" }),
        }
    }

    fn string(&mut self, start: usize, backslash: bool) -> Result<TokenKind, Unclosed> {
        self.quoted('\'', backslash, start, "a closing '")?;
        Ok(TokenKind::String)
    }

    /// Offset at which PostgreSQL continues the string that ends here: after whitespace with a line break, and line comments.
    fn continuation(&self) -> Option<usize> {
        let mut lookahead = self.clone();
        loop {
            lookahead.take_while(char::is_whitespace);
            if !lookahead.at_line_comment() {
                break;
            }
            lookahead.line_comment();
        }
        let has_break = self.sql[self.pos..lookahead.pos].contains(['\n', '\r']);
        (has_break && lookahead.rest().starts_with('\'')).then_some(lookahead.pos)
    }

    /// Skips quoted text that begins at `pos`. A doubled quote is data.
    fn quoted(
        &mut self,
        quote: char,
        backslash: bool,
        start: usize,
        expected: &'static str,
    ) -> Result<(), Unclosed> {
        self.pos += 1;
        loop {
            let rest = self.rest();
            let Some(stop) = rest.find(|c| c == quote || (backslash && c == '\\')) else {
                self.pos = self.sql.len();
                return Err(Unclosed { start, expected });
            };
            self.pos += stop + 1;
            if rest[stop..].starts_with('\\') {
                self.pos += self.rest().chars().next().map_or(0, char::len_utf8);
            } else if self.rest().starts_with(quote) {
                self.pos += 1;
            } else {
                return Ok(());
            }
        }
    }

    /// SQLite's `[name]`. A `[` without `]` on the same line is a symbol.
    fn bracketed(&mut self) -> bool {
        if self.pos < self.no_bracket_before {
            return false;
        }
        let rest = self.rest();
        let stop = rest.find([']', '\n']).unwrap_or(rest.len());
        if rest[stop..].starts_with(']') {
            self.pos += stop + 1;
            true
        } else {
            self.no_bracket_before = self.pos + stop;
            false
        }
    }

    /// PostgreSQL's `$tag$ … $tag$`. `$1` is a parameter, not a quote.
    fn dollar_quoted(&mut self) -> Result<bool, Unclosed> {
        let rest = self.rest();
        let tag = rest[1..].find(|c: char| c == '$' || !is_word(c)).map_or("", |end| &rest[1..=end]);
        let opening = tag.len() + 2;
        if !rest[1 + tag.len()..].starts_with('$') || tag.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(false);
        }
        let quote = &rest[..opening];
        match rest[opening..].find(quote) {
            Some(close) => {
                self.pos += opening + close + opening;
                Ok(true)
            }
            None => Err(Unclosed { start: self.pos, expected: "the closing dollar quote" }),
        }
    }
}

/// Whether `c` may be part of an unquoted word. `$` may in all three dialects, but does not begin a word in PostgreSQL.
/// Characters outside ASCII may, such as emoji or marks of Indic scripts, except whitespace and control characters.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !(c.is_ascii() || c.is_whitespace() || c.is_control())
}
