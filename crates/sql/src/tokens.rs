//! The tokens of one standard statement, and the names in it, for the modules that interpret statements.

use super::dialect::Dialect;
use super::scanner::{Scanner, Token, TokenKind};

/// The first words of a statement in upper case, without comments and opening parentheses; at most `count`.
#[must_use]
pub fn leading_words(sql: &str, dialect: Dialect, count: usize) -> Vec<String> {
    let tokens = Tokens::new(sql, dialect).skip_while(|token| token.is_symbol('('));
    let words = tokens.take_while(|token| token.kind == TokenKind::Word);
    words.take(count).map(|token| token.text.to_uppercase()).collect()
}

/// The strings of a statement of PostgreSQL, as written, without their quotes. From where a string is not closed, or a
/// setting of the session decides where it ends, the rest of the statement counts as one string.
#[must_use]
pub fn postgresql_strings(sql: &str) -> Vec<&str> {
    let mut one = Scanner::new(sql, Dialect::Postgresql, 0);
    let mut other = Scanner::with_other_backslash(sql, Dialect::Postgresql, 0);
    let mut found = Vec::new();
    let mut end = 0;
    loop {
        match (one.next(), other.next()) {
            (Ok(None), Ok(None)) => return found,
            (Ok(Some(token)), Ok(Some(same))) if token.end == same.end => {
                end = token.end;
                found.extend(token.string());
            }
            _ => {
                found.push(&sql[end..]);
                return found;
            }
        }
    }
}

/// Tokens of a statement, with a lookahead of one.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    scanner: Scanner<'a>,
    next: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(sql: &'a str, dialect: Dialect) -> Self {
        let mut tokens = Self { scanner: Scanner::new(sql, dialect, 0), next: None };
        tokens.next();
        tokens
    }

    /// The next token, which is not consumed.
    pub(super) const fn peek(&self) -> Option<Token<'a>> {
        self.next
    }

    /// Whether the next token is one of these words.
    pub(super) fn at(&self, words: &[&str]) -> bool {
        self.next.is_some_and(|token| token.is_one_of(words))
    }

    /// Consumes the first word. MariaDB's `SET STATEMENT a = 1 FOR INSERT …` is an INSERT.
    pub(super) fn verb(&mut self, dialect: Dialect) -> Option<Token<'a>> {
        let mut verb = self.next()?;
        while dialect == Dialect::Mysql && verb.is("SET") && self.accept(&["STATEMENT"]) {
            self.by_ref().find(|token| token.is("FOR"));
            verb = self.next()?;
        }
        Some(verb)
    }

    /// Whether the next token is this symbol.
    pub(super) fn at_symbol(&self, symbol: char) -> bool {
        self.next.is_some_and(|token| token.is_symbol(symbol))
    }

    /// Consumes the next token if it is one of these words, and returns whether it is.
    pub(super) fn accept(&mut self, words: &[&str]) -> bool {
        let found = self.at(words);
        if found {
            self.next();
        }
        found
    }

    /// Whether one of the following tokens is a call of such a function.
    pub(super) fn calls(&self, is_function: impl Fn(&Token<'_>) -> bool) -> bool {
        let mut tokens = self.clone();
        while let Some(token) = tokens.next() {
            if tokens.at_symbol('(') && is_function(&token) {
                return true;
            }
        }
        false
    }

    /// Consumes a qualified name. Returns its last part, and whether an earlier part is a schema for temporary objects.
    pub(super) fn qualified_name(&mut self) -> Option<(String, bool)> {
        let mut name = self.next()?.name()?;
        let mut temporary = false;
        while self.at_symbol('.') {
            self.next();
            temporary |= name == "temp" || name.starts_with("pg_temp");
            name = self.next()?.name()?;
        }
        Some((name, temporary))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        // The splitter rejects unclosed strings and comments. Should one get here, the statement ends at it.
        std::mem::replace(&mut self.next, self.scanner.next().unwrap_or(None))
    }
}

#[cfg(test)]
mod tests {
    use super::postgresql_strings;

    #[test]
    fn strings_are_found() {
        for (sql, expected) in [
            ("a 'it''s' b", &["it''s"][..]),
            ("E'\\'', e'b' 'c\\d'", &["\\'", "b", "c\\d"]),
            ("type'x' U&'y'", &["x", "y"]),
            ("$$a 'b' $x$ $$ 'c'", &["a 'b' $x$ ", "c"]),
            ("$q$ $$ $q$$q$b$q$", &[" $$ ", "b"]),
            ("$a$b$a c$a$", &["b$a c"]),
            ("$1 + $2 a$b$ \"'c'\"", &[]),
            ("$é$x$é$", &["x"]),
            ("", &[]),
            ("a, -- it's\n f('b') -- it's", &["b"]),
            ("a, -- it's\r f('b')", &["b"]),
            ("a /* it's /* $$ */ it's */ , f('b') /* 'c' */", &["b"]),
            // Without an end, or with one that depends on `standard_conforming_strings`.
            ("'a' b 'c''", &["a", " 'c''"]),
            ("'a' $b$ 'c' $$", &["a", " $b$ 'c' $$"]),
            ("'a', 'b\\', f('c'), 'd'", &["a", " 'b\\', f('c'), 'd'"]),
            ("'a' /* 'b'", &["a", " /* 'b'"]),
        ] {
            assert_eq!(postgresql_strings(sql), expected, "{sql}");
        }
    }
}
