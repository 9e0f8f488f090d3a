//! Serves the submitter of an extended statement: its selects, and nothing else.

use sqlflow_database::{Database, Error};

use crate::column_file::ColumnFile;
use crate::failure::StepError;
use crate::link::{Link, Request, Select};
use crate::shutdown::Shutdown;
use crate::step::Statement;

/// Maximum size of the rows of one select in the workspace, in bytes.
const MAX_FILE: u64 = 256 << 30;
/// Number of rows after which progress is reported.
const PROGRESS_ROWS: u64 = 50_000;

/// Answers requests until the submitter ends.
///
/// # Errors
/// The link is broken.
pub fn serve(
    link: &mut Link,
    statement: &Statement,
    database: &mut dyn Database,
    shutdown: &Shutdown,
) -> Result<(), StepError> {
    loop {
        let request = link.next();
        let request = request.map_err(|error| StepError::Other(format!("cannot read a request: {error}")))?;
        let Some(Request::Read(name)) = request else { return Ok(()) };
        let sql = select(statement, name);
        shutdown.begin_statement()?;
        if let Err(error) = read(link, sql, database) {
            // The submitter adds similar names. If the submitter has ended, its own end says why.
            let _ = link.error(&error);
        }
        shutdown.end_statement();
    }
}

fn select(statement: &Statement, name: Select) -> &str {
    match name {
        Select::Statement => &statement.select,
        Select::Validation => {
            statement.attributes.get("validation.select").and_then(|it| it.as_str()).unwrap_or_default()
        }
    }
}

fn read(link: &mut Link, sql: &str, database: &mut dyn Database) -> Result<(), Error> {
    let mut reported = 0;
    let mut on_rows = |rows: u64| {
        if rows < reported + PROGRESS_ROWS {
            return Ok(());
        }
        reported = rows;
        link.rows(rows)
    };
    let mut file = ColumnFile::create(MAX_FILE, &mut on_rows).map_err(|error| {
        Error::user(format!("cannot store the rows of the select in the workspace: {error}"))
    })?;
    database.read(sql, &mut file)?;
    let written = file.finish()?;
    link.file(&written).map_err(|error| Error::undelivered(error.to_string()))
}
