//! What selects read and depend on, asked of real databases.

mod mysql;
mod postgresql;
mod sqlite;

use super::{reason, *};
use crate::test_servers::run;

const READ_IT: &str = "the statement reads it";

/// Creates the tables `source`, `other` and `outcome`.
fn set_up(database: &mut dyn Database) {
    for table in ["source", "other", "outcome"] {
        run(database, &format!("CREATE TABLE {table} (a INT, y INT)"));
        run(database, &format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"));
    }
}

/// Why a select reads the table `outcome`.
fn why(database: &mut dyn Database, select: &str) -> Option<String> {
    why_table(database, select, &TableName::parse("outcome"))
}

fn why_table(database: &mut dyn Database, select: &str, table: &TableName) -> Option<String> {
    reason(database, select, table).unwrap_or_else(|error| panic!("{select}: {error}"))
}

fn assert_reads(database: &mut dyn Database, selects: &[&str]) {
    for select in selects {
        assert_eq!(why(database, select).as_deref(), Some(READ_IT), "{select}");
    }
}

/// Asserts that the reason ends with this.
fn assert_may_read(database: &mut dyn Database, select: &str, end: &str) {
    let why = why(database, select).unwrap_or_else(|| panic!("{select}: not read"));
    assert!(why.starts_with("the statement may read it: ") && why.ends_with(end), "{select}: {why}");
}

fn assert_not_read(database: &mut dyn Database, selects: &[&str]) {
    for select in selects {
        assert_eq!(why(database, select), None, "{select}");
    }
}

fn run_all(database: &mut dyn Database, statements: &[&str]) {
    statements.iter().for_each(|sql| run(database, sql));
}

/// Tables in parts without rows, and tables that have another use or name.
fn assert_tables_are_found(database: &mut dyn Database) {
    assert_reads(
        database,
        &[
            "SELECT * FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)",
            "SELECT * FROM source WHERE EXISTS (SELECT 1 FROM outcome)",
            "SELECT * FROM source WHERE 1 = 1 OR a > (SELECT max(a) FROM outcome)",
            "SELECT source.* FROM source LEFT JOIN (SELECT DISTINCT a FROM outcome) o ON o.a = source.a",
            "SELECT * FROM source UNION ALL SELECT a, y FROM outcome WHERE 1 = 0",
            "SELECT a, CASE WHEN 1 = 1 THEN 2 ELSE (SELECT max(a) FROM outcome) END AS b FROM source",
            "SELECT s.* FROM source s, (other JOIN outcome o ON o.a = other.a) WHERE 1 = 0",
            "SELECT * FROM (SELECT a, y FROM outcome WHERE 1 = 0) AS q",
            "WITH q AS (SELECT a, y FROM outcome) SELECT * FROM source WHERE a IN (SELECT a FROM q)",
            "SELECT * FROM source ORDER BY (SELECT max(a) FROM outcome)",
        ],
    );
    if database.dialect() != Dialect::Sqlite {
        // SQLite reads this as a reference to itself.
        assert_reads(database, &["WITH outcome AS (SELECT a, y FROM outcome) SELECT a, y FROM outcome"]);
    }
    assert_not_read(
        database,
        &[
            "SELECT outcome.a, y AS outcome FROM source AS outcome",
            "SELECT a, 'SELECT a FROM outcome, outcome' AS t FROM source -- FROM outcome",
            "SELECT a, y /* FROM outcome */ FROM source WHERE 'it''s FROM outcome' <> ''",
            "WITH outcome AS (SELECT a, y FROM source) SELECT * FROM outcome WHERE a IN (SELECT a FROM outcome)",
            "SELECT * FROM (SELECT a, y FROM source) AS outcome",
            "WITH RECURSIVE outcome(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM outcome WHERE a < 3) \
             SELECT * FROM outcome",
        ],
    );
    run_all(
        database,
        &[
            "CREATE VIEW inner_view AS SELECT a, y FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM other)",
            "CREATE VIEW outer_view AS SELECT a, y FROM inner_view WHERE 1 = 0",
        ],
    );
    assert_not_read(database, &["SELECT * FROM outer_view"]);
    run_all(
        database,
        &[
            "DROP VIEW outer_view",
            "DROP VIEW inner_view",
            "CREATE VIEW inner_view AS SELECT a, y FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)",
            "CREATE VIEW outer_view AS SELECT a, y FROM inner_view WHERE 1 = 0",
        ],
    );
    assert_reads(database, &["SELECT * FROM outer_view"]);
    run_all(database, &["DROP VIEW outer_view", "DROP VIEW inner_view"]);
    let unknown = reason(database, "SELECT * FROM nosuch", &TableName::parse("outcome"));
    assert!(unknown.is_err() || database.dialect() != Dialect::Sqlite, "{unknown:?}");
}

/// A table `outcome` of another schema, which has these names, is another table.
fn assert_schemas_are_distinguished(database: &mut dyn Database, others: &[&str]) {
    run_all(
        database,
        &[
            "CREATE SCHEMA elsewhere",
            "CREATE TABLE elsewhere.outcome (a INT, y INT)",
            "CREATE VIEW outer_view AS SELECT a, y FROM elsewhere.outcome WHERE 1 = 0",
        ],
    );
    let selects = [
        "SELECT * FROM elsewhere.outcome",
        "SELECT outcome.a, elsewhere.outcome.y FROM elsewhere.outcome",
        "SELECT * FROM outer_view",
    ];
    assert_not_read(database, &selects);
    for other in others {
        let table = TableName::parse(other);
        for select in selects {
            assert_eq!(why_table(database, select, &table).unwrap(), READ_IT, "{select}");
        }
        assert_eq!(why_table(database, "SELECT * FROM outcome", &table), None);
    }
    run_all(database, &["DROP VIEW outer_view", "DROP TABLE elsewhere.outcome", "DROP SCHEMA elsewhere"]);
}

/// Whether a statement may change names, and whether it calls functions.
fn effects_of(database: &mut dyn Database, sql: &str, changes_rows: bool) -> (bool, bool) {
    let Effects { may_change_names, calls_functions } = effects(database, &[sql], changes_rows).unwrap();
    (may_change_names, calls_functions)
}

#[test]
fn long_texts_take_linear_time() {
    /// In quadratic time, one of them would take minutes.
    fn long(part: &str) -> String {
        part.repeat((128 << 10) / part.len())
    }
    for part in [
        "\"",
        "`",
        "'",
        "[",
        "\"\"a",
        "a\"",
        "[a",
        "/*",
        "a/*",
        "a /* b */ ",
        "(",
        ")",
        "a(",
        ",a(",
        ", o as (",
        "$a",
        "$$",
        "$1$",
        "E'\\'",
        "\\'",
        "with o as ",
        "set session ",
        "with ",
        "--",
        "#\n",
        " ",
        "a ",
        "from o.",
        "é",
        "in o,",
    ] {
        let text = long(part);
        let escapes = tokens::Escapes::of_mode("");
        let wanted = references::Wanted { schema: "d", name: "o", default_schema: "d", escapes };
        let _ = (names::words(&text).len(), names::calls(&text).len(), names::mentions(&text, "o"));
        let _ = (references::may_refer_to(&text, wanted), references::has_table(&text, "o"));
        let _ = (functions::has_in_string(&text, "o"), functions::may_change_names(&text));
        let _ = (functions::may_compose(&text), functions::running_function(&text));
        let _ = (sqlite::named(&text), mysql_may_change(&text));
    }
}

fn mysql_may_change(text: &str) -> bool {
    super::mysql::may_change_names(text)
}
