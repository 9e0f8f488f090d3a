"""Later statements are checked before the first one does its work; what would work by then is not refused."""

from __future__ import annotations

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner

TRAIN: dict[str, Any] = {
    "kind": "train",
    "select": "SELECT a, b, y FROM source",
    "estimator": "xgboost.gbtree",
    "label": "y",
    "model": "new",
    "output": "outputs/new",
    "attributes": {"objective": "reg:squarederror", "train.num_boost_round": 2},
}
SOURCE = "SELECT * FROM source"


@pytest.fixture
def source(runner: Runner) -> Runner:
    """A table `source`, and none of the tables and views that the programs make."""
    runner.sql(
        "DROP VIEW IF EXISTS later_view",
        *(f"DROP TABLE IF EXISTS {name}" for name in ("outcome", "second", "source")),
        "CREATE TABLE source (a INT, b INT, y INT)",
        "INSERT INTO source VALUES (1, 2, 1), (2, 1, 2), (3, 3, 3)",
    )
    return runner


def use(kind: str, index: int = 1, **fields: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"index": index, "kind": kind, "select": SOURCE, "model": "new"}
    if kind == "predict":
        defaults |= {"result_table": "outcome", "result_column": "p"}
    if kind == "evaluate":
        defaults["label"] = "y"
    return {**defaults, **fields}


def assert_passes(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any] = TRAIN) -> None:
    agent.run(first, ahead=list(ahead)).succeeded()


def rejects(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any] = TRAIN) -> str:
    """Gives why a later statement cannot run: nothing was trained."""
    run = agent.run(first, ahead=list(ahead))
    assert run.kinds() == ["started", "failure"]
    failure = run.failure()
    assert failure.user_error
    assert "loaded" not in run.stdout
    return str(failure.message)


def existing(runner: Runner, name: str, label: str = "y", **attributes: Any) -> str:
    """Trains a model that exists before the program; gives the folder with what is known of it, as the agent does."""
    select = "SELECT a, b, y FROM source"
    runner.train(select, label, output=f"ahead/{name}", attributes={"train.num_boost_round": 1, **attributes})
    (runner.folder / f"ahead/{name}/model.ubj").unlink()
    return f"ahead/{name}"


def test_a_view_of_a_table_that_the_program_makes_is_not_missed(source: Runner, agent: StandInAgent) -> None:
    """Only SQLite makes such a view; in the others the table was there when the view was made."""
    view = "CREATE VIEW later_view AS SELECT a, b, y, p FROM outcome"
    if "sqlite" in source.dsn:
        source.sql(view)
    elif "mysql" in source.dsn:
        source.sql("CREATE TABLE outcome (a INT, b INT, y INT, p DOUBLE)", view, "DROP TABLE outcome")
    else:
        pytest.skip("PostgreSQL drops no table that a view needs")
    reading = use("evaluate", 2, select="SELECT * FROM later_view", result_table="second")
    assert_passes(agent, use("predict"), reading)
    again = use("predict", 2, select="SELECT a, b, q FROM later_view", result_table="second")
    assert_passes(agent, use("predict"), again)
    # As it would be without the program's own table.
    assert "statement 3 (TO EVALUATE): " in rejects(agent, reading)


def test_what_hangs_on_the_row_still_counts(source: Runner, agent: StandInAgent) -> None:
    # The second training is of another model by the name of the first, of which nothing is known yet.
    hanging = {**TRAIN, "index": 2, "select": "SELECT a, y FROM outcome", "hangs_on_row": True}
    narrow = use("explain", 3, select="SELECT a FROM source")
    assert_passes(agent, use("predict"), hanging, narrow)
    assert "the model's column b does not exist" in rejects(agent, use("predict"), narrow)
    # Its table is the program's own by then, whatever it is called.
    source.sql("CREATE TABLE outcome (a INT)")
    replacing = use("predict", attributes={"result.replace": True})
    schema = {"sqlite": "main", "mysql": "test", "postgresql": "public"}[source.dsn.partition(":")[0]]
    assert_passes(agent, replacing, use("predict", 2, result_table=f"{schema}.outcome"))


def test_a_column_that_comes_twice(source: Runner, agent: StandInAgent) -> None:
    twice = "SELECT a, b, a AS c, y, y FROM source"
    assert "statement 2 (TO PREDICT): column y comes" in rejects(agent, use("predict", select=twice))
    assert_passes(agent, use("predict", select=twice, result_column="y"))
    assert_passes(agent, use("explain", select=twice))
    needed = "SELECT a, b, a, y FROM source"
    assert "statement 2 (TO EXPLAIN): column a comes 2 times in the select" in rejects(
        agent, use("explain", select=needed)
    )


def test_what_is_known_of_an_existing_model_is_held_against_a_use_of_it(source: Runner, agent: StandInAgent) -> None:
    numbers = existing(source, "numbers", objective="reg:squarederror")
    old = {"model": "numbers", "model_dir": numbers}
    narrow = "SELECT a, y FROM source"
    for kind in ("predict", "evaluate", "explain"):
        told = rejects(agent, use(kind, select=narrow, **old))
        assert f"statement 2 (TO {kind.upper()}): the model's column b does not exist" in told
    metric = {"validation.metrics": "accuracy"}
    told = "metric accuracy does not exist (for this model there are: rmse"
    assert told in rejects(agent, use("evaluate", attributes=metric, **old))
    # The columns of a table to come are not known; the metric is.
    assert told in rejects(agent, use("evaluate", attributes=metric, hangs_on_row=True, select=narrow, **old))
    assert_passes(agent, use("evaluate", hangs_on_row=True, select="SELECT * FROM outcome", **old))
    probabilities = {"predict.probabilities": True}
    assert "model numbers has none, as it predicts a number" in rejects(
        agent, use("predict", attributes=probabilities, **old)
    )
    classes = existing(source, "classes", objective="multi:softprob")
    known = {"model": "classes", "model_dir": classes}
    clash = "SELECT a, b, y AS p_1 FROM source"
    told = rejects(agent, use("predict", select=clash, attributes=probabilities, **known))
    assert "the select has a column p_1 already" in told
    assert_passes(agent, use("predict", attributes=probabilities, **known))
    assert_passes(agent, use("evaluate", attributes=metric, **known))
    # Nothing is known where the agent found nothing.
    assert_passes(agent, use("predict", select=narrow, model="x", model_dir="ahead/x"))


def test_a_model_that_this_release_cannot_read(source: Runner, agent: StandInAgent) -> None:
    (source.folder / "ahead/newer").mkdir(parents=True)
    (source.folder / "ahead/newer/model_meta.json").write_text('{"format": 99}')
    told = rejects(agent, use("predict", model="newer", model_dir="ahead/newer"))
    assert "statement 2 (TO PREDICT): model in ahead/newer has format 99" in told


def test_a_training_that_continues_another(source: Runner, agent: StandInAgent) -> None:
    numbers = existing(source, "numbers", objective="reg:squarederror")
    new = {key: value for key, value in TRAIN.items() if key != "output"} | {"index": 1, "model": "next"}
    for using in ({"using": "numbers", "pretrained": numbers}, {"using": "new"}):
        assert_passes(agent, {**new, **using}, use("predict", 2, model="next"))
        told = rejects(agent, {**new, **using, "estimator": "xgboost.dart"})
        assert "statement 2 (TO TRAIN): USING: the earlier model is a xgboost.gbtree, not a xgboost.dart" in told
        told = rejects(agent, {**new, **using, "attributes": {"objective": "reg:gamma"}})
        assert "the earlier model has the objective reg:squarederror" in told
        told = rejects(agent, {**new, **using, "select": "SELECT a, y FROM source"})
        assert "b does not exist" in told
        told = rejects(agent, {**new, **using}, use("explain", 2, model="next", select="SELECT a FROM source"))
        assert "statement 3 (TO EXPLAIN): the model's column b does not exist" in told
    # Of what the row trains and gives no objective, the estimator is known.
    open_first = {**TRAIN, "attributes": {}}
    told = rejects(agent, {**new, "using": "new", "estimator": "xgboost.dart"}, first=open_first)
    assert "not a xgboost.dart" in told


def test_queries_are_checked_too(source: Runner, agent: StandInAgent) -> None:
    def query(sql: str, **fields: Any) -> dict[str, Any]:
        return {"index": 1, "kind": "standard", "sql": sql, **fields}

    assert_passes(
        agent,
        query("SELECT a FROM source;"),
        query("-- a\nSELECT 1"),
        query("WITH q AS (SELECT 1 AS x) SELECT * FROM q"),
    )
    assert_passes(agent, query("SELECT p FROM outcome", hangs_on_row=True))
    told = rejects(agent, query("SELECT nosuch FROM source;"))
    assert told.startswith("statement 2 (SELECT): ")
    assert "nosuch" in told
    assert "did you mean source?" in rejects(agent, query("SELECT a FROM sorce"))


def test_a_function_that_may_make_tables_ends_the_check(source: Runner, agent: StandInAgent) -> None:
    if "postgresql" not in source.dsn:
        pytest.skip("functions of others make no tables")
    source.sql(
        "CREATE FUNCTION make_it() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN CREATE TABLE IF NOT EXISTS second (z int); RETURN 1; END $$",
        "CREATE FUNCTION harmless() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    )
    try:
        reading: dict[str, Any] = {"index": 2, "kind": "standard", "sql": "SELECT z FROM second"}
        assert_passes(agent, {"index": 1, "kind": "standard", "sql": "SELECT make_it()"}, reading)
        told = rejects(agent, {"index": 1, "kind": "standard", "sql": "SELECT harmless()"}, reading)
        assert told.startswith("statement 3 (SELECT): ")
    finally:
        source.sql("DROP FUNCTION make_it", "DROP FUNCTION harmless")


def test_a_result_table_that_cannot_be_made(source: Runner, agent: StandInAgent) -> None:
    told = rejects(agent, use("predict", result_table="no_such_place.outcome"))
    assert "no_such_place" in told
    assert told.startswith("statement 2 (TO PREDICT): ")
    long_name = "x" * 65
    if "mysql" in source.dsn:
        told = rejects(agent, use("predict", result_table=long_name))
        assert "its name has 65 characters, and the database allows 64" in told
    else:
        assert_passes(agent, use("predict", result_table=long_name))


@pytest.mark.parametrize("value", ["NULL", "''", "'n/a'", "'infinity'"])
def test_a_column_without_a_value_is_not_needed_later(source: Runner, agent: StandInAgent, value: str) -> None:
    """Training leaves it out, whatever stands for the missing value."""
    first = {**TRAIN, "select": f"SELECT a, b, y, CASE WHEN a > 0 THEN {value} END AS void FROM source"}
    assert "left out" in agent.run(first, ahead=[use("explain")]).succeeded().stdout
    twice = "SELECT a, b, a AS void, b AS void FROM source"
    assert_passes(agent, use("explain", select=twice), first=first)
    told = rejects(agent, use("explain"), first={**first, "select": "SELECT a, b, y, 'x' AS void FROM source"})
    assert "the model's column void does not exist" in told
