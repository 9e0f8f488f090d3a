//! Writes tables in SQLite.
//!
//! With a write-ahead log, on a connection of its own. A transaction that reads and writes would fail if another one wrote
//! since its select began. Without one, on the reading connection: a second one would wait for its lock.

use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, ValueRef};

use super::{SqliteDatabase, literal};
use crate::{
    Batch, Column, ComputedColumn, ComputedKind, Database, Discard, Error, ErrorKind, ExistingTable, Mark,
    PassthroughColumns, TableName, TableWriter, Value, Values, marker, rows, texts,
};

/// Steps of the query plan of a select that combines others. With ORDER BY, it merges them.
const COMPOUND_STEPS: [&str; 2] = ["COMPOUND QUERY", "RECURSIVE STEP"];

/// Time between two attempts to get the lock of a file.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Writes tables, perhaps through the connection that reads.
pub(super) struct SqliteWriter(pub(super) SqliteDatabase);

impl SqliteWriter {
    fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.0.execute(sql, &mut Discard)
    }

    /// Runs a transaction, which is rolled back after an error.
    fn transaction(
        &mut self,
        begin: &str,
        action: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.run(begin)?;
        // If COMMIT fails, for example because of a reader, the transaction stays open.
        let result = action(self).and_then(|()| self.run("COMMIT"));
        if result.is_err() {
            // After some errors, SQLite has already rolled back.
            let _ = self.run("ROLLBACK");
        }
        result
    }

    /// Whether a select combines others (UNION and the like), also in its views. The types that SQLite declares for it are
    /// those of the first one, and the values of another one may not keep them.
    fn is_compound(&mut self, select: &str) -> Result<bool, Error> {
        let steps = rows(&mut self.0, &format!("EXPLAIN QUERY PLAN {select}"))?;
        // Numbers, and what is done.
        let is_compound =
            |step: &String| COMPOUND_STEPS.iter().any(|it| step == it) || step.starts_with("MERGE (");
        Ok(steps.iter().any(|it| it.get(3).and_then(Option::as_ref).is_some_and(is_compound)))
    }

    /// Locks the file of a table for this transaction.
    ///
    /// While a select is open on this connection, SQLite does not wait for another one's lock: its COMMIT may wait for the
    /// select. It may end in another way. So this waits for half of the usual time: of two that wait for each other, the
    /// one that has the lock goes on.
    fn lock(&mut self, table: &TableName) -> Result<(), Error> {
        let begun = Instant::now();
        let no_change = format!("DELETE FROM {} WHERE 0", self.quoted(table));
        let mut timeout = None;
        loop {
            let error = match self.run(&no_change) {
                Err(error) if error.kind == ErrorKind::Busy => error,
                other => return other,
            };
            let timeout = match timeout {
                Some(timeout) => timeout,
                None => *timeout.insert(self.busy_timeout()? / 2),
            };
            if begun.elapsed() >= timeout {
                return Err(error);
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// The session's time to wait for a lock.
    fn busy_timeout(&mut self) -> Result<Duration, Error> {
        let found = texts(&mut self.0, "PRAGMA busy_timeout")?;
        let milliseconds = found.first().and_then(|it| it.parse().ok()).unwrap_or_default();
        Ok(Duration::from_millis(milliseconds))
    }

    /// The catalog of a table's database.
    fn catalog(&self, table: &TableName) -> String {
        format!("{}.sqlite_master", self.0.quote(schema(table)))
    }
}

impl TableWriter for SqliteWriter {
    fn connection(&mut self) -> &mut dyn Database {
        &mut self.0
    }

    fn quote(&self, name: &str) -> String {
        self.0.quote(name)
    }

    /// Always with the schema: for a name without one, SQLite also searches temporary tables and attached files. The name
    /// of an attached file may have a dot.
    fn quoted(&self, table: &TableName) -> String {
        format!("{}.{}", self.0.quote(schema(table)), self.0.quote(&table.name))
    }

    fn takes_any_text(&self) -> bool {
        false
    }

    fn type_of(&self, kind: ComputedKind) -> &'static str {
        match kind {
            ComputedKind::Bool | ComputedKind::Int => "INTEGER",
            ComputedKind::Float => "REAL",
            ComputedKind::Text => "TEXT",
        }
    }

    fn find_table(&mut self, table: &TableName) -> Result<Option<ExistingTable>, Error> {
        let query = format!(
            "SELECT type, coalesce(sql, ''), name FROM {} WHERE lower(name) = lower({}) AND type IN ('table', 'view', \
             'index')",
            self.catalog(table),
            literal(&table.name)
        );
        let found = rows(&mut self.0, &query)?.into_iter().next();
        let Some([Some(kind), Some(sql), Some(name)]) = found.map(<[_; 3]>::try_from).and_then(Result::ok)
        else {
            return Ok(None);
        };
        // A file has no name of its own, so the marker has none, either.
        let marker = marker(&name, None);
        let comment = commented(&sql, &marker).unwrap_or_default();
        Ok(Some(ExistingTable { kind, comment, marker }))
    }

    fn creation_obstacle(&mut self, table: &TableName) -> Result<Option<String>, Error> {
        let schemas = texts(&mut self.0, "SELECT name FROM pragma_database_list WHERE name <> 'temp'")?;
        let is_known = |schema: &String| schemas.iter().any(|it| it.eq_ignore_ascii_case(schema));
        Ok(if schema(table).eq_ignore_ascii_case("temp") {
            Some("a temporary table ends with the statement".to_owned())
        } else if let Some(schema) = table.schema.as_ref().filter(|it| !is_known(it)) {
            Some(format!("schema {schema} does not exist (known: {})", schemas.join(", ")))
        } else if table.name.to_lowercase().starts_with("sqlite_") {
            Some("SQLite reserves names that begin with sqlite_".to_owned())
        } else if self.0.is_read_only {
            Some("the data source is opened with mode=ro".to_owned())
        } else {
            None
        })
    }

    fn dependents(&mut self, table: &TableName) -> Result<Vec<String>, Error> {
        // If foreign keys are enforced, DROP TABLE deletes all rows first: ON DELETE CASCADE empties the other table.
        if texts(&mut self.0, "SELECT 1 FROM pragma_foreign_keys WHERE foreign_keys")?.is_empty() {
            return Ok(Vec::new());
        }
        let name = literal(&table.name);
        let query = format!(
            "SELECT DISTINCT 'foreign key of table ' || m.name FROM {} AS m JOIN pragma_foreign_key_list(m.name, {}) \
             AS k ON lower(k.\"table\") = lower({name}) WHERE m.type = 'table' AND lower(m.name) <> lower({name})",
            self.catalog(table),
            literal(schema(table))
        );
        let mut found = texts(&mut self.0, &query)?;
        found.sort();
        Ok(found)
    }

    fn attached(&mut self, table: &TableName) -> Result<Vec<String>, Error> {
        let query = format!(
            "SELECT type || ' ' || name FROM {} WHERE lower(tbl_name) = lower({}) AND type IN ('index', 'trigger') AND \
             sql IS NOT NULL ORDER BY 1",
            self.catalog(table),
            literal(&table.name)
        );
        texts(&mut self.0, &query)
    }

    fn create(
        &mut self,
        table: &TableName,
        kept: Option<PassthroughColumns<'_>>,
        computed: &[ComputedColumn],
        mark: Mark<'_>,
    ) -> Result<(), Error> {
        let is_compound = match &kept {
            Some(kept) => self.is_compound(kept.select)?,
            None => false,
        };
        let kept = kept
            .iter()
            .flat_map(|it| it.columns.iter().map(|(place, name)| (name, it.described.get(*place))));
        let kept = kept.map(|(name, column)| {
            let declared = column.filter(|_| !is_compound);
            (name, declared.map_or("", |it| lossless(&it.database_type)))
        });
        let computed = computed.iter().map(|it| (&it.name, self.type_of(it.kind)));
        let definitions: Vec<_> =
            kept.chain(computed).map(|(name, kind)| self.definition(name, kind)).collect();
        // SQLite has no comments on tables, but stores the text of CREATE TABLE. Computed columns have no type.
        let comment = comment(&mark.comment(None));
        let table = self.quoted(table);
        self.run(&format!("CREATE TABLE {table} ({comment} {})", definitions.join(", ")))
    }

    fn insert(&mut self, table: &TableName, columns: &[Column], batch: &Batch) -> Result<(), Error> {
        let places = vec!["?"; columns.len()].join(", ");
        let sql = format!("INSERT INTO {} VALUES ({places})", self.quoted(table));
        self.transaction("BEGIN", |writer| {
            writer.lock(table)?;
            let SqliteDatabase { connection, context, .. } = &writer.0;
            let insert = || {
                let mut statement = connection.prepare_cached(&sql)?;
                for row in 0..batch.rows {
                    for (place, values) in batch.columns.iter().enumerate() {
                        statement.raw_bind_parameter(place + 1, ToSqlOutput::Borrowed(cell(values, row)))?;
                    }
                    statement.raw_execute()?;
                }
                Ok(())
            };
            insert().map_err(|error| context.translate(&error))
        })
    }

    fn drop_table(&mut self, table: &TableName) -> Result<(), Error> {
        let table = self.quoted(table);
        self.run(&format!("DROP TABLE IF EXISTS {table}"))
    }

    fn swap(
        &mut self,
        staging: &TableName,
        table: &TableName,
        _suffix: &str,
        check: &mut dyn FnMut(&mut dyn TableWriter) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Otherwise a view on the old table would prevent the rename.
        self.run("PRAGMA legacy_alter_table = ON")?;
        self.transaction("BEGIN IMMEDIATE", |writer| {
            check(writer)?;
            writer.drop_table(table)?;
            let (staging, name) = (writer.quoted(staging), writer.0.quote(&table.name));
            writer.run(&format!("ALTER TABLE {staging} RENAME TO {name}"))
        })
    }
}

fn schema(table: &TableName) -> &str {
    table.schema.as_deref().unwrap_or("main")
}

/// The type for a column, such that the values of this type stay as they are.
fn lossless(declared: &str) -> &str {
    // In a table that is not STRICT, the texts of numbers would become numbers.
    if declared.eq_ignore_ascii_case("ANY") { "" } else { declared }
}

fn comment(text: &str) -> String {
    format!("/* {} */", without_end(text))
}

/// Such that no comment ends in it.
fn without_end(text: &str) -> String {
    text.replace("*/", "* /")
}

/// The comment before the columns of a CREATE TABLE, if it begins with this marker.
fn commented(sql: &str, marker: &str) -> Option<String> {
    let (_, rest) = sql.split_once(&format!("(/* {}", without_end(marker)))?;
    let (rest, _) = rest.split_once(" */")?;
    Some(format!("{marker}{rest}"))
}

/// A value, without a copy.
fn cell(values: &Values, row: usize) -> ValueRef<'_> {
    if values.array().is_some_and(|array| array.is_null(row)) {
        return ValueRef::Null;
    }
    match values {
        Values::Null => ValueRef::Null,
        Values::Bools(array) => ValueRef::Integer(array.value(row).into()),
        Values::Ints(array) => ValueRef::Integer(array.value(row)),
        // Beyond the integers of SQLite: as it reads such a number.
        Values::Uints(array) => ValueRef::Real(array.value(row) as f64),
        // Not a number becomes NULL.
        Values::Floats(array) => ValueRef::Real(array.value(row)),
        Values::Texts(array) | Values::Decimals(array) => ValueRef::Text(array.value(row).as_bytes()),
        Values::Blobs(array) => ValueRef::Blob(array.value(row)),
        Values::Dates(array) => ValueRef::Integer(array.value(row).into()),
        Values::Timestamps(array) | Values::Instants(array) => ValueRef::Integer(array.value(row)),
        Values::Mixed(values) => match values.get(row) {
            None | Some(Value::Null) => ValueRef::Null,
            Some(Value::Int(value)) => ValueRef::Integer(*value),
            Some(Value::Float(value)) => ValueRef::Real(*value),
            Some(Value::Text(text)) => ValueRef::Text(text.as_bytes()),
            Some(Value::NotUtf8(bytes)) => ValueRef::Text(bytes),
            Some(Value::Blob(bytes)) => ValueRef::Blob(bytes),
        },
    }
}
