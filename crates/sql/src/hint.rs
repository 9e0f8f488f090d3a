//! Hints for standard statements that another database has: what to write in this one. Such a statement goes to the
//! database as it is, and the hint is shown if the database rejects it.

use super::dialect::Dialect;
use super::scanner::Token;
use super::suggest::nearest;
use super::tokens::Tokens;

/// Tokens of a statement that are looked at.
const MAX_TOKENS: usize = 1000;
/// SQLFlow's own statements, which a misspelt word makes standard ones, and whether a name follows.
const OWN: [(&str, &str, bool); 3] =
    [("SHOW", "MODELS", false), ("SHOW", "TRAIN", true), ("DESCRIBE", "MODEL", true)];

/// What to write instead of a statement that is not of this dialect, such as `SHOW TABLES` in SQLite.
#[must_use]
pub fn hint(sql: &str, dialect: Dialect) -> Option<String> {
    let mut tokens = Tokens::new(sql, dialect);
    let first = tokens.next()?;
    let rest: Vec<Token<'_>> = tokens.take(MAX_TOKENS).collect();
    if first.is_symbol('.') || first.is_symbol('\\') {
        return Some(format!("commands of a database's own shell are no SQL; {}", listing(dialect)));
    }
    let what = rest.iter().find(|word| !word.is_one_of(&["FULL", "EXTENDED"]));
    let has_name = rest.get(1).is_some_and(|it| !it.is_symbol(';'));
    let own = OWN.iter().find(|(verb, name, is_followed)| {
        let is_near = what.is_some_and(|word| nearest(word.text, &[name]).is_some());
        first.is(verb) && is_near && has_name == *is_followed
    });
    if let Some((verb, name, _)) = own {
        return Some(format!("did you mean {verb} {name}?"));
    }
    let is = |words: &[&str]| what.is_some_and(|word| word.is_one_of(words));
    if first.is("SHOW") && !matches!(dialect, Dialect::Mysql) {
        let (name, instead) = match () {
            () if is(&["TABLES", "VIEWS"]) => ("SHOW TABLES", tables(dialect)),
            () if is(&["DATABASES", "SCHEMAS"]) => ("SHOW DATABASES", databases(dialect)),
            () if is(&["COLUMNS", "FIELDS"]) => ("SHOW COLUMNS", columns(dialect)),
            () if is(&["INDEX", "INDEXES", "KEYS"]) => ("SHOW INDEX", indexes(dialect)),
            () if is(&["CREATE"]) => ("SHOW CREATE", definition(dialect)),
            // PostgreSQL's settings.
            () if dialect == Dialect::Postgresql => return None,
            () => ("SHOW", tables(dialect)),
        };
        return Some(absent(dialect, name, instead));
    }
    // Before a select these are EXPLAIN.
    let is_describe = first.is_one_of(&["DESCRIBE", "DESC"]) && !is(&["SELECT", "WITH"]);
    match dialect {
        Dialect::Sqlite | Dialect::Postgresql if is_describe => {
            Some(absent(dialect, "DESCRIBE", columns(dialect)))
        }
        Dialect::Sqlite | Dialect::Postgresql if first.is("USE") => {
            Some(format!("{} has no USE: the data source names the database", name(dialect)))
        }
        Dialect::Mysql | Dialect::Postgresql if first.is("PRAGMA") => {
            Some(format!("{} has no PRAGMA; {}", name(dialect), listing(dialect)))
        }
        Dialect::Mysql | Dialect::Postgresql
            if rest.iter().any(|it| it.is_one_of(&["sqlite_master", "sqlite_schema"])) =>
        {
            Some(absent(dialect, "sqlite_master", tables(dialect)))
        }
        Dialect::Sqlite if rest.iter().any(|it| it.is("information_schema")) => {
            Some(absent(dialect, "information_schema", tables(dialect)))
        }
        Dialect::Mysql | Dialect::Postgresql | Dialect::Sqlite => None,
    }
}

fn absent(dialect: Dialect, what: &str, instead: &str) -> String {
    format!("{} has no {what}; write {instead}", name(dialect))
}

/// How to see tables and columns.
fn listing(dialect: Dialect) -> String {
    format!("write {} for the tables, {} for the columns of one", tables(dialect), columns(dialect))
}

const fn name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "MySQL",
        Dialect::Postgresql => "PostgreSQL",
        Dialect::Sqlite => "SQLite",
    }
}

const fn tables(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "SHOW TABLES",
        Dialect::Postgresql => {
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        }
        Dialect::Sqlite => "SELECT type, name FROM sqlite_master",
    }
}

const fn databases(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "SHOW DATABASES",
        Dialect::Postgresql => "SELECT datname FROM pg_database",
        Dialect::Sqlite => "PRAGMA database_list",
    }
}

const fn columns(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "DESCRIBE t",
        Dialect::Postgresql => {
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 't'"
        }
        Dialect::Sqlite => "PRAGMA table_info(t)",
    }
}

const fn indexes(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "SHOW INDEX FROM t",
        Dialect::Postgresql => "SELECT indexdef FROM pg_indexes WHERE tablename = 't'",
        Dialect::Sqlite => "PRAGMA index_list(t)",
    }
}

const fn definition(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "SHOW CREATE TABLE t",
        Dialect::Postgresql => columns(dialect),
        Dialect::Sqlite => "SELECT sql FROM sqlite_master WHERE name = 't'",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_other_databases_get_what_works_here() {
        use Dialect::{Mysql, Postgresql, Sqlite};
        for (dialect, sql, expected) in [
            (Sqlite, "SHOW TABLES", "SQLite has no SHOW TABLES; write SELECT type, name FROM sqlite_master"),
            (Sqlite, "/* x */ show full tables;", "SQLite has no SHOW TABLES; write SELECT"),
            (Sqlite, "SHOW DATABASES;", "write PRAGMA database_list"),
            (Sqlite, "DESCRIBE iris", "SQLite has no DESCRIBE; write PRAGMA table_info(t)"),
            (Sqlite, "desc iris", "write PRAGMA table_info(t)"),
            (Sqlite, "SHOW COLUMNS FROM iris", "write PRAGMA table_info(t)"),
            (Sqlite, "SHOW CREATE TABLE iris", "write SELECT sql FROM sqlite_master"),
            (Sqlite, "SHOW INDEXES FROM iris", "write PRAGMA index_list(t)"),
            (Sqlite, "SHOW VARIABLES", "SQLite has no SHOW; write SELECT type, name"),
            (Sqlite, "SELECT * FROM information_schema.tables", "has no information_schema; write SELECT"),
            (Sqlite, ".tables", "shell are no SQL; write SELECT type, name"),
            (Sqlite, "USE shop", "SQLite has no USE: the data source names the database"),
            (Postgresql, "SHOW TABLES", "PostgreSQL has no SHOW TABLES; write SELECT table_name"),
            (Postgresql, "SHOW DATABASES", "write SELECT datname FROM pg_database"),
            (Postgresql, "SHOW COLUMNS FROM t", "information_schema.columns WHERE table_name = 't'"),
            (Postgresql, "DESCRIBE t", "PostgreSQL has no DESCRIBE; write SELECT column_name"),
            (Postgresql, "\\d t", "shell are no SQL; write SELECT table_name"),
            (Postgresql, "SELECT * FROM sqlite_master", "has no sqlite_master; write SELECT table_name"),
            (
                Mysql,
                "PRAGMA table_info(t)",
                "MySQL has no PRAGMA; write SHOW TABLES for the tables, DESCRIBE t",
            ),
            (Mysql, "SELECT name FROM sqlite_master", "MySQL has no sqlite_master; write SHOW TABLES"),
            (Mysql, "SHOW MODLES", "did you mean SHOW MODELS?"),
            (Sqlite, "SHOW MODEL;", "did you mean SHOW MODELS?"),
            (Postgresql, "SHOW TRIAN m", "did you mean SHOW TRAIN?"),
            (Sqlite, "DESCRIBE models;", "write PRAGMA table_info(t)"),
            (Sqlite, "DESCRIBE MODLE m", "did you mean DESCRIBE MODEL?"),
        ] {
            let hint = hint(sql, dialect).unwrap_or_else(|| panic!("{sql} in {dialect}"));
            assert!(hint.contains(expected), "{sql} in {dialect}: {hint}");
        }
    }

    #[test]
    fn statements_of_this_database_get_none() {
        use Dialect::{Mysql, Postgresql, Sqlite};
        for (dialect, sql) in [
            (Mysql, "SHOW TABLES"),
            (Mysql, "SHOW TABLE STATUS"),
            (Mysql, "DESCRIBE t"),
            (Mysql, "USE shop"),
            (Postgresql, "SHOW search_path"),
            (Postgresql, "SHOW time zone"),
            (Sqlite, "SELECT 1"),
            (Sqlite, "SELECT 'SHOW TABLES', 'information_schema'"),
            (Sqlite, "PRAGMA table_info(iris)"),
            (Sqlite, ""),
        ] {
            assert_eq!(hint(sql, dialect), None, "{sql} in {dialect}");
        }
    }
}
