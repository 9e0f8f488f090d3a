//! Checks of statements, with files.

use super::test_file::File;
use crate::test_servers::{assert_syntax_is_checked, run, texts};
use crate::{Database, Discard, ErrorKind, Missing};

/// A database with the table `source`.
fn with_source(file: &File) -> Box<dyn Database> {
    file.run(&["CREATE TABLE source (a INT, y VARCHAR(9))"]);
    file.open()
}

#[test]
fn only_selects_are_described() {
    let file = File::new();
    let mut database = with_source(&file);
    let columns = database.describe("SELECT a, y AS a, A + 1, true, 'x' FROM source -- b").unwrap();
    let found: Vec<_> = columns.iter().map(|it| (it.name.as_str(), it.database_type.as_str())).collect();
    assert_eq!(found, [("a", "INT"), ("a", "VARCHAR(9)"), ("A + 1", ""), ("true", ""), ("'x'", "")]);
    assert!(columns.iter().all(|it| it.kind.is_none()));
    for select in ["VALUES (1, 2)", "WITH q AS (SELECT 1) SELECT * FROM q;", " /* x */ SELECT 1"] {
        database.describe(select).unwrap_or_else(|error| panic!("{select}: {error}"));
    }
    for (wrong, message) in [
        ("INSERT INTO source VALUES (1, 2) RETURNING a", "near \"INSERT\": syntax error"),
        ("WITH q AS (SELECT 1) INSERT INTO source SELECT 1, 2 RETURNING a", "near \"INSERT\": syntax error"),
        ("PRAGMA foreign_keys = ON", "near \"PRAGMA\": syntax error"),
        ("EXPLAIN SELECT 1", "near \"EXPLAIN\": syntax error"),
        ("SELECT a FROM WHERE", "near \"WHERE\": syntax error"),
        ("SELECT 'a", "unrecognized token: \"'a\""),
        ("", "incomplete input"),
    ] {
        let error = database.describe(wrong).unwrap_err();
        assert_eq!((error.message.as_str(), error.is_syntax), (message, true), "{wrong}");
    }
    for (wrong, message) in [
        ("SELECT nosuch FROM source", "no such column: nosuch"),
        (
            "SELECT a FROM source WHERE a = :x",
            "the statement has the parameter :x, which has no value; write the value in its place",
        ),
        ("SELECT 1; SELECT 2", "You can only execute one statement at a time."),
    ] {
        assert_eq!(database.describe(wrong).unwrap_err().message, message);
    }
    assert_eq!(texts(&mut *database, "SELECT count(*) FROM source"), ["0"]);
    assert_eq!(texts(&mut *database, "PRAGMA foreign_keys"), ["0"]);
}

const RIGHT: [&str; 15] = [
    "CREATE TRIGGER note AFTER INSERT ON outcome BEGIN DELETE FROM source; UPDATE source SET a = 1; END",
    "CREATE VIRTUAL TABLE other USING no_such_module(a)",
    "ALTER TABLE outcome RENAME COLUMN a TO b",
    "CREATE TABLE elsewhere.other (a INT)",
    "CREATE INDEX elsewhere.i ON other (a)",
    "DROP INDEX i",
    "PRAGMA user_version = 7",
    "EXPLAIN PRAGMA user_version = 7",
    "EXPLAIN QUERY PLAN DELETE FROM outcome",
    "ATTACH 'file' AS other",
    "VACUUM INTO 'other'",
    "ANALYZE",
    "REINDEX nosuch",
    "SAVEPOINT a",
    "SELECT nosuch FROM \"a \"\" b\".[c d], e WHERE x = ?",
];

#[test]
fn syntax_is_checked_without_the_tables() {
    let file = File::new();
    let mut database = with_source(&file);
    assert_syntax_is_checked(&mut *database, &RIGHT);
    assert_eq!(texts(&mut *database, "PRAGMA user_version"), ["0"]);
    assert_eq!(texts(&mut *database, "SELECT name FROM sqlite_master"), ["source"]);
}

#[test]
fn queries_are_checked_and_not_executed() {
    let file = File::new();
    let mut database = with_source(&file);
    for sql in [
        "SELECT a FROM source",
        "INSERT INTO source VALUES (1, 'x')",
        "WITH q AS (SELECT 1) DELETE FROM source",
        "CREATE TABLE other AS SELECT a FROM source",
        "CREATE VIEW other AS SELECT nosuch FROM nosuch",
        "CREATE TABLE other (a INT)",
        "DROP TABLE nosuch",
        "EXPLAIN SELECT a FROM source",
        "EXPLAIN PRAGMA foreign_keys = ON",
        "EXPLAIN QUERY PLAN PRAGMA foreign_keys = ON",
        "PRAGMA foreign_keys = ON",
    ] {
        database.check_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for (sql, missing) in [
        ("SELECT b FROM source", Missing::Column("b".into())),
        ("INSERT INTO source (b) VALUES (1)", Missing::Column("b".into())),
        ("CREATE TABLE other AS SELECT a FROM nosuch", Missing::Table("nosuch".into())),
        ("EXPLAIN UPDATE nosuch SET a = 1", Missing::Table("nosuch".into())),
    ] {
        let error = database.check_query(sql).unwrap_err();
        assert_eq!((error.missing, error.is_syntax), (Some(missing), false), "{sql}");
    }
    assert!(database.check_query("CREATE TABEL x (a INT)").unwrap_err().is_syntax);
    assert_eq!(texts(&mut *database, "SELECT count(*) FROM source"), ["0"]);
    assert_eq!(texts(&mut *database, "PRAGMA foreign_keys"), ["0"]);
}

#[test]
fn settings_hold_for_further_connections_and_create_no_file() {
    let file = File::new();
    let other = file.beside("other.db").display().to_string();
    drop(file.open());
    let mut database = file.open_with("", &["PRAGMA cache_size = 7"]);
    assert!(database.add_setting("PRAGMA foreign_keys = ON").unwrap());
    for sql in [
        format!("ATTACH '{other}' AS other"),
        format!("ATTACH '{other}' || '' AS other"),
        "ATTACH ':memory:' AS m".into(),
    ] {
        assert!(!database.add_setting(&sql).unwrap(), "{sql}");
    }
    assert!(!std::fs::exists(&other).unwrap());
    let error = database.add_setting("ATTACH 'x' AS").unwrap_err();
    assert!(error.is_syntax, "{error:?}");
    std::fs::write(&other, "").unwrap();
    assert!(database.add_setting(&format!("ATTACH '{other}' AS other")).unwrap());
    let mut checking = database.checking_connection().unwrap();
    assert_eq!(texts(&mut *checking, "PRAGMA cache_size"), ["7"]);
    assert_eq!(texts(&mut *checking, "PRAGMA foreign_keys"), ["1"]);
    assert_eq!(texts(&mut *checking, "SELECT name FROM pragma_database_list"), ["main", "other"]);
    // It does not wait.
    run(&mut *database, "BEGIN IMMEDIATE");
    assert_eq!(checking.execute("CREATE TABLE t (a)", &mut Discard).unwrap_err().kind, ErrorKind::Busy);
}

#[test]
fn checking_connection_to_a_missing_file_creates_none_and_is_silent() {
    let file = File::new();
    let mut database = file.open_existing();
    assert_eq!(file.notices.lock().unwrap().len(), 1);
    let mut checking = database.checking_connection().unwrap();
    let error = checking.describe("SELECT * FROM t").unwrap_err();
    let path = file.path();
    assert_eq!(
        error.message,
        format!("no such table: t; SQLite file {} did not exist, check its path", path.display())
    );
    assert_eq!(file.notices.lock().unwrap().len(), 1);
    assert!(!std::fs::exists(path).unwrap());
}
