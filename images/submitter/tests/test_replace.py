"""A result table that a user copied, or that other objects depend on, is not replaced, or the losses are reported."""

from __future__ import annotations

import pytest
from conftest import Runner

from sqlflow_submitter.errors import UserError

SELECT = "SELECT a, y FROM source"


@pytest.fixture
def tables(runner: Runner) -> Runner:
    """Creates a table `source`, a model `m`, and a result table `outcome` of two rows."""
    runner.sql(
        *(f"DROP TABLE IF EXISTS {name}" for name in ("outcome", "source")),
        "CREATE TABLE source (a INT, y INT)",
        "INSERT INTO source VALUES (1, 1), (2, 2)",
    )
    runner.train(SELECT, "y", attributes={"objective": "reg:squarederror", "train.num_boost_round": 1})
    predict(runner)
    return runner


def predict(runner: Runner, table: str = "outcome", select: str = SELECT, **fields: object) -> None:
    runner.predict(select, table, "p", **fields)


def refused(runner: Runner, table: str = "outcome") -> str:
    """Returns the message about the statement, which is rejected before any work."""
    with pytest.raises(UserError, match=f"cannot write table {table}: ") as caught:
        # An error before any work, even if the rows could not be read.
        predict(runner, table, "SELECT a, y, 1 / (a - a) AS p FROM source")
    return str(caught.value)


def dialect(runner: Runner) -> str:
    return runner.dsn.partition(":")[0]


def tables_like(runner: Runner, pattern: str = "outcome%") -> list[tuple[str, ...]]:
    return runner.sql(f"SELECT table_name FROM information_schema.tables WHERE table_name LIKE '{pattern}'")


def test_table_with_dependent_objects_is_rejected(tables: Runner) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("SQLite replaces a table with its name only")
    if dialect(tables) == "mysql":
        cases = [
            (
                ["ALTER TABLE outcome ADD PRIMARY KEY (a)"],
                "CREATE TABLE kid (id INT, CONSTRAINT up FOREIGN KEY (id) REFERENCES outcome (a))",
                "DROP TABLE kid",
                "foreign key up of table test.kid",
            )
        ]
    else:
        cases = [
            (
                ["ALTER TABLE outcome ADD PRIMARY KEY (a)"],
                "CREATE TABLE kid (id INT CONSTRAINT up REFERENCES outcome (a))",
                "DROP TABLE kid",
                "constraint up on table kid",
            ),
            ([], "CREATE TABLE kid () INHERITS (outcome)", "DROP TABLE kid", "table kid"),
            (
                [],
                "CREATE FUNCTION f() RETURNS SETOF outcome LANGUAGE sql AS 'SELECT 1, 2, 3::float8'",
                "DROP FUNCTION f",
                "function f()",
            ),
            ([], "CREATE TABLE kid (x outcome[])", "DROP TABLE kid", "column x of table kid"),
            ([], "CREATE MATERIALIZED VIEW kid AS SELECT a FROM outcome", "DROP MATERIALIZED VIEW kid", "kid"),
        ]
    for prepare, make, remove, name in cases:
        tables.sql(*prepare, make)
        try:
            assert f"{name} depends on it, so the database cannot replace it; drop that first" in refused(tables)
            assert tables_like(tables) == [("outcome",)]
        finally:
            tables.sql(remove)
        predict(tables)


def test_table_with_enforced_foreign_keys_is_rejected_in_sqlite(sqlite_runner: Runner) -> None:
    """DROP TABLE would delete the rows of the other table, or set them to NULL."""
    runner = sqlite_runner
    runner.sql("CREATE TABLE source (a INT, y INT)", "INSERT INTO source VALUES (1, 1), (2, 2)")
    runner.train(SELECT, "y", attributes={"objective": "reg:squarederror", "train.num_boost_round": 1})
    predict(runner)
    runner.sql(
        "CREATE UNIQUE INDEX ix ON outcome (a)",
        "CREATE TABLE kid (id REFERENCES Outcome (a) ON DELETE CASCADE)",
        "INSERT INTO kid VALUES (1)",
    )
    # As after `PRAGMA foreign_keys = ON` in the program.
    runner.replay = ("PRAGMA foreign_keys = ON",)
    for attributes in ({}, {"result.replace": True}):
        with pytest.raises(UserError, match="foreign key of table kid depends on it, so the database cannot replace"):
            predict(runner, attributes=attributes)
    runner.replay = ()
    # SQLite's default: foreign keys are not enforced.
    predict(runner)
    assert runner.sql("SELECT id FROM kid") == [("1",)]


def test_name_of_another_object_is_rejected_before_any_work(tables: Runner) -> None:
    objects = {
        "sqlite": [
            ("CREATE INDEX taken ON source (a)", "DROP INDEX taken", "taken", "it is an index"),
            ("", "", "sqlite_own", "SQLite reserves names that begin with sqlite_"),
        ],
        "mysql": [("CREATE SEQUENCE taken", "DROP SEQUENCE taken", "taken", "it is a sequence")],
        "postgresql": [
            ("CREATE INDEX taken ON source (a)", "DROP INDEX taken", "taken", "it is an index"),
            ("CREATE SEQUENCE taken", "DROP SEQUENCE taken", "taken", "it is a sequence"),
            ("CREATE TYPE taken AS ENUM ('a')", "DROP TYPE taken", "taken", "it is a type"),
            ("CREATE TYPE taken AS (a INT)", "DROP TYPE taken", "taken", "it is a composite type"),
            ("CREATE DOMAIN taken AS INT", "DROP DOMAIN taken", "taken", "it is a type"),
            ("", "", "pg_catalog.taken", "PostgreSQL reserves schema pg_catalog"),
        ],
    }
    for make, remove, name, reason in objects[dialect(tables)]:
        tables.sql(*filter(None, [make]))
        try:
            assert refused(tables, name) == f"cannot write table {name}: {reason}; choose another name"
        finally:
            tables.sql(*filter(None, [remove]))


def test_array_type_gives_its_name_to_a_table(tables: Runner) -> None:
    if dialect(tables) != "postgresql":
        pytest.skip("only PostgreSQL has array types")
    tables.sql("CREATE TYPE kind AS ENUM ('a')")
    try:
        predict(tables, "_kind")
        predict(tables, "_kind")
    finally:
        tables.sql("DROP TABLE IF EXISTS _kind", "DROP TYPE kind")


def test_table_that_refers_to_itself_is_replaced(tables: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("SQLite adds no constraint to a table")
    tables.sql(
        "ALTER TABLE outcome ADD PRIMARY KEY (a)",
        "ALTER TABLE outcome ADD CONSTRAINT up FOREIGN KEY (y) REFERENCES outcome (a)",
    )
    if dialect(tables) == "postgresql":
        tables.sql(
            "CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER tr BEFORE UPDATE ON outcome FOR EACH ROW WHEN (NEW.a > 1) EXECUTE FUNCTION fire()",
            "CREATE POLICY po ON outcome USING (a IN (SELECT a FROM outcome))",
            "CREATE RULE ru AS ON UPDATE TO outcome DO ALSO SELECT count(*) FROM outcome",
        )
    predict(tables)
    assert "replaced table outcome (2 rows)" in capfd.readouterr().out
    if dialect(tables) == "postgresql":
        tables.sql("DROP FUNCTION fire")


def test_lost_additions_of_a_user_are_reported(tables: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    fire = "BEGIN DELETE FROM source WHERE a < 0; END"
    trigger = {
        "sqlite": f"CREATE TRIGGER tr AFTER INSERT ON outcome {fire}",
        "mysql": f"CREATE TRIGGER tr AFTER INSERT ON outcome FOR EACH ROW {fire}",
        "postgresql": "CREATE TRIGGER tr BEFORE UPDATE ON outcome FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    }
    tables.sql(
        "CREATE INDEX ix ON outcome (a)", trigger[dialect(tables)], "ALTER TABLE outcome ADD COLUMN note VARCHAR(9)"
    )
    more = ["GRANT SELECT ON outcome TO PUBLIC"] if dialect(tables) == "postgresql" else []
    tables.sql(*more)
    predict(tables)
    granted = "privileges of PUBLIC, " if more else ""
    lost = f"lost with it: index ix, {granted}trigger tr, column note\n"
    assert f"replaced table outcome (2 rows); {lost}" in capfd.readouterr().out
    predict(tables)
    assert "replaced table outcome (2 rows)\n" in capfd.readouterr().out


def test_table_copied_or_moved_to_another_schema_is_not_replaced(tables: Runner) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("SQLite copies no marker")
    tables.sql("CREATE SCHEMA elsewhere")
    try:
        if dialect(tables) == "mysql":
            tables.sql("CREATE TABLE elsewhere.outcome LIKE test.outcome")
            made_as = "test.outcome"
        else:
            tables.sql("ALTER TABLE outcome SET SCHEMA elsewhere")
            made_as = "public.outcome"
        message = refused(tables, "elsewhere.outcome")
        assert f"it was copied, moved or renamed: SQLFlow made it as {made_as}; choose another name" in message
        predict(tables, "elsewhere.outcome", attributes={"result.replace": True})
        predict(tables, "elsewhere.outcome")
        # A marker of an earlier version.
        mark = "COMMENT ON TABLE outcome IS" if dialect(tables) == "postgresql" else "ALTER TABLE outcome COMMENT ="
        predict(tables)
        tables.sql(f"{mark} 'SQLFlow result table outcome'")
        assert "its marker is of an earlier version, which does not show whether it was copied" in refused(tables)
    finally:
        tables.sql("DROP TABLE elsewhere.outcome", "DROP SCHEMA elsewhere")


def test_missing_privilege_is_found_before_any_work(tables: Runner) -> None:
    if dialect(tables) == "sqlite":
        pytest.skip("SQLite has no users")
    if dialect(tables) == "mysql":
        tables.sql("GRANT SELECT, INSERT, CREATE, ALTER ON test.* TO 'poor'@'%' IDENTIFIED BY 'p'")
        remove = ["DROP USER 'poor'@'%'"]
        expected = "this user may not replace tables in database test: DROP command denied"
    else:
        tables.sql(
            "CREATE ROLE poor LOGIN PASSWORD 'p'",
            "GRANT ALL ON SCHEMA public TO poor",
            "GRANT ALL ON source, outcome TO poor",
        )
        remove = ["DROP OWNED BY poor", "DROP ROLE poor"]
        expected = "it belongs to user u, and only its owner can replace it; choose another name"
    owner = tables.dsn
    try:
        scheme, _, rest = owner.partition("://")
        tables.dsn = f"{scheme}://poor:p@{rest.rpartition('@')[2]}"
        assert expected in refused(tables)
    finally:
        tables.dsn = owner
        tables.sql(*remove)


def test_foreign_key_of_a_hidden_table_is_found_before_any_work(tables: Runner) -> None:
    if dialect(tables) != "mysql":
        pytest.skip("others show all foreign keys")
    tables.sql(
        "GRANT ALL ON test.* TO 'poor'@'%' IDENTIFIED BY 'p'",
        # The column has the name of the first probe.
        "ALTER TABLE outcome ADD PRIMARY KEY (a), ADD COLUMN sqlflow_no_column_0 INT",
        "CREATE DATABASE hidden",
        "CREATE TABLE hidden.kid (id INT, FOREIGN KEY (id) REFERENCES test.outcome (a))",
    )
    owner = tables.dsn
    try:
        tables.dsn = f"mysql://poor:p@{owner.rpartition('@')[2]}"
        assert "outcome: a foreign key of a table that this user cannot see depends on it, so" in refused(tables)
        with pytest.raises(UserError, match="cannot see depends on it"):
            predict(tables, attributes={"result.replace": True})
        tables.dsn = owner
        tables.sql("DROP TABLE hidden.kid")
        tables.dsn = f"mysql://poor:p@{owner.rpartition('@')[2]}"
        predict(tables)
        assert tables_like(tables) == [("outcome",)]
        # Its own foreign key is lost with it, and so is one to itself.
        tables.sql(
            "ALTER TABLE outcome ADD PRIMARY KEY (a), ADD COLUMN up INT",
            "ALTER TABLE outcome ADD FOREIGN KEY (up) REFERENCES outcome (a)",
        )
        predict(tables)
    finally:
        tables.dsn = owner
        tables.sql("DROP DATABASE hidden", "DROP USER 'poor'@'%'")
