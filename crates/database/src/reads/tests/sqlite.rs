//! SQLite.

use tempfile::TempDir;

use super::*;
use crate::connect;
use crate::test_servers::options;

fn open() -> (TempDir, Box<dyn Database>) {
    let folder = tempfile::tempdir().unwrap();
    let options = crate::ConnectOptions { may_create: true, ..options(|_| ()) };
    let mut database =
        connect(&format!("sqlite://{}/data.db?mode=rwc", folder.path().display()), options).unwrap();
    set_up(&mut *database);
    (folder, database)
}

/// The tables that a text names.
pub(super) fn named(text: &str) -> usize {
    super::super::sqlite::named_tables(text).len()
}

#[test]
fn tables_are_found() {
    let (_folder, mut database) = open();
    assert_tables_are_found(&mut *database);
}

/// SQLite's parser removes what a constant decides, and so its own report lacks these tables.
#[test]
fn tables_that_sqlite_removes_from_a_select_are_found() {
    let (_folder, mut database) = open();
    let database = &mut *database;
    for condition in [
        "0 AND a IN (SELECT 1 FROM main.outcome)",
        "a IN (SELECT a FROM other, [outcome]) AND 0",
        "(SELECT count(*) FROM (other JOIN 'outcome')) IN ()",
        "1 OR EXISTS (SELECT 1 FROM /* x */ `outcome`)",
        "EXISTS (SELECT 1 FROM other ORDER BY (SELECT max(a) FROM outcome))",
        "0 AND a IN outcome",
    ] {
        let select = format!("SELECT * FROM source WHERE {condition}");
        run(database, &format!("CREATE VIEW [inner view] AS {select}"));
        run(database, "CREATE VIEW outer_view AS SELECT a, y FROM [inner view]");
        let through = "SELECT * FROM source WHERE a IN () AND a IN main.outer_view";
        assert_reads(database, &[&select, "SELECT * FROM outer_view", through]);
        run_all(database, &["DROP VIEW outer_view", "DROP VIEW [inner view]"]);
    }
    run(database, "CREATE VIEW outer_view AS SELECT a FROM outcome");
    assert_not_read(
        database,
        &[
            "SELECT a, y, 'FROM outer_view, outcome' AS t FROM source \
             WHERE 0 AND a IS NOT DISTINCT FROM y -- FROM outcome",
            "SELECT outcome.a, outcome.y, 1 AS outer_view FROM (SELECT a, y FROM source) outcome, other",
            "WITH x(a) AS (SELECT 1), outcome AS NOT MATERIALIZED (SELECT a, y FROM source) SELECT * FROM outcome",
        ],
    );
}

#[test]
fn views_with_unusual_names_are_found() {
    let (_folder, mut database) = open();
    let database = &mut *database;
    for name in ["v$1", "[2020v]", "\"v\"\"q\"", "`a b`", "vé€😀", "'x ''y'", "[É[[]"] {
        run(database, &format!("CREATE VIEW {name} AS SELECT a, y FROM outcome"));
        run(database, &format!("CREATE VIEW w_view AS SELECT * FROM {name}"));
        let removed = format!("SELECT * FROM source WHERE 0 AND a IN {name}");
        assert_reads(database, &[&format!("SELECT * FROM {name}"), "SELECT * FROM w_view", &removed]);
        let names = ["outcome".to_owned()];
        assert!(mentions_any(database, &[&removed], false, &names).unwrap(), "{name}");
        run_all(database, &["DROP VIEW w_view", &format!("DROP VIEW {name}")]);
    }
}

#[test]
fn schemas_are_distinguished() {
    let (_folder, mut database) = open();
    let database = &mut *database;
    run(database, "CREATE TEMP TABLE outcome (a INT)");
    assert_reads(database, &["SELECT * FROM MAIN.Outcome"]);
    assert_not_read(database, &["SELECT * FROM temp.outcome"]);
    let temporary = TableName::parse("Temp.OUTCOME");
    assert_eq!(why_table(database, "SELECT * FROM temp.outcome", &temporary).unwrap(), READ_IT);
    // A temporary view sees both.
    run_all(database, &["DROP TABLE temp.outcome", "CREATE TEMP VIEW v AS SELECT a FROM outcome"]);
    assert_reads(database, &["SELECT * FROM v", "SELECT * FROM source WHERE 0 AND a IN v"]);
}

/// Names of a damaged or hostile file may be any bytes.
#[test]
fn names_that_are_not_utf_8_are_read() {
    let (folder, mut database) = open();
    let database = &mut *database;
    run(database, "CREATE TABLE source_xx (a_xx INT)");
    let file = folder.path().join("data.db");
    let mut bytes = std::fs::read(&file).unwrap();
    for at in 0..bytes.len() - 2 {
        if bytes[at..].starts_with(b"xx") {
            bytes[at..at + 2].copy_from_slice(b"\xff\xfe");
        }
    }
    std::fs::write(&file, bytes).unwrap();
    let source = format!("sqlite://{}", file.display());
    let mut database = connect(&source, options(|_| ())).unwrap();
    assert_not_read(&mut *database, &["SELECT * FROM source"]);
    run(&mut *database, "CREATE VIEW v AS SELECT * FROM source");
    assert_not_read(&mut *database, &["SELECT * FROM v"]);
}

#[test]
fn statements_depend_on_views() {
    let (_folder, mut database) = open();
    let database = &mut *database;
    run(database, "CREATE VIEW inner_view AS SELECT a FROM other");
    run(database, "CREATE TEMP VIEW outer_view AS SELECT a FROM INNER_view");
    let mentions = |database: &mut dyn Database, sql: &str, name: &str| {
        mentions_any(database, &["SELECT 1", sql], false, &["x".to_owned(), name.to_owned()]).unwrap()
    };
    assert!(mentions(database, "SELECT * FROM Outer_View", "other"));
    assert!(!mentions(database, "SELECT a FROM source -- outer_view", "other"));
    assert!(!mentions(database, "SELECT * FROM other", "other"));
    let found = effects(database, &["SELECT f(1) FROM outer_view"], true).unwrap();
    assert_eq!(found, Effects { may_change_names: false, calls_functions: false });
    assert!(!has_creator(database).unwrap() && !has_event_triggers(database).unwrap());
}
