"""What a label is taken for."""

from typing import Any

import pytest
from conftest import Here
from data import accuracy, column, database, make, refused, trained


def test_a_boolean_label_is_classified(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    make(here, "d", {"x": "number", "y": "boolean"}, [(k / 2, k >= 50) for k in range(100)])
    document = trained(here)
    assert (document["objective"], document["classes"]) == ("binary:logistic", [False, True])
    assert document["objective_reason"] == "label y is boolean"
    assert "objective binary:logistic: label y is boolean; set objective to have another" in capsys.readouterr().out
    assert accuracy(here) == 1
    here.run(
        kind="predict", select="SELECT * FROM d", result_table="d_out", result_column="y", model="m", model_dir="m"
    )
    truth = {"postgresql": "y", "mysql": "y = 1", "sqlite": "y = 1"}[database(here)]
    assert here.sql(f"SELECT count(*) FROM d_out WHERE {truth} AND x >= 25") == [("50",)]


LABELS = [
    ("integer", [0, 1], "binary:logistic", [0, 1]),
    ("integer", [3, 7, 5], "multi:softprob", [3, 5, 7]),
    ("integer", list(range(20)), "multi:softprob", list(range(20))),
    ("integer", list(range(21)), "reg:squarederror", None),
    ("numeric(9,0)", [1, 2], "binary:logistic", [1, 2]),
    ("text", ["no", "yes"], "binary:logistic", ["no", "yes"]),
    ("text", ["1", "2", "3"], "multi:softprob", ["1", "2", "3"]),
    ("text", [str(k / 2) for k in range(90)], "reg:squarederror", None),
    ("number", [0.0, 1.0], "reg:squarederror", None),
    ("date", ["2024-01-01", "2024-01-02"], "reg:squarederror", None),
]


@pytest.mark.parametrize(("kind", "values", "objective", "classes"), LABELS)
def test_the_label_decides_the_objective(
    here: Here, kind: str, values: list[Any], objective: str, classes: list[Any] | None
) -> None:
    rows = [(k, values[k % len(values)]) for k in range(100)]
    make(here, "d", {"x": "integer", "y": kind}, rows)
    document = trained(here)
    assert (document["objective"], document["classes"]) == (objective, classes)
    assert column(document, "y")["warnings"] == (["whole numbers"] if kind == "number" else [])
    # What the statement says goes first.
    if all(isinstance(value, int) for value in values):
        document = trained(here, attributes={"objective": "reg:squarederror"})
        assert (document["classes"], document["objective_reason"]) == (None, "as the statement says")


def test_an_empty_text_among_label_numbers_is_named(here: Here) -> None:
    make(here, "d", {"x": "integer", "y": "text"}, [(k, "" if k == 4 else str(k % 2)) for k in range(50)])
    refused(here, "^label y, row 5: '' is not a number, as 49 of 50 values are")


def test_booleans_that_sqlite_keeps_as_texts(sqlite_here: Here) -> None:
    rows = [(("true", "FALSE")[k % 2], k >= 50, ("yes", "no")[k >= 50]) for k in range(100)]
    make(sqlite_here, "d", {"x": "boolean", "z": "boolean", "y": "boolean"}, rows)
    document = trained(sqlite_here)
    assert document["classes"] == [False, True]
    assert [feature["form"] for feature in document["features"]] == ["number", "number"]
    assert accuracy(sqlite_here) == 1


@pytest.mark.parametrize(("metric", "objective"), [("rmse", "reg:squarederror"), ("error@0.3", "binary:logistic")])
def test_a_metric_tells_what_is_asked_for(sqlite_here: Here, metric: str, objective: str) -> None:
    make(sqlite_here, "d", {"x": "integer", "y": "integer"}, [(k, k % 2) for k in range(50)])
    document = trained(sqlite_here, attributes={"eval_metric": metric})
    assert (document["objective"], document["objective_reason"]) == (
        objective,
        f"the statement has eval_metric {metric}",
    )
