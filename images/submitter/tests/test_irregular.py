"""Values that look like something else, or that no computer type holds."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Here
from data import accuracy, column, database, feature, make, refused, trained

from sqlflow_submitter.connect.sqlite import original_names
from sqlflow_submitter.errors import UserError

ROWS = 100


def evaluate(here: Here, table: str = "d") -> None:
    here.run(kind="evaluate", select=f"SELECT * FROM {table}", label="y", model_dir="m")


@pytest.mark.parametrize("word", ["no", "yes", "f", "t", "TRUE"])
def test_words_for_booleans_are_no_numbers(here: Here, word: str) -> None:
    rows: list[tuple[Any, int]] = [(f"{k / 2}", k % 2) for k in range(ROWS)]
    make(here, "d", {"x": "text", "y": "integer"}, rows)
    trained(here)
    rows[6] = (word, 0)
    make(here, "d", {"x": "text", "y": "integer"}, rows)
    with pytest.raises(UserError, match=rf"^column x, row 7: '{word}' is not a number"):
        evaluate(here)
    refused(here, rf"^column x, row 7: '{word}' is not a number")
    if database(here) == "sqlite":
        for kind in ("integer", "REAL", ""):
            make(here, "d", {"x": kind, "y": "integer"}, [(k if k != 6 else word, k % 2) for k in range(ROWS)])
            refused(here, rf"^column x, row 7: '{word}' is not a number")


def test_words_in_a_boolean_column_stay_booleans_in_use(sqlite_here: Here) -> None:
    make(sqlite_here, "d", {"x": "boolean", "y": "integer"}, [(("true", "FALSE")[k % 2], k % 2) for k in range(ROWS)])
    assert feature(trained(sqlite_here), "x")["boolean"] is True
    make(sqlite_here, "d", {"x": "text", "y": "integer"}, [(("yes", "f")[k % 2], k % 2) for k in range(ROWS)])
    assert accuracy(sqlite_here) == 1


@pytest.mark.parametrize("odd", ["9" * 309, "-" + "9" * 5000, "1e400"])
def test_a_text_of_very_many_digits_is_infinite(here: Here, odd: str) -> None:
    rows = [(odd if k == 6 else str(k), k % 2) for k in range(ROWS)]
    make(here, "d", {"x": TEXT[database(here)], "y": "integer"}, rows)
    assert column(trained(here), "x")["missing"] == 1
    evaluate(here)
    refused(here, r"^label x, row 7: '-?[91].* is not a number", select="y AS z, x", label="x")


TEXT = {"sqlite": "TEXT", "mysql": "TEXT", "postgresql": "text"}


def test_a_decimal_of_very_many_digits_is_infinite(postgresql_dsn: str, tmp_path: Path) -> None:
    here = Here(postgresql_dsn, tmp_path)
    for digits in (309, 5000):
        rows = [(k, k % 2) for k in range(ROWS)]
        make(here, "d", {"x": "numeric", "y": "integer"}, rows)
        here.sql(f"UPDATE d SET x = {'9' * digits} WHERE x = 6")
        assert column(trained(here), "x")["missing"] == 1
        with pytest.raises(UserError, match=r"^label x, row .* is not a number"):
            trained(here, select="y AS z, x", label="x")


def test_a_moment_before_the_first_year_is_no_date(here: Here) -> None:
    for odd in ("0001-01-01 00:00+01:00", "9999-12-31 23:30:00-01"):
        rows = [(odd if k == 6 else f"2024-01-{k % 28 + 1:02} 10:00:00+00:00", k % 2) for k in range(ROWS)]
        make(here, "d", {"x": "text", "y": "integer"}, rows)
        document = trained(here)
        assert (feature(document, "x")["form"], column(document, "x")["missing"]) == ("date", 1)
        evaluate(here)


def test_classes_are_found_in_a_label_of_another_type(here: Here) -> None:
    numbers = [(k, k % 3) for k in range(ROWS)]
    texts = [(k, str(k % 3)) for k in range(ROWS)]
    make(here, "w", {"x": "integer", "y": "integer"}, numbers)
    make(here, "t", {"x": "integer", "y": "text"}, texts)
    for table, other in (("w", "t"), ("t", "w")):
        trained(here, table=table)
        assert accuracy(here, other) == accuracy(here, table) > 0.3
    validation = {"validation.select": "SELECT x, CAST(y AS CHAR(1)) AS y FROM w"}
    trained(here, table="w", attributes=validation)
    make(here, "t", {"x": "integer", "y": "text"}, [*texts, (1, "7")])
    trained(here, table="w")
    with pytest.raises(UserError, match=r"^label y, row 101: '7' is no class of the model; it has 0, 1, 2"):
        accuracy(here, "t")


def test_names_that_differ_in_case_only(sqlite_here: Here) -> None:
    make(sqlite_here, "d", {"x": "integer", "y": "integer"}, [(k, k % 2) for k in range(ROWS)])
    assert original_names(["x", "X:1", "y", "z:1", "Y:1"]) == ["x", "X", "y", "z:1", "Y"]
    document = trained(sqlite_here, select='x, -x AS "X", y')
    assert [feature["column"] for feature in document["features"]] == ["x", "X"]
    sqlite_here.run(kind="evaluate", select='SELECT x, -x AS "X", y FROM d', label="y", model_dir="m")
