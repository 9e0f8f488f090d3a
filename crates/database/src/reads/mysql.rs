//! MySQL and MariaDB: finds the tables that a select reads.
//!
//! The optimizer's trace begins with each SELECT as parsed, before optimization. MariaDB's trace has the names of
//! tables without their databases. So a table is read if two conditions hold: the trace has a table of this name, and
//! the select or a view that it depends on has the name where it can mean this table. If the server has no trace, or
//! the user may not see it, the second condition alone decides. The texts of stored functions are searched, too.

use std::rc::Rc;

use super::dependencies::{Catalog, Lookup, Object, ObjectKind, dependencies, function_reason};
use super::references::{Wanted, has_table, may_refer_to};
use super::tokens::Escapes;
use super::{READS, may_read};
use crate::form::from_each_word;
use crate::mysql::literal;
use crate::{Database, Discard, Error, ErrorKind, TableName, rows};

/// Whether a function or trigger has what the text of one has that may create or drop a temporary table. For the text
/// of a function that this user cannot see, there is NULL.
pub(super) const HAS_CREATOR: &str = "
(SELECT 1 FROM information_schema.triggers WHERE lower(action_statement) REGEXP 'create|drop' LIMIT 1)
UNION ALL
(SELECT 1 FROM information_schema.routines WHERE routine_type <> 'PROCEDURE' AND routine_schema <> 'sys'
  AND coalesce(lower(routine_definition), 'create') REGEXP 'create|drop' LIMIT 1)";

/// Maximum size of a trace.
const TRACE_BYTES: usize = 16 << 20;

/// Why a select reads a table.
pub(super) fn reason(
    database: &mut dyn Database,
    select: &str,
    table: &TableName,
) -> Result<Option<String>, Error> {
    let session = rows(database, "SELECT DATABASE(), @@sql_mode")?;
    let mut session = session.into_iter().flatten().map(Option::unwrap_or_default);
    let (default, mode) = (session.next().unwrap_or_default(), session.next().unwrap_or_default());
    let schema = table.schema.as_deref().unwrap_or(&default);
    let parsed = parsed_selects(database, select)?;
    let mut catalog = MysqlCatalog { database, has_triggers: false };
    let objects = dependencies(vec![Object::select(select)], &mut catalog)?;
    let is_parsed = parsed.as_ref().is_none_or(|it| it.iter().any(|text| has_table(text, &table.name)));
    for it in &objects {
        if it.kind == ObjectKind::View && it.text().is_empty() {
            return Ok(Some(may_read(&format!("this user cannot see the text of view {}", it.name))));
        }
        // A name without a database means the view's own database.
        let own_schema = it.name.split('.').next().filter(|_| it.kind == ObjectKind::View);
        let wanted = Wanted {
            schema,
            name: &table.name,
            default_schema: own_schema.unwrap_or(&default),
            escapes: Escapes::of_mode(&mode),
        };
        if is_parsed && it.kind != ObjectKind::Function && may_refer_to(it.text(), wanted) {
            let possibly = || may_read(&format!("{} names it", it.title()));
            return Ok(Some(if parsed.is_some() { READS.to_owned() } else { possibly() }));
        }
    }
    Ok(function_reason(&objects, &table.name))
}

/// The views and stored functions in all databases.
pub(super) struct MysqlCatalog<'a> {
    pub(super) database: &'a mut dyn Database,
    /// Whether the triggers of tables count as functions.
    pub(super) has_triggers: bool,
}

impl Catalog for MysqlCatalog<'_> {
    fn find(&mut self, lookup: &Lookup<'_>) -> Result<Vec<Object>, Error> {
        let (names, calls) = (list(lookup.names), list(lookup.calls));
        // The server opens each table that it describes, and views are slow: ask only for these names.
        let named = rows(
            self.database,
            &format!(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'VIEW' AND \
                 table_name IN ({names})"
            ),
        )?;
        let mut found = Vec::new();
        for (schema, name) in named.into_iter().filter_map(pair) {
            let (Some(schema), Some(name)) = (schema, name) else { continue };
            let text = self.view_text(&schema, &name)?;
            found.push(Object::view(format!("{schema}.{name}"), text));
        }
        // In MariaDB, the functions of a package are in the package's text.
        let mut functions = format!(
            "SELECT CONCAT(routine_schema, '.', routine_name), routine_definition FROM information_schema.routines \
             WHERE routine_name IN ({calls}) OR (routine_type LIKE 'PACKAGE%' AND routine_name IN ({names}))"
        );
        if self.has_triggers && !lookup.names.is_empty() {
            functions += &format!(
                " UNION ALL SELECT CONCAT('trigger ', trigger_schema, '.', trigger_name), action_statement FROM \
                 information_schema.triggers WHERE event_object_table IN ({names})"
            );
        }
        let functions = rows(self.database, &functions)?;
        let function = |(name, text): (Option<String>, _)| Object::function(name.unwrap_or_default(), text);
        found.extend(functions.into_iter().filter_map(pair).map(function));
        Ok(found)
    }
}

impl MysqlCatalog<'_> {
    /// The text of a view. `None`: this user cannot see it.
    fn view_text(&mut self, schema: &str, name: &str) -> Result<Option<String>, Error> {
        let sql = format!(
            "SELECT view_definition FROM information_schema.views WHERE table_schema = {} AND table_name = {}",
            literal(schema),
            literal(name)
        );
        let found = rows(self.database, &sql)?.into_iter().flatten().flatten().next();
        Ok(found.filter(|text| !text.is_empty()))
    }
}

/// Whether a function or trigger may create or drop a temporary table.
pub(super) fn may_change_names(text: &str) -> bool {
    from_each_word(text).any(|mut form| form.word("CREATE") || form.word("DROP"))
}

fn pair(row: Vec<Option<String>>) -> Option<(Option<String>, Option<String>)> {
    let [first, second] = <[_; 2]>::try_from(row).ok()?;
    Some((first, second))
}

fn list(names: &[Rc<str>]) -> String {
    let literals: Vec<_> = names.iter().map(|name| literal(name)).collect();
    if literals.is_empty() { "NULL".to_owned() } else { literals.join(", ") }
}

/// Each SELECT within a select, as the server parsed it. `None`: the server does not show it.
fn parsed_selects(database: &mut dyn Database, select: &str) -> Result<Option<Vec<String>>, Error> {
    match traced(database, select) {
        Err(error) if error.kind == ErrorKind::User => Ok(None),
        other => other,
    }
}

fn traced(database: &mut dyn Database, select: &str) -> Result<Option<Vec<String>>, Error> {
    let on = format!("SET optimizer_trace = 'enabled=on', optimizer_trace_max_mem_size = {TRACE_BYTES}");
    database.execute(&on, &mut Discard)?;
    let trace = database.execute(&format!("EXPLAIN {select}"), &mut Discard).and_then(|()| {
        // A statement with a variable is not prepared: that might be traced, too.
        let variable = "@sqlflow_no_such_variable IS NULL";
        rows(
            database,
            &format!(
                "SELECT trace, missing_bytes_beyond_max_mem_size + insufficient_privileges FROM \
                 information_schema.optimizer_trace WHERE {variable}"
            ),
        )
    });
    database.execute("SET optimizer_trace = 'enabled=off'", &mut Discard)?;
    let mut trace = trace?.into_iter();
    Ok(match (trace.next().as_deref(), trace.next()) {
        (Some([Some(trace), Some(missing)]), None) if missing == "0" => expanded_queries(trace),
        _ => None,
    })
}

/// Each SELECT in a trace, which is a JSON text. `None`: there is none.
fn expanded_queries(trace: &str) -> Option<Vec<String>> {
    // Within a text, the quotes would be escaped.
    let values = trace.split("\"expanded_query\"").skip(1).map(|after| {
        let value = after.trim_start().strip_prefix(':')?;
        serde_json::Deserializer::from_str(value).into_iter::<String>().next()?.ok()
    });
    values.collect::<Option<Vec<_>>>().filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_of_a_trace_are_found() {
        let trace =
            r#"[{"x": {"expanded_query": "select \"expanded_query\" \u00e9"}}, {"expanded_query" : "b"}]"#;
        assert_eq!(expanded_queries(trace).unwrap(), ["select \"expanded_query\" é", "b"]);
        for wrong in ["", "{}", r#"{"expanded_query": 1}"#, r#"{"expanded_query": "a}"#] {
            assert_eq!(expanded_queries(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn functions_that_create_or_drop_tables_are_recognized() {
        for text in ["begin CREATE temporary table t (a int); end", "drop"] {
            assert!(may_change_names(text), "{text}");
        }
        for text in ["SELECT created, dropped, _drop FROM t", ""] {
            assert!(!may_change_names(text), "{text}");
        }
    }
}
