//! Checks of statements that are not executed: compiling one is enough.

use rusqlite::Connection;
use sqlflow_sql::Dialect;

use super::{SqliteDatabase, errors};
use crate::checks::{self, Creation};
use crate::{Database as _, Error};

/// Maximum number of tables and databases that a check of the syntax creates in memory.
const MAX_PLACEHOLDERS: usize = 10;
/// The error of a view with parameters.
const HAS_PARAMETERS: &str = "parameters are not allowed in views";

impl SqliteDatabase {
    /// Checks that a text is one select, and not another statement with rows.
    pub(super) fn check_select(&self, select: &str) -> Result<(), Error> {
        // Compiled only, and not even that if it were executed.
        let view = format!("EXPLAIN CREATE TEMP VIEW IF NOT EXISTS sqlflow_described_select AS {select}");
        match self.prepare(&view) {
            // Another error, with the parameter's name, follows.
            Err(error) if error.message == HAS_PARAMETERS => Ok(()),
            other => other.map(drop),
        }
    }

    pub(super) fn check_compiled(&mut self, sql: &str) -> Result<(), Error> {
        let part = match checks::creation(sql) {
            // The select of a view is analysed when it is used.
            Some(Creation { select, is_view: false }) => select,
            Some(_) => return self.check_syntax(sql),
            None if checks::is_prepared(sql, Dialect::Sqlite) && !is_pragma(sql) => sql,
            None => return self.check_syntax(sql),
        };
        self.prepare(part).map(drop)
    }

    pub(super) fn check_grammar(&self, sql: &str) -> Result<(), Error> {
        if is_pragma(sql) || sql.contains('\0') {
            return Ok(());
        }
        // In the database itself, an existing or a missing table would hide an error after its name.
        let memory = Connection::open_in_memory().map_err(|error| self.context.translate(&error))?;
        for _ in 0..MAX_PLACEHOLDERS {
            let Err(error) = memory.prepare(sql) else { return Ok(()) };
            let message = errors::message(&error);
            if errors::is_syntax_error(&message) {
                return Err(self.context.translate(&error));
            }
            if self.add_placeholder(&memory, &message).is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Creates what a statement misses. `None`: nothing was created.
    fn add_placeholder(&self, memory: &Connection, message: &str) -> Option<()> {
        let sql = if let Some(name) = message.strip_prefix("unknown database ") {
            format!("ATTACH ':memory:' AS {}", self.quote(name.trim_matches('"')))
        } else {
            let name = message.strip_prefix("no such table: ")?;
            let (schema, name) = name.split_once('.').unwrap_or(("main", name));
            format!("CREATE TABLE {}.{} (sqlflow_placeholder)", self.quote(schema), self.quote(name))
        };
        memory.execute_batch(&sql).ok()
    }
}

/// Whether a statement is a PRAGMA, or explains one: SQLite may execute it when it compiles it.
fn is_pragma(sql: &str) -> bool {
    let words = sqlflow_sql::leading_words(sql, Dialect::Sqlite, 4);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words[..], ["PRAGMA", ..] | ["EXPLAIN", "PRAGMA", ..] | ["EXPLAIN", "QUERY", "PLAN", "PRAGMA"])
}
