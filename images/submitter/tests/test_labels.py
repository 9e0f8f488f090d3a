"""Decisions about labels: classes or numbers."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from conftest import Runner
from tables import accuracy, column, database, make, rejects, trained

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.labels import MAX_CLASSES, LabelReader
from sqlflow_submitter.values import Kind, Values


def test_boolean_label_has_classes(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    make(runner, "d", {"x": "number", "y": "boolean"}, [(k / 2, k >= 50) for k in range(100)])
    document = trained(runner)
    assert (document["objective"], document["classes"]) == ("binary:logistic", [False, True])
    assert document["objective_reason"] == "label y is boolean"
    assert "objective binary:logistic: label y is boolean; set objective to choose another" in capsys.readouterr().out
    assert accuracy(runner) == 1
    runner.run(
        kind="predict", select="SELECT * FROM d", result_table="d_out", result_column="y", model="m", model_dir="m"
    )
    truth = {"postgresql": "y", "mysql": "y = 1", "sqlite": "y = 1"}[database(runner)]
    assert runner.sql(f"SELECT count(*) FROM d_out WHERE {truth} AND x >= 25") == [("50",)]


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
def test_label_decides_the_objective(
    runner: Runner, kind: str, values: list[Any], objective: str, classes: list[Any] | None
) -> None:
    rows = [(k, values[k % len(values)]) for k in range(100)]
    make(runner, "d", {"x": "integer", "y": kind}, rows)
    document = trained(runner)
    assert (document["objective"], document["classes"]) == (objective, classes)
    assert column(document, "y")["warnings"] == (["whole numbers"] if kind == "number" else [])
    # The statement's attributes take precedence.
    if all(isinstance(value, int) for value in values):
        document = trained(runner, attributes={"objective": "reg:squarederror"})
        assert (document["classes"], document["objective_reason"]) == (None, "as the statement says")


def test_empty_text_among_label_numbers_is_an_error(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "text"}, [(k, "" if k == 4 else str(k % 2)) for k in range(50)])
    rejects(runner, "^label y, row 5: '' is not a number, as 49 of 50 values are")


def test_sqlite_booleans_stored_as_texts_are_classes(sqlite_runner: Runner) -> None:
    rows = [(("true", "FALSE")[k % 2], k >= 50, ("yes", "no")[k >= 50]) for k in range(100)]
    make(sqlite_runner, "d", {"x": "boolean", "z": "boolean", "y": "boolean"}, rows)
    document = trained(sqlite_runner)
    assert document["classes"] == [False, True]
    assert [feature["form"] for feature in document["features"]] == ["number", "number"]
    assert accuracy(sqlite_runner) == 1


@pytest.mark.parametrize(("metric", "objective"), [("rmse", "reg:squarederror"), ("error@0.3", "binary:logistic")])
def test_eval_metric_decides_between_classes_and_numbers(sqlite_runner: Runner, metric: str, objective: str) -> None:
    make(sqlite_runner, "d", {"x": "integer", "y": "integer"}, [(k, k % 2) for k in range(50)])
    document = trained(sqlite_runner, attributes={"eval_metric": metric})
    assert (document["objective"], document["objective_reason"]) == (
        objective,
        f"the statement has eval_metric {metric}",
    )


def label_of(batches: Sequence[Values], declared: str = "TEXT") -> tuple[Any, ...]:
    """Reads a label. Returns the decision, and the original labels of all rows."""
    reader = LabelReader("y", None, None, declared)
    try:
        for batch in batches:
            reader.add(batch)
        labels = reader.finish()
    except UserError as wrong:
        return "error", str(wrong).partition(",")[0]
    seen = reader.seen()
    return reader.as_classes, reader.reason, [seen[int(code)] if reader.as_classes else code for code in labels]


FRACTIONS = Values(Kind.TEXT, ["1.0", "1.1", "2.0"])
DATES = Values(Kind.TEXT, ["2024-01-01", "2024-01-02"])
WHOLE = Values(Kind.TEXT, ["3", "4", "3", "4"])
WORDS = Values(Kind.TEXT, ["beta", "rc", "beta"])
WHOLE_NUMBERS = Values(Kind.INT, [1, 2, 1, 2])
FLOATS = Values(Kind.FLOAT, [0.5, 2.0])
MANY = Values(Kind.TEXT, [str(k) for k in range(MAX_CLASSES + 1)])


@pytest.mark.parametrize(
    ("declared", "batches", "as_classes"),
    [
        ("TEXT", (FRACTIONS, WORDS), True),
        ("TEXT", (DATES, WORDS), True),
        ("TEXT", (FRACTIONS, DATES, WHOLE, WORDS), True),
        ("TEXT", (FRACTIONS, WHOLE), False),
        ("TEXT", (DATES, WHOLE), True),
        ("TEXT", (DATES, FRACTIONS, WHOLE), True),
        ("", (DATES, WHOLE_NUMBERS), True),
        ("", (DATES, FLOATS), "error"),
        ("DATE", (DATES, WHOLE_NUMBERS), "error"),
        ("INTEGER", (DATES, WHOLE_NUMBERS), "error"),
        ("", (WHOLE_NUMBERS, WORDS), True),
        ("", (WHOLE_NUMBERS, FLOATS), False),
        ("", (FLOATS, WORDS), "error"),
        ("", (FRACTIONS, WHOLE_NUMBERS, WORDS), True),
        ("TEXT", (MANY, Values(Kind.TEXT, ["a"] * 5000)), "error"),
        ("TEXT", (MANY, FRACTIONS), False),
    ],
)
def test_order_of_rows_does_not_change_the_label(declared: str, batches: tuple[Values, ...], as_classes: Any) -> None:
    for order in permutations(batches):
        found = label_of(order, declared)
        assert found[0] == as_classes
        if as_classes == "error":
            continue
        expected = [value for batch in order for value in batch.values]
        assert found[1] == label_of(batches, declared)[1]
        if Kind.INT in {batch.kind for batch in batches}:
            # With words, a typed number is a class by its text.
            expected = [str(value) for value in expected]
        assert found[2] == (expected if as_classes else [float(value) for value in expected])


def test_late_word_makes_the_label_classes(runner: Runner) -> None:
    rows = [(k, ("1.0", "1.1", "2.0")[k % 3] if k < 1500 else ("beta", "rc")[k % 2]) for k in range(2500)]
    for ordered in (rows, rows[::-1]):
        make(runner, "d", {"x": "integer", "y": "text"}, ordered)
        assert trained(runner)["classes"] == ["1.0", "1.1", "2.0", "beta", "rc"]


@pytest.mark.parametrize(
    ("kind", "values", "objective"),
    [
        ("numeric", [0, 1], "binary:logistic"),
        ("numeric(10,2)", [0, 1, 2], "multi:softprob"),
        ("decimal(20,0)", [0, 1, 2], "multi:softprob"),
        ("numeric(10,2)", [0.5, 1, 2], "reg:squarederror"),
    ],
)
def test_whole_decimals_are_whole_numbers_in_every_database(
    runner: Runner, kind: str, values: list[Any], objective: str
) -> None:
    make(runner, "d", {"x": "integer", "y": kind}, [(k, values[k % len(values)]) for k in range(60)])
    document = trained(runner)
    assert document["objective"] == objective
    assert document["classes"] == (None if objective.startswith("reg") else values)


def test_text_label_of_dates_and_numbers_has_classes(runner: Runner) -> None:
    values = ["2024-01-01", "5", "7"]
    make(runner, "d", {"x": "integer", "y": "text"}, [(k % 3, values[k % 3]) for k in range(99)])
    document = trained(runner)
    assert document["classes"] == sorted(values)
    assert document["objective_reason"] == "label y holds 3 different texts"
    assert accuracy(runner) == 1
    # As a number, the date would be 19723.
    said = r"^label y, row 2: '5' is a number, where row 1 has '2024-01-01'; CAST all to one type in the select$"
    rejects(runner, said, attributes={"objective": "reg:squarederror"})


@pytest.mark.parametrize(("odd", "kind"), [("2024-01-01", "number"), ("5.5", "date")])
def test_date_among_label_numbers_is_an_error(runner: Runner, odd: str, kind: str) -> None:
    usual = {"number": "{}.5", "date": "2024-01-{:02}"}[kind]
    rows = [(k, odd if k == 6 else usual.format(k % 28 + 1)) for k in range(60)]
    for ordered in (rows, rows[::-1]):
        make(runner, "d", {"x": "integer", "y": "text"}, ordered)
        rejects(runner, rf"^label y, row \d+: '{odd}' is not a {kind}, as 59 of 60 values are; exclude such rows")


def test_validation_labels_have_the_form_of_training_labels(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "text"}, [(k, f"{k}.5") for k in range(60)])
    make(runner, "v", {"x": "integer", "y": "text"}, [(k, f"2024-01-{k % 28 + 1:02}") for k in range(60)])
    rejects(
        runner,
        "^validation.select: label y, row 1: '2024-01-01' is a date, where each label of TRAIN is a number; CAST all",
        attributes={"validation.select": "SELECT * FROM v"},
    )


def test_date_classes_are_the_same_texts_in_every_database(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "date"}, [(k % 2, f"2024-01-0{k % 2 + 1}") for k in range(60)])
    document = trained(runner, attributes={"objective": "binary:logistic"})
    assert document["classes"] == ["2024-01-01", "2024-01-02"]
    assert accuracy(runner) == 1
    runner.run(kind="predict", select="SELECT x FROM d", result_table="d_out", result_column="y", model_dir="m")
    assert runner.sql("SELECT DISTINCT y FROM d_out ORDER BY y") == [("2024-01-01",), ("2024-01-02",)]


def test_non_iso_date_in_label_is_an_error(sqlite_runner: Runner) -> None:
    make(sqlite_runner, "d", {"x": "integer", "y": "date"}, [(k, "01/02/2024") for k in range(60)])
    rejects(
        sqlite_runner, "^label y, row 1: '01/02/2024' is not a date; write dates as 2024-12-31 or 2024-12-31 23:59:59"
    )


def test_nonexistent_date_in_label_is_an_error(runner: Runner) -> None:
    rows = [(k, "2023-02-29" if k == 6 else f"2023-02-{k % 28 + 1:02}") for k in range(60)]
    make(runner, "d", {"x": "integer", "y": "text"}, rows)
    rejects(runner, "^label y, row 7: '2023-02-29' is a date that no calendar has$")


@pytest.mark.parametrize(
    "expression", ["y", "CAST(y AS BLOB)", "CASE y WHEN 0 THEN 0 ELSE iif(typeof(y) = 'text', ' 1', 1) END"]
)
def test_sqlite_number_and_its_text_are_one_class(sqlite_runner: Runner, expression: str) -> None:
    rows: list[tuple[float, Any]] = [(0.0, 0)] * 160 + [(1.0, 1)] * 120 + [(1.0, "1")] * 120
    make(sqlite_runner, "d", {"x": "REAL", "y": ""}, rows)
    if "BLOB" in expression:
        make(sqlite_runner, "d", {"x": "REAL", "y": "BLOB"}, rows)
        expression = "y"
    for attributes in ({}, {"objective": "binary:logistic"}):
        document = trained(sqlite_runner, select=f"x, {expression} AS y", attributes=attributes)
        assert (document["classes"], column(document, "y")["distinct"]) == ([0, 1], 2)
        assert accuracy(sqlite_runner) == 1


def test_number_and_its_text_are_one_class_among_words() -> None:
    mixed = Values(Kind.MIXED, [1, "1", "beta", 2, "2"] * 2)
    assert label_of([mixed], "") == (True, "label y holds 3 different texts", ["1", "1", "beta", "2", "2"] * 2)
    # 20 whole numbers, each also as a text.
    both = Values(Kind.MIXED, [*range(20), *map(str, range(20))])
    assert label_of([both], "")[::2] == (True, [*range(20), *range(20)])
    assert label_of([Values(Kind.MIXED, [*range(20), "1.0", "+1"] * 2)], "")[2][-2:] == [1, 1]


def test_large_whole_label_numbers_are_counted_once(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    make(runner, "d", {"x": "integer", "y": "bigint"}, [(k, 2**60 + k) for k in range(200)])
    found = column(trained(runner), "y")
    assert (found["distinct"], found["warnings"]) == (200, ["loses precision"])
    said = capsys.readouterr().out
    assert "label y holds whole numbers of 200 different values" in said
    assert "199 of its 200 different values become equal to others" in said
