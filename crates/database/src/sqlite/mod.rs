//! SQLite.

mod authorizer;
mod cells;
mod checks;
#[cfg(test)]
mod concurrency_tests;
mod errors;
mod names;
mod opened;
#[cfg(test)]
mod reach_tests;
#[cfg(test)]
mod test_file;
#[cfg(test)]
mod tests;
mod writer;
#[cfg(test)]
mod writer_tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::time::ClockId;
use rusqlite::{Connection, OpenFlags, Rows, Statement};
use sqlflow_data_source::{Obstacle, Reach, Refusal, SqliteMode, SqliteSource};
use sqlflow_sql::Dialect;

use self::authorizer::{Authorizer, Guarded};
use self::cells::Cells;
use self::errors::ErrorContext;
use self::opened::Descriptors;
use self::writer::SqliteWriter;
use crate::batcher::{Batcher, MAX_ROW};
use crate::connect::{Origin, ignore_notices};
use crate::{
    Batch, Column, Database, Discard, Error, MAX_TABLES, Notice, Notify, Results, TableWriter, texts,
};

/// Time to wait for a lock of another connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// An SQLite file.
#[derive(Clone)]
pub(crate) struct SqliteDatabase {
    /// Shared with writers.
    connection: Rc<Guarded>,
    context: ErrorContext,
    origin: Origin,
    /// Whether the file does not exist, and is not created.
    is_absent: bool,
    is_read_only: bool,
}

impl SqliteDatabase {
    /// Opens the file of a data source.
    pub(crate) fn open(
        data_source: &str,
        may_create: bool,
        reach: Reach,
        notify: &Notify,
    ) -> Result<Self, Error> {
        let source = sqlflow_data_source::sqlite(data_source)
            .ok_or_else(|| Error::user("cannot read the data source: it is not one of SQLite"))?;
        let in_memory = source.is_in_memory();
        // An error about a missing table then mentions the file: its path may be misspelt.
        let was_absent = source.is_absent();
        let judged = if in_memory { Ok(source.path.clone()) } else { reach.own_file(&source.path) };
        // The path before the existence of its file: no refusal says which files exist elsewhere.
        let is_refused = judged.as_ref().is_err_and(Refusal::is_of_path);
        if was_absent && !is_refused {
            check_creatable(&source)?;
        }
        let SqliteSource { path, mode } = source;
        let real = errors::allowed(&path, judged)?;
        if was_absent {
            let file = path.display();
            notify(Notice::Note(if may_create {
                format!("SQLite file {file} did not exist and is created")
            } else {
                format!("SQLite file {file} does not exist: its database is empty, and no change is kept")
            }));
        }
        let is_absent = was_absent && !may_create;
        let is_read_only = mode == SqliteMode::ReadOnly;
        let before = Descriptors::watched(!reach.is_unlimited())?;
        let is_pinned = reach.sqlite_folders.is_some();
        let connection = open_file(&real, mode.name(), in_memory || is_absent, is_pinned)
            .map_err(|error| errors::not_opened(&path, &error))?;
        for opened in before.opened_since()? {
            errors::allowed(&path, reach.judge_own(&opened))?;
        }
        let origin = Origin::new(data_source).within(reach.clone());
        Ok(Self {
            connection: Rc::new(Guarded::new(connection, Authorizer::new(reach))),
            context: ErrorContext { path, was_absent },
            origin,
            is_absent,
            is_read_only,
        })
    }

    /// Another connection with the same settings.
    fn another(&self) -> Result<Self, Error> {
        let reach = self.origin.reach.clone();
        let mut another = Self::open(&self.origin.data_source, false, reach, &ignore_notices())?;
        self.origin.replay(&mut another)?;
        Ok(another)
    }

    /// Whether a connection can write while another one reads: all files have a write-ahead log.
    fn writes_beside_readers(&mut self) -> Result<bool, Error> {
        for schema in texts(self, "SELECT name FROM pragma_database_list WHERE name <> 'temp'")? {
            let schema = self.quote(&schema);
            for (setting, needed) in [("journal_mode", "wal"), ("locking_mode", "normal")] {
                if texts(self, &format!("PRAGMA {schema}.{setting}"))? != [needed] {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Compiles a statement. `None`: it is empty.
    fn prepare(&self, sql: &str) -> Result<Option<Statement<'_>>, Error> {
        if sql.contains('\0') {
            return Err(Error::user("the statement contains a NUL character, which SQLite does not support"));
        }
        let statement = match self.connection.prepare(sql) {
            Err(rusqlite::Error::Empty) => return Ok(None),
            other => other.map_err(|error| self.failed(&error))?,
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

    /// The error of a statement.
    fn failed(&self, error: &rusqlite::Error) -> Error {
        self.connection.authorizer().refusal().map_or_else(|| self.context.translate(error), Error::user)
    }

    /// Executes a statement that returns no rows.
    fn run(&self, statement: &mut Statement<'_>, sql: &str) -> Result<(), Error> {
        let mut run = || -> rusqlite::Result<()> {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        };
        let authorizer = self.connection.authorizer();
        let before = Descriptors::watched(authorizer.has_attached() && !authorizer.reach().is_unlimited())?;
        let is_vacuum = sqlflow_sql::leading_words(sql, Dialect::Sqlite, 1) == ["VACUUM"];
        // `VACUUM INTO` creates its file, and others have none.
        let ran = if is_vacuum { authorizer.with_new_file(run) } else { run() };
        ran.map_err(|error| self.failed(&error))?;
        for opened in before.opened_since()? {
            if let Err(error) = errors::allowed(&opened, authorizer.reach().judge_named(&opened)) {
                authorizer.close();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The columns of a statement, with their declared types.
    fn columns(&self, statement: &Statement<'_>, sql: &str) -> Result<Vec<Column>, Error> {
        names::columns(&self.connection, statement, sql)
            .ok_or_else(|| Error::user("cannot read the names of the columns; report it as a bug"))
    }
}

impl Database for SqliteDatabase {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

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
            self.run(&mut statement, sql)?;
            results.changed(changes.then(|| self.connection.changes()));
            return Ok(());
        }
        results.result_set(&columns)?;
        send_rows(statement.raw_query(), columns.len(), results, &self.context)
    }

    fn describe(&mut self, select: &str) -> Result<Vec<Column>, Error> {
        self.check_select(select)?;
        // Compiled, and not executed: the first row may take long.
        let statement = self.prepare(select)?.ok_or_else(|| Error::user("the select is empty"))?;
        self.columns(&statement, select)
    }

    fn check_query(&mut self, sql: &str) -> Result<(), Error> {
        self.check_compiled(sql)
    }

    fn check_syntax(&mut self, sql: &str) -> Result<(), Error> {
        self.check_grammar(sql)
    }

    fn checking_connection(&mut self) -> Result<Box<dyn Database>, Error> {
        let checking = self.another()?;
        // The file may be locked for the whole step.
        let changed = checking.connection.busy_timeout(Duration::ZERO);
        changed.map_err(|error| self.context.translate(&error))?;
        Ok(Box::new(checking))
    }

    fn replay(&mut self, sql: &str) -> Result<(), Error> {
        self.execute(sql, &mut Discard)?;
        self.origin.add(sql);
        Ok(())
    }

    fn tables_read(&mut self, select: &str) -> Result<BTreeSet<(String, String)>, Error> {
        self.connection.authorizer().tables_of(|| self.prepare(select).map(drop))
    }

    fn add_setting(&mut self, sql: &str) -> Result<bool, Error> {
        let authorizer = self.connection.authorizer();
        let Some(compiled) = authorizer.without_new_files(|| self.prepare(sql).map(drop)) else {
            return Ok(false);
        };
        compiled?;
        self.replay(sql).map(|()| true)
    }

    fn writer(&mut self) -> Result<Box<dyn TableWriter>, Error> {
        if self.is_absent {
            return Err(Error::user(format!(
                "cannot write into SQLite file {}: it does not exist; correct the path of the data source, or create a \
                 table in it first",
                self.context.path.display()
            )));
        }
        // Otherwise a second connection would wait for the lock of the one that reads.
        let writes_beside = self.writes_beside_readers()?;
        Ok(Box::new(SqliteWriter(if writes_beside { self.another()? } else { self.clone() })))
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

/// A text in a statement.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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
    let mut since = Duration::ZERO;
    while let Some(row) = rows.next().map_err(|error| context.translate(&error))? {
        let now = if batcher.is_timed() { coarse_now() } else { since };
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
        if batcher.is_full(now.saturating_sub(since)) {
            results.batch(take(&mut cells, &mut batcher))?;
        }
    }
    if batcher.rows() > 0 {
        results.batch(take(&mut cells, &mut batcher))?;
    }
    Ok(())
}

/// The time to within some milliseconds. Reading the precise one costs as much as reading a value.
fn coarse_now() -> Duration {
    nix::time::clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from)
}

fn take(cells: &mut [Cells], batcher: &mut Batcher) -> Batch {
    let rows = batcher.rows();
    let batch = Batch { rows, columns: cells.iter_mut().map(|it| it.take(rows).1).collect() };
    batcher.next();
    batch
}

/// `is_pinned`: no part of the path may be a link, nor of the paths of attached files.
fn open_file(path: &Path, mode: &str, is_empty: bool, is_pinned: bool) -> rusqlite::Result<Connection> {
    let mut flags =
        OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    if is_pinned {
        flags |= OpenFlags::SQLITE_OPEN_NOFOLLOW;
    }
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
        None if source.mode != SqliteMode::Create => Err(Error::user(format!(
            "cannot open SQLite file {file}: no such file; correct the path, or add ?mode=rwc to the data source, so that \
             CREATE TABLE creates the file"
        ))),
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
