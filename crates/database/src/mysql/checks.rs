//! Checks of statements that are not executed: preparing one is enough.

use mysql_common::constants::Command;
use sqlflow_sql::Dialect;

use super::MysqlDatabase;
use super::failure::{Failure, NOT_PREPARABLE};
use super::responses::receive_prepared;
use crate::checks;
use crate::{Column, Database as _, Error};

impl MysqlDatabase {
    pub(super) fn check_preparation(&mut self, sql: &str) -> Result<(), Error> {
        let Some(part) = checks::prepared_part(sql, Dialect::Mysql) else { return self.check_syntax(sql) };
        match self.prepared_columns(&part) {
            // MySQL cannot prepare EXPLAIN, for example.
            Ok(_) | Err(Failure::Server { code: NOT_PREPARABLE, .. }) => Ok(()),
            Err(failure) => Err(self.error(failure)),
        }
    }

    pub(super) fn check_grammar(&mut self, sql: &str) -> Result<(), Error> {
        match checks::only_syntax(self.describe(sql)) {
            Err(error) if error.is_syntax && !self.reports_syntax_errors()? => Ok(()),
            other => other,
        }
    }

    /// The columns of a statement. Preparing it returns them, and does not execute it.
    pub(super) fn prepared_columns(&mut self, sql: &str) -> Result<Vec<Column>, Failure> {
        let prepared = self.command(Command::COM_STMT_PREPARE, sql.as_bytes(), receive_prepared)?;
        self.close(prepared.id)?;
        Ok(prepared.fields.into_iter().map(|field| field.column().0).collect())
    }

    /// Whether the server accepts statements whose syntax is right. Some servers with MySQL's protocol have its code
    /// for all errors, or cannot prepare all statements.
    fn reports_syntax_errors(&mut self) -> Result<bool, Error> {
        /// They are prepared, and not executed.
        const RIGHT: [&str; 2] =
            ["DROP TABLE IF EXISTS sqlflow_no_such_table", "SELECT 1 FROM sqlflow_no_such_table"];

        if let Some(known) = self.reports_syntax_errors {
            return Ok(known);
        }
        let mut reports = true;
        for sql in RIGHT {
            match checks::only_syntax(self.describe(sql)) {
                Ok(()) => {}
                Err(error) if error.is_syntax => reports = false,
                Err(error) => return Err(error),
            }
        }
        self.reports_syntax_errors = Some(reports);
        Ok(reports)
    }
}
