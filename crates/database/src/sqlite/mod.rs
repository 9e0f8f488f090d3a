//! SQLite.

mod cells;
mod errors;
mod names;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Rows, Statement};
use sqlflow_data_source::{Obstacle, SqliteMode, SqliteSource};
use sqlflow_sql::Dialect;

use self::cells::Cells;
use self::errors::ErrorContext;
use crate::batcher::{Batcher, MAX_ROW};
use crate::{Batch, Column, Database, Error, MAX_TABLES, Notice, Notify, Results, texts};

/// Time to wait for a lock of another connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// An SQLite file.
pub(crate) struct SqliteDatabase {
    connection: Connection,
    context: ErrorContext,
}

impl SqliteDatabase {
    /// Opens the file of a data source.
    pub(crate) fn open(data_source: &str, may_create: bool, notify: &Notify) -> Result<Self, Error> {
        let source = sqlflow_data_source::sqlite(data_source)
            .ok_or_else(|| Error::user("cannot read the data source: it is not one of SQLite"))?;
        let may_create = may_create && source.mode == SqliteMode::Create;
        let in_memory = source.is_in_memory();
        // An error about a missing table then mentions the file: its path may be misspelt.
        let was_absent = source.is_absent();
        if was_absent {
            check_creatable(&source)?;
            let file = source.path.display();
            notify(Notice::Note(if may_create {
                format!("SQLite file {file} did not exist and is created")
            } else {
                format!("SQLite file {file} does not exist: its database is empty, and no change is kept")
            }));
        }
        let SqliteSource { path, mode } = source;
        let is_empty = in_memory || was_absent && !may_create;
        let connection =
            open_file(&path, mode.name(), is_empty).map_err(|error| errors::not_opened(&path, &error))?;
        Ok(Self { connection, context: ErrorContext { path, was_absent } })
    }

    /// Compiles a statement. `None`: it is empty.
    fn prepare(&self, sql: &str) -> Result<Option<Statement<'_>>, Error> {
        if sql.contains('\0') {
            return Err(Error::user("the statement contains a NUL character, which SQLite does not support"));
        }
        let statement = match self.connection.prepare(sql) {
            Err(rusqlite::Error::Empty) => return Ok(None),
            other => other.map_err(|error| self.context.translate(&error))?,
        };
        if statement.parameter_count() > 0 {
            // SQLite would take NULL, and for example insert it.
            let name = statement.parameter_name(1).unwrap_or("?");
            return Err(Error::user(format!(
                "the statement has the parameter {name}, which has no value; write the value in its place"
            )));
        }
        Ok(Some(statement))
    }

    /// The columns of a statement, with their declared types.
    fn columns(&self, statement: &Statement<'_>, sql: &str) -> Result<Vec<Column>, Error> {
        names::columns(&self.connection, statement, sql)
            .ok_or_else(|| Error::user("cannot read the names of the columns; report it as a bug"))
    }
}

impl Database for SqliteDatabase {
    fn execute(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error> {
        let Some(mut statement) = self.prepare(sql)? else {
            results.changed(None);
            return Ok(());
        };
        let mut columns = self.columns(&statement, sql)?;
        // SQLite has types of values, not of columns, so no type is known before the rows.
        columns.iter_mut().for_each(|column| column.database_type.clear());
        if columns.is_empty() {
            let changes = counts_changes(sql, &statement);
            let mut rows = statement.raw_query();
            while rows.next().map_err(|error| self.context.translate(&error))?.is_some() {}
            drop(rows);
            results.changed(changes.then(|| self.connection.changes()));
            return Ok(());
        }
        results.result_set(&columns)?;
        send_rows(statement.raw_query(), columns.len(), results, &self.context)
    }

    fn describe(&mut self, select: &str) -> Result<Vec<Column>, Error> {
        // Compiled, and not executed: the first row may take long.
        let statement = self.prepare(select)?.ok_or_else(|| Error::user("the select is empty"))?;
        self.columns(&statement, select)
    }

    fn tables(&mut self) -> Result<Vec<String>, Error> {
        texts(
            self,
            &format!("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') LIMIT {MAX_TABLES}"),
        )
    }

    fn canceller(&self) -> Box<dyn Fn() + Send> {
        let handle = self.connection.get_interrupt_handle();
        Box::new(move || handle.interrupt())
    }
}

/// Whether SQLite reports the number of rows that a statement changes.
fn counts_changes(sql: &str, statement: &Statement<'_>) -> bool {
    let word = sqlflow_sql::leading_words(sql, Dialect::Sqlite, 1);
    let counts = ["INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"];
    !statement.readonly() && word.first().is_some_and(|word| counts.contains(&word.as_str()))
}

fn send_rows(
    mut rows: Rows<'_>,
    columns: usize,
    results: &mut dyn Results,
    context: &ErrorContext,
) -> Result<(), Error> {
    let mut batcher = Batcher::new(results.limits());
    let mut cells: Vec<Cells> = (0..columns).map(|_| Cells::default()).collect();
    let mut since = Instant::now();
    while let Some(row) = rows.next().map_err(|error| context.translate(&error))? {
        let now = Instant::now();
        if batcher.rows() == 0 {
            since = now;
        }
        let mut bytes = 0;
        for (place, cells) in cells.iter_mut().enumerate() {
            let value = row.get_ref(place).map_err(|error| context.translate(&error))?;
            bytes += cells::size(value);
            if bytes > MAX_ROW {
                return Err(Error::row_too_large());
            }
            cells.push(value);
        }
        batcher.add(bytes);
        if batcher.is_full(now - since) {
            results.batch(take(&mut cells, &mut batcher))?;
        }
    }
    if batcher.rows() > 0 {
        results.batch(take(&mut cells, &mut batcher))?;
    }
    Ok(())
}

fn take(cells: &mut [Cells], batcher: &mut Batcher) -> Batch {
    let batch = Batch {
        rows: batcher.rows(),
        columns: cells.iter_mut().map(|it| std::mem::take(it).finish()).collect(),
    };
    batcher.next();
    batch
}

fn open_file(path: &Path, mode: &str, is_empty: bool) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let file = if is_empty { PathBuf::from(":memory:") } else { uri(path, mode) };
    let writes = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags(file, flags | writes)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // As SQLite's own command line has it; the library is built with another default.
    connection.pragma_update(None, "foreign_keys", false)?;
    Ok(connection)
}

/// A URI, since only one can say that the file must exist.
fn uri(path: &Path, mode: &str) -> PathBuf {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02x}").into_bytes()),
            _ => uri.push(*byte),
        }
    }
    uri.extend(format!("?mode={mode}").into_bytes());
    OsString::from_vec(uri).into()
}

/// Checks the path of a file that does not exist, because SQLite would create it.
fn check_creatable(source: &SqliteSource) -> Result<(), Error> {
    let file = source.path.display();
    match source.obstacle() {
        None => Ok(()),
        Some(Obstacle::AtRoot) => Err(Error::user(format!(
            "cannot open SQLite file {file}: it does not exist, and the path of a data source is absolute; write \
             sqlite:////folder{file}, or create the file first"
        ))),
        Some(Obstacle::NoFolder(folder)) => Err(Error::user(format!(
            "cannot open SQLite file {file}: the folder {} does not exist; create it, or correct the path",
            folder.display()
        ))),
    }
}
