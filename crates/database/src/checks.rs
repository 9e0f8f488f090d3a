//! What databases have in common when they check statements that they do not execute.

use std::borrow::Cow;

use sqlflow_sql::Dialect;

use crate::form::{Form, from_each_word};
use crate::{Column, Error, ErrorKind};

/// First words of statements that all databases can prepare without executing them.
const PREPARED: [&str; 10] =
    ["SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"];

/// The creation of a table or view of a select, without a further clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Creation<'a> {
    pub(crate) select: &'a str,
    pub(crate) is_view: bool,
}

/// The creation that a statement is. The database analyses the select when it creates a table of it.
pub(crate) fn creation(sql: &str) -> Option<Creation<'_>> {
    let mut form = Form::new(sql);
    let is_creation = form.keyword("CREATE") && (!form.keyword("OR") || form.keyword("REPLACE"));
    let _ = form.keyword("TEMP") || form.keyword("TEMPORARY") || form.keyword("UNLOGGED");
    let is_view = form.keyword("VIEW");
    let has_name = (is_view || form.keyword("TABLE")) && form.quotable_name();
    let is_of_select = is_creation && has_name && form.space() && form.keyword("AS");
    let select = form.rest();
    let has_select = is_of_select && (form.word("SELECT") || form.word("WITH")) && !has_clause(form.rest());
    has_select.then_some(Creation { select, is_view })
}

/// Whether a clause of the creation follows a select: `WITH NO DATA`, `WITH CHECK OPTION`.
fn has_clause(text: &str) -> bool {
    from_each_word(text).any(|mut form| {
        let follows = ["DATA", "CHECK", "CASCADED", "LOCAL"];
        form.keyword("WITH")
            && (follows.iter().any(|word| form.word(word)) || (form.keyword("NO") && form.word("DATA")))
    })
}

/// The part of a statement that the database can prepare without executing it. Its lines have the same numbers.
pub(crate) fn prepared_part(sql: &str, dialect: Dialect) -> Option<Cow<'_, str>> {
    if let Some(Creation { select, .. }) = creation(sql) {
        let lines = sql[..sql.len() - select.len()].matches('\n').count();
        // MySQL does not count empty lines at the beginning.
        let before = if lines > 0 { format!("/**/{}", "\n".repeat(lines)) } else { String::new() };
        return Some(Cow::Owned(before + select));
    }
    is_prepared(sql, dialect).then_some(Cow::Borrowed(sql))
}

/// Whether all databases can prepare a statement without executing it.
pub(crate) fn is_prepared(sql: &str, dialect: Dialect) -> bool {
    let word = sqlflow_sql::leading_words(sql, dialect, 1);
    word.first().is_some_and(|word| PREPARED.contains(&word.as_str()))
}

/// The error of a statement whose syntax is wrong, and not any other that the user can correct.
pub(crate) fn only_syntax(described: Result<Vec<Column>, Error>) -> Result<(), Error> {
    match described {
        Err(error) if error.is_syntax || error.kind != ErrorKind::User => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_of_selects_are_recognized() {
        for (sql, select, is_view) in [
            ("CREATE TABLE t AS SELECT 1", "SELECT 1", false),
            (
                " create or  replace\nTEMP view \"a b\".`c` as WITH q AS (SELECT 1) SELECT * FROM q",
                "WITH",
                true,
            ),
            ("CREATE UNLOGGED TABLE s.t AS\n\nselect\n1", "select\n1", false),
            ("CREATE TEMPORARY TABLE t AS SELECT 'NO DATA', withno FROM data", "SELECT", false),
            ("CREATE TABLE t AS SELECT 1 WITH (NO DATA)", "SELECT", false),
            ("CREATE TABLE t AS SELECT 1 WITH DATABASE", "SELECT", false),
        ] {
            let found = creation(sql).unwrap_or_else(|| panic!("{sql}"));
            assert!(found.select.starts_with(select) && found.is_view == is_view, "{sql}: {found:?}");
        }
        for sql in [
            "CREATE TABLE t (a INT)",
            "CREATE TABLE t (a) AS SELECT 1",
            "CREATE TABLE IF NOT EXISTS t AS SELECT 1",
            "CREATE OR TABLE t AS SELECT 1",
            "CREATE MATERIALIZED VIEW t AS SELECT 1",
            "CREATE TABLE t AS SELECTED",
            "CREATE TABLE t AS TABLE s",
            "CREATE TABLE t AS SELECT 1 WITH NO  DATA",
            "CREATE TABLE t AS SELECT 1 with\ndata",
            "CREATE VIEW t AS SELECT 1 WITH CASCADED CHECK OPTION",
            "CREATE VIEW t AS SELECT 1 WITH CHECK OPTION",
            "CREATE VIEW t AS SELECT 1 WITH LOCAL CHECK OPTION",
            "SELECT 1",
            "",
        ] {
            assert_eq!(creation(sql), None, "{sql}");
        }
    }

    #[test]
    fn prepared_parts_keep_their_lines() {
        let part = |sql| prepared_part(sql, Dialect::Postgresql);
        assert_eq!(part("CREATE TABLE t\nAS\nSELECT 1,\n2").unwrap(), "/**/\n\nSELECT 1,\n2");
        assert_eq!(part("CREATE TABLE t AS SELECT 1").unwrap(), "SELECT 1");
        for sql in ["-- x\n (SELECT 1)", "insert into t values (1)", "EXPLAIN DROP TABLE t"] {
            assert_eq!(part(sql).unwrap(), sql);
        }
        for sql in ["DROP TABLE t", "CREATE TABLE t (a INT)", "", "'SELECT'"] {
            assert_eq!(part(sql), None, "{sql}");
        }
    }
}
