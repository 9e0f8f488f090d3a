//! PostgreSQL: finds the tables that a select reads.
//!
//! A view of the select is created in a transaction that is rolled back. In it, PostgreSQL's catalog lists what the
//! parsed select depends on: tables, views and functions. Functions with a body in standard SQL are listed in the same
//! way. The texts of all other functions are searched.

use std::rc::Rc;

use super::dependencies::{Catalog, Lookup, Object, ObjectKind, dependencies, function_reason};
use super::functions::{has_in_string, may_compose, running_function};
use super::names::mentions;
use super::postgresql_queries::{self as queries, VIEW};
use super::{READS, may_read};
use crate::postgresql::literal;
use crate::{Database, Discard, Error, ErrorKind, TableName, rows};

/// Why a select reads a table. No transaction may be open.
pub(super) fn reason(
    database: &mut dyn Database,
    select: &str,
    table: &TableName,
) -> Result<Option<String>, Error> {
    database.execute("BEGIN", &mut Discard)?;
    let behind = objects_behind(database, select, table);
    if let Err(error) = &behind
        && error.kind != ErrorKind::User
    {
        return Err(error.clone());
    }
    database.execute("ROLLBACK", &mut Discard)?;
    let mut catalog = PostgresqlCatalog { database, has_triggers: false };
    match behind {
        Ok(Behind::Table) => Ok(Some(READS.to_owned())),
        Ok(Behind::Objects(objects)) => reason_of_objects(&mut catalog, select, objects, &table.name),
        // For example, the user may not create temporary objects. Then every use of the name counts.
        Err(_) => {
            let objects = dependencies(vec![Object::select(select)], &mut catalog)?;
            let names = objects.iter().find(|it| mentions(it.text(), &table.name));
            Ok(names.map(|it| match it.kind {
                ObjectKind::Select => may_read("it names it"),
                ObjectKind::View | ObjectKind::Function => may_read(&format!("{} names it", it.title())),
            }))
        }
    }
}

/// What a select depends on.
enum Behind {
    /// The table is among it.
    Table,
    /// Views and functions.
    Objects(Vec<Object>),
}

fn objects_behind(database: &mut dyn Database, select: &str, table: &TableName) -> Result<Behind, Error> {
    // As a subquery, because a view cannot have a column twice. The newline ends a comment.
    let view = format!("CREATE TEMP VIEW {VIEW} AS SELECT 1 AS one FROM ({select}\n) AS sqlflow_select");
    database.execute(&view, &mut Discard)?;
    let schema = table.schema.iter().flat_map(|it| it.split('.'));
    let parts: Vec<_> = schema.chain([table.name.as_str()]).map(|it| database.quote(it)).collect();
    let mut objects = Vec::new();
    for row in rows(database, &queries::behind_view(&literal(&parts.join("."))))? {
        match object(row) {
            Some(Row::Table { is_wanted: true }) => return Ok(Behind::Table),
            Some(Row::Object(object)) => objects.push(object),
            Some(Row::Table { is_wanted: false }) | None => {}
        }
    }
    Ok(Behind::Objects(objects))
}

/// A row of a query of the catalog.
enum Row {
    Table { is_wanted: bool },
    Object(Object),
}

fn object(row: Vec<Option<String>>) -> Option<Row> {
    let [kind, name, text] = <[_; 3]>::try_from(row).ok()?;
    let name = name.unwrap_or_default();
    Some(match kind?.as_str() {
        "table" => Row::Table { is_wanted: name == "true" },
        "view" => Row::Object(Object::view(name, text)),
        _ => Row::Object(Object::function(name, text)),
    })
}

/// Why one of the views and functions behind a select reads a table.
fn reason_of_objects(
    catalog: &mut PostgresqlCatalog<'_>,
    select: &str,
    objects: Vec<Object>,
    table: &str,
) -> Result<Option<String>, Error> {
    let (functions, views): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|it| it.kind == ObjectKind::Function);
    let texts = || [select].into_iter().chain(views.iter().map(Object::text));
    let (shown, hidden): (Vec<_>, Vec<_>) = functions.into_iter().partition(|it| it.text.is_some());
    let opaque = hidden.first().map(|it| it.name.as_str()).or_else(|| texts().find_map(running_function));
    let in_string = || texts().any(|text| has_in_string(text, table));
    if let Some(name) = opaque
        && (mentions(select, table) || in_string())
    {
        return Ok(Some(may_read(&format!("{name} may run a text, and the select names it"))));
    }
    let known = dependencies(shown, catalog)?;
    let mut functions = known.iter().filter(|it| it.kind == ObjectKind::Function);
    if let Some(it) = functions.find(|it| may_compose(it.text()))
        && in_string()
    {
        let why = format!("function {} may run a text, and a text of the select names it", it.name);
        return Ok(Some(may_read(&why)));
    }
    Ok(function_reason(&known, table))
}

/// The views and functions, without those of PostgreSQL itself.
pub(super) struct PostgresqlCatalog<'a> {
    pub(super) database: &'a mut dyn Database,
    /// Whether the functions count that PostgreSQL calls when rows of a table change, and rules, without a text. They
    /// belong to triggers, defaults, constraints, policies and indexes, also of tables that inherit, and of tables
    /// whose foreign keys refer to it.
    pub(super) has_triggers: bool,
}

impl Catalog for PostgresqlCatalog<'_> {
    fn find(&mut self, lookup: &Lookup<'_>) -> Result<Vec<Object>, Error> {
        let names = list(lookup.names);
        let mut found = rows(self.database, &queries::named(&names, &list(lookup.calls)))?;
        if self.has_triggers && !lookup.names.is_empty() {
            found.extend(rows(self.database, &queries::called(&names))?);
        }
        let objects = found.into_iter().filter_map(object).filter_map(|row| match row {
            Row::Object(object) => Some(object),
            Row::Table { .. } => None,
        });
        Ok(objects.collect())
    }
}

fn list(names: &[Rc<str>]) -> String {
    let literals: Vec<_> = names.iter().map(|name| literal(name)).collect();
    format!("({})", if literals.is_empty() { "NULL".to_owned() } else { literals.join(", ") })
}
