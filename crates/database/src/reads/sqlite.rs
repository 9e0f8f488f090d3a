//! SQLite: finds the views and tables that a select names.
//!
//! SQLite itself reports which tables a select reads, but not those of parts that its parser removes, such as
//! `0 AND EXISTS (…)`. So the tables of FROM clauses are also searched in the texts of the select and of its views.

use std::borrow::Cow;
use std::collections::HashSet;

use super::READS;
use super::dependencies::{Catalog, Lookup, Object, dependencies};
use super::tokens::{Tokens, ascii_folded};
use crate::{Database, Error, TableName, rows};

/// Words that end a FROM clause.
const ENDS_FROM: [&str; 11] = [
    "where",
    "group",
    "having",
    "order",
    "limit",
    "union",
    "intersect",
    "except",
    "select",
    "values",
    "window",
];

/// A table or view in a FROM clause or after IN, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct NamedTable<'a> {
    schema: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
}

/// Why a select reads a table.
pub(super) fn reason(
    database: &mut dyn Database,
    select: &str,
    table: &TableName,
) -> Result<Option<String>, Error> {
    let schema = ascii_folded(table.schema.as_deref().unwrap_or("main"));
    let name = ascii_folded(&table.name);
    let read = database.tables_read(select)?;
    let is_read =
        read.iter().any(|(in_schema, it)| ascii_folded(in_schema) == schema && ascii_folded(it) == name);
    let is_named = is_read || names_table(database, select, &schema, &name)?;
    Ok(is_named.then(|| READS.to_owned()))
}

/// The views. SQLite has no stored functions.
pub(super) struct SqliteCatalog<'a> {
    pub(super) database: &'a mut dyn Database,
    /// Whether only the tables count that a text names, and no other words.
    pub(super) only_tables: bool,
}

impl Catalog for SqliteCatalog<'_> {
    fn find(&mut self, lookup: &Lookup<'_>) -> Result<Vec<Object>, Error> {
        if lookup.names.is_empty() {
            return Ok(Vec::new());
        }
        let literals = lookup.names.iter().map(|name| crate::sqlite::literal(name));
        let literals = literals.collect::<Vec<_>>().join(", ");
        let mut found = Vec::new();
        for schema in ["main", "temp"] {
            let sql = format!(
                "SELECT name, sql FROM {schema}.sqlite_master WHERE type = 'view' AND lower(name) IN ({literals})"
            );
            for row in rows(self.database, &sql)? {
                let mut row = row.into_iter().map(Option::unwrap_or_default);
                let name = format!("{schema}.{}", row.next().unwrap_or_default());
                found.push(Object::view(name, Some(row.next().unwrap_or_default())));
            }
        }
        Ok(found)
    }

    fn names<'a>(&self, text: &'a str) -> Vec<Cow<'a, str>> {
        if self.only_tables {
            return named_tables(text).into_iter().map(|it| it.name).collect();
        }
        // No setting changes where a name begins and ends.
        let tokens = Tokens::of_sqlite(text);
        let names = (0..tokens.len()).filter(|it| tokens.is_any_name(*it) && !tokens.is_number(*it));
        names.map(|place| tokens.name(place)).collect()
    }
}

/// Whether a select names a table, or a view that it depends on does. Schema and name are in lower case.
fn names_table(database: &mut dyn Database, select: &str, schema: &str, name: &str) -> Result<bool, Error> {
    let mut catalog = SqliteCatalog { database, only_tables: true };
    let objects = dependencies(vec![Object::select(select)], &mut catalog)?;
    Ok(objects.iter().any(|object| {
        // What a temporary view names may also be in the main database.
        let schemas = if object.name.starts_with("temp.") { ["temp", "main"] } else { ["main", ""] };
        let is_in = |it: &NamedTable<'_>| match &it.schema {
            Some(own) => own == schema,
            None => schemas.contains(&schema),
        };
        named_tables(object.text()).iter().any(|it| it.name == name && is_in(it))
    }))
}

/// The tables that a text names. A name that a WITH clause of it defines is not one.
pub(super) fn named_tables(text: &str) -> HashSet<NamedTable<'_>> {
    let tokens = Tokens::of_sqlite(text);
    let defined = defined_names(&tokens);
    let mut found = tables_of_from_clauses(&tokens);
    found.retain(|it| it.schema.is_some() || !defined.contains(&it.name));
    found
}

fn tables_of_from_clauses<'a>(tokens: &Tokens<'a>) -> HashSet<NamedTable<'a>> {
    let mut found = HashSet::new();
    // For each open parenthesis: whether this place is in a FROM clause.
    let mut is_from = vec![false];
    // Whether a table or a parenthesis with tables comes next.
    let mut is_next = false;
    for place in 0..tokens.len() {
        let innermost = is_from.len() - 1;
        if tokens.is_sign(place, "(") {
            is_from.push(is_next);
        } else if tokens.is_sign(place, ")") {
            if innermost > 0 {
                is_from.pop();
            }
            is_next = false;
        } else if tokens.is_word(place, &["from", "join"]) {
            // `a IS DISTINCT FROM b` has no table.
            if place == 0 || !tokens.is_word(place - 1, &["distinct"]) {
                (is_from[innermost], is_next) = (true, true);
            }
        } else if tokens.is_word(place, &["in"]) {
            // `x IN t`
            is_next |= tokens.is_any_name(place + 1);
        } else if tokens.is_sign(place, ",") {
            is_next = is_from[innermost];
        } else if tokens.is_word(place, &ENDS_FROM) {
            (is_from[innermost], is_next) = (false, false);
        } else if is_next && tokens.is_any_name(place) {
            let has_schema = tokens.is_sign(place + 1, ".") && tokens.is_any_name(place + 2);
            found.insert(if has_schema {
                NamedTable { schema: Some(tokens.name(place)), name: tokens.name(place + 2) }
            } else {
                NamedTable { schema: None, name: tokens.name(place) }
            });
            is_next = false;
        }
    }
    found
}

/// The names that WITH clauses define: `WITH name AS (`, with columns or MATERIALIZED perhaps.
fn defined_names<'a>(tokens: &Tokens<'a>) -> HashSet<Cow<'a, str>> {
    let mut found = HashSet::new();
    // The next parenthesis that closes.
    let mut closing = tokens.len();
    for place in (0..tokens.len()).rev() {
        if tokens.is_sign(place, ")") {
            closing = place;
        }
        let follows = place.checked_sub(1).is_some_and(|before| {
            tokens.is_word(before, &["with", "recursive"]) || tokens.is_sign(before, ",")
        });
        if !follows || !tokens.is_any_name(place) {
            continue;
        }
        let after = if tokens.is_sign(place + 1, "(") { closing + 1 } else { place + 1 };
        if tokens.is_word(after, &["as"]) {
            let hints = (1..3).take_while(|it| tokens.is_word(after + it, &["not", "materialized"])).count();
            if tokens.is_sign(after + 1 + hints, "(") {
                found.insert(tokens.name(place));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(text: &str) -> Vec<String> {
        let schema = |it: &NamedTable<'_>| it.schema.as_ref().map(|it| format!("{it}.")).unwrap_or_default();
        let mut found: Vec<_> = named_tables(text).iter().map(|it| schema(it) + &it.name).collect();
        found.sort();
        found
    }

    #[test]
    fn tables_of_from_clauses_are_found() {
        for (text, expected) in [
            ("SELECT a FROM T, 'u', [v w], main.\"x\"\"y\" z", &["main.x\"y", "t", "u", "v w"][..]),
            ("SELECT a FROM ((t LEFT JOIN `u`) JOIN (v)), w WHERE x, y", &["t", "u", "v", "w"]),
            ("SELECT a, b FROM t WHERE a IS NOT DISTINCT FROM b", &["t"]),
            ("SELECT 1 WHERE a IN t AND b IN (u) AND c IN ('x', d) AND e NOT IN main.w", &["main.w", "t"]),
            ("SELECT 'FROM x', \"FROM y\" FROM t -- FROM z\n, u /* , w", &["t", "u"]),
            (
                "WITH a(b, c) AS NOT MATERIALIZED (SELECT 1), d AS (SELECT 1) SELECT * FROM a, d, main.d, e",
                &["e", "main.d"],
            ),
            ("SELECT (SELECT 1 FROM t), u, v", &["t"]),
            ("CREATE VIEW v AS SELECT * FROM t UNION SELECT 1, 2", &["t"]),
            ("VALUES (1, 2)", &[]),
            ("", &[]),
        ] {
            assert_eq!(named(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z'\"`\\[\\](),.*/\\\\ \nä😀-]{0,60}", words in proptest::collection::vec(
            prop::sample::select(vec!["with", "from", "t", "in", "as", "not", "(", ")", ",", ".", "where", "["]), 0..40
        )) {
            let _ = (named_tables(&text), named_tables(&words.join(" ")));
        }
    }
}
