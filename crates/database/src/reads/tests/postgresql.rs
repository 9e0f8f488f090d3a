//! PostgreSQL.

use super::*;
use crate::connect;
use crate::test_servers::{Postgresql, options};

#[test]
fn tables_views_and_functions_are_found() {
    let server = Postgresql::start();
    let database = &mut *server.open();
    set_up(database);
    assert_tables_are_found(database);
    views_with_unusual_names_are_found(database);
    checks_of_types_are_found(database);
    texts_for_functions_are_found(database);
    functions_that_read_are_found(database);
    functions_with_parsed_bodies_are_found(database);
    assert_schemas_are_distinguished(database, &["elsewhere.outcome", "postgres.elsewhere.outcome"]);
    effects_of_functions_and_triggers(database);
    without_privileges_every_use_counts(&server);
}

fn views_with_unusual_names_are_found(database: &mut dyn Database) {
    run(database, "CREATE FUNCTION plain() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM outcome$$");
    for name in ["v$1", "\"2020v\"", "\"v\"\"q\"", "\"a b\"", "vé€"] {
        run(database, &format!("CREATE VIEW {name} AS SELECT a, y FROM source WHERE a > plain()"));
        run(
            database,
            &format!(
                "CREATE FUNCTION f() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT a FROM {name}); END$$"
            ),
        );
        assert_may_read(database, "SELECT * FROM source WHERE a > f()", "function plain names it");
        run_all(database, &["DROP FUNCTION f", &format!("DROP VIEW {name}")]);
    }
    run(database, "DROP FUNCTION plain");
}

fn checks_of_types_are_found(database: &mut dyn Database) {
    run_all(
        database,
        &[
            "CREATE FUNCTION plain(i int) RETURNS boolean LANGUAGE plpgsql AS \
             'BEGIN RETURN i > (SELECT -count(*) FROM outcome); END'",
            "CREATE DOMAIN checked AS int CHECK (plain(VALUE))",
            "CREATE DOMAIN again AS checked",
            "CREATE TYPE pair AS (x int, z again)",
        ],
    );
    for value in ["a::checked", "a::again", "(ARRAY[a]::checked[])[1]", "(ROW(1, a)::pair).z"] {
        assert_may_read(
            database,
            &format!("SELECT a, y, {value} AS x FROM source"),
            "function plain names it",
        );
    }
    run_all(database, &["DROP TYPE pair", "DROP DOMAIN again", "DROP DOMAIN checked", "DROP FUNCTION plain"]);
}

fn texts_for_functions_are_found(database: &mut dyn Database) {
    run_all(
        database,
        &[
            "CREATE FUNCTION rd(t text) RETURNS bigint LANGUAGE plpgsql AS \
             $$ DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM ' || t INTO n; RETURN n; END $$",
            "CREATE FUNCTION caller(t text) RETURNS bigint LANGUAGE sql AS 'SELECT rd(t)'",
            "CREATE FUNCTION harmless(t text) RETURNS SETOF int LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT 1; END'",
            "CREATE VIEW outer_view AS SELECT a, y, rd('outcome') AS x FROM source",
        ],
    );
    let runs_text = "function rd may run a text, and a text of the select names it";
    // PostgreSQL prints views without comments, but with these names.
    for x in
        ["1 AS \"it's\", rd('outcome')", "-- it's\n rd('outcome')", "/* it's /* ' */ it's */ rd('outcome')"]
    {
        assert_may_read(database, &format!("SELECT a, y, {x} AS x FROM source"), runs_text);
    }
    run(database, "SET standard_conforming_strings = off");
    assert_may_read(database, "SELECT 'a\\'b' AS a, y, rd('outcome') AS x, 'c' AS c FROM source", runs_text);
    run(database, "SET standard_conforming_strings = on");
    for x in ["rd('outcome')", "rd(E'public.outcome')", "caller($$Outcome$$)", "rd($q$ \"outcome\" $q$)"] {
        assert_may_read(database, &format!("SELECT a, y, {x} AS x FROM source"), runs_text);
    }
    assert_may_read(database, "SELECT a, y FROM outer_view", runs_text);
    run_all(
        database,
        &[
            "DROP VIEW outer_view",
            "CREATE VIEW outer_view AS SELECT a, y, query_to_xml('TABLE outcome', true, true, '')::text FROM source",
        ],
    );
    assert_may_read(
        database,
        "SELECT a, y FROM outer_view",
        "query_to_xml may run a text, and the select names it",
    );
    assert_may_read(database, "SELECT a, y, E'\\'' AS q, rd('outcome') AS x FROM source", runs_text);
    for x in ["harmless('outcome')", "rd('source')", "'outcome'", "rd('source') AS outcome, a"] {
        assert_not_read(database, &[&format!("SELECT a, y, {x} AS x FROM source")]);
    }
    run_all(
        database,
        &["DROP VIEW outer_view", "DROP FUNCTION caller", "DROP FUNCTION rd", "DROP FUNCTION harmless"],
    );
}

fn functions_that_read_are_found(database: &mut dyn Database) {
    run_all(
        database,
        &[
            "CREATE FUNCTION plain() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM outcome'",
            "CREATE FUNCTION caller(x int) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN plain(); END'",
            "CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM other'",
            "CREATE FUNCTION text_run() RETURNS bigint LANGUAGE plpgsql AS \
             $$ DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM outcome' INTO n; RETURN n; END $$",
            "CREATE FUNCTION doubled(x int) RETURNS bigint LANGUAGE sql AS 'SELECT x + plain()'",
            "CREATE OPERATOR !+ (RIGHTARG = int, FUNCTION = doubled)",
            "CREATE VIEW outer_view AS SELECT a, y FROM source WHERE a > caller(1)",
        ],
    );
    for (select, end) in [
        ("SELECT * FROM source WHERE a < plain()", "function plain names it"),
        ("SELECT * FROM source WHERE 1 = 0 AND a < caller (1)", "function plain names it"),
        ("SELECT * FROM outer_view", "function plain names it"),
        ("SELECT * FROM source WHERE a = text_run()", "function text_run names it"),
        ("SELECT * FROM source WHERE a = !+ 1", "function plain names it"),
        (
            "SELECT *, query_to_xml('SELECT * FROM outcome', true, true, '') FROM source",
            "query_to_xml may run a text, and the select names it",
        ),
    ] {
        assert_may_read(database, select, end);
    }
    assert_not_read(database, &["SELECT * FROM source WHERE a < 100 + harmless() -- plain()"]);
    run_all(
        database,
        &[
            "DROP VIEW outer_view",
            "DROP OPERATOR !+ (NONE, int)",
            "DROP FUNCTION doubled",
            "DROP FUNCTION text_run",
            "DROP FUNCTION caller",
            "DROP FUNCTION plain",
        ],
    );
}

/// PostgreSQL stores the parsed body and no text.
fn functions_with_parsed_bodies_are_found(database: &mut dyn Database) {
    run_all(
        database,
        &[
            "CREATE FUNCTION parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM outcome; END",
            "CREATE FUNCTION outer_one() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN parsed(); END'",
        ],
    );
    assert_reads(database, &["SELECT * FROM source WHERE a < parsed()"]);
    assert_may_read(database, "SELECT * FROM source WHERE a < outer_one()", "function parsed names it");
    run_all(database, &["DROP FUNCTION outer_one", "DROP FUNCTION parsed"]);
}

fn effects_of_functions_and_triggers(database: &mut dyn Database) {
    assert_eq!(effects_of(database, "SELECT \"harmless\" ()", false), (false, true));
    assert_eq!(effects_of(database, "SELECT harmless, lower('x') FROM source", false), (false, false));
    assert!(!has_creator(database).unwrap() && !has_event_triggers(database).unwrap());
    let insert = "INSERT INTO Source VALUES (1, 2)";
    let trigger = "RETURNS trigger LANGUAGE plpgsql AS";
    run_all(
        database,
        &[
            &format!("CREATE FUNCTION note() {trigger} 'BEGIN UPDATE other SET a = 1; RETURN NEW; END'"),
            "CREATE TRIGGER note BEFORE INSERT ON source FOR EACH ROW EXECUTE FUNCTION note()",
            "CREATE TABLE child () INHERITS (source)",
        ],
    );
    for changed in [insert, "INSERT INTO child VALUES (1, 2)"] {
        assert_eq!(effects_of(database, changed, true), (false, true), "{changed}");
        assert_eq!(effects_of(database, changed, false), (false, false), "{changed}");
        let names = ["nosuch".to_owned(), "OTHER".to_owned()];
        assert!(mentions_any(database, &[changed], true, &names).unwrap());
        assert!(!mentions_any(database, &[changed], true, &names[..1]).unwrap());
    }
    assert!(!has_creator(database).unwrap());
    for body in [
        "CREATE TEMP TABLE t (a int)",
        "set local\tsearch_path TO x",
        "PERFORM set_config('a', 'b', true)",
        "SET SESSION AUTHORIZATION u",
        "PERFORM dblink_exec('x')",
    ] {
        run(database, &format!("CREATE FUNCTION makes() {trigger} $$BEGIN {body}; RETURN NEW; END$$"));
        assert!(has_creator(database).unwrap(), "{body}");
        assert!(functions::may_change_names(body), "{body}");
        run(database, "DROP FUNCTION makes");
    }
    run(database, "CREATE RULE r AS ON DELETE TO other DO INSTEAD NOTHING");
    assert_eq!(effects_of(database, "DELETE FROM other", true), (true, true));
    assert!(has_creator(database).unwrap());
    run_all(
        database,
        &[
            "DROP RULE r ON other",
            "DROP TABLE child",
            "DROP TRIGGER note ON source",
            "CREATE FUNCTION on_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION on_event()",
        ],
    );
    assert!(has_event_triggers(database).unwrap());
    run(database, "ALTER EVENT TRIGGER e DISABLE");
    assert!(!has_event_triggers(database).unwrap());
}

/// This user may not create temporary objects.
fn without_privileges_every_use_counts(server: &Postgresql) {
    let owner = &mut *server.open();
    run_all(
        owner,
        &[
            "CREATE VIEW outer_view AS SELECT a, y FROM source",
            "CREATE VIEW naming AS SELECT a, y AS outcome FROM source",
            "CREATE ROLE poor LOGIN",
            "REVOKE TEMP ON DATABASE postgres FROM PUBLIC",
            "GRANT ALL ON SCHEMA public TO poor",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO poor",
            "ALTER TABLE outcome OWNER TO poor",
        ],
    );
    let source = server.source().replace("user=u", "user=poor");
    let poor = &mut *connect(&source, options(|_| ())).unwrap();
    assert_may_read(poor, "SELECT a, y FROM source AS outcome", ": it names it");
    assert_may_read(
        poor,
        "SELECT * FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)",
        ": it names it",
    );
    assert_may_read(poor, "SELECT * FROM naming", "view naming names it");
    assert_not_read(poor, &["SELECT * FROM source", "SELECT * FROM outer_view"]);
}
