"""Later statements are checked before the first one starts its work. None is rejected that could succeed."""

from __future__ import annotations

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from prechecks import TRAIN, assert_passes, database_of, existing, rejects, standard, use


def test_view_of_a_table_that_the_program_creates_is_not_missing(source: Runner, agent: StandInAgent) -> None:
    """Only SQLite creates a view of a missing table. In other databases, the table exists when the view is created."""
    # The name of MySQL's begins with a digit.
    name = "2021_view" if "mysql" in source.dsn else "later_view"
    view = f"CREATE VIEW {name} AS SELECT a, b, y, p FROM outcome"
    if "sqlite" in source.dsn:
        source.sql(view)
    elif "mysql" in source.dsn:
        source.sql("CREATE TABLE outcome (a INT, b INT, y INT, p DOUBLE)", view, "DROP TABLE outcome")
    else:
        pytest.skip("PostgreSQL drops no table that a view needs")
    reading = use("evaluate", 2, select=f"SELECT * FROM {name}", result_table="second")
    assert_passes(agent, use("predict"), reading)
    again = use("predict", 2, select=f"SELECT a, b, q FROM {name}", result_table="second")
    assert_passes(agent, use("predict"), again)
    # The result without the program's own table.
    assert "statement 3 (TO EVALUATE): " in rejects(agent, reading)


def test_statements_that_depend_on_earlier_ones_are_checked_in_part(source: Runner, agent: StandInAgent) -> None:
    # The second training replaces the first model, and nothing is known about the new one.
    hanging = {**TRAIN, "index": 2, "select": "SELECT a, y FROM outcome", "hangs_on_row": True}
    narrow = use("explain", 3, select="SELECT a FROM source")
    assert_passes(agent, use("predict"), hanging, narrow)
    assert "the model's column b does not exist" in rejects(agent, use("predict"), narrow)
    # The table may be replaced, because the program creates it.
    source.sql("CREATE TABLE outcome (a INT)")
    replacing = use("predict", attributes={"result.replace": True})
    schema = {"sqlite": "main", "mysql": "test", "postgresql": "public"}[source.dsn.partition(":")[0]]
    assert_passes(agent, replacing, use("predict", 2, result_table=f"{schema}.outcome"))


def test_duplicate_column_is_rejected(source: Runner, agent: StandInAgent) -> None:
    twice = "SELECT a, b, a AS c, y, y FROM source"
    assert "statement 2 (TO PREDICT): column y occurs" in rejects(agent, use("predict", select=twice))
    assert_passes(agent, use("predict", select=twice, result_column="y"))
    assert_passes(agent, use("explain", select=twice))
    needed = "SELECT a, b, a, y FROM source"
    assert "statement 2 (TO EXPLAIN): column a occurs 2 times in the select" in rejects(
        agent, use("explain", select=needed)
    )


def test_use_of_an_existing_model_is_checked(source: Runner, agent: StandInAgent) -> None:
    numbers = existing(source, "numbers", objective="reg:squarederror")
    old = {"model": "numbers", "model_dir": numbers}
    narrow = "SELECT a, y FROM source"
    for kind in ("predict", "evaluate", "explain"):
        message = rejects(agent, use(kind, select=narrow, **old))
        assert f"statement 2 (TO {kind.upper()}): the model's column b does not exist" in message
    metric = {"validation.metrics": "accuracy"}
    message = "metric accuracy does not exist (for this model there are: rmse"
    assert message in rejects(agent, use("evaluate", attributes=metric, **old))
    # The columns of a later table are unknown, but the metric can be checked.
    assert message in rejects(agent, use("evaluate", attributes=metric, hangs_on_row=True, select=narrow, **old))
    assert_passes(agent, use("evaluate", hangs_on_row=True, select="SELECT * FROM outcome", **old))
    probabilities = {"predict.probabilities": True}
    assert "model numbers has none: it predicts a number" in rejects(
        agent, use("predict", attributes=probabilities, **old)
    )
    classes = existing(source, "classes", objective="multi:softprob")
    known = {"model": "classes", "model_dir": classes}
    clash = "SELECT a, b, y AS p_1 FROM source"
    message = rejects(agent, use("predict", select=clash, attributes=probabilities, **known))
    assert "the select already has a column p_1" in message
    assert_passes(agent, use("predict", attributes=probabilities, **known))
    assert_passes(agent, use("evaluate", attributes=metric, **known))
    # Without metadata from the agent, nothing is checked.
    assert_passes(agent, use("predict", select=narrow, model="x", model_dir="ahead/x"))


def test_unreadable_model_is_rejected(source: Runner, agent: StandInAgent) -> None:
    (source.folder / "ahead/newer").mkdir(parents=True)
    (source.folder / "ahead/newer/model_meta.json").write_text('{"format": 99}')
    message = rejects(agent, use("predict", model="newer", model_dir="ahead/newer"))
    assert "statement 2 (TO PREDICT): cannot read the model in ahead/newer: it has format 99" in message


def test_continued_training_is_checked(source: Runner, agent: StandInAgent) -> None:
    numbers = existing(source, "numbers", objective="reg:squarederror")
    new = {key: value for key, value in TRAIN.items() if key != "output"} | {"index": 1, "model": "next"}
    for using in ({"using": "numbers", "pretrained": numbers}, {"using": "new"}):
        assert_passes(agent, {**new, **using}, use("predict", 2, model="next"))
        message = rejects(agent, {**new, **using, "estimator": "xgboost.dart"})
        assert "statement 2 (TO TRAIN): USING: the earlier model is of xgboost.gbtree, not of xgboost.dart" in message
        message = rejects(agent, {**new, **using, "attributes": {"objective": "reg:gamma"}})
        assert "the earlier model has objective reg:squarederror" in message
        message = rejects(agent, {**new, **using, "select": "SELECT a, y FROM source"})
        assert "b does not exist" in message
        message = rejects(agent, {**new, **using}, use("explain", 2, model="next", select="SELECT a FROM source"))
        assert "statement 3 (TO EXPLAIN): the model's column b does not exist" in message
    # If the program trains the model without an objective, the estimator is known.
    open_first = {**TRAIN, "attributes": {}}
    message = rejects(agent, {**new, "using": "new", "estimator": "xgboost.dart"}, first=open_first)
    assert "not of xgboost.dart" in message


def test_queries_are_checked(source: Runner, agent: StandInAgent) -> None:
    def query(sql: str, **fields: Any) -> dict[str, Any]:
        return {"index": 1, "kind": "standard", "sql": sql, **fields}

    assert_passes(
        agent,
        query("SELECT a FROM source;"),
        query("-- a\nSELECT 1"),
        query("WITH q AS (SELECT 1 AS x) SELECT * FROM q"),
    )
    assert_passes(agent, query("SELECT p FROM outcome", hangs_on_row=True))
    message = rejects(agent, query("SELECT nosuch FROM source;"))
    assert message.startswith("statement 2 (SELECT): ")
    assert "nosuch" in message
    assert "did you mean source?" in rejects(agent, query("SELECT a FROM sorce"))


def test_every_form_of_a_query_is_checked(source: Runner, agent: StandInAgent) -> None:
    def standard(sql: str) -> dict[str, Any]:
        return {"index": 1, "kind": "standard", "sql": sql}

    wrong = {
        "/* x */ -- y\nSELECT * FROM nosuch": "SELECT",
        "EXPLAIN SELECT * FROM nosuch": "EXPLAIN",
        "WITH q AS (SELECT * FROM nosuch) SELECT * FROM q": "WITH",
        "INSERT INTO source (a, nosuch) VALUES (1, 2)": "INSERT",
        "-- x\nUPDATE source SET nosuch = 1": "UPDATE",
        "DELETE FROM nosuch": "DELETE",
        "SELECT * FROM source WHERE": "SELECT",
    }
    right = ["EXPLAIN SELECT a FROM source", "INSERT INTO source VALUES (9, 9, 9)", "DELETE FROM source"]
    if "mysql" in source.dsn:
        right += ["SET @x = 1"]
    if "sqlite" not in source.dsn:
        wrong |= {"(SELECT a FROM nosuch)": "SELECT", "((SELECT 1 AS a) UNION (SELECT nosuch FROM source))": "SELECT"}
        right += ["(SELECT a FROM source)", "((SELECT 1 AS a) UNION (SELECT 2 AS a)) ORDER BY 1"]
    if "postgresql" in source.dsn:
        wrong |= {"TABLE nosuch": "TABLE"}
        right += ["TABLE source", "VALUES (1), (2)"]
    for sql, word in wrong.items():
        message = rejects(agent, standard(sql))
        assert message.startswith(f"statement 2 ({word}): "), sql
        assert "nosuch" in message or "syntax" in message or "incomplete" in message, sql
    assert_passes(agent, *map(standard, right))
    # None of them was executed.
    assert source.sql("SELECT count(*) FROM source") == [("3",)]


def test_columns_of_a_kind_that_no_model_reads(source: Runner, agent: StandInAgent) -> None:
    """They are found before the first training, in each kind of statement."""
    binary = {"sqlite": "x'00'", "mysql": "CAST(b AS BINARY)", "postgresql": "'\\x00'::bytea"}[database_of(source)]
    if database_of(source) == "sqlite":
        # The declared type of an expression is unknown.
        source.sql("DROP TABLE IF EXISTS second", "CREATE TABLE second (a INT, b BLOB, y INT)")
        source.sql("INSERT INTO second VALUES (1, x'00', 1)")
        select, empty = "SELECT a, b, y FROM second", "SELECT a, b, y FROM second WHERE typeof(b) <> 'blob'"
    else:
        select = f"SELECT a, {binary} AS b, y FROM source"
        empty = f"SELECT a, CASE WHEN a > 9 THEN {binary} END AS b, y FROM source"
    what = "cannot read column b: its type is "
    numbers = existing(source, "numbers", objective="reg:squarederror")
    for fields in ({}, {"model": "numbers", "model_dir": numbers}):
        for kind in ("predict", "evaluate", "explain"):
            message = rejects(agent, use(kind, select=select, **fields))
            assert message.startswith(f"statement 2 (TO {kind.upper()}): {what}"), message
            assert "a model reads no binary data; if the model was trained so, write " in message
        # Rows may change before.
        assert_passes(agent, standard("DELETE FROM source", effect="rows"), use("explain", 2, select=select, **fields))
        assert_passes(agent, use("explain", select=empty, **fields))
    training = {**TRAIN, "index": 1, "model": "next", "select": select}
    assert f"statement 2 (TO TRAIN): {what}" in rejects(agent, training)
    assert what in agent.run({**TRAIN, "select": select}).failure().message
    held_out = {**TRAIN, "index": 1, "attributes": {**TRAIN["attributes"], "validation.select": select}}
    assert f"statement 2 (TO TRAIN): validation.select: {what}" in rejects(agent, held_out)
    labelled = use("evaluate", select=f"SELECT a, b, {binary} AS y FROM source")
    if database_of(source) != "sqlite":
        message = rejects(agent, labelled)
        assert "statement 2 (TO EVALUATE): cannot read label y: its type is " in message
        assert "a label is a number, a text or a boolean; if it holds text, write " in message


def test_dates_and_money_in_place_of_numbers(source: Runner, agent: StandInAgent) -> None:
    if database_of(source) == "sqlite":
        pytest.skip("its values decide")
    date = "CAST('2024-01-02' AS date)"
    select = f"SELECT a, {date} AS b, y FROM source"
    message = rejects(agent, use("explain", select=select))
    reads = "cannot read column b: its type is date, and the model reads a number there; select a number"
    assert message == f"statement 2 (TO EXPLAIN): {reads}"
    dates = {**TRAIN, "select": select}
    reads = "and the model reads a date there; select a date"
    assert reads in rejects(agent, use("explain"), first=dates)
    assert_passes(agent, use("explain", select=select), first=dates)
    # Without a value, it is missing.
    assert_passes(agent, use("explain", select=f"SELECT a, CASE WHEN a > 9 THEN {date} END AS b, y FROM source"))
    if database_of(source) == "postgresql":
        assert_passes(agent, use("explain", select="SELECT a, 'infinity'::date AS b, y FROM source"))
        for kind in ("predict", "evaluate", "explain"):
            message = rejects(agent, use(kind, select="SELECT a, b::numeric::money AS b, y FROM source"))
            assert "cannot read column b as a number: its type is money" in message
        money = use("evaluate", select="SELECT a, b, y::numeric::money AS y FROM source")
        assert "cannot read column y as a number: its type is money" in rejects(agent, money)


def test_continued_training_on_other_columns_is_rejected(source: Runner, agent: StandInAgent) -> None:
    new = {key: value for key, value in TRAIN.items() if key != "output"} | {"index": 1, "model": "next"}
    new |= {"using": "new"}

    def columns(*names: str) -> dict[str, Any]:
        return {"columns": {"feature_columns": [{"ident": name} for name in names]}}

    message = rejects(agent, {**new, **columns("a")})
    assert message == "statement 2 (TO TRAIN): USING: the earlier model reads other columns: a, b"
    assert_passes(agent, {**new, **columns("b", "a")})
    wide = "SELECT a, b, a + 1 AS c, y FROM source"
    message = rejects(agent, {**new, "select": wide, **columns("a", "b", "c")})
    assert "the earlier model reads other columns: a, b" in message
    # Training omits a column without a value.
    void = {**TRAIN, "select": "SELECT a, b, y, CASE WHEN a > 9 THEN a END AS void FROM source"}
    assert_passes(agent, {**new, **columns("a", "b")}, first=void)
    validation = {"validation.select": "SELECT a, y FROM source"}
    message = rejects(agent, {**new, "attributes": {**TRAIN["attributes"], **validation}})
    assert "statement 2 (TO TRAIN): validation.select: the model's column b does not exist" in message


def test_impossible_result_table_is_rejected(source: Runner, agent: StandInAgent) -> None:
    message = rejects(agent, use("predict", result_table="no_such_place.outcome"))
    kind = "database" if "mysql" in source.dsn else "schema"
    assert f"cannot write table no_such_place.outcome: {kind} no_such_place does not exist" in message
    assert message.startswith("statement 2 (TO PREDICT): ")
    long_name = "x" * 65
    if "mysql" in source.dsn:
        message = rejects(agent, use("predict", result_table=long_name))
        assert "its name has 65 characters, and the database allows 64" in message
    else:
        assert_passes(agent, use("predict", result_table=long_name))


@pytest.mark.parametrize("value", ["NULL", "''", "'n/a'", "'infinity'"])
def test_column_without_values_is_not_required_later(source: Runner, agent: StandInAgent, value: str) -> None:
    """Training omits it, with any word for a missing value."""
    first = {**TRAIN, "select": f"SELECT a, b, y, CASE WHEN a > 0 THEN {value} END AS void FROM source"}
    assert "left out" in agent.run(first, ahead=[use("explain")]).succeeded().stdout
    twice = "SELECT a, b, a AS void, b AS void FROM source"
    assert_passes(agent, use("explain", select=twice), first=first)
    message = rejects(agent, use("explain"), first={**first, "select": "SELECT a, b, y, 'x' AS void FROM source"})
    assert "the model's column void does not exist" in message


@pytest.mark.parametrize("attributes", [{"num_class": 3}, {"eval_metric": "mlogloss"}])
def test_metric_must_fit_a_task_that_another_attribute_decides(
    source: Runner, agent: StandInAgent, attributes: dict[str, Any]
) -> None:
    del source
    later = use("evaluate", attributes={"validation.metrics": "rmse"})
    message = rejects(agent, later, first={**TRAIN, "attributes": attributes})
    assert "statement 2 (TO EVALUATE): metric rmse does not exist (for this model there are: accuracy" in message


def test_name_of_a_result_column_must_not_be_too_long(source: Runner, agent: StandInAgent) -> None:
    later = use("predict", result_column="p" * 65)
    if "mysql" in source.dsn:
        assert "its name has 65 characters, and the database allows 64; choose" in rejects(agent, later)
    else:
        assert_passes(agent, later)


def test_name_of_a_kept_column_must_not_be_too_long(source: Runner, agent: StandInAgent) -> None:
    later = use("predict", select=f"SELECT a, b, 1 AS {'k' * 65} FROM source")
    if "mysql" in source.dsn:
        found = "its name has 65 characters, and the database allows 64; rename it with AS in the select"
        assert f"statement 2 (TO PREDICT): cannot write column {'k' * 65}: {found}" in rejects(agent, later)
        assert_passes(agent, use("predict", select=f"SELECT a, b, 1 AS {'k' * 64} FROM source"))
        assert_passes(agent, use("explain", select=later["select"]))
    else:
        assert_passes(agent, later)
