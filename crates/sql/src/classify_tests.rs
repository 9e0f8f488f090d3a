//! Tests of `classify`: one line for each spelling of a statement.

use super::*;

fn kind_of(sql: &str, dialect: Dialect) -> (StandardKind, bool) {
    let statement = classify(sql, dialect);
    (statement.kind, statement.repeatable)
}

#[test]
fn query_without_lasting_effect_is_repeatable() {
    for sql in [
        "SELECT 1",
        " -- c\n (select 1) union (select 2);",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH x AS (SELECT REPLACE(a, 'b', 'c') FROM t) SELECT (INSERT(a, 1, 2, 'b')) FROM x",
        "VALUES (1)",
        "TABLE t",
        "SHOW TABLES",
        "DESC t",
        "EXPLAIN DELETE FROM t",
        "EXPLAIN ANALYZE SELECT 1",
        "SELECT 'INTO x FOR UPDATE', `into` FROM t",
        "PRAGMA table_info(t)",
        "PRAGMA main.user_version",
    ] {
        assert_eq!(kind_of(sql, Dialect::Mysql), (StandardKind::Query, true), "{sql}");
    }
}

#[test]
fn query_with_lasting_effect_is_not_repeatable() {
    for sql in [
        "SELECT * INTO t2 FROM t",
        "SELECT * FROM t INTO OUTFILE 'f'",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR NO KEY UPDATE",
        "SELECT * FROM t LOCK IN SHARE MODE",
        "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
        "WITH d AS (SELECT 1) INSERT INTO t SELECT * FROM d",
        "WITH d AS (SELECT 1) UPDATE t SET a = 1",
        "EXPLAIN (ANALYZE, BUFFERS) INSERT INTO t VALUES (1)",
        "SELECT NextVal('s')",
        "SELECT pg_try_advisory_lock (1)",
        "SELECT 1 /*! INTO OUTFILE 'f' */",
        "SELECT set_config('search_path', 's', false)",
    ] {
        assert_eq!(kind_of(sql, Dialect::Mysql), (StandardKind::Query, false), "{sql}");
    }
}

#[test]
fn statement_that_changes_its_session_has_its_kind() {
    use Dialect::{Mysql, Postgresql, Sqlite};
    let table = || StandardKind::CreateTemporaryTable { name: "x".to_owned() };
    let variables = |names: &[&str]| StandardKind::SetVariables {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
    };
    for (sql, dialect, kind) in [
        ("USE `My db`", Mysql, StandardKind::Use { database: "`My db`".to_owned() }),
        ("SET NAMES utf8", Mysql, StandardKind::Set),
        ("SELECT set_config('search_path', 's', false);", Postgresql, StandardKind::Set),
        (
            "SELECT pg_catalog.set_config('a.b', 'x', false), set_config('c', E'\\'', false)",
            Postgresql,
            StandardKind::Set,
        ),
        ("/*!40101 SET NAMES utf8 */", Mysql, StandardKind::Set),
        ("SET @a = 1, @b = 'x'", Mysql, StandardKind::Set),
        ("SET @a = (SELECT max(id) FROM t), @b = 1", Mysql, variables(&["a", "b"])),
        ("SELECT a, b INTO @p, @Q FROM t", Mysql, variables(&["p", "q"])),
        ("SELECT @n := @n + 1", Mysql, variables(&["n"])),
        ("SET search_path TO a, b", Postgresql, StandardKind::Set),
        ("PRAGMA foreign_keys = ON", Sqlite, StandardKind::Set),
        ("PRAGMA cache_size(100)", Sqlite, StandardKind::Set),
        ("ATTACH 'f.db' AS f", Sqlite, StandardKind::Set),
        ("SET autocommit=0", Mysql, StandardKind::SetAutocommit { on: false }),
        ("SET @@session.autocommit := OFF", Mysql, StandardKind::SetAutocommit { on: false }),
        ("SET SESSION autocommit = 1", Mysql, StandardKind::SetAutocommit { on: true }),
        ("CREATE TEMPORARY TABLE x (a INT)", Mysql, table()),
        ("create or replace temp view IF NOT EXISTS s.\"X\" as select 1", Postgresql, table()),
        ("CREATE GLOBAL TEMPORARY TABLE x (a INT)", Postgresql, table()),
        ("CREATE TABLE pg_temp.x AS SELECT 1", Postgresql, table()),
        ("CREATE TABLE IF NOT EXISTS temp.[x] (a)", Sqlite, table()),
        ("SELECT a INTO TEMP TABLE x FROM t", Postgresql, table()),
        ("SAVEPOINT S", Sqlite, StandardKind::Savepoint { name: "s".to_owned() }),
        ("RELEASE SAVEPOINT s", Sqlite, StandardKind::ReleaseSavepoint { name: "s".to_owned() }),
        ("BEGIN IMMEDIATE", Sqlite, StandardKind::BeginTransaction),
        ("START TRANSACTION READ ONLY", Mysql, StandardKind::BeginTransaction),
    ] {
        assert_eq!(kind_of(sql, dialect), (kind, true), "{sql}");
    }
}

#[test]
fn statement_that_writes_is_not_repeatable() {
    use Dialect::{Mysql, Sqlite};
    for (sql, dialect, kind) in [
        ("COMMIT", Mysql, StandardKind::EndTransaction),
        ("END TRANSACTION", Sqlite, StandardKind::EndTransaction),
        ("ROLLBACK AND NO CHAIN", Mysql, StandardKind::EndTransaction),
        ("COMMIT AND CHAIN", Mysql, StandardKind::BeginTransaction),
        ("ROLLBACK TO SAVEPOINT s", Mysql, StandardKind::Other),
        (
            "DROP TABLE IF EXISTS a, s.`B`",
            Mysql,
            StandardKind::DropTables { names: vec!["a".into(), "b".into()] },
        ),
        ("INSERT INTO t VALUES (1)", Mysql, StandardKind::Other),
        ("CREATE TABLE t (temporary INT)", Mysql, StandardKind::Other),
        ("SET GLOBAL max_connections = 1", Mysql, StandardKind::Other),
        ("SET @@global.x = 1", Mysql, StandardKind::Other),
        ("SET PASSWORD = 'x'", Mysql, StandardKind::Other),
        ("PRAGMA user_version = 3", Sqlite, StandardKind::Other),
        ("CALL p()", Mysql, StandardKind::Other),
        ("selec 1", Mysql, StandardKind::Other),
        ("", Mysql, StandardKind::Other),
    ] {
        assert_eq!(kind_of(sql, dialect), (kind, false), "{sql}");
    }
}

#[test]
fn set_config_that_cannot_be_replayed_is_a_query() {
    for sql in [
        "SELECT set_config('search_path', 's', true)",
        "SELECT set_config('search_path', name, false) FROM t",
        "SELECT set_config('search_path', 's' || 't', false)",
        "SELECT set_config('search_path', 's', false), nextval('t')",
        "SELECT set_config('search_path', 's', false) FROM t",
    ] {
        assert_eq!(kind_of(sql, Dialect::Postgresql), (StandardKind::Query, false), "{sql}");
    }
}

#[test]
fn set_statement_has_the_kind_of_its_inner_statement() {
    let of = |sql| kind_of(sql, Dialect::Mysql);
    assert_eq!(of("SET STATEMENT max_statement_time = 9 FOR SELECT 1"), (StandardKind::Query, true));
    assert_eq!(of("SET STATEMENT a = 1 FOR INSERT INTO t VALUES (1)"), (StandardKind::Other, false));
    assert_eq!(of("SET DEFAULT ROLE r FOR u"), (StandardKind::Other, false));
    let nested = "SET STATEMENT a = 1 FOR ".repeat(100_000);
    assert_eq!(of(&nested), (StandardKind::Other, false));
}
