//! MariaDB.

use super::*;
use crate::connect;
use crate::test_servers::{MariaDb, options};

#[test]
fn tables_views_and_functions_are_found() {
    let server = MariaDb::start();
    let database = &mut *server.open();
    set_up(database);
    assert_tables_are_found(database);
    tables_beside_quotes_are_found(database);
    views_with_unusual_names_are_found(database);
    functions_with_unusual_names_are_found(database);
    functions_that_read_are_found(database);
    functions_of_packages_are_found(database);
    assert_schemas_are_distinguished(database, &["elsewhere.outcome"]);
    effects_of_functions_and_triggers(database);
    without_privileges_every_use_counts(&server);
}

fn tables_beside_quotes_are_found(database: &mut dyn Database) {
    let in_text =
        "SELECT * FROM source WHERE 'a' = \"5\\\"\" AND EXISTS (SELECT 1 FROM outcome WHERE a = \"x\")";
    assert_reads(database, &[in_text]);
    assert_not_read(database, &["SELECT a, \"5\\\" FROM outcome\" AS t FROM source"]);
    run(database, "SET sql_mode = ANSI_QUOTES");
    assert_reads(database, &["SELECT a AS \"5\\\", y FROM outcome ORDER BY \"5\\\""]);
    run(database, "SET sql_mode = NO_BACKSLASH_ESCAPES");
    assert_reads(database, &["SELECT a, \"5\\\" AS b FROM outcome WHERE a = \"x\""]);
    run(database, "SET sql_mode = ''");
}

fn views_with_unusual_names_are_found(database: &mut dyn Database) {
    for name in ["2020v", "$v", "`v-1`", "`v``q`", "vé€", "`a b`", "`v\"w`"] {
        run(database, &format!("CREATE VIEW {name} AS SELECT a, y FROM outcome"));
        run(database, &format!("CREATE VIEW w_view AS SELECT * FROM {name}"));
        assert_reads(database, &[&format!("SELECT * FROM {name}"), "SELECT * FROM w_view"]);
        run_all(database, &["DROP VIEW w_view", &format!("DROP VIEW {name}")]);
    }
}

fn functions_with_unusual_names_are_found(database: &mut dyn Database) {
    for name in ["fn1", "3fn", "`f n`", "`f``n`", "$f"] {
        let body = "(i INT) RETURNS INT READS SQL DATA RETURN (SELECT max(a) FROM outcome)";
        run(database, &format!("CREATE FUNCTION {name}{body}"));
        run(database, &format!("CREATE VIEW outer_view AS SELECT a, y, {name}(3) AS x FROM source"));
        for call in ["(3)", " /* ( */ (3)", "/*!*/(3)", " -- x\n#\n(3)", "/*!50000 (3) */"] {
            assert_may_read(database, &format!("SELECT a, y, {name}{call} AS x FROM source"), " names it");
        }
        assert_may_read(database, "SELECT * FROM outer_view", " names it");
        run_all(database, &["DROP VIEW outer_view", &format!("DROP FUNCTION {name}")]);
    }
}

fn functions_that_read_are_found(database: &mut dyn Database) {
    run_all(
        database,
        &[
            "CREATE FUNCTION plain() RETURNS INT READS SQL DATA RETURN (SELECT count(*) FROM outcome)",
            "CREATE FUNCTION caller(x INT) RETURNS INT READS SQL DATA \
             BEGIN DECLARE n INT; SET n = plain(); RETURN n; END",
            "CREATE FUNCTION harmless() RETURNS INT READS SQL DATA RETURN (SELECT count(*) FROM other)",
            "CREATE VIEW outer_view AS SELECT a, y FROM source WHERE a > caller(1)",
        ],
    );
    for select in [
        "SELECT * FROM source WHERE a < plain()",
        "SELECT * FROM source WHERE 1 = 0 AND a < caller (1)",
        "SELECT * FROM outer_view",
    ] {
        assert_may_read(database, select, "function test.plain names it");
    }
    assert_not_read(database, &["SELECT * FROM source WHERE a < 100 + harmless()"]);
    run_all(database, &["DROP VIEW outer_view", "DROP FUNCTION caller", "DROP FUNCTION plain"]);
}

fn functions_of_packages_are_found(database: &mut dyn Database) {
    run_all(
        database,
        &[
            "SET sql_mode = ORACLE",
            "CREATE PACKAGE pack AS FUNCTION plain RETURN INT; END",
            "CREATE PACKAGE BODY pack AS FUNCTION plain RETURN INT AS n INT; \
             BEGIN SELECT count(*) INTO n FROM outcome; RETURN n; END; END",
            "SET sql_mode = ''",
        ],
    );
    let select = "SELECT * FROM source WHERE a < test.pack.plain()";
    assert_may_read(database, select, "function test.pack names it");
    run_all(database, &["SET sql_mode = ORACLE", "DROP PACKAGE pack", "SET sql_mode = ''"]);
}

fn effects_of_functions_and_triggers(database: &mut dyn Database) {
    assert_eq!(effects_of(database, "SELECT harmless ()", false), (false, true));
    assert_eq!(effects_of(database, "SELECT harmless FROM source", false), (false, false));
    assert!(!has_creator(database).unwrap());
    let insert = "INSERT INTO Source VALUES (1, 2)";
    run(database, "CREATE TRIGGER note AFTER INSERT ON source FOR EACH ROW UPDATE other SET a = 1");
    assert_eq!(effects_of(database, insert, true), (false, true));
    assert_eq!(effects_of(database, insert, false), (false, false));
    let names = ["nosuch".to_owned(), "OTHER".to_owned()];
    assert!(mentions_any(database, &[insert], true, &names).unwrap());
    assert!(!mentions_any(database, &[insert], true, &names[..1]).unwrap());
    assert!(!has_creator(database).unwrap());
    run(
        database,
        "CREATE FUNCTION makes() RETURNS INT READS SQL DATA BEGIN CREATE TEMPORARY TABLE t (a INT); RETURN 1; END",
    );
    assert_eq!(effects_of(database, "SELECT makes()", false), (true, true));
    assert!(has_creator(database).unwrap() && !has_event_triggers(database).unwrap());
    run_all(database, &["DROP TRIGGER note", "DROP FUNCTION makes"]);
}

/// The server shows this user neither the trace nor the texts.
fn without_privileges_every_use_counts(server: &MariaDb) {
    let owner = &mut *server.open();
    run_all(
        owner,
        &[
            "CREATE VIEW outer_view AS SELECT a, y FROM source",
            "CREATE USER poor@localhost",
            "GRANT SELECT, INSERT, CREATE, DROP, ALTER, EXECUTE ON test.* TO poor@localhost",
        ],
    );
    let poor = &mut *connect(&server.source_of("poor"), options(|_| ())).unwrap();
    assert_may_read(
        poor,
        "SELECT * FROM outer_view",
        "this user cannot see the text of view test.outer_view",
    );
    let select = "SELECT * FROM source WHERE a < harmless()";
    assert_may_read(poor, select, "this user cannot see the text of function test.harmless");
    assert!(why(poor, "SELECT * FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)").is_some());
    assert_not_read(poor, &["SELECT * FROM source"]);
    // A hidden text may do anything.
    let hidden = effects(poor, &["SELECT harmless()"], false).unwrap();
    assert_eq!(hidden, Effects { may_change_names: true, calls_functions: true });
    assert!(mentions_any(poor, &["SELECT * FROM outer_view"], false, &["nosuch".to_owned()]).unwrap());
}
