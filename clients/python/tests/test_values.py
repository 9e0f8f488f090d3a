"""Values of the wire in Python, pandas and Arrow."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from wire import all_null, batch, column, data, table

import sqlflow
from sqlflow.declared import declared_kind
from sqlflow.values import Kind

UTC = dt.UTC


def day(year: int, month: int, of_month: int) -> int:
    return dt.date(year, month, of_month).toordinal() - dt.date(1970, 1, 1).toordinal()


@pytest.mark.parametrize(
    ("built", "cells"),
    [
        (column("bools", [True, False], [1]), [True, None]),
        (column("int64s", [-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
        (column("uint64s", [2**64 - 1, 0], [1]), [2**64 - 1, None]),
        (column("doubles", [0.1, 0.0], [1]), [0.1, None]),
        (column("strings", ["é", ""]), ["é", ""]),
        (column("strings", ["", "x"], [0]), [None, "x"]),
        (column("blobs", [b"\x00\xff", b""]), [b"\x00\xff", b""]),
        (column("decimals", ["-12.50", ""], [1]), [Decimal("-12.50"), None]),
        (column("dates", [day(2024, 2, 29), -1]), [dt.date(2024, 2, 29), dt.date(1969, 12, 31)]),
        (column("dates", [3_000_000, -800_000]), ["1970-01-01+3000000d", "1970-01-01-800000d"]),
        (
            column("timestamps", [1, -1]),
            [dt.datetime(1970, 1, 1, 0, 0, 0, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999)],
        ),
        (column("timestamps", [0, 0], [1], has_zone=True), [dt.datetime(1970, 1, 1, tzinfo=UTC), None]),
        (column("timestamps", [2**63 - 1, 0]), [f"1970-01-01T00:00:00+{2**63 - 1}us", dt.datetime(1970, 1, 1)]),
        (all_null(), [None, None]),
    ],
)
def test_each_type_has_its_value_in_python(built: data.Column, cells: list[Any]) -> None:
    assert [row[0] for row in batch(2, built)] == cells
    assert [type(row[0]) for row in batch(2, built)] == [type(cell) for cell in cells]


def test_digits_of_decimals_are_kept() -> None:
    text = "1234567890123456789012345678901234567890.10"
    assert str(next(iter(batch(1, column("decimals", [text]))))[0]) == text


def test_mixed_column_has_a_type_for_each_value() -> None:
    values = [
        data.Value(),
        data.Value(bool_value=True),
        data.Value(int64_value=-1),
        data.Value(uint64_value=2**64 - 1),
        data.Value(double_value=0.5),
        data.Value(string_value="x"),
        data.Value(blob_value=b"x"),
        data.Value(decimal_value="0.10"),
        data.Value(date_value=0),
        data.Value(timestamp_value=0),
    ]
    cells = [row[0] for row in batch(len(values), column("mixed", values))]
    expected = [
        None,
        True,
        -1,
        2**64 - 1,
        0.5,
        "x",
        b"x",
        Decimal("0.10"),
        dt.date(1970, 1, 1),
        dt.datetime(1970, 1, 1),
    ]
    assert cells == expected


def test_nulls_are_found_in_each_byte_of_the_bitmap() -> None:
    nulls = [0, 7, 8, 15, 16]
    rows = list(batch(17, column("int64s", range(17), nulls)))
    assert [row for row, (cell,) in enumerate(rows) if cell is None] == nulls


def test_torn_batch_is_a_fault_of_the_server() -> None:
    with pytest.raises(sqlflow.ServerFault, match="a column of 1 values in a batch of 2 rows"):
        batch(2, column("int64s", [1]))


def test_rows_without_columns_are_empty_tuples() -> None:
    assert list(batch(2)) == [(), ()]


def test_pandas_has_types_for_null() -> None:
    frame = table(
        batch(
            2,
            column("int64s", [2**62 + 1, 0], [1]),
            column("int64s", [1, 2]),
            column("bools", [True, False], [1]),
            column("doubles", [0.5, 0.0], [1]),
            column("strings", ["x", ""], [1]),
            column("decimals", ["0.10", ""], [1]),
            column("dates", [day(2024, 2, 29), 0], [1]),
            column("timestamps", [1, 0], [1]),
            column("timestamps", [0, 0], [1], has_zone=True),
        )
    ).to_pandas()
    kinds = [str(kind) for kind in frame.dtypes]
    assert kinds[:4] == ["Int64", "int64", "boolean", "float64"]
    assert kinds[5:] == ["object", "datetime64[s]", "datetime64[us]", "datetime64[us, UTC]"]
    assert frame.iloc[1].isna().tolist() == [True, False, True, True, True, True, True, True, True]
    assert frame["a"][0] == 2**62 + 1, "not by way of a double"
    assert frame["f"][0] == Decimal("0.10")
    assert frame["g"][0] == pd.Timestamp("2024-02-29") and frame["h"][0] == pd.Timestamp("1970-01-01 00:00:00.000001")


def test_batches_of_different_types_are_one_column() -> None:
    first = batch(1, column("int64s", [1]), all_null(), column("int64s", [1]), column("int64s", [2**60]))
    second = batch(
        1, column("uint64s", [2**64 - 1]), column("int64s", [5]), column("doubles", [0.5]), column("doubles", [0.5])
    )
    joined = table(first, second)
    frame = joined.to_pandas()
    assert [str(kind) for kind in frame.dtypes] == ["uint64", "Int64", "float64", "object"]
    assert frame["a"].tolist() == [1, 2**64 - 1] and frame["b"][1] == 5 and frame["c"].tolist() == [1.0, 0.5]
    assert frame["d"].tolist() == [2**60, 0.5], "an integer that no double has stays as it is"
    with pytest.raises(sqlflow.ConversionError, match="column 'd'"):
        joined.to_arrow()
    numbers = table(batch(2, column("mixed", [data.Value(int64_value=2), data.Value(double_value=0.5)])))
    assert numbers.to_pandas()["a"].tolist() == [2.0, 0.5]
    assert numbers.to_arrow().column("a").to_pylist() == [2.0, 0.5]


def test_columns_of_one_name_are_kept() -> None:
    both = sqlflow.Table(
        [sqlflow.ColumnInfo("a", ""), sqlflow.ColumnInfo("a", "")], [batch(1, *[column("int64s", [1])] * 2)]
    )
    assert list(both.to_pandas().columns) == ["a", "a"]
    assert both.to_arrow().column_names == ["a", "a"]


def test_empty_table_has_the_declared_types() -> None:
    empty = table(types=["INTEGER", "double precision", "text", "date", "timestamp with time zone", ""])
    kinds = [str(kind) for kind in empty.to_pandas().dtypes]
    assert kinds[:2] + kinds[3:] == ["int64", "float64", "datetime64[s]", "datetime64[us, UTC]", "object"]
    assert [str(field.type) for field in empty.to_arrow().schema] == [
        "int64",
        "double",
        "string",
        "date32[day]",
        "timestamp[us, tz=UTC]",
        "null",
    ]
    assert len(empty.to_pandas()) == 0


def test_arrow_is_exact() -> None:
    arrow = table(
        batch(
            2,
            column("decimals", ["-12.50", "1234567.125"]),
            column("decimals", ["1E+3", ""], [1]),
            column("dates", [10_000_000, 0], [1]),
            column("timestamps", [1, 0], [1], has_zone=True),
            column("blobs", [b"\xff", b""], [1]),
            column("strings", ["é", ""], [1]),
            column("decimals", ["NaN", "1"]),
        )
    ).to_arrow()
    assert arrow.schema.field("a").type == pa.decimal128(10, 3)
    assert arrow.column("a").to_pylist() == [Decimal("-12.500"), Decimal("1234567.125")]
    assert arrow.column("b").to_pylist() == [Decimal(1000), None]
    assert arrow.column("c").cast(pa.int32()).to_pylist() == [10_000_000, None], "a year that Python does not have"
    assert arrow.column("d").to_pylist() == [dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None]
    assert arrow.column("e").to_pylist() == [b"\xff", None] and arrow.column("f").to_pylist() == ["é", None]
    assert arrow.column("g").to_pylist() == ["NaN", "1"], "a text, since Arrow's decimals are finite"
    long = table(batch(1, column("decimals", ["1" * 77]))).to_arrow()
    assert long.column("a").to_pylist() == ["1" * 77]
    wide = table(batch(1, column("decimals", ["1" * 76]))).to_arrow()
    assert wide.schema.field("a").type == pa.decimal256(76, 0)


def test_repr_is_an_aligned_table() -> None:
    shown = repr(
        table(
            batch(2, column("int64s", [1, 22]), column("strings", ["a\x1bb", ""], [1]), column("blobs", [b"\xff", b""]))
        )
    )
    assert shown.splitlines() == [
        "a  | b    | c",
        "---+------+-----",
        " 1 | a�b  | \\xff",
        "22 | NULL | \\x",
        "(2 rows)",
    ]
    many = repr(table(batch(30, column("int64s", range(30)))))
    assert many.endswith("(30 rows, the first 20 shown)")


def test_nan_is_not_null() -> None:
    cells = [row[0] for row in batch(2, column("doubles", [math.nan, 0.0], [1]))]
    assert math.isnan(cells[0]) and cells[1] is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DECIMAL(10,2)", Kind.DECIMAL),
        ("int unsigned", Kind.INT),
        ("BIGINT UNSIGNED", Kind.INT),
        ("timestamp", Kind.TIMESTAMP),
        ("timestamp with time zone", Kind.INSTANT),
        ("time without time zone", Kind.TEXT),
        ("int4[]", Kind.TEXT),
        ("INTEGER[3]", Kind.TEXT),
        ("STRUCT(a INTEGER)", Kind.TEXT),
        ("MAP(VARCHAR, INTEGER)", Kind.TEXT),
        ("UTINYINT", Kind.INT),
        ("UBIGINT", Kind.UINT),
        ("HUGEINT", Kind.DECIMAL),
        ("TIMESTAMP_MS", Kind.TIMESTAMP),
        ("TIMESTAMP_NS", Kind.TEXT),
        ("TIMESTAMPTZ_NS", Kind.TEXT),
        ("TIME_NS", Kind.TEXT),
        ("VARIANT", Kind.TEXT),
        ("TIMESTAMP WITH TIME ZONE", Kind.INSTANT),
        ("_secret", Kind.NULL),
        ("", Kind.NULL),
    ],
)
def test_declared_type_is_known_by_its_first_word(name: str, kind: Kind) -> None:
    assert declared_kind(name) is kind
