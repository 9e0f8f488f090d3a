"""EVALUATE, EXPLAIN and SHOW TRAIN."""

import struct
from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from iris import COLUMNS, FEATURES

from sqlflow_submitter.errors import UserError


def test_evaluate_measures_classes(iris: Runner) -> None:
    run = iris.run(
        kind="evaluate", select="SELECT * FROM iris", label="name", result_table="outcome", model="m", model_dir="m"
    )
    # Two programs send them.
    assert sorted(run.kinds()) == ["commit", "ended", "head", "metrics", "rows", "started"]
    measured = {name: float(value) for name, value in run.rows()}
    assert list(measured) == ["accuracy", "precision", "recall", "f1", "auc"]
    assert 0.95 < measured["accuracy"] <= 1
    (metrics,) = run.payloads("metrics")
    assert not metrics.HasField("step")
    assert {metric.name: metric.value for metric in metrics.metrics} == measured
    assert {name: float(value) for name, value in iris.sql("SELECT metric, value FROM outcome")} == measured


def test_evaluate_checks_metrics_and_labels(sqlite_iris: Runner) -> None:
    def evaluate(**fields: Any) -> Any:
        defaults: dict[str, Any] = {"select": "SELECT * FROM iris", "label": "name", "model_dir": "m"}
        return sqlite_iris.run(kind="evaluate", **{**defaults, **fields})

    run = evaluate(attributes={"validation.metrics": "accuracy_score, log_loss"})
    assert [name for name, _ in run.rows()] == ["accuracy_score", "log_loss"]
    with pytest.raises(UserError, match="metric rmse does not exist"):
        evaluate(attributes={"validation.metrics": ["rmse"]})
    with pytest.raises(
        UserError, match=r"attribute validation\.metric does not exist; did you mean validation\.metrics"
    ):
        evaluate(attributes={"validation.metric": "auc"})
    with pytest.raises(UserError, match="label nam does not exist; did you mean name"):
        evaluate(label="nam")
    with pytest.raises(UserError, match="'rosa' is not a class of the model"):
        evaluate(select=f"SELECT {FEATURES}, 'rosa' AS name FROM iris")
    with pytest.raises(UserError, match="no rows"):
        evaluate(select="SELECT * FROM iris WHERE class > 5")


def test_evaluate_measures_numbers(sqlite_iris: Runner) -> None:
    sqlite_iris.train(f"SELECT {FEATURES} FROM iris", "petal_width")
    run = sqlite_iris.run(kind="evaluate", select="SELECT * FROM iris", model_dir="m")
    measured = {name: float(value) for name, value in run.rows()}
    assert list(measured) == ["rmse", "mae", "r2"]
    assert measured["r2"] > 0.9


def png_size(data: bytes) -> tuple[int, int]:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_explain_writes_shap_values_of_classes(iris: Runner, agent: StandInAgent) -> None:
    run = agent.run(
        {"kind": "explain", "select": "SELECT * FROM iris", "result_table": "outcome", "model": "m", "model_dir": "m"}
    ).succeeded()
    assert run.kinds() == ["started", "display", "commit", "ended"]
    (display,) = run.payloads("display")
    assert display.media_type == "image/png"
    assert min(png_size(display.data)) > 100
    ranking = [line.split()[0] for line in run.stdout.splitlines() if line.startswith("  ")]
    assert set(ranking) == set(COLUMNS)
    assert set(ranking[:2]) == {"petal_length", "petal_width"}
    names = [column.name for column in iris.describe("SELECT * FROM outcome")]
    # Columns that the model does not read are copied. A number is appended to a name that is taken.
    assert names == ["class_2", "name", "row", "class", *COLUMNS]
    counts = "count(*), count(DISTINCT class), count(DISTINCT class_2), count(DISTINCT name)"
    assert iris.sql(f"SELECT {counts} FROM outcome") == [("450", "3", "3", "3")]
    assert iris.sql("SELECT count(*) FROM (SELECT DISTINCT o.row, name FROM outcome AS o) AS q") == [("150",)]


def test_explain_keeps_the_selects_key(iris: Runner) -> None:
    number = f"ROW_NUMBER() OVER (ORDER BY {FEATURES}, class)"
    iris.sql("DROP TABLE IF EXISTS keyed", f"CREATE TABLE keyed AS SELECT {number} AS id, {FEATURES} FROM iris")
    iris.train(f"SELECT {FEATURES} FROM keyed", "petal_width")
    iris.predict("SELECT id, sepal_length, sepal_width, petal_length FROM keyed", column="p")
    explain = {"kind": "explain", "result_table": "outcome_shap", "model": "m", "model_dir": "m"}
    iris.run(**explain, select="SELECT * FROM keyed ORDER BY petal_length DESC -- in another order")
    shap = "s.sepal_length + s.sepal_width + s.petal_length"
    sums = iris.sql(f"SELECT o.p - ({shap}) FROM outcome AS o JOIN outcome_shap AS s USING (id)")
    assert len(sums) == 150
    assert max(float(value) for (value,) in sums) - min(float(value) for (value,) in sums) < 1e-4
    with pytest.raises(UserError, match="column id occurs 2 times in the select; rename each with AS"):
        iris.run(**explain, select="SELECT id, keyed.* FROM keyed")
    iris.sql("DROP TABLE keyed", "DROP TABLE outcome_shap")


def test_explain_names_the_row_that_is_not_utf8(sqlite_iris: Runner) -> None:
    select = "SELECT *, CASE rowid WHEN 7 THEN CAST(x'ff41' AS TEXT) END AS note FROM iris"
    with pytest.raises(UserError, match=r"^column note, row 7: b'\\xffA' cannot be written: it is not UTF-8"):
        sqlite_iris.run(kind="explain", select=select, result_table="outcome", model="m", model_dir="m")


def biases(runner: Runner) -> set[float]:
    """Returns the differences between predictions and the sums of their SHAP values. Rounded, all are equal."""
    runner.predict("SELECT rowid AS id, * FROM iris", column="p")
    shap = "s.sepal_length + s.sepal_width + s.petal_length + s.name"
    sums = runner.sql(f"SELECT o.p - ({shap}) FROM outcome AS o JOIN outcome_shap AS s ON s.row = o.id")
    assert len(sums) == 150
    first = float(sums[0][0])
    return {first if abs(float(value) - first) < 1e-4 else float(value) for (value,) in sums}


def test_shap_values_add_up_to_the_prediction(sqlite_iris: Runner) -> None:
    sqlite_iris.train(f"SELECT {FEATURES}, name FROM iris", "petal_width", attributes={"eta": 1})
    sqlite_iris.run(kind="explain", select="SELECT * FROM iris", result_table="outcome_shap", model="m", model_dir="m")
    assert len(biases(sqlite_iris)) == 1


def test_explain_sums_the_columns_of_one_feature(sqlite_iris: Runner) -> None:
    sqlite_iris.train(f"SELECT {FEATURES}, name FROM iris", "petal_width", estimator="xgboost.gblinear")
    sqlite_iris.run(kind="explain", select="SELECT * FROM iris", result_table="outcome_shap", model="m", model_dir="m")
    names = [column.name for column in sqlite_iris.describe("SELECT * FROM outcome_shap")]
    assert names == ["petal_width", "class", "row", "sepal_length", "sepal_width", "petal_length", "name"]
    assert len(biases(sqlite_iris)) == 1
    with pytest.raises(UserError, match="possible: bar"):
        sqlite_iris.run(
            kind="explain", select="SELECT * FROM iris", model_dir="m", attributes={"summary.plot_type": "dot"}
        )


def test_show_train_sends_the_statement(sqlite_iris: Runner) -> None:
    run = sqlite_iris.run(kind="show_train", model="m", model_dir="m")
    assert list(run.payloads("head")[0].column_names) == ["Model", "Train Statement"]
    assert run.rows() == [("m", f"SELECT {FEATURES}, name FROM iris TO TRAIN xgboost.gbtree …")]


def test_sql_of_a_model_keeps_its_newlines(sqlite_iris: Runner) -> None:
    select = f"\n\n-- all of it\nSELECT {FEATURES}, name FROM iris\n"
    sqlite_iris.train(select, "name")
    # Joined to one line, it would be a comment.
    shown = f"-- all of it\nSELECT {FEATURES}, name FROM iris"
    assert sqlite_iris.run(kind="show_train", model="m", model_dir="m").rows()[0][1].startswith(f"{shown}\n TO TRAIN")
    described = dict(sqlite_iris.run(kind="describe_model", model="m", model_dir="m").rows())
    assert described["select"] == shown
