//! The first words of a program, for lists that anyone may see: without its comments and its strings, in which data and
//! secrets may be.
//!
//! Read by the same rules as the program was split: those of the database, and in extended clauses SQLFlow's. Where these
//! cannot be sure of what another version of the database takes for a string or a comment, the words end.

use super::ast::{Body, Program, Statement};
use super::clause_lexer::{LexemeKind, Lexer};
use super::dialect::Dialect;
use super::position::PositionCursor;
use super::scanner::{Scanner, Token, TokenKind, Unclosed};
use super::tokens::Tokens;

/// Characters of a title at the most, without the `…` at its end.
const MAX_CHARACTERS: usize = 80;
/// Bytes of a program that are looked at.
const MAX_BYTES: usize = 16 << 10;
/// What stands where the program has a string.
const HIDDEN: &str = "'…'";

/// The first words of `sql`, which was read as `program`, on one line. Strings are `'…'`, also what is in double quotes: in
/// MySQL and SQLite that may be a string. Of statements that give passwords only the verb is shown.
#[must_use]
pub fn first_words(sql: &str, program: &Program) -> String {
    let seen = &sql[..sql.floor_char_boundary(MAX_BYTES)];
    let mut words = Words::default();
    for statement in &program.statements {
        let is_seen = statement.span.start < seen.len();
        if !is_seen || words.add(statement, seen, program.dialect).is_err() {
            return words.cut();
        }
    }
    if seen.len() < sql.len() { words.cut() } else { words.text }
}

/// What follows is not shown.
struct Cut;

#[derive(Default)]
struct Words {
    text: String,
    characters: usize,
    /// Where the piece before ends in the program.
    end: usize,
}

impl Words {
    /// Adds a statement, as far as it is in the part of the program that is looked at.
    fn add(&mut self, statement: &Statement, sql: &str, dialect: Dialect) -> Result<(), Cut> {
        let start = statement.span.start;
        let sql = &sql[..statement.span.end.min(sql.len())];
        let is_standard = matches!(statement.body, Body::Standard(_));
        let most = if is_standard { verb_of_secret(&sql[start..], dialect) } else { None };
        let mut scanner = Scanner::new(sql, dialect, start);
        let mut before: Option<Token<'_>> = None;
        for count in 0.. {
            let token = match scanner.next() {
                Ok(Some(token)) => token,
                Ok(None) => return Ok(()),
                Err(Unclosed { start, .. }) => {
                    if !sql[start..].starts_with("/*") {
                        self.push(HIDDEN, start, sql.len())?;
                    }
                    return Err(Cut);
                }
            };
            if most.is_some_and(|most| count >= most) {
                self.push(" …", self.end, sql.len())?;
                return if sql.ends_with(';') { self.push(";", sql.len(), sql.len()) } else { Ok(()) };
            }
            let is_clause = match statement.body.select() {
                // A comment between TO and what follows it is one of the database.
                Some(select) => token.start >= start + select.len() && !token.is("TO"),
                None => !is_standard && count >= 2,
            };
            if is_clause {
                return self.clause(sql, token.start);
            }
            self.token(&token, before.as_ref(), dialect)?;
            before = Some(token);
        }
        Ok(())
    }

    fn token(&mut self, token: &Token<'_>, before: Option<&Token<'_>>, dialect: Dialect) -> Result<(), Cut> {
        let is_shown = match token.kind {
            TokenKind::Word | TokenKind::Number => true,
            TokenKind::Quoted => !token.text.starts_with('"'),
            TokenKind::String => false,
            TokenKind::Executed => {
                self.push(HIDDEN, token.start, token.end)?;
                // A `*/` in a string or comment in it does not end it, which the scanner does not see.
                let inner = &token.text[2..token.text.len() - 2];
                let is_plain =
                    inner.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "!_,.=()".contains(c));
                return if is_plain { Ok(()) } else { Err(Cut) };
            }
            TokenKind::Symbol => {
                let is_after =
                    |symbol| before.is_some_and(|it| it.is_symbol(symbol) && it.end == token.start);
                let is_unsure = match dialect {
                    // `5--1` for MySQL, for Hive a comment.
                    Dialect::Mysql => token.is_symbol('-') && is_after('-'),
                    // Its `]` may be on a later line.
                    Dialect::Sqlite => token.is_symbol('['),
                    Dialect::Postgresql => false,
                };
                if is_unsure {
                    return Err(Cut);
                }
                true
            }
        };
        self.push(if is_shown { token.text } else { HIDDEN }, token.start, token.end)
    }

    /// Adds the extended clause that begins at this byte.
    fn clause(&mut self, sql: &str, start: usize) -> Result<(), Cut> {
        let mut lexer = Lexer::new(sql, start, PositionCursor::new(sql));
        loop {
            // Only what is looked at of a clause may be without its end: the program was read.
            let lexeme = lexer.next().map_err(|_| Cut)?;
            let text = match lexeme.kind {
                LexemeKind::End => return Ok(()),
                LexemeKind::String => HIDDEN,
                LexemeKind::Name
                | LexemeKind::Quoted
                | LexemeKind::Keyword
                | LexemeKind::Number
                | LexemeKind::Symbol
                | LexemeKind::Semicolon => lexeme.text,
            };
            self.push(text, lexeme.end - lexeme.text.len(), lexeme.end)?;
        }
    }

    /// Adds a piece that stands there in the program.
    fn push(&mut self, piece: &str, start: usize, end: usize) -> Result<(), Cut> {
        if start > self.end && !self.text.is_empty() {
            self.push_char(' ')?;
        }
        self.end = end;
        if piece == HIDDEN && self.characters + HIDDEN.chars().count() > MAX_CHARACTERS {
            return Err(Cut);
        }
        piece.chars().try_for_each(|c| self.push_char(if c.is_control() { ' ' } else { c }))
    }

    fn push_char(&mut self, c: char) -> Result<(), Cut> {
        if self.characters >= MAX_CHARACTERS {
            return Err(Cut);
        }
        self.text.push(c);
        self.characters += 1;
        Ok(())
    }

    fn cut(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        if !self.text.ends_with('…') {
            self.text.push('…');
        }
        self.text
    }
}

/// How many tokens are shown of a standard statement that gives a password. Without quotes, or with those of another
/// dialect, it would look like any word.
fn verb_of_secret(sql: &str, dialect: Dialect) -> Option<usize> {
    const ACCOUNTS: [&str; 5] = ["USER", "ROLE", "GROUP", "SERVER", "SUBSCRIPTION"];
    /// Of SQLCipher.
    const KEYS: [&str; 5] = ["key", "rekey", "hexkey", "hexrekey", "textkey"];
    let mut tokens = Tokens::new(sql, dialect);
    let mut all = tokens.clone();
    let verb = tokens.next()?;
    if verb.is("CREATE") && tokens.at(&["OR"]) {
        tokens.nth(1);
        if tokens.at(&ACCOUNTS) {
            return Some(4);
        }
    }
    let gives = match () {
        () if verb.is_one_of(&["CREATE", "ALTER"]) => tokens.at(&ACCOUNTS),
        () if verb.is("SET") => tokens.at(&["PASSWORD"]),
        () if verb.is("CHANGE") => tokens.at(&["MASTER", "REPLICATION"]),
        () if verb.is("PRAGMA") => tokens.qualified_name().is_some_and(|(it, _)| KEYS.contains(&it.as_str())),
        () => false,
    };
    let mut is_identified = || {
        while let Some(token) = all.next() {
            if token.is("IDENTIFIED") && all.at(&["BY", "WITH", "VIA", "AS"]) {
                return true;
            }
        }
        false
    };
    (gives || is_identified()).then_some(2)
}

#[cfg(test)]
#[path = "first_words_tests.rs"]
mod tests;
