//! Finds the position in a statement at which its SELECT ends and an extended clause begins.
//!
//! `TO TRAIN` outside of parentheses in a SELECT always begins a clause. `TO` alone does not: standard SQL has it in
//! `INTERVAL '1' DAY TO SECOND` and `FOR SYSTEM_TIME FROM … TO …`, and some databases allow it as a column name. Still,
//! `SELECT … TO TRIAN x` should get an error that names the misspelt keyword. SQLFlow's older syntax has no `TO`
//! (`SELECT … FROM t TRAIN X WITH …`). There, TRAIN may be an alias of `t`, so the words that follow decide.

use super::clause_lexer::{Lexeme, LexemeKind, Lexer};
use super::error::{Found, SqlError};
use super::position::{Position, PositionCursor};
use super::scanner::{Scanner, Token, TokenKind};

/// Keywords that may follow TO.
pub(super) const CLAUSES: [&str; 7] =
    ["TRAIN", "PREDICT", "EXPLAIN", "EVALUATE", "RUN", "MAXIMIZE", "MINIMIZE"];
/// Keywords of the older syntax.
const OLD_CLAUSES: [&str; 4] = ["TRAIN", "PREDICT", "EXPLAIN", "EVALUATE"];
/// Keywords that begin the parts of an extended clause.
const PARTS: [&str; 5] = ["WITH", "COLUMN", "LABEL", "USING", "INTO"];
/// Keywords of a SELECT. After one of them, no value or table has ended; as the next word, none is an alias.
const SELECT_WORDS: [&str; 40] = [
    "SELECT",
    "DISTINCT",
    "ALL",
    "FROM",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "OUTER",
    "CROSS",
    "NATURAL",
    "STRAIGHT_JOIN",
    "ON",
    "USING",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "BY",
    "ASC",
    "DESC",
    "NULLS",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "FOR",
    "LOCK",
    "WINDOW",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "LIKE",
    "BETWEEN",
];
/// Maximum number of bytes that are read after a keyword to decide whether it begins a clause.
const MAX_LOOKAHEAD: usize = 4096;
/// Units of `INTERVAL … DAY TO SECOND`.
const UNITS: [&str; 6] = ["YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"];

/// Boundary between a SELECT and its extended clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClauseStart {
    /// End of the SELECT: the offset of TO, or of TRAIN in the older syntax.
    pub(super) select_end: usize,
    /// Offset of the clause's keyword.
    pub(super) clause: usize,
}

/// Reason why a TO is rejected.
#[derive(Debug, Clone, Copy)]
pub(super) enum ClauseError<'a> {
    /// No clause follows TO. `at` is the offset of what follows.
    NoClause { at: usize, found: Found<'a> },
    /// An extended clause, at this offset, does not follow a SELECT.
    NoSelect { at: usize, clause: &'a str },
}

impl ClauseError<'_> {
    /// The error with its position in `sql`.
    pub(super) fn into_sql_error(self, sql: &str) -> SqlError {
        match self {
            Self::NoClause { at, found } => SqlError::syntax(Position::of(sql, at), found, &CLAUSES),
            Self::NoSelect { at, clause } => SqlError::semantic(
                Position::of(sql, at),
                format!("TO {} must follow a SELECT", clause.to_uppercase()),
            ),
        }
    }
}

/// Follows the tokens of one statement.
#[derive(Debug)]
pub(super) struct ClauseFinder<'a> {
    sql: &'a str,
    depth: usize,
    before: Option<Token<'a>>,
    is_select: bool,
    seen_from: bool,
    seen_system_time: bool,
}

impl<'a> ClauseFinder<'a> {
    pub(super) const fn new(sql: &'a str) -> Self {
        Self { sql, depth: 0, before: None, is_select: false, seen_from: false, seen_system_time: false }
    }

    /// Processes the next token; `rest` is positioned after it. Returns the boundary if the token begins a clause.
    pub(super) fn push(
        &mut self,
        token: &Token<'a>,
        rest: &Scanner<'a>,
    ) -> Result<Option<ClauseStart>, ClauseError<'a>> {
        let start = self.clause_start(token, rest);
        if self.before.is_none() {
            self.is_select = token.is_one_of(&["SELECT", "WITH"]) || token.is_symbol('(');
        }
        self.before = Some(*token);
        match token.kind {
            TokenKind::Symbol if token.is_symbol('(') => self.depth += 1,
            TokenKind::Symbol if token.is_symbol(')') => self.depth = self.depth.saturating_sub(1),
            TokenKind::Word if self.depth == 0 => {
                self.seen_from |= token.is("FROM");
                self.seen_system_time |= token.is("SYSTEM_TIME");
            }
            _ => {}
        }
        start
    }

    fn clause_start(
        &self,
        token: &Token<'a>,
        rest: &Scanner<'a>,
    ) -> Result<Option<ClauseStart>, ClauseError<'a>> {
        if self.depth > 0 || token.kind != TokenKind::Word {
            return Ok(None);
        }
        if token.is("TO") {
            // An unclosed comment or string is reported later, when the splitter reads it.
            let next = rest.clone().next().unwrap_or(None);
            return if self.is_select {
                self.after_to(token, next)
            } else {
                self.without_select(token, next)
            };
        }
        let old = self.is_select && self.seen_from && token.is_one_of(&OLD_CLAUSES) && self.value_ended();
        if old && self.is_old_clause(token) {
            return Ok(Some(ClauseStart { select_end: token.start, clause: token.start }));
        }
        Ok(None)
    }

    /// Decides what a TO in a SELECT begins.
    fn after_to(
        &self,
        to: &Token<'a>,
        next: Option<Token<'a>>,
    ) -> Result<Option<ClauseStart>, ClauseError<'a>> {
        let value_ended = self.value_ended();
        let Some(next) = next.filter(|next| !next.is_symbol(';')) else {
            let found = next.map_or(Found::End, |semicolon| Found::Text(semicolon.text));
            let at = next.map_or(self.sql.len(), |semicolon| semicolon.start);
            return if value_ended { Err(ClauseError::NoClause { at, found }) } else { Ok(None) };
        };
        if next.is_one_of(&CLAUSES)
            && !self.before.is_some_and(|before| before.is("AS") || before.is_symbol('.'))
        {
            return Ok(Some(ClauseStart { select_end: to.start, clause: next.start }));
        }
        let standard = !value_ended
            || next.kind != TokenKind::Word
            || next.is_one_of(&SELECT_WORDS)
            || next.is_one_of(&UNITS)
            || self.seen_system_time;
        if standard {
            Ok(None)
        } else {
            Err(ClauseError::NoClause { at: next.start, found: Found::Text(next.text) })
        }
    }

    /// Rejects `TO TRAIN X LABEL …` after another statement than a SELECT, or at the start. Accepts `RENAME TO train` and
    /// `GRANT r TO train`.
    fn without_select(
        &self,
        to: &Token<'a>,
        next: Option<Token<'a>>,
    ) -> Result<Option<ClauseStart>, ClauseError<'a>> {
        let Some(clause) = next.filter(|next| next.is_one_of(&CLAUSES)) else {
            return Ok(None);
        };
        let follows = || {
            let mut lexer = self.lookahead(clause.end);
            let name = lexer.next().ok()?;
            let part = lexer.next().ok()?;
            Some(name.kind == LexemeKind::Name && PARTS.iter().any(|word| part.is(word)))
        };
        if self.before.is_none() || follows() == Some(true) {
            return Err(ClauseError::NoSelect { at: to.start, clause: clause.text });
        }
        Ok(None)
    }

    /// Whether the last token may end a value or a table, so that an alias or a clause may follow.
    fn value_ended(&self) -> bool {
        self.before.is_some_and(|before| match before.kind {
            TokenKind::Word => !before.is_one_of(&SELECT_WORDS) || before.is_one_of(&["ASC", "DESC"]),
            TokenKind::Number | TokenKind::Quoted | TokenKind::String => true,
            TokenKind::Symbol => matches!(before.text, ")" | "*" | "]"),
            TokenKind::Executed => false,
        })
    }

    /// Whether the following words form a clause of the older syntax, not the rest of a SELECT.
    fn is_old_clause(&self, clause: &Token<'a>) -> bool {
        let mut lexer = self.lookahead(clause.end);
        let mut next = || lexer.next().ok();
        let (Some(name), Some(part), Some(after)) = (next(), next(), next()) else {
            return false;
        };
        let is_name = |lexeme: &Lexeme<'_>| {
            lexeme.kind == LexemeKind::Name && !SELECT_WORDS.iter().any(|word| lexeme.is(word))
        };
        if !is_name(&name) {
            return false;
        }
        let ends = matches!(part.kind, LexemeKind::Semicolon | LexemeKind::End);
        let with = part.is("WITH") && after.kind == LexemeKind::Name;
        let label = part.is("LABEL") && matches!(after.kind, LexemeKind::Name | LexemeKind::String);
        let column = part.is("COLUMN");
        let using = part.is("USING") && is_name(&after);
        let into = part.is("INTO") && is_name(&after);
        match clause.text.to_ascii_uppercase().as_str() {
            "TRAIN" => with || label || column,
            "PREDICT" => with || using,
            "EXPLAIN" => with || using || into || ends,
            _ => with || label,
        }
    }

    /// A lexer for the following words, which it reads as an extended clause. It reads few bytes, since many words TRAIN may
    /// precede one long comment. Its positions are not used.
    fn lookahead(&self, from: usize) -> Lexer<'a> {
        let rest = &self.sql[from..];
        let near = &rest[..rest.floor_char_boundary(MAX_LOOKAHEAD)];
        Lexer::new(near, 0, PositionCursor::new(near))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ast::Body;
    use super::super::dialect::Dialect;
    use super::super::splitter::parse_program;

    fn kind(sql: &str) -> &'static str {
        let program =
            parse_program(sql, Dialect::Postgresql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(program.statements.len(), 1, "{sql}");
        program.statements[0].body.kind()
    }

    #[test]
    fn to_of_standard_sql_begins_no_clause() {
        for sql in [
            "SELECT interval '1 2' DAY TO SECOND",
            "SELECT interval '1-2' year to month FROM t",
            "SELECT * FROM t FOR SYSTEM_TIME FROM '2020-01-01' TO '2021-01-01'",
            "SELECT * FROM t FOR SYSTEM_TIME FROM a TO TIMESTAMP '2021-01-01'",
            "SELECT to FROM t",
            "SELECT a AS to FROM t",
            "SELECT f(a TO TRAIN) FROM t",
            "ALTER TABLE a RENAME TO train",
            "GRANT reader TO train WITH GRANT OPTION",
            "GRANT SELECT ON t TO run",
        ] {
            assert_eq!(kind(sql), "standard", "{sql}");
        }
    }

    #[test]
    fn keyword_of_the_older_syntax_may_be_an_alias() {
        for (sql, expected) in [
            ("SELECT * FROM t TRAIN Net WITH a=1 COLUMN b LABEL c INTO m", "train"),
            ("SELECT * FROM t WHERE a > 1 TRAIN Net LABEL c INTO m", "train"),
            ("SELECT * FROM t PREDICT r.c USING m", "predict"),
            ("SELECT * FROM t EXPLAIN m", "explain"),
            ("SELECT * FROM t TRAIN", "standard"),
            ("SELECT * FROM t TRAIN JOIN u USING (id)", "standard"),
            ("SELECT * FROM t TRAIN LIMIT 1", "standard"),
            ("SELECT * FROM t, u TRAIN WHERE a = 1", "standard"),
            ("SELECT a FROM t GROUP BY TRAIN WITH ROLLUP", "standard"),
            ("SELECT train x INTO y FROM t", "standard"),
            ("SELECT a FROM t ORDER BY explain DESC", "standard"),
            ("SELECT a FROM (SELECT 1 FROM u TRAIN x LABEL y) z", "standard"),
        ] {
            assert_eq!(kind(sql), expected, "{sql}");
        }
    }

    #[test]
    fn misspelt_keyword_after_to_is_rejected_with_a_suggestion() {
        for (sql, message) in [
            (
                "SELECT * FROM t\nTO TRIAN x",
                "line 2, column 4: found \"TRIAN\", expected TRAIN, PREDICT, EXPLAIN, EVALUATE, RUN, MAXIMIZE or MINIMIZE; \
                 did you mean TRAIN?",
            ),
            (
                "INSERT INTO t VALUES(1) TO TRAIN E LABEL l",
                "line 1, column 25: TO TRAIN must follow a SELECT",
            ),
            ("to predict x", "line 1, column 1: TO PREDICT must follow a SELECT"),
        ] {
            let error = parse_program(sql, Dialect::Mysql).expect_err(sql);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn select_ends_before_to() {
        let program =
            parse_program("WITH x AS (SELECT 1) SELECT * FROM x\tto train E label l into m", Dialect::Sqlite)
                .expect("the program is valid");
        let Body::Train(train) = &program.statements[0].body else { panic!("it trains") };
        assert_eq!(train.select, "WITH x AS (SELECT 1) SELECT * FROM x\t");
    }
}
