//! What selects read, and what statements depend on: views, and functions with the tables in their texts.
//!
//! A result table that its own statement reads must not be replaced. A query plan cannot show what is read: the
//! optimizer removes branches that return no rows, and a plan does not show what functions read. So `postgresql` and
//! `mysql` ask for the parsed select, before the optimizer changes it, and search the texts of the functions that it
//! depends on. `dependencies` finds the views and functions that a text names, and those that these name. `sqlite`
//! needs only that, because SQLite reports each table.
//!
//! ```text
//! reason, effects, mentions_any ─▶ mysql, postgresql, sqlite ─▶ dependencies ─▶ names
//!                                     ├▶ references ─▶ tokens
//!                                     └▶ functions
//! ```
//!
//! The time for a text is linear in its length.

mod dependencies;
mod functions;
mod mysql;
mod names;
mod postgresql;
mod postgresql_queries;
mod references;
mod sqlite;
#[cfg(test)]
mod tests;
mod tokens;

use sqlflow_sql::Dialect;

use self::dependencies::{Catalog, Object, ObjectKind, dependencies};
use self::mysql::MysqlCatalog;
use self::names::Folded;
use self::postgresql::PostgresqlCatalog;
use self::sqlite::SqliteCatalog;
use crate::{Database, Error, TableName, rows};

/// The reason of a certain read.
const READS: &str = "the statement reads it";

/// The reason of a read that is possible but not certain.
fn may_read(why: &str) -> String {
    format!("the statement may read it: {why}")
}

/// Why a select reads a table, or may read it. Does not execute the select. In PostgreSQL, no transaction may be open.
///
/// # Errors
/// The database rejects the select.
pub(crate) fn reason(
    database: &mut dyn Database,
    select: &str,
    table: &TableName,
) -> Result<Option<String>, Error> {
    match database.dialect() {
        Dialect::Mysql => mysql::reason(database, select, table),
        Dialect::Postgresql => postgresql::reason(database, select, table),
        Dialect::Sqlite => sqlite::reason(database, select, table),
    }
}

/// What the functions and triggers of statements may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effects {
    /// They may create or change tables, or change how they are found. In SQLite, none can.
    pub may_change_names: bool,
    /// There is one.
    pub calls_functions: bool,
}

/// What the functions may do that statements call, and with `changes_rows` the triggers that they fire.
///
/// # Errors
/// As of [`Database::execute`].
pub fn effects(database: &mut dyn Database, selects: &[&str], changes_rows: bool) -> Result<Effects, Error> {
    let may_change_names: fn(&str) -> bool = match database.dialect() {
        // They may create temporary tables only. What they set is restored.
        Dialect::Mysql => mysql::may_change_names,
        Dialect::Postgresql => functions::may_change_names,
        Dialect::Sqlite => |_| false,
    };
    let objects = objects_of(database, selects, changes_rows)?;
    let mut functions = objects.iter().filter(|it| it.kind == ObjectKind::Function).peekable();
    Ok(Effects {
        calls_functions: functions.peek().is_some(),
        may_change_names: functions.any(|it| it.text.as_deref().is_none_or(may_change_names)),
    })
}

/// Whether a view or function that statements depend on may depend on one of these tables. One with a hidden text may.
///
/// # Errors
/// As of [`Database::execute`].
pub fn mentions_any(
    database: &mut dyn Database,
    selects: &[&str],
    changes_rows: bool,
    names: &[String],
) -> Result<bool, Error> {
    let objects = objects_of(database, selects, changes_rows)?;
    Ok(objects.iter().any(|it| {
        let text = it.text.as_deref().map(Folded::new);
        text.is_none_or(|text| names.iter().any(|name| text.mentions(name)))
    }))
}

/// The views and functions that statements depend on.
fn objects_of(
    database: &mut dyn Database,
    selects: &[&str],
    has_triggers: bool,
) -> Result<Vec<Object>, Error> {
    let start: Vec<Object> = selects.iter().map(|select| Object::select(select)).collect();
    let mut catalog: Box<dyn Catalog + '_> = match database.dialect() {
        Dialect::Mysql => Box::new(MysqlCatalog { database, has_triggers }),
        Dialect::Postgresql => Box::new(PostgresqlCatalog { database, has_triggers }),
        Dialect::Sqlite => Box::new(SqliteCatalog { database, only_tables: false }),
    };
    let mut objects = dependencies(start, &mut *catalog)?;
    objects.retain(|it| it.kind != ObjectKind::Select);
    Ok(objects)
}

/// Whether the database has any function or trigger that may change names: tables, or how they are found.
///
/// # Errors
/// As of [`Database::execute`].
pub fn has_creator(database: &mut dyn Database) -> Result<bool, Error> {
    let sql = match database.dialect() {
        Dialect::Mysql => mysql::HAS_CREATOR,
        Dialect::Postgresql => postgresql_queries::HAS_CREATOR,
        Dialect::Sqlite => return Ok(false),
    };
    Ok(!rows(database, sql)?.is_empty())
}

/// Whether the creation of a table may call a function of the user.
///
/// # Errors
/// As of [`Database::execute`].
pub fn has_event_triggers(database: &mut dyn Database) -> Result<bool, Error> {
    match database.dialect() {
        Dialect::Postgresql => Ok(!rows(database, postgresql_queries::HAS_EVENT_TRIGGERS)?.is_empty()),
        Dialect::Mysql | Dialect::Sqlite => Ok(false),
    }
}
