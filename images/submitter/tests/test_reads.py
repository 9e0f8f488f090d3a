"""A result table that its own statement reads is rejected before any work, also if it is read indirectly."""

from __future__ import annotations

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner

from sqlflow_submitter.errors import UserError

ROWS = "(1, 1), (2, 2)"


@pytest.fixture
def tables(runner: Runner) -> Runner:
    """Creates tables `source` and `other`, a model `m`, and a result table `outcome` with a marker and two rows."""
    drop = [f"DROP TABLE IF EXISTS {name}" for name in ("outcome", "source", "other")]
    make = [sql for name in ("source", "other") for sql in (f"CREATE TABLE {name} (a INT, y INT)", insert(name))]
    runner.sql("DROP VIEW IF EXISTS outer_view", "DROP VIEW IF EXISTS inner_view", *drop, *make)
    runner.train("SELECT a, y FROM source", "y", attributes={"objective": "reg:squarederror"})
    runner.run(**PREDICT, select="SELECT a, y FROM source", model_dir="m")
    return runner


PREDICT: dict[str, Any] = {"kind": "predict", "result_table": "outcome", "result_column": "p", "model": "m"}


def insert(table: str) -> str:
    return f"INSERT INTO {table} VALUES {ROWS}"


def run(agent: StandInAgent, select: str, **fields: Any) -> Any:
    return agent.run({**PREDICT, "select": select, "model_dir": "m", **fields})


def refusal(agent: StandInAgent, select: str, **fields: Any) -> str:
    """Returns the message about the rejected statement. No work was done."""
    done = run(agent, select, **fields)
    assert done.kinds() == ["started", "failure"], select
    failure = done.failure()
    assert failure.user_error
    assert "PREDICT" not in done.stdout
    assert "WITH result.replace = true replaces it: what it holds now, 2 rows, is lost" in failure.message
    return str(failure.message)


def predict(runner: Runner, select: str) -> Any:
    """Runs the statement in this process."""
    return runner.run(**PREDICT, select=select, model_dir="m")


def refused(runner: Runner, select: str) -> str:
    """Returns the message about the statement, which is rejected in this process."""
    with pytest.raises(UserError, match="cannot write table outcome: ") as caught:
        predict(runner, select)
    return str(caught.value)


def dialect(runner: Runner) -> str:
    return runner.dsn.partition(":")[0]


READ = [
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
]

NOT_READ = [
    "SELECT outcome.a, y AS outcome FROM source AS outcome",
    "SELECT a, 'SELECT a FROM outcome, outcome' AS t FROM source -- FROM outcome",
    "SELECT a, y /* FROM outcome */ FROM source WHERE 'it''s FROM outcome' <> ''",
    "WITH outcome AS (SELECT a, y FROM source) SELECT * FROM outcome WHERE a IN (SELECT a FROM outcome)",
    "SELECT * FROM (SELECT a, y FROM source) AS outcome",
]


def test_table_in_a_branch_without_rows_is_read(tables: Runner, agent: StandInAgent) -> None:
    # SQLite reads this as a reference to itself.
    own_name = "WITH outcome AS (SELECT a, y FROM outcome) SELECT a, y FROM outcome"
    for select in READ if dialect(tables) == "sqlite" else [*READ, own_name]:
        assert "cannot write table outcome: the statement reads it; choose another name" in refusal(agent, select)
    assert tables.sql("SELECT count(*) FROM outcome") == [("2",)]


def test_name_that_is_not_a_table_is_not_read(tables: Runner, agent: StandInAgent) -> None:
    for select in NOT_READ:
        assert "replaced table outcome (2 rows)" in run(agent, select).succeeded().stdout, select


def test_table_that_sqlite_removes_from_a_select_is_read(tables: Runner) -> None:
    """SQLite's parser removes what a constant decides, and so its own report lacks these tables."""
    if dialect(tables) != "sqlite":
        pytest.skip("only SQLite")
    removed = [
        "0 AND a IN (SELECT 1 FROM main.outcome)",
        "a IN (SELECT a FROM other, [outcome]) AND 0",
        "(SELECT count(*) FROM (other JOIN 'outcome')) IN ()",
        "1 OR EXISTS (SELECT 1 FROM /* x */ `outcome`)",
        "EXISTS (SELECT 1 FROM other ORDER BY (SELECT max(a) FROM outcome))",
        "0 AND a IN outcome",
    ]
    for condition in removed:
        select = f"SELECT * FROM source WHERE {condition}"
        assert "the statement reads it" in refused(tables, select), condition
        tables.sql(f"CREATE VIEW [inner view] AS {select}", "CREATE VIEW outer_view AS SELECT a, y FROM [inner view]")
        for through in ("SELECT * FROM outer_view", "SELECT * FROM source WHERE a IN () AND a IN main.outer_view"):
            assert "the statement reads it" in refused(tables, through), condition
        tables.sql("DROP VIEW outer_view", "DROP VIEW [inner view]")
    tables.sql("CREATE VIEW outer_view AS SELECT a FROM outcome")
    for select in (
        "SELECT a, y, 'FROM outer_view, outcome' AS t FROM source WHERE 0 AND a IS NOT DISTINCT FROM y -- FROM outcome",
        "SELECT outcome.a, outcome.y, 1 AS outer_view FROM (SELECT a, y FROM source) outcome, other",
        "WITH x(a) AS (SELECT 1), outcome AS NOT MATERIALIZED (SELECT a, y FROM source) SELECT * FROM outcome",
    ):
        predict(tables, select)


UNUSUAL_NAMES = {
    "mysql": ["2020v", "$v", "`v-1`", "`v``q`", "vé€", "`a b`", '`v"w`'],
    "postgresql": ["v$1", '"2020v"', '"v""q"', '"a b"', "vé€"],
    "sqlite": ["v$1", "[2020v]", '"v""q"', "`a b`", "vé€😀"],
}


def test_table_read_through_a_view_with_an_unusual_name_is_found(tables: Runner) -> None:
    if dialect(tables) == "postgresql":
        # A view prevents replacement; the function reads through it.
        for name in UNUSUAL_NAMES["postgresql"]:
            tables.sql(
                "CREATE FUNCTION plain() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM outcome$$",
                f"CREATE VIEW {name} AS SELECT a, y FROM source WHERE a > plain()",
                f"CREATE FUNCTION f() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT a FROM {name}); END$$",
            )
            try:
                assert "function plain names it" in refused(tables, "SELECT * FROM source WHERE a > f()"), name
            finally:
                tables.sql("DROP FUNCTION f", f"DROP VIEW {name}", "DROP FUNCTION plain")
        return
    for name in UNUSUAL_NAMES[dialect(tables)]:
        tables.sql(f"CREATE VIEW {name} AS SELECT a, y FROM outcome", f"CREATE VIEW w_view AS SELECT * FROM {name}")
        try:
            for view in (name, "w_view"):
                assert "the statement may read it" in refused(tables, f"SELECT * FROM {view}").replace(
                    "reads", "may read"
                ), name
        finally:
            tables.sql("DROP VIEW w_view", f"DROP VIEW {name}")


def test_table_read_by_a_function_with_an_unusual_name_is_found(tables: Runner) -> None:
    if dialect(tables) != "mysql":
        pytest.skip("others have other rules for names")
    for name in ("fn1", "3fn", "`f n`", "`f``n`", "$f"):
        tables.sql(
            f"CREATE FUNCTION {name}(i INT) RETURNS INT READS SQL DATA RETURN (SELECT max(a) FROM outcome)",
            f"CREATE VIEW outer_view AS SELECT a, y, {name}(3) AS x FROM source",
        )
        try:
            for call in ("(3)", " /* ( */ (3)", "/*!*/(3)", " -- x\n#\n(3)", "/*!50000 (3) */"):
                assert "names it" in refused(tables, f"SELECT a, y, {name}{call} AS x FROM source"), name + call
            assert "names it" in refused(tables, "SELECT * FROM outer_view"), name
        finally:
            tables.sql("DROP VIEW outer_view", f"DROP FUNCTION {name}")


def test_table_read_through_a_type_is_found(tables: Runner) -> None:
    if dialect(tables) != "postgresql":
        pytest.skip("others have no such types")
    tables.sql(
        "CREATE FUNCTION plain(i int) RETURNS boolean LANGUAGE plpgsql AS "
        "'BEGIN RETURN i > (SELECT -count(*) FROM outcome); END'",
        "CREATE DOMAIN checked AS int CHECK (plain(VALUE))",
        "CREATE DOMAIN again AS checked",
        "CREATE TYPE pair AS (x int, z again)",
    )
    try:
        for value in ("a::checked", "a::again", "(ARRAY[a]::checked[])[1]", "(ROW(1, a)::pair).z"):
            assert "function plain names it" in refused(tables, f"SELECT a, y, {value} AS x FROM source"), value
    finally:
        tables.sql("DROP TYPE pair", "DROP DOMAIN again", "DROP DOMAIN checked", "DROP FUNCTION plain")


def test_table_that_a_select_names_in_a_text_for_a_function_is_found(tables: Runner) -> None:
    if dialect(tables) != "postgresql":
        pytest.skip("functions of others cannot run a text")
    tables.sql(
        "CREATE FUNCTION rd(t text) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM ' || t INTO n; RETURN n; END $$",
        "CREATE FUNCTION caller(t text) RETURNS bigint LANGUAGE sql AS 'SELECT rd(t)'",
        "CREATE FUNCTION harmless(t text) RETURNS SETOF int LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT 1; END'",
        "CREATE VIEW outer_view AS SELECT a, y, rd('outcome') AS x FROM source",
    )
    try:
        for x in ("rd('outcome')", "rd(E'public.outcome')", "caller($$Outcome$$)", 'rd($q$ "outcome" $q$)'):
            message = refused(tables, f"SELECT a, y, {x} AS x FROM source")
            assert "function rd may run a text, and a text of the select names it" in message, x
        assert "function rd may run a text" in refused(tables, "SELECT a, y FROM outer_view")
        tables.sql(
            "DROP VIEW outer_view",
            "CREATE VIEW outer_view AS SELECT a, y, query_to_xml('TABLE outcome', true, true, '')::text FROM source",
        )
        assert "may run a text, and the select names it" in refused(tables, "SELECT a, y FROM outer_view")
        assert "function rd may run" in refused(tables, r"SELECT a, y, E'\'' AS q, rd('outcome') AS x FROM source")
        for x in ("harmless('outcome')", "rd('source')", "'outcome'", "rd('source') AS outcome, a"):
            predict(tables, f"SELECT a, y, {x} AS x FROM source")
    finally:
        tables.sql("DROP VIEW outer_view", *(f"DROP FUNCTION {name}" for name in ("caller", "rd", "harmless")))


def test_table_read_through_views_is_found(tables: Runner, agent: StandInAgent) -> None:
    tables.sql(
        "CREATE VIEW inner_view AS SELECT a, y FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM other)",
        "CREATE VIEW outer_view AS SELECT a, y FROM inner_view WHERE 1 = 0",
    )
    run(agent, "SELECT * FROM outer_view").succeeded()
    tables.sql(
        "DROP TABLE outcome", "DROP VIEW outer_view", "DROP VIEW inner_view", "CREATE TABLE outcome (a INT, y INT)"
    )
    tables.sql(
        "CREATE VIEW inner_view AS SELECT a, y FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)",
        "CREATE VIEW outer_view AS SELECT a, y FROM inner_view WHERE 1 = 0",
        insert("outcome"),
    )
    if dialect(tables) == "postgresql":
        message = run(agent, "SELECT * FROM outer_view").failure().message
        assert "inner_view depends on it" in message
    else:
        # The marker, as SQLFlow would have written it.
        mark_as_ours(tables)
        assert "the statement reads it" in refusal(agent, "SELECT * FROM outer_view")
    tables.sql("DROP VIEW outer_view", "DROP VIEW inner_view")


def mark_as_ours(runner: Runner) -> None:
    if dialect(runner) == "mysql":
        runner.sql("ALTER TABLE outcome COMMENT = 'SQLFlow result table test.outcome'")
    else:
        runner.sql(
            "DROP TABLE outcome",
            "CREATE TABLE outcome (/* SQLFlow result table outcome */ a INT, y INT)",
            insert("outcome"),
        )


FUNCTIONS = {
    "mysql": [
        "CREATE FUNCTION plain() RETURNS INT READS SQL DATA RETURN (SELECT count(*) FROM outcome)",
        "CREATE FUNCTION caller(x INT) RETURNS INT READS SQL DATA BEGIN DECLARE n INT; SET n = plain(); RETURN n; END",
        "CREATE FUNCTION harmless() RETURNS INT READS SQL DATA RETURN (SELECT count(*) FROM other)",
    ],
    "postgresql": [
        "CREATE FUNCTION plain() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM outcome'",
        "CREATE FUNCTION caller(x int) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN plain(); END'",
        "CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM other'",
        "CREATE FUNCTION text_run() RETURNS bigint LANGUAGE plpgsql AS "
        "$$ DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM outcome' INTO n; RETURN n; END $$",
        "CREATE FUNCTION doubled(x int) RETURNS bigint LANGUAGE sql AS 'SELECT x + plain()'",
        "CREATE OPERATOR !+ (RIGHTARG = int, FUNCTION = doubled)",
    ],
}


def test_table_read_by_a_function_is_found(tables: Runner, agent: StandInAgent) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("SQLite keeps no functions")
    functions = FUNCTIONS[dialect(tables)]
    tables.sql(*functions, "CREATE VIEW outer_view AS SELECT a, y FROM source WHERE a > caller(1)")
    try:
        selects = ["SELECT * FROM source WHERE a < plain()", "SELECT * FROM source WHERE 1 = 0 AND a < caller (1)"]
        selects += ["SELECT * FROM outer_view"]
        if dialect(tables) == "postgresql":
            selects += ["SELECT * FROM source WHERE a = text_run()", "SELECT * FROM source WHERE a = !+ 1"]
            selects += ["SELECT *, query_to_xml('SELECT * FROM outcome', true, true, '') FROM source"]
        for select in selects:
            assert "cannot write table outcome: the statement may read it: " in refusal(agent, select), select
        assert "function plain names it" in refusal(agent, selects[0]).replace("test.", "")
        run(agent, "SELECT * FROM source WHERE a < 100 + harmless()").succeeded()
    finally:
        tables.sql("DROP VIEW outer_view")
        if dialect(tables) == "postgresql":
            tables.sql("DROP OPERATOR !+ (NONE, int)", "DROP FUNCTION doubled", "DROP FUNCTION text_run")
        tables.sql(*(f"DROP FUNCTION {name}" for name in ("caller", "plain", "harmless")))


def test_table_read_by_a_package_function_is_found(tables: Runner, agent: StandInAgent) -> None:
    if dialect(tables) != "mysql":
        pytest.skip("others have no packages")
    mode = "SET sql_mode = ORACLE"
    agent.run(
        "CREATE PACKAGE pack AS FUNCTION plain RETURN INT; END",
        "CREATE PACKAGE BODY pack AS FUNCTION plain RETURN INT AS n INT; "
        "BEGIN SELECT count(*) INTO n FROM outcome; RETURN n; END; END",
        replay=(mode,),
    ).succeeded()
    try:
        assert "function test.pack names it" in refusal(agent, "SELECT * FROM source WHERE a < test.pack.plain()")
    finally:
        agent.run("DROP PACKAGE pack", replay=(mode,)).succeeded()


def test_table_read_by_a_standard_sql_function_is_found(tables: Runner, agent: StandInAgent) -> None:
    if dialect(tables) != "postgresql":
        pytest.skip("others have no such functions")
    # PostgreSQL stores the parsed body and no text.
    tables.sql(
        "CREATE FUNCTION parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM outcome; END",
        "CREATE FUNCTION outer_one() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN parsed(); END'",
    )
    try:
        # Such a function also prevents the replacement.
        for select in ("SELECT * FROM source WHERE a < parsed()", "SELECT * FROM source WHERE a < outer_one()"):
            assert "function parsed() depends on it" in run(agent, select).failure().message
    finally:
        tables.sql("DROP FUNCTION outer_one", "DROP FUNCTION parsed")


def test_table_of_the_same_name_in_another_database_differs(tables: Runner, agent: StandInAgent) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("one file is one database")
    tables.sql("CREATE SCHEMA elsewhere", "CREATE TABLE elsewhere.outcome (a INT, y INT)", insert("elsewhere.outcome"))
    tables.sql("CREATE VIEW outer_view AS SELECT a, y FROM elsewhere.outcome WHERE 1 = 0")
    try:
        for select in (
            "SELECT * FROM elsewhere.outcome",
            "SELECT outcome.a, elsewhere.outcome.y FROM elsewhere.outcome",
            "SELECT * FROM outer_view",
        ):
            run(agent, select).succeeded()
    finally:
        tables.sql("DROP VIEW outer_view", "DROP TABLE elsewhere.outcome", "DROP SCHEMA elsewhere")


def test_validation_select_and_every_statement_are_checked(tables: Runner, agent: StandInAgent) -> None:
    hidden = "SELECT * FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)"
    for kind, fields in (("evaluate", {"label": "y"}), ("explain", {})):
        done = agent.run(
            {"kind": kind, "select": hidden, "model": "m", "model_dir": "m", "result_table": "outcome", **fields}
        )
        assert "the statement reads it" in done.failure().message


def test_without_privileges_every_use_of_the_name_counts(tables: Runner, agent: StandInAgent) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("SQLite has no users")
    tables.sql("CREATE VIEW outer_view AS SELECT a, y FROM source")
    if dialect(tables) == "mysql":
        rights = "SELECT, INSERT, CREATE, DROP, ALTER, EXECUTE"
        make = [f"GRANT {rights} ON test.* TO 'poor'@'%' IDENTIFIED BY 'p'", FUNCTIONS["mysql"][2]]
        remove = ["DROP USER 'poor'@'%'", "DROP FUNCTION harmless"]
    else:
        make = [
            "CREATE ROLE poor LOGIN PASSWORD 'p'",
            "REVOKE TEMP ON DATABASE postgres FROM PUBLIC",
            "GRANT ALL ON SCHEMA public TO poor",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO poor",
            "ALTER TABLE outcome OWNER TO poor",
        ]
        remove = ["DROP OWNED BY poor", "GRANT TEMP ON DATABASE postgres TO PUBLIC", "DROP ROLE poor"]
    tables.sql(*make)
    owner = agent.dsn
    try:
        scheme, _, rest = owner.partition("://")
        agent.dsn = f"{scheme}://poor:p@{rest.rpartition('@')[2]}"
        if scheme == "mysql":
            # EXPLAIN of a view needs a privilege of its own.
            message = "this user cannot see the text of view test.outer_view"
            assert message in refusal(agent, "SELECT * FROM outer_view")
            message = "this user cannot see the text of function test.harmless"
            assert message in refusal(agent, "SELECT * FROM source WHERE a < harmless()")
        else:
            assert "the statement may read it: it names it" in refusal(agent, "SELECT a, y FROM source AS outcome")
        assert "the statement" in refusal(agent, "SELECT * FROM source WHERE 1 = 0 AND EXISTS (SELECT 1 FROM outcome)")
        run(agent, "SELECT * FROM source").succeeded()
    finally:
        agent.dsn = owner
        tables.sql("DROP VIEW outer_view", *remove)
