//! Checks of later statements of a program: tables that are missing or exist, and a few values of a column.

use std::fmt;

use sqlflow_sql::Dialect;

use crate::form::Form;
use crate::{
    Batch, Column, Database, Error, ErrorKind, Missing, Results, TableName, Value, mysql, sqlite, texts,
};

/// Number of rows in which a value of a column is searched.
const SAMPLED_ROWS: usize = 100;
/// Maximum size of the sampled values; others are left out.
const SAMPLED_BYTES: usize = 4 << 20;

/// What a statement does with tables, if it has one of the most common forms and plain names without quotes.
#[derive(Debug, PartialEq, Eq)]
enum TableStatement<'a> {
    Drop(Vec<&'a str>),
    Change(Change, &'a str),
    Create(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Alter,
    Truncate,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alter => "alter",
            Self::Truncate => "truncate",
        })
    }
}

impl<'a> TableStatement<'a> {
    fn parse(sql: &'a str) -> Option<Self> {
        let form = Form::new(sql);
        dropped(form).or_else(|| changed(form)).or_else(|| created(form))
    }
}

/// `DROP TABLE a, b RESTRICT;`
fn dropped(mut form: Form<'_>) -> Option<TableStatement<'_>> {
    (form.keyword("DROP") && form.keyword("TABLE")).then_some(())?;
    let mut names = vec![name(&mut form)?];
    loop {
        let mut next = form;
        next.space();
        if !next.sign(',') {
            break;
        }
        next.space();
        names.push(name(&mut next)?);
        form = next;
    }
    let mut end = form;
    if end.space() && end.word("RESTRICT") {
        form = end;
    }
    form.space();
    form.sign(';');
    form.space();
    form.rest().is_empty().then_some(TableStatement::Drop(names))
}

/// `ALTER TABLE a …`, `TRUNCATE TABLE a`, `TRUNCATE a`.
fn changed(mut form: Form<'_>) -> Option<TableStatement<'_>> {
    let change = if form.keyword("TRUNCATE") {
        form.keyword("TABLE");
        Change::Truncate
    } else {
        (form.keyword("ALTER") && form.keyword("TABLE")).then_some(Change::Alter)?
    };
    let mut other = form;
    if ["IF", "ONLY", "ALL", "TABLE"].iter().any(|word| other.word(word)) {
        return None;
    }
    let name = name(&mut form)?;
    let ends = form.space() || form.sign(';') || form.rest().is_empty();
    ends.then_some(TableStatement::Change(change, name))
}

/// `CREATE TABLE a (`, `CREATE TABLE a AS`, `CREATE TABLE a LIKE`.
fn created(mut form: Form<'_>) -> Option<TableStatement<'_>> {
    (form.keyword("CREATE") && form.keyword("TABLE")).then_some(())?;
    let mut other = form;
    if other.word("IF") {
        return None;
    }
    let name = name(&mut form)?;
    form.space();
    (form.sign('(') || form.word("AS") || form.word("LIKE")).then_some(TableStatement::Create(name))
}

/// A name without quotes, perhaps with a schema.
fn name<'a>(form: &mut Form<'a>) -> Option<&'a str> {
    let start = form.rest();
    part(form)?;
    let mut schema = *form;
    if schema.sign('.') {
        part(&mut schema)?;
        *form = schema;
    }
    Some(&start[..start.len() - form.rest().len()])
}

fn part(form: &mut Form<'_>) -> Option<()> {
    let part = form.take(|it| it.is_ascii_alphanumeric() || it == '_');
    (!part.is_empty() && !part.starts_with(|it: char| it.is_ascii_digit())).then_some(())
}

/// Checks a statement that no earlier one of the program makes possible. With `may_drop`, an earlier one may drop
/// tables: then a table that exists may not exist by then.
///
/// # Errors
/// `User`: it changes or drops a table that does not exist, or creates one that exists. Or as of
/// [`Database::describe`].
pub fn check_tables(database: &mut dyn Database, sql: &str, may_drop: bool) -> Result<(), Error> {
    match TableStatement::parse(sql) {
        Some(TableStatement::Drop(names)) => {
            for name in names {
                if is_missing(database, name)? {
                    // Without similar names: the user might drop another table by mistake.
                    return Err(Error::user(format!(
                        "cannot drop table {name}: it does not exist; correct the name, or write IF EXISTS"
                    )));
                }
            }
        }
        Some(TableStatement::Change(change, name)) if is_missing(database, name)? => {
            let missing = Some(Missing::Table(name.to_owned()));
            return Err(
                Error::user(format!("cannot {change} table {name}: it does not exist")).with_missing(missing)
            );
        }
        Some(TableStatement::Create(name)) if !may_drop && exists(database, name)? => {
            return Err(Error::user(format!(
                "cannot create table {name}: it exists; choose another name, or drop it before, or write IF NOT EXISTS"
            )));
        }
        _ => {}
    }
    Ok(())
}

fn is_missing(database: &mut dyn Database, name: &str) -> Result<bool, Error> {
    match database.describe(&format!("SELECT 1 FROM {name}")) {
        Ok(_) => Ok(false),
        // A view may lack a table of another name.
        Err(Error { kind: ErrorKind::User, missing: Some(Missing::Table(missing)), .. }) => {
            let [missing, name] = [&missing, name].map(|it| TableName::parse(it).name.to_lowercase());
            Ok(missing == name)
        }
        Err(Error { kind: ErrorKind::User, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is a table of this name in the place where a new one would be created.
fn exists(database: &mut dyn Database, name: &str) -> Result<bool, Error> {
    let TableName { schema, name } = TableName::parse(name);
    let query = match database.dialect() {
        Dialect::Sqlite if schema.as_ref().is_some_and(|it| it.eq_ignore_ascii_case("temp")) => {
            return Ok(false);
        }
        Dialect::Sqlite => {
            let (schema, name) = (schema.as_deref().unwrap_or("main"), sqlite::literal(&name));
            format!(
                "SELECT type FROM {schema}.sqlite_master WHERE lower(name) = lower({name}) AND type <> 'trigger'"
            )
        }
        // The names of tables may differ in case only.
        Dialect::Mysql => {
            let schema = schema.map_or_else(|| "DATABASE()".to_owned(), |it| mysql::literal(&it));
            let name = mysql::literal(&name);
            format!(
                "SELECT table_type FROM information_schema.tables WHERE table_schema = {schema} AND BINARY \
                 table_name = {name} AND table_type <> 'TEMPORARY'"
            )
        }
        Dialect::Postgresql => {
            let schema =
                schema.map_or_else(|| "current_schema()".to_owned(), |it| format!("'{}'", it.to_lowercase()));
            let name = name.to_lowercase();
            format!(
                "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(format('%I.%I', {schema}, '{name}'))"
            )
        }
    };
    match texts(database, &query) {
        Ok(found) => Ok(!found.is_empty()),
        // For example, the schema does not exist.
        Err(error) if error.kind == ErrorKind::User => Ok(false),
        Err(error) => Err(error),
    }
}

/// Some values of a column that are not NULL, at most 100 and 4 MiB. None are found if the select cannot be read.
/// `of_type`: in SQLite, the type of the values.
///
/// # Errors
/// As of [`Database::execute`], except `User`.
pub fn sample(
    database: &mut dyn Database,
    select: &str,
    column: &str,
    of_type: Option<&str>,
) -> Result<Vec<Value>, Error> {
    let column = database.quote(column);
    let condition = match of_type {
        None => format!("{column} IS NOT NULL"),
        Some(name) => format!("typeof({column}) = {}", sqlite::literal(name)),
    };
    let sql =
        format!("SELECT {column} FROM ({select}\n) AS sqlflow_select WHERE {condition} LIMIT {SAMPLED_ROWS}");
    let mut found = Sample::default();
    match database.execute(&sql, &mut found) {
        // For example, the select has the column twice. The statement will report it.
        Err(error) if error.kind == ErrorKind::User => Ok(Vec::new()),
        result => result.map(|()| found.values),
    }
}

#[derive(Default)]
struct Sample {
    values: Vec<Value>,
    bytes: usize,
}

impl Results for Sample {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        if let Some(column) = batch.columns.first() {
            for value in (0..batch.rows).map(|row| column.value(row)) {
                let bytes = self.bytes + value.long_bytes();
                if bytes <= SAMPLED_BYTES {
                    self.values.push(value);
                    self.bytes = bytes;
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self, _: Option<u64>) {}
}

#[cfg(test)]
#[path = "later_tests.rs"]
mod tests;
