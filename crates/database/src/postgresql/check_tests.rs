//! Checks of statements by a real PostgreSQL.

use crate::test_servers::{Postgresql, assert_syntax_is_checked, run, texts};
use crate::{Database, Missing};

const RIGHT: [&str; 15] = [
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
    "CREATE RULE r AS ON INSERT TO outcome DO (DELETE FROM source; DELETE FROM source)",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT * FROM json_to_record('{}')",
    "INSERT INTO source VALUES (1, 2, 3, 4)",
    "CREATE TABLE other AS SELECT * FROM json_to_record('{}')",
    "ALTER TABLE IF EXISTS ONLY outcome ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO nosuch",
    "COPY outcome FROM STDIN",
    "SET LOCAL search_path = nosuch, public",
    "CALL nosuch()",
    "VACUUM (FULL) outcome",
    "CREATE EXTENSION nosuch",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "SELECT 'it''s'",
];

#[test]
fn statements_are_checked_and_not_executed() {
    let server = Postgresql::start();
    let database = &mut *server.open();
    run(database, "CREATE TABLE source (a int, b int)");
    assert_syntax_is_checked(database, &RIGHT);
    for sql in [
        "INSERT INTO source VALUES (1)",
        "EXPLAIN SELECT a FROM source",
        "CREATE TABLE other AS SELECT a FROM source",
        "CREATE TABLE other AS SELECT a FROM source WITH NO DATA",
        "CREATE TABLE other (a INT)",
        "DROP TABLE nosuch",
    ] {
        database.check_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for (sql, line, missing) in [
        ("SELECT c FROM source", 1, Missing::Column("c".into())),
        ("CREATE TABLE other\nAS\nSELECT a\nFROM nosuch", 4, Missing::Table("nosuch".into())),
        ("CREATE VIEW other AS SELECT source.c FROM source", 1, Missing::Column("source.c".into())),
    ] {
        let error = database.check_query(sql).unwrap_err();
        assert!(error.message.starts_with(&format!("line {line}: ")) && !error.is_syntax, "{error}");
        assert_eq!(error.missing, Some(missing), "{error}");
    }
    assert!(database.check_query("CREATE TABLE other AS SELECT a FROM WHERE").unwrap_err().is_syntax);
    assert_eq!(texts(database, "SELECT count(*) FROM source"), ["0"]);
    settings_hold_for_further_connections(database);
}

fn settings_hold_for_further_connections(database: &mut dyn Database) {
    run(database, "CREATE SCHEMA elsewhere CREATE TABLE far (a int)");
    assert!(database.check_query("SELECT a FROM far").is_err());
    assert!(database.add_setting("SET search_path = elsewhere").unwrap());
    assert!(database.add_setting("SET no_such_setting = 1").is_err());
    let mut checking = database.checking_connection().unwrap();
    checking.check_query("SELECT a FROM far").unwrap();
    run(&mut *checking, "SET search_path = public");
    database.check_query("SELECT a FROM far").unwrap();
}
