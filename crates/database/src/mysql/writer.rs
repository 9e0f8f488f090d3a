//! Writes tables in MySQL and MariaDB, by a connection of its own.

use jiff::tz::TimeZone;
use mysql_common::constants::Command;

use super::failure::Failure;
use super::insert::Inserts;
use super::responses::{Protocol, receive_results};
use super::{MysqlDatabase, literal};
use crate::writer::marker;
use crate::{
    Batch, Column, ComputedColumn, ComputedKind, Database, Discard, Error, ErrorKind, ExistingTable, Mark,
    PassthroughColumns, TableName, TableWriter, rows, texts,
};

/// Maximum number of characters of a table's name. Counting bytes also respects the limit of file names on the server.
const MAX_NAME: usize = 64;
/// For a database, a table, a column, any.
const PRIVILEGE_MISSING: [u16; 4] = [1044, 1142, 1143, 1227];
/// Time in seconds that a replacement waits for other sessions. The server's default is a day, in which nobody else could
/// read the old table either.
const MAX_LOCK_WAIT: u32 = 60;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// A foreign key refers to the table, or to a row of it.
const REFERENCED: [u16; 3] = [1217, 1451, 3730];
const HIDDEN_REFERENCE: &str = "a foreign key of a table that this user cannot see";

/// Independent of the reading session: written rows must be visible at once, and queries return all rows.
const SETTINGS: &str = "SET autocommit = 1, sql_notes = 1, sql_select_limit = DEFAULT, completion_type = 0, \
                        @sqlflow_mode = @@sql_mode, @sqlflow_zone = @@time_zone, \
                        @sqlflow_collation = @@collation_connection";
/// Modes in which a column without NULLs cannot have the default of a date, which is zero.
const NO_ZERO_DATES: [&str; 3] = ["NO_ZERO_DATE", "NO_ZERO_IN_DATE", "TRADITIONAL"];
/// Modes for rows. Dates need not be dates of the calendar.
const ROW_MODES: &str = "ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO";

/// Settings of the session, for different statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settings {
    /// The user's.
    User,
    /// For the creation of a table from the user's select.
    Create,
    /// For rows and the marker: no mode or encoding of the user changes or rejects them. A value that does not fit is an
    /// error.
    Rows,
    /// For rows whose ENUM has the empty text that stands for a value outside its list.
    LenientRows,
}

/// Writes tables.
pub(super) struct MysqlWriter {
    pub(super) database: MysqlDatabase,
    settings: Settings,
    /// `sql_mode` for the creation of a table.
    create_modes: String,
    /// The session's database, if it was read.
    default_schema: Option<Option<String>>,
    /// The zone of the user's session, if it was read. Rows are written in UTC, if it is known.
    pub(super) zone: Option<Option<TimeZone>>,
    pub(super) inserts: Option<Inserts>,
}

impl MysqlWriter {
    /// Uses a connection with the settings of the reading one.
    pub(super) fn new(mut database: MysqlDatabase) -> Result<Self, Error> {
        database.execute(SETTINGS, &mut Discard)?;
        let modes = texts(&mut database, "SELECT @@sql_mode")?.concat();
        let create_modes: Vec<_> = modes.split(',').filter(|it| !NO_ZERO_DATES.contains(it)).collect();
        Ok(Self {
            database,
            settings: Settings::User,
            create_modes: create_modes.join(","),
            default_schema: None,
            zone: None,
            inserts: None,
        })
    }

    pub(super) fn use_settings(&mut self, settings: Settings) -> Result<(), Error> {
        if settings == self.settings {
            return Ok(());
        }
        let zone = if matches!(self.zone, Some(Some(_))) { "'+00:00'" } else { "@sqlflow_zone" };
        let of_user = "time_zone = @sqlflow_zone, collation_connection = @sqlflow_collation";
        // The server converts parameters and literals to the encoding of the connection before it uses them.
        let of_rows = format!("time_zone = {zone}, character_set_connection = utf8mb4");
        let sql = match settings {
            Settings::User => format!("SET sql_mode = @sqlflow_mode, {of_user}"),
            Settings::Create => format!("SET sql_mode = '{}', {of_user}", self.create_modes),
            Settings::Rows => format!("SET sql_mode = 'STRICT_ALL_TABLES,{ROW_MODES}', {of_rows}"),
            Settings::LenientRows => format!("SET sql_mode = '{ROW_MODES}', {of_rows}"),
        };
        self.database.execute(&sql, &mut Discard)?;
        self.settings = settings;
        Ok(())
    }

    pub(super) fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.attempt(sql).map_err(|failure| self.database.error(failure))
    }

    /// Runs a statement. The error has the server's code.
    pub(super) fn attempt(&mut self, sql: &str) -> Result<(), Failure> {
        let receive = |session: &mut super::Session| receive_results(session, &Protocol::Text, &mut Discard);
        self.database.command(Command::COM_QUERY, sql.as_bytes(), receive).map(|_| ())
    }

    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.use_settings(Settings::User)?;
        rows(&mut self.database, sql)
    }

    /// The first column of a query.
    fn names(&mut self, sql: &str) -> Result<Vec<String>, Error> {
        self.use_settings(Settings::User)?;
        let mut names = texts(&mut self.database, sql)?;
        names.sort();
        Ok(names)
    }

    /// Runs a statement that must fail. Returns the error if it has one of these codes.
    fn failure(&mut self, sql: &str, codes: &[u16]) -> Result<Option<Error>, Error> {
        match self.attempt(sql) {
            Ok(()) => Ok(None),
            Err(Failure::Server { code, message }) if codes.contains(&code) => {
                Ok(Some(self.database.error(Failure::Server { code, message })))
            }
            Err(failure) => {
                let error = self.database.error(failure);
                if error.kind == ErrorKind::User { Ok(None) } else { Err(error) }
            }
        }
    }

    /// The table's database. `None`: neither the table nor the data source names one.
    fn schema(&mut self, table: &TableName) -> Result<Option<String>, Error> {
        if table.schema.is_some() {
            return Ok(table.schema.clone());
        }
        if self.default_schema.is_none() {
            let found = self.rows("SELECT DATABASE()")?;
            self.default_schema = Some(found.into_iter().flatten().next().flatten());
        }
        Ok(self.default_schema.clone().flatten())
    }

    /// Its database and its name, as literals.
    fn literals(&mut self, table: &TableName) -> Result<(String, String), Error> {
        Ok((literal(&self.schema(table)?.unwrap_or_default()), literal(&table.name)))
    }

    /// Whether a foreign key of a table that this user cannot see certainly refers to a table.
    ///
    /// InnoDB rejects another engine for a table with foreign keys, its own ones or those of other tables. The server
    /// asks for that before it looks for the column. So the statement fails, whichever the reason is.
    fn has_hidden_reference(&mut self, table: &TableName) -> Result<bool, Error> {
        let (schema, name) = self.literals(table)?;
        let found = self.rows(&format!(
            "SELECT (SELECT count(*) FROM information_schema.key_column_usage WHERE table_schema = {schema} AND \
             table_name = {name} AND referenced_table_name IS NOT NULL), @@foreign_key_checks"
        ))?;
        if found != [[Some("0".to_owned()), Some("1".to_owned())]] {
            return Ok(false);
        }
        let quoted = self.quoted(table);
        let columns = self.database.describe(&format!("SELECT * FROM {quoted}"))?;
        let is_free = |name: &String| !columns.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        let missing = (0..).map(|it| format!("sqlflow_no_column_{it}")).find(is_free).unwrap_or_default();
        let change = format!("ALTER TABLE {quoted} ENGINE = MEMORY, DROP COLUMN `{missing}`");
        Ok(self.failure(&change, &REFERENCED)?.is_some())
    }

    /// Renames tables in one statement.
    fn rename(&mut self, pairs: &[(&TableName, &TableName)]) -> Result<(), Error> {
        let pairs: Vec<_> =
            pairs.iter().map(|(from, to)| format!("{} TO {}", self.quoted(from), self.quoted(to))).collect();
        self.attempt(&format!("RENAME TABLE {}", pairs.join(", "))).map_err(|failure| match failure {
            Failure::Server { code: LOCK_WAIT_TIMEOUT, .. } => Error::busy(
                "another session uses the old table, for example in an open transaction; end that, and run the \
                 statement again",
            ),
            Failure::Server { .. } => self.database.error(failure),
            failure => Error { is_unclear: true, ..self.database.error(failure) },
        })
    }
}

impl TableWriter for MysqlWriter {
    fn connection(&mut self) -> &mut dyn Database {
        &mut self.database
    }

    fn database(&mut self) -> Result<&mut dyn Database, Error> {
        self.use_settings(Settings::User)?;
        Ok(&mut self.database)
    }

    fn quote(&self, name: &str) -> String {
        self.database.quote(name)
    }

    fn name_limit(&self) -> Option<usize> {
        Some(MAX_NAME)
    }

    fn type_of(&self, kind: ComputedKind) -> &'static str {
        match kind {
            ComputedKind::Bool => "BOOLEAN",
            ComputedKind::Int => "BIGINT",
            ComputedKind::Float => "DOUBLE",
            ComputedKind::Text => "TEXT",
        }
    }

    fn find_table(&mut self, table: &TableName) -> Result<Option<ExistingTable>, Error> {
        let (schema, name) = self.literals(table)?;
        let found = self.rows(&format!(
            "SELECT table_type, table_comment FROM information_schema.tables WHERE table_schema = {schema} AND \
             table_name = {name}"
        ))?;
        let Some([kind, comment]) = found.first().map(Vec::as_slice) else { return Ok(None) };
        let kind = kind.clone().unwrap_or_default();
        let kind = if kind == "BASE TABLE" { "table".to_owned() } else { kind.to_lowercase() };
        let marker = marker(&table.name, self.schema(table)?.as_deref());
        Ok(Some(ExistingTable { kind, comment: comment.clone().unwrap_or_default(), marker }))
    }

    fn creation_obstacle(&mut self, table: &TableName) -> Result<Option<String>, Error> {
        let length = table.name.chars().count();
        if length > MAX_NAME {
            return Ok(Some(format!("its name has {length} characters, and the database allows {MAX_NAME}")));
        }
        let Some(schema) = self.schema(table)? else {
            return Ok(Some("the data source names no database, and neither does the table".to_owned()));
        };
        let found =
            format!("SELECT 1 FROM information_schema.schemata WHERE schema_name = {}", literal(&schema));
        if self.rows(&found)?.is_empty() {
            return Ok(Some(format!("database {schema} does not exist")));
        }
        // The server checks the privileges first, and then rejects the statement because there is no such table.
        let probe = |suffix| self.quoted(&table.with_suffix(suffix, self.name_limit()));
        let rename = format!("RENAME TABLE {} TO {}", probe("probe1"), probe("probe2"));
        let denied = self.failure(&rename, &PRIVILEGE_MISSING)?;
        Ok(denied.map(|denied| format!("this user may not replace tables in database {schema}: {denied}")))
    }

    fn dependents(&mut self, table: &TableName) -> Result<Vec<String>, Error> {
        // A foreign key needs an index here. The second query opens every table of the server, which may take long.
        if !self.attached(table)?.iter().any(|it| it.starts_with("index ")) {
            return Ok(Vec::new());
        }
        let (schema, name) = self.literals(table)?;
        let found = self.names(&format!(
            "SELECT DISTINCT CONCAT('foreign key ', constraint_name, ' of table ', table_schema, '.', table_name) \
             FROM information_schema.key_column_usage \
             WHERE referenced_table_schema = {schema} AND referenced_table_name = {name} \
             AND NOT (table_schema = {schema} AND table_name = {name})"
        ))?;
        if found.is_empty() && self.has_hidden_reference(table)? {
            return Ok(vec![HIDDEN_REFERENCE.to_owned()]);
        }
        Ok(found)
    }

    fn attached(&mut self, table: &TableName) -> Result<Vec<String>, Error> {
        let (schema, name) = self.literals(table)?;
        self.names(&format!(
            "SELECT DISTINCT CONCAT('index ', index_name) FROM information_schema.statistics \
             WHERE table_schema = {schema} AND table_name = {name} \
             UNION ALL SELECT CONCAT('trigger ', trigger_name) FROM information_schema.triggers \
             WHERE event_object_schema = {schema} AND event_object_table = {name}"
        ))
    }

    fn create(
        &mut self,
        table: &TableName,
        kept: Option<PassthroughColumns<'_>>,
        computed: &[ComputedColumn],
        mark: Mark<'_>,
    ) -> Result<(), Error> {
        let quoted = self.quoted(table);
        let schema = self.schema(table)?;
        let mark = mark.comment(schema.as_deref()).replace('\\', "\\\\").replace('\'', "''");
        let define = |it: &ComputedColumn| self.definition(&it.name, self.type_of(it.kind));
        let definitions: Vec<_> = computed.iter().map(define).collect();
        let Some(kept) = kept else {
            let definitions = definitions.join(", ");
            self.use_settings(Settings::Rows)?;
            return self.run(&format!("CREATE TABLE {quoted} ({definitions}) COMMENT = '{mark}'"));
        };
        self.use_settings(Settings::Create)?;
        self.run(&format!("CREATE TABLE {quoted} AS {}", kept.without_rows(|it| self.quote(it))))?;
        let added: String = definitions.iter().map(|it| format!("ADD COLUMN {it}, ")).collect();
        self.use_settings(Settings::Rows)?;
        self.run(&format!("ALTER TABLE {quoted} {added}COMMENT = '{mark}'"))
    }

    fn insert(&mut self, table: &TableName, columns: &[Column], batch: &Batch) -> Result<(), Error> {
        self.insert_batch(table, columns, batch)
    }

    fn drop_table(&mut self, table: &TableName) -> Result<(), Error> {
        let quoted = self.quoted(table);
        self.run(&format!("DROP TABLE IF EXISTS {quoted}"))
    }

    fn swap(
        &mut self,
        staging: &TableName,
        table: &TableName,
        suffix: &str,
        check: &mut dyn FnMut(&mut dyn TableWriter) -> Result<(), Error>,
    ) -> Result<(), Error> {
        check(self)?;
        self.run(&format!("SET lock_wait_timeout = LEAST(@@lock_wait_timeout, {MAX_LOCK_WAIT})"))?;
        let locked = |error: Error| match error.kind {
            ErrorKind::Busy => Error::busy(format!("cannot replace table {table}: {}", error.message)),
            _ => error,
        };
        if self.find_table(table)?.is_none() {
            return self.rename(&[(staging, table)]).map_err(locked);
        }
        let old = old_name(table, suffix);
        // One statement with both renames: the table exists at every moment.
        self.rename(&[(table, &old), (staging, table)]).map_err(locked)?;
        let quoted = self.quoted(&old);
        let Err(failure) = self.attempt(&format!("DROP TABLE IF EXISTS {quoted}")) else { return Ok(()) };
        let is_referenced = matches!(&failure, Failure::Server { code, .. } if REFERENCED.contains(code));
        let error = self.database.error(failure);
        if error.kind != ErrorKind::User || self.database.is_broken {
            // The table has been replaced.
            return Err(Error { is_unclear: true, ..error });
        }
        // For example, a foreign key that this user cannot see, created since the check. It refers to the old table, so
        // that must stay.
        self.rename(&[(table, staging), (&old, table)])
            .map_err(|error| Error { is_unclear: true, ..error })?;
        let reason =
            if is_referenced { format!("{HIDDEN_REFERENCE} depends on it") } else { error.to_string() };
        Err(Error::user(format!("cannot replace table {table}: {reason}; choose another name")))
    }

    fn leftovers(&self, table: &TableName, suffix: &str) -> Vec<TableName> {
        vec![table.with_suffix(suffix, self.name_limit()), old_name(table, suffix)]
    }
}

/// The name of the old table, between two statements.
fn old_name(table: &TableName, suffix: &str) -> TableName {
    table.with_suffix(&format!("{suffix}_old"), Some(MAX_NAME))
}
