//! Writes batches of rows.

use super::failure::Failure;
use super::insert::Inserts;
use super::writer::{MysqlWriter, Settings};
use super::zone;
use crate::{Batch, Column, Database as _, Error, TableName, TableWriter as _, Values, rows};

impl MysqlWriter {
    /// Inserts the rows of a batch. A value that does not fit its column is an error.
    pub(super) fn insert_batch(
        &mut self,
        table: &TableName,
        columns: &[Column],
        batch: &Batch,
    ) -> Result<(), Error> {
        let quoted = self.quoted(table);
        let mut inserts = self.take_inserts(&quoted, columns.len())?;
        let values = self.values(columns, batch)?;
        let lenient = inserts.outside_lists(&values);
        self.use_settings(if lenient > 0 { Settings::LenientRows } else { Settings::Rows })?;
        // After an error, the server closes them with the connection.
        self.insert_all(&mut inserts, &values, batch.rows, lenient)?;
        self.inserts = Some(inserts);
        Ok(())
    }

    /// The INSERTs of a table. Closes those of another one.
    fn take_inserts(&mut self, table: &str, columns: usize) -> Result<Inserts, Error> {
        match self.inserts.take() {
            Some(inserts) if inserts.are_of(table, columns) => return Ok(inserts),
            Some(others) => {
                others.close(&mut self.database).map_err(|failure| self.database.error(failure))?;
            }
            None => {}
        }
        // The column of a computed value, such as MAX of an ENUM, may be one although the select does not say so.
        let own = self.database.describe(&format!("SELECT * FROM {table}"))?;
        let are_enums = own.iter().map(|it| it.database_type == "ENUM").collect();
        Ok(Inserts::new(table, columns, are_enums))
    }

    /// Inserts the rows of a batch, in one transaction if one INSERT is not enough. `lenient` of its values cause a warning
    /// and are right.
    fn insert_all(
        &mut self,
        inserts: &mut Inserts,
        columns: &[Values],
        batch_rows: usize,
        lenient: u64,
    ) -> Result<(), Error> {
        let is_one = inserts.next_rows(columns, 0, batch_rows) == batch_rows;
        if !is_one {
            self.run("START TRANSACTION")?;
        }
        let (mut begin, mut warnings) = (0, 0);
        while begin < batch_rows {
            let count = inserts.next_rows(columns, begin, batch_rows);
            warnings += inserts
                .insert(&mut self.database, columns, begin, count)
                .map_or_else(|failure| Err(self.roll_back(failure)), |warnings| Ok(u64::from(warnings)))?;
            if lenient > 0 && warnings > lenient {
                let failure = self.first_warning()?.into();
                return Err(self.roll_back(failure));
            }
            begin += count;
        }
        if is_one { Ok(()) } else { self.run("COMMIT") }
    }

    fn roll_back(&mut self, failure: Failure) -> Error {
        if !self.database.is_broken {
            let _ = self.attempt("ROLLBACK");
        }
        self.database.error(failure)
    }

    /// The first warning of the last statement, as an error.
    fn first_warning(&mut self) -> Result<Error, Error> {
        let shown = rows(&mut self.database, "SHOW WARNINGS LIMIT 1")?;
        // Level, code, message.
        let message = shown.into_iter().flatten().nth(2).flatten();
        Ok(Error::user(message.unwrap_or_else(|| "a value does not fit its column".to_owned())))
    }

    /// The batch's columns. Texts of TIMESTAMPs are in the zone of the user's session, and are converted to UTC.
    fn values(&mut self, columns: &[Column], batch: &Batch) -> Result<Vec<Values>, Error> {
        let are_zoned: Vec<bool> = columns.iter().map(|it| it.database_type == "TIMESTAMP").collect();
        if are_zoned.contains(&true) && self.zone.is_none() {
            self.use_settings(Settings::User)?;
            self.zone = Some(self.database.time_zone()?);
        }
        let zone = self.zone.as_ref().and_then(Option::as_ref);
        let convert = |(values, is_zoned): (&Values, &bool)| match (values, zone) {
            (Values::Texts(texts), Some(zone)) if *is_zoned => Values::Texts(zone::in_utc(texts, zone)),
            _ => values.clone(),
        };
        Ok(batch.columns.iter().zip(&are_zoned).map(convert).collect())
    }
}
