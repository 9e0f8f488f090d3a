//! Bodies of triggers and stored routines, whose inner `;` do not end the statement.
//!
//! ```text
//! CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE u SET a = 1; DELETE FROM v; END;
//! ```
//!
//! MySQL, MariaDB and SQLite bodies nest blocks that begin with BEGIN, CASE, IF, LOOP, WHILE, REPEAT or FOR and end with
//! END. PostgreSQL's stand in dollar quotes, but for `BEGIN ATOMIC … END`.

use super::scanner::Token;

/// Words after which an inner statement begins, so that IF there is no `IF EXISTS` and REPEAT no function.
const BEFORE_STATEMENT: [&str; 8] = ["BEGIN", "THEN", "ELSE", "DO", "LOOP", "REPEAT", "ROW", "ATOMIC"];
/// How deep a search for the routine's kind goes: `CREATE OR REPLACE DEFINER = a @ b AGGREGATE FUNCTION`.
const MAX_HEAD: usize = 16;

/// Follows the tokens of one statement and knows whether a `;` is inside a body.
#[derive(Debug, Default)]
pub(super) struct RoutineBodyTracker {
    kind: Kind,
    /// Tokens seen so far, while the kind is not known.
    head: usize,
    blocks: usize,
    at_statement: bool,
    after_end: bool,
    maybe_block: MaybeBlock,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Kind {
    /// CREATE or ALTER, and not known yet of what.
    #[default]
    Open,
    /// BEGIN: MariaDB has `BEGIN NOT ATOMIC … END`, everyone else a transaction.
    Begin,
    Plain,
    Routine,
}

/// IF and REPEAT are blocks and functions. With a bracket, only a comma inside tells `IF(a, b, c)` from `IF (a) THEN`.
#[derive(Debug, Default, PartialEq, Eq)]
enum MaybeBlock {
    #[default]
    No,
    /// IF or REPEAT was the last token.
    Seen,
    /// So many brackets are open since.
    Inside(usize),
}

impl RoutineBodyTracker {
    /// Takes the statement's next token.
    pub(super) fn see(&mut self, token: &Token<'_>) {
        if matches!(self.kind, Kind::Open | Kind::Begin) {
            self.kind = self.kind_after(token);
            self.head += 1;
        }
        if self.kind == Kind::Routine {
            self.body(token);
        }
    }

    /// Would a `;` here be part of a body?
    pub(super) const fn inside(&self) -> bool {
        self.blocks > 0
    }

    fn kind_after(&mut self, token: &Token<'_>) -> Kind {
        const OTHER: [&str; 9] =
            ["TABLE", "VIEW", "INDEX", "AS", "SELECT", "DATABASE", "SCHEMA", "USER", "ROLE"];
        if self.head == 0 {
            return match token {
                _ if token.is_one_of(&["CREATE", "ALTER"]) => Kind::Open,
                _ if token.is("BEGIN") => Kind::Begin,
                _ => Kind::Plain,
            };
        }
        if self.kind == Kind::Begin {
            self.blocks = usize::from(token.is("NOT"));
            return if token.is("NOT") { Kind::Routine } else { Kind::Plain };
        }
        if token.is_one_of(&["TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"]) {
            Kind::Routine
        } else if token.is_one_of(&OTHER) || self.head >= MAX_HEAD {
            Kind::Plain
        } else {
            Kind::Open
        }
    }

    fn body(&mut self, token: &Token<'_>) {
        let at_statement = std::mem::take(&mut self.at_statement);
        let after_end = std::mem::take(&mut self.after_end);
        self.resolve(token);
        if after_end && token.is_one_of(&["IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR"]) {
            return; // `END IF` is one end.
        }
        if token.is("END") {
            self.blocks = self.blocks.saturating_sub(1);
            self.after_end = true;
        } else if token.is_one_of(&["BEGIN", "CASE"])
            || (at_statement && token.is_one_of(&["LOOP", "WHILE", "FOR"]))
        {
            self.blocks += 1;
        } else if at_statement && token.is_one_of(&["IF", "REPEAT"]) {
            self.maybe_block = MaybeBlock::Seen;
        }
        self.at_statement =
            token.is_one_of(&BEFORE_STATEMENT) || token.is_symbol(';') || token.is_symbol(':');
    }

    fn resolve(&mut self, token: &Token<'_>) {
        self.maybe_block = match std::mem::take(&mut self.maybe_block) {
            MaybeBlock::Seen if token.is_symbol('(') => MaybeBlock::Inside(1),
            MaybeBlock::Inside(open) if token.is_symbol('(') => MaybeBlock::Inside(open + 1),
            MaybeBlock::Inside(open) if open > 1 && token.is_symbol(')') => MaybeBlock::Inside(open - 1),
            MaybeBlock::Inside(1) if token.is_symbol(',') => MaybeBlock::No,
            MaybeBlock::Inside(open) if !token.is_symbol(')') => MaybeBlock::Inside(open),
            MaybeBlock::Seen | MaybeBlock::Inside(_) => {
                self.blocks += 1;
                MaybeBlock::No
            }
            MaybeBlock::No => MaybeBlock::No,
        };
    }
}
