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
mod connect;
mod error;
mod mysql;
mod postgresql;
mod printed;
mod sqlite;
mod stream;
mod suggestions;
mod values;

pub use batcher::Limits;
pub use connect::{ConnectOptions, Notice, Notify, connect};
pub use error::{Error, ErrorKind, Missing};
pub use suggestions::{add_suggestions, similar_names};
pub use values::{Batch, Column, Value, Values};

/// A connection to a database.
pub trait Database: Send {
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
    struct Texts(Vec<String>);

    impl Results for Texts {
        fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
            Ok(())
        }

        fn batch(&mut self, batch: Batch) -> Result<(), Error> {
            if let Some(column) = batch.columns.first() {
                self.0.extend((0..batch.rows).filter_map(|row| column.text(row)));
            }
            Ok(())
        }

        fn changed(&mut self, _: Option<u64>) {}
    }

    let mut found = Texts(Vec::new());
    database.execute(sql, &mut found)?;
    Ok(found.0)
}
