"""Parameters as literals."""

from __future__ import annotations

import datetime as dt
import sqlite3
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sqlflow
from sqlflow.literals import DIALECTS, bound, dialect_of, literal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (-5, " -5"),
        (2**70, str(2**70)),
        (0.1, "0.1"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.10"), " -0.10"),
        ("it's", "'it''s'"),
        (dt.date(2024, 2, 29), "'2024-02-29'"),
        (dt.datetime(2024, 2, 29, 1, 2, 3, 4), "'2024-02-29 01:02:03.000004'"),
        (dt.time(1, 2), "'01:02:00'"),
        (np.int64(7), "7"),
        (np.float64(0.5), "0.5"),
        (np.datetime64("2024-02-29T01:02:03", "us"), "'2024-02-29 01:02:03'"),
    ],
)
def test_value_has_a_literal_of_all_dialects(value: Any, text: str) -> None:
    assert [literal(value, dialect) for dialect in (None, *DIALECTS)] == [text] * 5


@pytest.mark.parametrize("value", ["a\\b", b"\x00\xff"])
def test_backslash_and_bytes_need_a_dialect(value: Any) -> None:
    with pytest.raises(sqlflow.ConversionError, match="give dialect="):
        literal(value, None)


def test_text_cannot_end_its_literal() -> None:
    attack = "\\'; DROP TABLE t; --"
    assert literal(attack, "mysql") == "'\\\\''; DROP TABLE t; --'"
    assert literal(attack, "postgresql") == " E'\\\\''; DROP TABLE t; --'"
    assert literal(attack, "duckdb") == literal(attack, "sqlite") == "'\\''; DROP TABLE t; --'"
    assert sqlite3.connect(":memory:").execute(f"SELECT {literal(attack, 'sqlite')}").fetchone() == (attack,)


def test_bytes_have_the_form_of_the_dialect() -> None:
    assert [literal(b"\x00\xff", dialect) for dialect in ("sqlite", "duckdb", "mysql")] == ["X'00ff'"] * 3
    assert literal(b"\x00\xff", "postgresql") == "'\\x00ff'::bytea"


@pytest.mark.parametrize(
    "value", [float("nan"), Decimal("Infinity"), pd.NaT, np.datetime64(1, "ns"), "a\0b", [1], object()]
)
def test_value_without_a_literal_is_an_error(value: Any) -> None:
    with pytest.raises(sqlflow.ConversionError):
        literal(value, "sqlite")


def test_float_that_is_no_number_has_the_form_of_the_dialect() -> None:
    assert literal(float("-inf"), "duckdb") == "'-inf'::DOUBLE"
    assert literal(float("-inf"), "postgresql") == "'-inf'::float8"
    assert literal(Decimal("NaN"), "postgresql") == "'NaN'::numeric"
    for value, dialect in [(float("nan"), "mysql"), (Decimal("NaN"), "duckdb")]:
        with pytest.raises(sqlflow.ConversionError, match="it has no literal in SQL; bind None"):
            literal(value, dialect)


def test_parameters_are_bound_by_place_and_name() -> None:
    assert bound("SELECT %s, '100%%', %s", [1, "%s"], None) == "SELECT 1, '100%', '%s'"
    assert bound("SELECT %(a)s - %(b)s", {"a": 1, "b": -1}, None) == "SELECT 1 -  -1"
    for operation, parameters in [("SELECT %s", []), ("SELECT %s", [1, 2]), ("SELECT 100%", [1]), ("SELECT %(a)s", {})]:
        with pytest.raises(sqlflow.ConversionError, match="cannot bind the parameters"):
            bound(operation, parameters, None)


def test_dialect_is_that_of_the_data_source() -> None:
    names = ["sqlite:////db", "mysql://u@tcp(h:1)/d", "postgres://h/d", "duckdb://", "flowers", ""]
    assert [dialect_of(name) for name in names] == ["sqlite", "mysql", "postgresql", "duckdb", None, None]
