//! Settings that change where a string ends: MySQL's SQL mode `NO_BACKSLASH_ESCAPES`, and PostgreSQL's
//! `standard_conforming_strings`.
//!
//! A program is split by the defaults of the database. With such a setting, the database may end `'a\'` and its statement
//! elsewhere. Neither every change of the setting nor its value can be found in a program's text. So a string is rejected if
//! such a setting may precede it, and if its end depends on the setting. The end of `'C:\temp'` does not.

use super::ast::{Body, Statement};
use super::dialect::Dialect;
use super::error::SqlError;
use super::position::Position;
use super::scanner::{Scanner, Token, TokenKind};
use super::tokens::Tokens;

/// MySQL's SQL mode.
const MODE: &str = "no_backslash_escapes";
/// Bit of this mode in the numeric form of `sql_mode`.
const MODE_BIT: u64 = 1 << 20;
/// PostgreSQL's setting.
const CONFORMING: &str = "standard_conforming_strings";

/// Settings that the statements so far may have changed from the default, each as the line of that statement.
#[derive(Debug)]
pub(super) struct EscapeSettings {
    dialect: Dialect,
    /// In the current session, and in later ones, which replay it.
    session: Option<usize>,
    /// In the current transaction.
    transaction: Option<usize>,
    /// In later sessions only.
    later: Option<usize>,
    /// MySQL: whether the mode was mentioned, for example in the value of a variable.
    is_mode_mentioned: bool,
}

impl EscapeSettings {
    pub(super) const fn new(dialect: Dialect) -> Self {
        Self { dialect, session: None, transaction: None, later: None, is_mode_mentioned: false }
    }

    /// Rejects a string whose end depends on a setting that may have been changed. Checks the tokens that begin in `from..to`.
    pub(super) fn check(&self, sql: &str, from: usize, to: usize) -> Result<(), SqlError> {
        let Some(line) = self.transaction.or(self.session) else {
            return Ok(());
        };
        let Some(at) = first_difference(sql, self.dialect, from, to) else {
            return Ok(());
        };
        let (set, rule, fix) = match self.dialect {
            Dialect::Mysql => (
                "may set NO_BACKSLASH_ESCAPES",
                "a backslash escapes the next character",
                "remove this mode, and write each backslash of a string twice",
            ),
            Dialect::Postgresql | Dialect::Sqlite => (
                "may turn standard_conforming_strings off",
                "a backslash is an ordinary character",
                "remove this setting, and write strings with escapes as E'…'",
            ),
        };
        let message = format!(
            "cannot determine where this string ends: line {line} {set}, but programs are split by the rule that {rule}; {fix}"
        );
        Err(SqlError::semantic(Position::of(sql, at), message))
    }

    /// Applies the settings of a statement.
    pub(super) fn apply(&mut self, statement: &Statement) {
        let Body::Standard(_) = statement.body else {
            // An extended statement begins a new session.
            self.transaction = None;
            self.session = self.session.or(self.later);
            return;
        };
        let line = statement.position.line;
        match self.dialect {
            Dialect::Mysql => self.apply_mysql(&statement.text, line),
            Dialect::Postgresql => self.apply_postgresql(&statement.text, line),
            Dialect::Sqlite => {}
        }
    }

    fn apply_mysql(&mut self, text: &str, line: usize) {
        let mut tokens = Tokens::new(text, self.dialect);
        let Some(verb) = tokens.next() else { return };
        // `/*!40101 SET sql_mode = '…' */`, perhaps with more text after it.
        if let Some(inner) = verb.executed() {
            self.apply_mysql_tokens(Tokens::new(inner, self.dialect), line);
        }
        self.apply_mysql_tokens(Tokens::new(text, self.dialect), line);
    }

    fn apply_mysql_tokens(&mut self, mut tokens: Tokens<'_>, line: usize) {
        self.is_mode_mentioned = self.is_mode_mentioned || tokens.clone().any(|token| names_mode(&token));
        let Some(verb) = tokens.next() else { return };
        if verb.is_one_of(&["EXECUTE", "CALL"]) && self.is_mode_mentioned {
            // The effects of prepared statements and stored routines are not known.
            self.session = Some(line);
        }
        if !verb.is("SET") || tokens.at(&["STATEMENT"]) {
            return;
        }
        let mut assignment = Assignment::default();
        let mut depth = 0_usize;
        for token in tokens {
            match token.text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (token.is_symbol(',') || token.is_symbol(';')) {
                self.assign(&assignment, line);
                // The keyword GLOBAL also applies to the assignments that follow.
                assignment =
                    Assignment { follows_global: assignment.follows_global, ..Assignment::default() };
            } else {
                assignment.add(&token);
            }
        }
        self.assign(&assignment, line);
    }

    fn assign(&mut self, assignment: &Assignment, line: usize) {
        let is_literal = assignment.value.is_some();
        let is_on = assignment.value.unwrap_or(self.is_mode_mentioned);
        // A name with one `@` is a user variable.
        if !assignment.is_mode || assignment.signs == 1 || (!is_literal && !is_on) {
            return;
        }
        let set = is_on.then_some(line);
        if assignment.is_global || (assignment.follows_global && assignment.signs == 0) {
            self.later = set;
        } else {
            self.session = set;
        }
    }

    fn apply_postgresql(&mut self, text: &str, line: usize) {
        let mut tokens = Tokens::new(text, self.dialect);
        let Some(verb) = tokens.next() else { return };
        if verb.is("SET") {
            let is_local = tokens.at(&["LOCAL"]);
            if tokens.at(&["LOCAL", "SESSION"]) {
                tokens.next();
            }
            if tokens.next().is_some_and(|name| names_conforming(&name)) {
                // `=` or TO.
                tokens.next();
                let is_default = tokens.at(&["DEFAULT"]);
                let is_off = !is_default && !tokens.next().is_some_and(|value| is_on(&value));
                self.conform(is_off, is_local, line);
            }
        } else if verb.is("RESET") || (verb.is("DISCARD") && tokens.at(&["ALL"])) {
            if verb.is("DISCARD") || tokens.next().is_some_and(|it| it.is("ALL") || names_conforming(&it)) {
                self.conform(false, false, line);
            }
        } else if verb.is_one_of(&["COMMIT", "END", "ROLLBACK", "ABORT"]) {
            if !tokens.any(|token| token.is("TO")) {
                self.transaction = None;
            }
        } else if verb.is("ALTER") && tokens.at(&["ROLE", "USER", "DATABASE", "SYSTEM"]) {
            tokens.by_ref().find(names_conforming);
            tokens.next();
            if tokens.next().is_some_and(|value| !is_on(&value) && !value.is_symbol(';')) {
                self.later = Some(line);
            }
        } else if verb.is_one_of(&["SELECT", "WITH", "UPDATE", "DO", "EXECUTE", "CALL"]) {
            self.apply_indirect(verb.is("DO"), tokens, line);
        }
    }

    /// Settings that are not changed by SET: by `set_config`, an UPDATE of `pg_settings`, or code.
    fn apply_indirect(&mut self, is_code: bool, tokens: Tokens<'_>, line: usize) {
        let mut changes = is_code;
        let mut named = false;
        let mut value_on = None;
        for token in tokens {
            changes |= token.is_one_of(&["set_config", "pg_settings"]);
            if token.kind != TokenKind::String {
                continue;
            }
            if is_code {
                named |= token.text.to_ascii_lowercase().contains(CONFORMING);
            } else if names_conforming(&token) {
                named = true;
            } else if named && value_on.is_none() {
                value_on = Some(is_on(&token));
            }
        }
        if changes && named && value_on != Some(true) {
            self.session = Some(line);
        }
    }

    fn conform(&mut self, is_off: bool, is_local: bool, line: usize) {
        let set = is_off.then_some(line);
        if is_local {
            self.transaction = set;
        } else {
            self.session = set;
        }
    }
}

/// An assignment of a SET statement.
#[derive(Debug, Default)]
struct Assignment {
    is_mode: bool,
    /// Whether the variable is written as `@@global.…`.
    is_global: bool,
    /// Whether the keyword GLOBAL precedes it.
    follows_global: bool,
    /// Number of `@` before the variable's name.
    signs: usize,
    has_equals: bool,
    values: usize,
    /// Whether the value includes the mode; `None` unless the value is a single literal.
    value: Option<bool>,
}

impl Assignment {
    fn add(&mut self, token: &Token<'_>) {
        if token.kind == TokenKind::Executed {
            // Part of the assignment is in an executed comment. Assume the worst.
            self.is_mode |= token.text.to_ascii_lowercase().contains("sql_mode");
            self.value = names_mode(token).then_some(true);
            self.values += 1;
        } else if self.has_equals {
            self.values += 1;
            self.value = if self.values == 1 { literal(token) } else { None };
        } else if token.is_symbol('@') {
            self.signs += 1;
        } else if token.is_one_of(&["GLOBAL", "PERSIST", "PERSIST_ONLY"]) {
            self.is_global |= self.signs == 2;
            self.follows_global |= self.signs == 0;
        } else if token.is_one_of(&["SESSION", "LOCAL"]) && self.signs == 0 {
            self.follows_global = false;
        } else {
            self.has_equals = token.is_symbol('=');
            self.is_mode |= token.name().is_some_and(|name| name == "sql_mode");
        }
    }
}

/// Whether a literal includes the mode.
fn literal(token: &Token<'_>) -> Option<bool> {
    match token.kind {
        TokenKind::String | TokenKind::Quoted | TokenKind::Word => Some(names_mode(token)),
        TokenKind::Number => token.text.parse::<u64>().ok().map(|bits| bits & MODE_BIT != 0),
        TokenKind::Executed | TokenKind::Symbol => None,
    }
}

fn names_mode(token: &Token<'_>) -> bool {
    // Without a copy: a string may have megabytes.
    token.text.as_bytes().windows(MODE.len()).any(|it| it.eq_ignore_ascii_case(MODE.as_bytes()))
}

/// Whether the token is the setting's name: as a word, a quoted name or a string.
fn names_conforming(token: &Token<'_>) -> bool {
    let text =
        token.text.strip_prefix(['E', 'e']).filter(|rest| rest.starts_with('\'')).unwrap_or(token.text);
    text.trim_matches(['\'', '"']).eq_ignore_ascii_case(CONFORMING)
}

fn is_on(token: &Token<'_>) -> bool {
    let text = token.text.trim_matches('\'').to_ascii_lowercase();
    matches!(text.as_str(), "on" | "true" | "t" | "yes" | "y" | "1")
}

/// Offset of the first token that is different with the other backslash rule, among those that begin in `from..to`.
fn first_difference(sql: &str, dialect: Dialect, from: usize, to: usize) -> Option<usize> {
    let mut one = Scanner::new(sql, dialect, from);
    let mut other = Scanner::with_other_backslash(sql, dialect, from);
    loop {
        match (one.next(), other.next()) {
            (Ok(None), Ok(None)) => return None,
            (Ok(Some(a)), Ok(Some(b))) if a.end == b.end => {
                if a.end >= to {
                    return None;
                }
            }
            // The splitter reports the unclosed token.
            (Err(_), Err(_)) => return None,
            (Ok(Some(token)), _) | (_, Ok(Some(token))) => return (token.start < to).then_some(token.start),
            (Err(unclosed), _) | (_, Err(unclosed)) => {
                return (unclosed.start < to).then_some(unclosed.start);
            }
        }
    }
}

#[cfg(test)]
#[path = "escape_settings_tests.rs"]
mod tests;
