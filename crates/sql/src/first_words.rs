//! The first words of a program, as its title in lists that all users may see. Comments and strings are left out, since
//! they may contain data and secrets.
//!
//! The program is read by the rules by which it was split: those of the database, and SQLFlow's in extended clauses. The
//! title ends where another version of the database might see a string or a comment.

use super::ast::{Body, Program, Statement};
use super::clause_lexer::{LexemeKind, Lexer};
use super::dialect::Dialect;
use super::position::PositionCursor;
use super::scanner::{Scanner, Token, TokenKind, Unclosed};
use super::tokens::Tokens;

/// Maximum number of characters of a title, without the `…` at its end.
const MAX_CHARACTERS: usize = 80;
/// Maximum number of bytes that are read of a program.
const MAX_BYTES: usize = 16 << 10;
/// Replacement of a string.
const HIDDEN: &str = "'…'";

/// The first words of `sql`, which was parsed as `program`, on one line. Strings are shown as `'…'`. So is text in double
/// quotes, which may be a string in MySQL and SQLite. Of a statement that may contain a password, only the verb is shown.
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

/// The title ends here.
struct Cut;

#[derive(Default)]
struct Words {
    text: String,
    characters: usize,
    /// End of the previous piece in the program.
    end: usize,
}

impl Words {
    /// Adds the part of a statement that is within `sql`.
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
                // A comment after TO follows the rules of the database.
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
                // In the database, a `*/` in an inner string or comment does not end it. The scanner does not know that.
                let inner = &token.text[2..token.text.len() - 2];
                let is_plain =
                    inner.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "!_,.=()".contains(c));
                return if is_plain { Ok(()) } else { Err(Cut) };
            }
            TokenKind::Symbol => {
                let is_after =
                    |symbol| before.is_some_and(|it| it.is_symbol(symbol) && it.end == token.start);
                let is_unsure = match dialect {
                    // `5--1` is a subtraction in MySQL, and a comment in Hive.
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

    /// Adds the extended clause that begins at this offset.
    fn clause(&mut self, sql: &str, start: usize) -> Result<(), Cut> {
        let mut lexer = Lexer::new(sql, start, PositionCursor::new(sql));
        loop {
            // The program was parsed, so only the limit of bytes can cut a token.
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

    /// Adds a piece of the program at these offsets.
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

/// Number of tokens to show of a standard statement that may contain a password; `None`: all. A password without quotes,
/// or in those of another dialect, looks like any other word.
fn verb_of_secret(sql: &str, dialect: Dialect) -> Option<usize> {
    const ACCOUNTS: [&str; 5] = ["USER", "ROLE", "GROUP", "SERVER", "SUBSCRIPTION"];
    /// PRAGMAs of SQLCipher.
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
    let has_password = match () {
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
    (has_password || is_identified()).then_some(2)
}

#[cfg(test)]
#[path = "first_words_tests.rs"]
mod tests;
