use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::connect;
use crate::test_servers::{MariaDb, Postgresql, options, run};

#[test]
fn common_forms_are_recognized() {
    use TableStatement as S;

    for (sql, expected) in [
        (" drop\ntable a , B.c_1,d Restrict ; ", S::Drop(vec!["a", "B.c_1", "d"])),
        ("DROP TABLE restrict", S::Drop(vec!["restrict"])),
        ("ALTER TABLE a.b ADD COLUMN c INT", S::Change(Change::Alter, "a.b")),
        ("TRUNCATE TABLE a;", S::Change(Change::Truncate, "a")),
        ("TRUNCATE  tables", S::Change(Change::Truncate, "tables")),
        ("create table a(b INT)", S::Create("a")),
        ("CREATE TABLE a.b \n(c INT)", S::Create("a.b")),
        ("CREATE TABLE a AS SELECT 1", S::Create("a")),
        ("CREATE TABLE a LIKE b", S::Create("a")),
    ] {
        assert_eq!(S::parse(sql), Some(expected), "{sql}");
    }
    for sql in [
        "DROP TABLE IF EXISTS a",
        "DROP TABLE a CASCADE",
        "DROP TABLE a,",
        "DROP TABLE a.b.c",
        "DROP TABLE a RESTRICT RESTRICT",
        "DROP TABLE `a`",
        "DROP VIEW a",
        "DROP TABLE ä",
        "DROP TABLE aä",
        "DROP TABLE 1a",
        "DROP TABLE a. b",
        "ALTER TABLE IF EXISTS a ADD b INT",
        "ALTER TABLE ONLY a ADD b INT",
        "ALTER TABLE a.b.c ADD d INT",
        "TRUNCATE TABLE",
        "TRUNCATE TABLE TABLE",
        "CREATE TABLE IF NOT EXISTS a (b INT)",
        "CREATE TEMPORARY TABLE a (b INT)",
        "CREATE OR REPLACE TABLE a (b INT)",
        "CREATE TABLE a ASX",
        "CREATE TABLE a",
        "SELECT 1",
        "",
    ] {
        assert_eq!(S::parse(sql), None, "{sql}");
    }
}

proptest! {
    #[test]
    fn no_statement_panics(words in proptest::collection::vec(
        prop::sample::select("DROP CREATE ALTER TRUNCATE TABLE a . , é ; AS".split(' ').collect::<Vec<_>>()),
        0..12,
    )) {
        let _ = TableStatement::parse(&words.concat());
        let _ = TableStatement::parse(&words.join(" "));
    }
}

fn check(database: &mut dyn Database, sql: &str) -> Result<(), String> {
    check_tables(database, sql, false).map_err(|error| error.message)
}

/// What is the same in all databases. The table `source` exists in this schema.
fn assert_tables_are_checked(database: &mut dyn Database, schema: &str) {
    let missing = "cannot drop table sorce: it does not exist; correct the name, or write IF EXISTS";
    for sql in ["DROP TABLE sorce", "DROP TABLE source, sorce"] {
        let error = check_tables(database, sql, true).unwrap_err();
        assert_eq!((error.message.as_str(), error.missing), (missing, None), "{sql}");
    }
    let error = check_tables(database, "ALTER TABLE sorce ADD COLUMN z INT", true).unwrap_err();
    assert_eq!(error.message, "cannot alter table sorce: it does not exist");
    assert_eq!(suggestions_of(database, &error), ["source"]);
    assert_eq!(
        check(database, "TRUNCATE sorce").unwrap_err(),
        "cannot truncate table sorce: it does not exist"
    );
    let exists = |name: &str| {
        format!(
            "cannot create table {name}: it exists; choose another name, or drop it before, or write IF NOT EXISTS"
        )
    };
    let full_name = format!("{schema}.source");
    for name in ["source", &full_name] {
        let sql = format!("CREATE TABLE {name} (a INT)");
        assert_eq!(check(database, &sql).unwrap_err(), exists(name));
        check_tables(database, &sql, true).unwrap();
    }
    assert_eq!(check(database, "CREATE TABLE source AS SELECT 1 AS a").unwrap_err(), exists("source"));
    for right in [
        "DROP TABLE source",
        "DROP TABLE IF EXISTS sorce",
        "TRUNCATE TABLE source",
        "ALTER TABLE source ADD COLUMN z INT",
        "CREATE TABLE other (a INT)",
        "CREATE TABLE nosuch.source (a INT)",
        "CREATE TABLE IF NOT EXISTS source (a INT)",
        "CREATE TEMPORARY TABLE source (a INT)",
        "SELECT 1",
    ] {
        check(database, right).unwrap_or_else(|error| panic!("{right}: {error}"));
    }
}

fn suggestions_of(database: &mut dyn Database, error: &Error) -> Vec<String> {
    crate::suggestions(database, error, "")
}

fn sqlite() -> (TempDir, Box<dyn Database>) {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("sqlite://{}/data.db?mode=rwc", folder.path().display());
    let open = || connect(&source, crate::ConnectOptions { may_create: true, ..options(|_| ()) }).unwrap();
    run(&mut *open(), "CREATE TABLE source (a INT, y)");
    // An error about a table then has no hint to the file.
    let database = open();
    (folder, database)
}

#[test]
fn tables_of_sqlite_are_checked() {
    let (_folder, mut database) = sqlite();
    let database = &mut *database;
    assert_tables_are_checked(database, "main");
    // A view without its table is there.
    run(database, "CREATE VIEW later_view AS SELECT * FROM nosuch");
    for right in [
        "DROP TABLE later_view",
        // A table of SQLite's own does not prevent one.
        "CREATE TABLE json_each (a INT)",
        "CREATE TABLE temp.source (a INT)",
    ] {
        check(database, right).unwrap_or_else(|error| panic!("{right}: {error}"));
    }
}

#[test]
fn tables_and_values_of_mysql_are_checked() {
    let server = MariaDb::start();
    let database = &mut *server.open();
    run(
        database,
        "CREATE TABLE source (a BIGINT UNSIGNED, b DECIMAL(9,2), c DATE, d BLOB, e BIT(3), `f ``g` TEXT)",
    );
    assert_tables_are_checked(database, "test");
    // Names may differ in case only.
    check(database, "CREATE TABLE SOURCE (a INT)").unwrap();
    run(
        database,
        "INSERT INTO source VALUES (18446744073709551615, 1.5, '1970-01-03', X'ff', 5, 'x'), \
         (7, NULL, NULL, NULL, NULL, NULL)",
    );
    let values =
        |database: &mut dyn Database, column| sample(database, "SELECT * FROM source -- x", column, None);
    for (column, expected) in [
        ("a", vec![Value::Float(18_446_744_073_709_551_615.0), Value::Int(7)]),
        ("b", vec![Value::Text("1.50".into())]),
        ("c", vec![Value::Int(2)]),
        ("d", vec![Value::Blob(vec![255])]),
        ("e", vec![Value::Int(5)]),
        ("f `g", vec![Value::Text("x".into())]),
        ("nosuch", vec![]),
    ] {
        assert_eq!(values(database, column).unwrap(), expected, "{column}");
    }
}

#[test]
fn tables_and_values_of_postgresql_are_checked() {
    let server = Postgresql::start();
    let database = &mut *server.open();
    run(database, "CREATE TABLE source (a boolean, b numeric, c timestamp, d bytea, e date)");
    assert_tables_are_checked(database, "public");
    check(database, "CREATE TABLE pg_class (a int)").unwrap();
    assert!(check(database, "CREATE TABLE SOURCE (a int)").unwrap_err().contains("it exists"));
    assert!(check(database, "CREATE TABLE Public.SOURCE (a int)").unwrap_err().contains("it exists"));
    run(
        database,
        "INSERT INTO source VALUES (true, 1.50, '1970-01-01 00:00:01', '\\xff', '1970-01-03'), \
         (NULL, NULL, NULL, NULL, 'infinity')",
    );
    for (column, expected) in [
        ("a", vec![Value::Int(1)]),
        ("b", vec![Value::Text("1.50".into())]),
        ("c", vec![Value::Int(1_000_000)]),
        ("d", vec![Value::Blob(vec![255])]),
        ("e", vec![Value::Text("1970-01-03".into()), Value::Text("infinity".into())]),
    ] {
        assert_eq!(sample(database, "SELECT * FROM source", column, None).unwrap(), expected, "{column}");
    }
}

#[test]
fn values_are_sampled() {
    let (_folder, mut database) = sqlite();
    let database = &mut *database;
    run(database, "INSERT INTO source VALUES (1, 'x'), (NULL, X'ff'), (2.5, 3), (NULL, NULL)");
    let y = |database: &mut dyn Database, of_type| {
        sample(database, "SELECT * FROM source -- x", "Y", of_type).unwrap()
    };
    let (text, blob, int) = (Value::Text("x".into()), Value::Blob(vec![255]), Value::Int(3));
    assert_eq!(y(database, None), [text, blob.clone(), int]);
    assert_eq!(y(database, Some("blob")), [blob]);
    assert_eq!(y(database, Some("it's")), []);
    let numbers = sample(database, "SELECT a FROM source", "a", None).unwrap();
    assert_eq!(numbers, [Value::Int(1), Value::Float(2.5)]);
    assert_eq!(sample(database, "SELECT nosuch FROM source", "a", None).unwrap(), []);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i, ";
    assert_eq!(sample(database, &format!("{many} 1 FROM n"), "i", None).unwrap().len(), 100);
    // Memory is bounded.
    let large = format!("{many} zeroblob(CASE WHEN i % 2 THEN 1000000 ELSE 1 END) AS z FROM n");
    let sizes: Vec<_> = sample(database, &large, "z", None).unwrap().iter().map(Value::long_bytes).collect();
    assert_eq!((sizes.len(), sizes.iter().filter(|it| **it > 1).count()), (54, 4));
}
