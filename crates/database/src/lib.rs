//! Connections to users' databases. A connection behaves like the database's own command line: it runs statements
//! unchanged, and each statement commits, unless it follows BEGIN.
//!
//! ```text
//! connect ─▶ Database ─ execute(sql) ─▶ Results: result_set, batch, batch, …, changed
//! ```
//!
//! A result set arrives in [`Batch`]es of columns, bounded in rows and bytes, so memory is bounded by one batch and one
//! row. A value is decoded if its type has a decoder; otherwise it is the text that the database prints.
//!
//! Everything blocks. [`Database::canceller`] ends the running statement from another thread.

mod batcher;
mod calendar;
mod checks;
mod connect;
mod error;
mod form;
mod later;
mod mysql;
mod postgresql;
mod printed;
mod reads;
mod result_table;
mod sqlite;
mod stream;
mod suggestions;
#[cfg(test)]
mod test_servers;
mod values;
mod writer;

pub use batcher::Limits;
pub use connect::{ConnectOptions, Notice, Notify, connect};
pub use error::{Error, ErrorKind, Missing};
pub use later::{check_tables, sample};
pub use reads::{Effects, effects, has_creator, has_event_triggers, mentions_any};
pub use result_table::{ResultSpec, ResultTable, check_result_table, clean_up};
pub use suggestions::{add_suggestions, similar_names, suggestions};
pub use values::{Batch, Column, Kind, Value, Values};
pub use writer::{
    ComputedColumn, ComputedKind, ExistingTable, Mark, PassthroughColumns, TableName, TableWriter, marker,
};

use std::collections::BTreeSet;

use sqlflow_sql::Dialect;

/// A connection to a database.
pub trait Database {
    /// Runs one statement, unchanged. Reports each of its results in order: a result set with its batches, or the number
    /// of changed rows.
    ///
    /// # Errors
    /// The database rejected the statement, or the connection was lost; or an error of `results`.
    fn execute(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error>;

    /// Runs a select like [`Database::execute`], for decoding: by the faster protocol, if there are two. Settings of the
    /// session do not change the values.
    ///
    /// # Errors
    /// As of [`Database::execute`].
    fn read(&mut self, select: &str, results: &mut dyn Results) -> Result<(), Error> {
        self.execute(select, results)
    }

    /// The columns of a select, which is not executed.
    ///
    /// # Errors
    /// The database rejected the select.
    fn describe(&mut self, select: &str) -> Result<Vec<Column>, Error>;

    /// Checks a query or a change of rows, which is not executed. Of another statement, checks the syntax.
    ///
    /// # Errors
    /// The database rejects it.
    fn check_query(&mut self, sql: &str) -> Result<(), Error> {
        match checks::prepared_part(sql, self.dialect()) {
            Some(part) => self.describe(&part).map(drop),
            None => self.check_syntax(sql),
        }
    }

    /// Checks the syntax of a statement, which is not executed. Tables and columns may be missing: an earlier statement
    /// may create them.
    ///
    /// # Errors
    /// The syntax is wrong.
    fn check_syntax(&mut self, sql: &str) -> Result<(), Error> {
        checks::only_syntax(self.describe(sql))
    }

    /// Another connection with the settings of this one, for checks with further settings.
    ///
    /// # Errors
    /// It cannot be opened.
    fn checking_connection(&mut self) -> Result<Box<dyn Database>, Error>;

    /// Runs a statement that changes a setting of the session, also for connections that it opens from now on.
    ///
    /// # Errors
    /// The database rejects the statement.
    fn replay(&mut self, sql: &str) -> Result<(), Error>;

    /// Changes a setting of the session, also for connections that it opens from now on. Returns `false`, and changes
    /// nothing, if that would change more than the session.
    ///
    /// # Errors
    /// The database rejects the statement.
    fn add_setting(&mut self, sql: &str) -> Result<bool, Error> {
        self.replay(sql).map(|()| true)
    }

    /// Schemas and names of the tables that a select reads, as far as the database reports them without executing it.
    ///
    /// # Errors
    /// The database rejects the select.
    fn tables_read(&mut self, _select: &str) -> Result<BTreeSet<(String, String)>, Error> {
        Ok(BTreeSet::new())
    }

    /// A writer that works while this connection reads.
    ///
    /// # Errors
    /// The database cannot be written to, or no second connection can be opened.
    fn writer(&mut self) -> Result<Box<dyn TableWriter>, Error>;

    /// Ends the transaction that this connection's selects have begun, if any: its locks would keep a table from being
    /// replaced. To be called after the last select. If the connection is lost, so is the transaction.
    fn end_reading(&mut self) {}

    /// The database's language.
    fn dialect(&self) -> Dialect;

    /// Names of tables and views that need no schema, at most [`MAX_TABLES`].
    ///
    /// # Errors
    /// For example, the transaction has failed.
    fn tables(&mut self) -> Result<Vec<String>, Error>;

    /// Quotes a name.
    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    /// Ends the running statement, also in the database. To be called from another thread; it may block.
    fn canceller(&self) -> Box<dyn Fn() + Send>;

    /// Accepts statements again after the canceller was called: to clean up. No effect if the connection is lost.
    fn resume(&mut self) {}
}

/// Receives the results of a statement.
pub trait Results {
    /// Bounds of the batches.
    fn limits(&self) -> Limits {
        Limits::SHOWN
    }

    /// A result set begins.
    ///
    /// # Errors
    /// Ends the statement.
    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error>;

    /// The next rows of the result set.
    ///
    /// # Errors
    /// Ends the statement.
    fn batch(&mut self, batch: Batch) -> Result<(), Error>;

    /// A part of the statement ended without a result set, and changed this number of rows. `None`: the database does
    /// not report it.
    fn changed(&mut self, rows: Option<u64>);
}

/// Maximum number of tables that are searched for suggestions.
pub const MAX_TABLES: usize = 10_000;

/// Discards the results.
#[derive(Debug, Clone, Copy)]
pub struct Discard;

impl Results for Discard {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, _: Batch) -> Result<(), Error> {
        Ok(())
    }

    fn changed(&mut self, _: Option<u64>) {}
}

/// Runs an internal query with few rows. Returns the values of its first column as texts, without NULLs.
///
/// # Errors
/// Those of [`Database::execute`].
pub fn texts(database: &mut dyn Database, sql: &str) -> Result<Vec<String>, Error> {
    Ok(rows(database, sql)?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Runs an internal query with few rows. Returns its values as texts; NULL is `None`.
///
/// # Errors
/// Those of [`Database::execute`].
pub(crate) fn rows(database: &mut dyn Database, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    struct Rows(Vec<Vec<Option<String>>>);

    impl Results for Rows {
        fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
            Ok(())
        }

        fn batch(&mut self, batch: Batch) -> Result<(), Error> {
            let row = |row| batch.columns.iter().map(|column| column.text(row)).collect();
            self.0.extend((0..batch.rows).map(row));
            Ok(())
        }

        fn changed(&mut self, _: Option<u64>) {}
    }

    let mut found = Rows(Vec::new());
    database.execute(sql, &mut found)?;
    Ok(found.0)
}
