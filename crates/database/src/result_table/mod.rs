//! A statement's result table. It becomes visible when it is complete and its attempt has the grant.
//!
//! ```text
//! check_result_table ─▶ open ─ create ─ insert, insert, … ─ replaced ─ (grant) ─ publish
//!                         └───────────────── clear, after an error ────────────────┘
//! ```

mod clean_up;
mod replaceable;
mod shown;

pub use self::clean_up::clean_up;

use self::clean_up::drop_leftovers;
use self::replaceable::{check_replaceable, count};
use self::shown::{listing, preview};
use crate::{
    Batch, Column, ComputedColumn, Database, Error, Mark, PassthroughColumns, TableName, TableWriter, Value,
    Values,
};

/// Maximum number of lost objects in a message.
const MAX_NAMED: usize = 10;

/// A result table, as a statement describes it.
#[derive(Debug, Clone, Copy)]
pub struct ResultSpec<'a> {
    /// Its name, as in the SQL.
    pub name: &'a str,
    /// The suffix of the names of staging tables. It ends in the number of the attempt.
    pub suffix: &'a str,
    /// Whether the statement has `result.replace = true`.
    pub replace: bool,
    /// The selects of the statement.
    pub selects: &'a [&'a str],
}

/// Checks, before any work is done, that the result table can be created or replaced.
///
/// # Errors
/// `User`: it cannot be created; or SQLFlow did not create the old table, the statement reads it, or the database
/// cannot replace it.
pub fn check_result_table(database: &mut dyn Database, spec: &ResultSpec<'_>) -> Result<(), Error> {
    let mut writer = database.writer()?;
    let table = writer.table_name(spec.name);
    if let Some(reason) = writer.creation_obstacle(&table)? {
        return Err(Error::user(format!("cannot write table {table}: {reason}; choose another name")));
    }
    check_replaceable(&mut *writer, &table, spec.selects, spec.replace)
}

/// A staging table that is being filled.
pub struct ResultTable {
    writer: Box<dyn TableWriter>,
    name: TableName,
    staging: TableName,
    suffix: String,
    replace: bool,
    columns: Vec<Column>,
    /// Number of columns of the select. They come first.
    kept: usize,
    rows: u64,
    copies: u64,
}

impl ResultTable {
    /// Opens a writer, and drops what earlier attempts left.
    ///
    /// # Errors
    /// The database cannot be written to.
    pub fn open(database: &mut dyn Database, spec: &ResultSpec<'_>) -> Result<Self, Error> {
        let writer = database.writer()?;
        let name = writer.table_name(spec.name);
        let mut table = Self {
            staging: name.with_suffix(spec.suffix, writer.name_limit()),
            writer,
            name,
            suffix: spec.suffix.to_owned(),
            replace: spec.replace,
            columns: Vec::new(),
            kept: 0,
            rows: 0,
            copies: 1,
        };
        table.clear()?;
        Ok(table)
    }

    /// Ends the writer's running statement, like [`Database::canceller`].
    pub fn canceller(&mut self) -> Box<dyn Fn() + Send> {
        self.writer.connection().canceller()
    }

    #[cfg(test)]
    pub(crate) fn writer_database(&mut self) -> &mut dyn Database {
        self.writer.connection()
    }

    /// Each row of the select is written so often, one copy after the other. Messages count rows of the select.
    pub fn set_copies(&mut self, copies: u64) {
        self.copies = copies.max(1);
    }

    /// Creates the staging table, with columns of a select and computed columns after them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn create(
        &mut self,
        kept: Option<PassthroughColumns<'_>>,
        computed: &[ComputedColumn],
    ) -> Result<(), Error> {
        self.columns.clear();
        if let Some(kept) = &kept {
            let column = |(place, name): &(usize, String)| {
                Some(Column { name: name.clone(), ..kept.described.get(*place)?.clone() })
            };
            self.columns.extend(kept.columns.iter().filter_map(column));
        }
        self.kept = self.columns.len();
        let column = |computed: &ComputedColumn| Column {
            name: computed.name.clone(),
            database_type: self.writer.type_of(computed.kind).to_owned(),
            // The writers do not ask for it.
            kind: None,
        };
        self.columns.extend(computed.iter().map(column));
        let mark = Mark { name: &self.name.name, made_by: &self.suffix };
        self.writer.create(&self.staging, kept, computed, mark)
    }

    /// Adds rows: all columns of the table, those of the select before the computed ones.
    ///
    /// # Errors
    /// `User`: a text is not UTF-8, and the database cannot write it; the message has its column and row. Or an error
    /// of the database.
    pub fn insert(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.columns.len() != self.columns.len() {
            return Err(Error::user(format!(
                "cannot write table {}: it has {} columns, and {} arrived; report it as a bug",
                self.name,
                self.columns.len(),
                batch.columns.len()
            )));
        }
        if !self.writer.takes_any_text() {
            self.check_texts(batch)?;
        }
        match without_nan(batch, self.kept) {
            Some(batch) => self.writer.insert(&self.staging, &self.columns, &batch)?,
            None => self.writer.insert(&self.staging, &self.columns, batch)?,
        }
        self.rows += batch.rows as u64;
        Ok(())
    }

    fn check_texts(&self, batch: &Batch) -> Result<(), Error> {
        for (column, values) in self.columns.iter().zip(&batch.columns) {
            let Values::Mixed(values) = values else { continue };
            for (row, value) in values.iter().enumerate() {
                if let Value::NotUtf8(bytes) = value {
                    let row = (self.rows + row as u64) / self.copies + 1;
                    return Err(Error::user(format!(
                        "column {}, row {row}: {} cannot be written: it is not UTF-8",
                        column.name,
                        preview(bytes)
                    )));
                }
            }
        }
        Ok(())
    }

    /// Number of rows that were added.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The table's name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    /// What is lost when the old table is replaced: its rows, and what users added to it. `None`: there is no old
    /// table.
    ///
    /// # Errors
    /// Those of the database.
    pub fn replaced(&mut self) -> Result<Option<String>, Error> {
        let writer = &mut *self.writer;
        if writer.find_table(&self.name)?.is_none() {
            return Ok(None);
        }
        let old = format!("SELECT * FROM {}", writer.quoted(&self.name));
        let old = writer.database()?.describe(&old)?;
        let mut lost = writer.attached(&self.name)?;
        let is_kept = |old: &str| self.columns.iter().any(|it| it.name.to_lowercase() == old.to_lowercase());
        lost.extend(old.iter().filter(|it| !is_kept(&it.name)).map(|it| format!("column {}", it.name)));
        let mut text = format!("({})", count(writer, &self.name)?);
        if !lost.is_empty() {
            text += &format!("; lost with it: {}", listing(&lost, MAX_NAMED));
        }
        Ok(Some(text))
    }

    /// Checks the old table again, and replaces it. To be called after the grant.
    ///
    /// # Errors
    /// The old table may not or cannot be replaced; it is unchanged. After another error, [`Error::is_unclear`] says
    /// whether it may have been replaced.
    pub fn publish(&mut self) -> Result<(), Error> {
        let (name, replace) = (&self.name, self.replace);
        let mut check = |writer: &mut dyn TableWriter| check_replaceable(writer, name, &[], replace);
        self.writer.swap(&self.staging, name, &self.suffix, &mut check)
    }

    /// Drops the staging tables of this attempt and of earlier attempts of the same step; also after the canceller was
    /// called.
    ///
    /// # Errors
    /// Those of the database.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.writer.connection().resume();
        drop_leftovers(&mut *self.writer, &self.name, &self.suffix)
    }
}

/// A batch whose computed values are NULL where they are not a number. `None`: all are numbers. Values of the select
/// stay.
fn without_nan(batch: &Batch, kept: usize) -> Option<Batch> {
    let column = |(place, values): (usize, &Values)| match values {
        Values::Floats(array) if place >= kept && array.values().iter().any(|it| it.is_nan()) => {
            Some(Values::Floats(array.iter().map(|it| it.filter(|it| !it.is_nan())).collect()))
        }
        _ => None,
    };
    let replaced: Vec<_> = batch.columns.iter().enumerate().map(column).collect();
    replaced.iter().any(Option::is_some).then(|| {
        let columns =
            batch.columns.iter().zip(replaced).map(|(values, new)| new.unwrap_or_else(|| values.clone()));
        Batch { rows: batch.rows, columns: columns.collect() }
    })
}
