"""Values that look like something else, or that no computer type holds."""

from typing import Any

import pytest
from conftest import Here
from data import accuracy, column, database, feature, make, refused, trained

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
