//! Bodies of stored routines (triggers, procedures, functions and events). A `;` in a body does not end the statement.
//!
//! ```text
//! CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE u SET a = 1; DELETE FROM v; END;
//! ```
//!
//! In MySQL, MariaDB and SQLite, a body consists of nested blocks that begin with BEGIN, CASE, IF, LOOP, WHILE, REPEAT or
//! FOR and end with END. In PostgreSQL, a body is a dollar-quoted string, or `BEGIN ATOMIC … END`.

use super::scanner::Token;

/// Words after which an inner statement begins. There, IF is not part of `IF EXISTS`, and REPEAT is not a function.
const BEFORE_STATEMENT: [&str; 8] = ["BEGIN", "THEN", "ELSE", "DO", "LOOP", "REPEAT", "ROW", "ATOMIC"];
/// Maximum number of tokens before the keyword of the kind: `CREATE OR REPLACE DEFINER = a @ b AGGREGATE FUNCTION`.
const MAX_HEAD: usize = 16;

/// Follows the tokens of one statement, and determines whether a `;` is part of a body.
#[derive(Debug, Default)]
pub(super) struct RoutineBodyTracker {
    kind: Kind,
    /// Number of tokens so far, while the kind is not known.
    head: usize,
    blocks: usize,
    at_statement: bool,
    after_end: bool,
    maybe_block: MaybeBlock,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Kind {
    /// CREATE or ALTER; its object is not known yet.
    #[default]
    Unknown,
    /// BEGIN: a transaction, or MariaDB's `BEGIN NOT ATOMIC … END`.
    Begin,
    Plain,
    Routine,
}

/// Whether an IF or REPEAT begins a block or is a function. If a parenthesis follows, only a comma in it distinguishes
/// `IF(a, b, c)` from `IF (a) THEN`.
#[derive(Debug, Default, PartialEq, Eq)]
enum MaybeBlock {
    #[default]
    No,
    /// IF or REPEAT was the last token.
    Seen,
    /// Number of parentheses that were opened after it and not closed.
    Inside(usize),
}

impl RoutineBodyTracker {
    /// Processes the statement's next token.
    pub(super) fn push(&mut self, token: &Token<'_>) {
        if matches!(self.kind, Kind::Unknown | Kind::Begin) {
            self.kind = self.kind_after(token);
            self.head += 1;
        }
        if self.kind == Kind::Routine {
            self.body(token);
        }
    }

    /// Whether a `;` at this point is part of a body.
    pub(super) const fn is_in_body(&self) -> bool {
        self.blocks > 0
    }

    fn kind_after(&mut self, token: &Token<'_>) -> Kind {
        const OTHER: [&str; 9] =
            ["TABLE", "VIEW", "INDEX", "AS", "SELECT", "DATABASE", "SCHEMA", "USER", "ROLE"];
        if self.head == 0 {
            return match token {
                _ if token.is_one_of(&["CREATE", "ALTER"]) => Kind::Unknown,
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
            Kind::Unknown
        }
    }

    fn body(&mut self, token: &Token<'_>) {
        let at_statement = std::mem::take(&mut self.at_statement);
        let after_end = std::mem::take(&mut self.after_end);
        self.resolve(token);
        if after_end && token.is_one_of(&["IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR"]) {
            return; // `END IF` ends one block.
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
