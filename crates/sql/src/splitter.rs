//! Splits a program into statements, and extended statements into their SELECT and their clause.

use super::ast::{Body, Program, Statement};
use super::classify::{StandardKind, classify};
use super::clause_finder::{ClauseFinder, ClauseStart};
use super::clause_lexer::Lexer;
use super::clause_parser::ClauseParser;
use super::dialect::Dialect;
use super::error::{Found, SqlError};
use super::escape_settings::EscapeSettings;
use super::nodes::Nodes;
use super::position::{Position, PositionCursor};
use super::scanner::{Scanner, Token, Unclosed};
use super::stored_routines::RoutineBodyTracker;

/// Splits `sql` into statements and parses the extended ones.
///
/// Standard statements go to the database unchanged, so they are classified but not validated. Only an unclosed string,
/// quoted name or comment is rejected, because the end of its statement is not known. The time is linear in the program's
/// length.
///
/// # Errors
/// The first syntax error, with its position.
pub fn parse_program(sql: &str, dialect: Dialect) -> Result<Program, SqlError> {
    // Editors on Windows begin a file with a byte order mark, which is not part of the SQL.
    let start = if sql.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut splitter =
        Splitter { sql, dialect, pos: start, cursor: PositionCursor::new(sql), nodes: Nodes::default() };
    let mut settings = EscapeSettings::new(dialect);
    let mut statements = Vec::new();
    loop {
        let from = splitter.pos;
        let found = splitter.next();
        // Checked before an error is returned: a string that ends elsewhere may be the cause of it.
        let to = match &found {
            Ok(Some(statement)) => {
                statement.body.select().map_or(statement.span.end, |select| from + select.len())
            }
            Ok(None) | Err(_) => sql.len(),
        };
        settings.check(sql, from, to)?;
        let Some(statement) = found? else { break };
        settings.apply(&statement);
        statements.push(statement);
    }
    Ok(Program { dialect, statements })
}

struct Splitter<'a> {
    sql: &'a str,
    dialect: Dialect,
    /// Start of the next statement's text.
    pos: usize,
    cursor: PositionCursor<'a>,
    nodes: Nodes,
}

impl<'a> Splitter<'a> {
    fn next(&mut self) -> Result<Option<Statement>, SqlError> {
        let mut scanner = Scanner::new(self.sql, self.dialect, self.pos);
        let first = loop {
            match self.token(&mut scanner)? {
                None => return Ok(None),
                Some(token) if token.is_symbol(';') => self.pos = token.end,
                Some(token) => break token,
            }
        };
        let position = self.cursor.advance(first.start);
        self.nodes.add(1, position)?;
        if let Some((body, end)) = self.model_statement(&first, &scanner)? {
            return Ok(Some(self.extended(first.start, position, body, end)));
        }
        self.statement(first, position, scanner).map(Some)
    }

    /// Parses a statement about models, such as `SHOW MODELS`, which its first two words identify. The supported databases
    /// have no such statements, except MySQL's `DESCRIBE table column` for a table named `model`. In backquotes, that name
    /// means the table.
    fn model_statement(
        &self,
        first: &Token<'a>,
        scanner: &Scanner<'a>,
    ) -> Result<Option<(Body, usize)>, SqlError> {
        if !first.is_one_of(&["SHOW", "DESCRIBE", "DESC", "DROP"]) {
            return Ok(None);
        }
        let Some(second) = self.token(&mut scanner.clone())? else { return Ok(None) };
        let parser = || ClauseParser::new(self.lexer(second.end), self.nodes.clone());
        let is_model = second.is("MODEL");
        if first.is("SHOW") && second.is("TRAIN") {
            parser()?.show_train().map(Some)
        } else if first.is("SHOW") && second.is("MODELS") {
            parser()?.show_models().map(Some)
        } else if first.is("DROP") && is_model {
            parser()?.drop_model().map(Some)
        } else if !first.is("SHOW") && is_model {
            parser()?.describe_model().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads a statement up to its `;`, or up to the clause that makes it an extended statement.
    fn statement(
        &mut self,
        first: Token<'a>,
        position: Position,
        mut scanner: Scanner<'a>,
    ) -> Result<Statement, SqlError> {
        let mut routine = RoutineBodyTracker::default();
        let mut finder = ClauseFinder::new(self.sql);
        let mut token = first;
        loop {
            routine.push(&token);
            let start = finder.push(&token, &scanner).map_err(|error| error.into_sql_error(self.sql))?;
            if let Some(ClauseStart { select_end, clause }) = start {
                let parser = ClauseParser::new(self.lexer(clause), self.nodes.clone())?;
                let (body, end) = parser.extended(&self.sql[self.pos..select_end])?;
                return Ok(self.extended(self.pos, position, body, end));
            }
            let last = token;
            token = match self.token(&mut scanner)? {
                None => return self.standard(position, last.end),
                Some(next) if next.is_symbol(';') && !routine.is_in_body() => {
                    return self.standard(position, next.end);
                }
                Some(next) => next,
            };
        }
    }

    fn standard(&mut self, position: Position, end: usize) -> Result<Statement, SqlError> {
        let text = &self.sql[self.pos..end];
        let statement = classify(text, self.dialect);
        if let StandardKind::DropTables { names } | StandardKind::SetVariables { names } = &statement.kind {
            self.nodes.add(names.len(), position)?;
        }
        Ok(self.finish(self.pos, position, Body::Standard(statement), end))
    }

    /// The text of an extended statement includes the whitespace after its `;`, unless a comment follows.
    fn extended(&mut self, start: usize, position: Position, body: Body, end: usize) -> Statement {
        let rest = &self.sql[end..];
        let after = rest.trim_start();
        let comment = ["--", "#", "/*"].iter().any(|opening| after.starts_with(opening));
        let end =
            if comment || !self.sql[..end].ends_with(';') { end } else { end + rest.len() - after.len() };
        self.finish(start, position, body, end)
    }

    fn finish(&mut self, start: usize, position: Position, body: Body, end: usize) -> Statement {
        self.pos = end;
        Statement { text: self.sql[start..end].to_owned(), span: start..end, position, body }
    }

    fn lexer(&self, pos: usize) -> Lexer<'a> {
        Lexer::new(self.sql, pos, self.cursor.clone())
    }

    fn token(&self, scanner: &mut Scanner<'a>) -> Result<Option<Token<'a>>, SqlError> {
        scanner.next().map_err(|Unclosed { start, expected }| {
            SqlError::syntax(Position::of(self.sql, start), Found::Text(&self.sql[start..]), &[expected])
        })
    }
}
