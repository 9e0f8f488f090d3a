"""A result table that its own statement reads is rejected before any work, also if it is read indirectly."""

from __future__ import annotations

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner

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
        assert "replaced table outcome (2 rows)\n" in run(agent, select).succeeded().stdout, select


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
        runner.sql("ALTER TABLE outcome COMMENT = 'SQLFlow result table outcome'")
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
        message = run(agent, "SELECT * FROM source WHERE a < parsed()").failure().message
        assert "cannot write table outcome" in message
        assert "the statement may read it: function" in refusal(agent, "SELECT * FROM source WHERE a < outer_one()")
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
