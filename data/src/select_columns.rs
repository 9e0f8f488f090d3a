//! The columns of a select, which has one result set.

use sqlflow_database::{Column, Error};

/// The columns, once the database has sent them.
#[derive(Default)]
pub struct SelectColumns(Option<Vec<Column>>);

impl SelectColumns {
    /// A result set begins.
    ///
    /// # Errors
    /// It is not the first one.
    pub fn begin(&mut self, columns: &[Column]) -> Result<(), Error> {
        if self.0.is_some() {
            return Err(Error::user("cannot read the select: it returns several result sets"));
        }
        self.0 = Some(columns.to_vec());
        Ok(())
    }

    /// The columns so far.
    pub fn get(&self) -> &[Column] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The columns, after the end.
    ///
    /// # Errors
    /// There was no result set.
    pub fn finish(self) -> Result<Vec<Column>, Error> {
        self.0.ok_or_else(|| Error::user("cannot read the select: it returns no result set; write a SELECT"))
    }
}
