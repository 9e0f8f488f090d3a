"""Encodes result sets as Head and Rows messages, which are passed to the client unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlflow_submitter.connect.database import Batch, ColumnInfo, Kind, Values
from sqlflow_submitter.proto.sqlflow.v1.data_pb2 import Column, Head, Rows


def encode_head(columns: Sequence[ColumnInfo]) -> Head:
    """Describes the columns of a result set."""
    head = Head(column_names=[column.name for column in columns])
    for column in columns:
        head.column_types.add(database_type=column.database_type)
    return head


def encode_rows(columns: Sequence[ColumnInfo], batch: Batch) -> Rows:
    """Encodes a batch of rows."""
    rows = Rows(count=batch.rows)
    for column, raw in zip(columns, batch.raw, strict=True):
        encode_column(column.decode(raw), rows.columns.add())
    return rows


def encode_column(decoded: Values, column: Column) -> None:
    """Encodes one column. For speed, each value is processed in C, except in columns with NULLs."""
    kind, values = decoded
    if kind is Kind.MIXED:
        _mixed(values, column)
        return
    if None in values:
        column.nulls = null_bits(values)
        if values.count(None) == len(values):
            return
        zero = ZEROS[kind]
        values = [zero if value is None else value for value in values]
    ENCODERS[kind](column, values)


def null_bits(values: Sequence[Any]) -> bytes:
    """Returns the bitmap of None values. Row r is bit r % 8 of byte r / 8, least significant bit first."""
    digits = "".join(["1" if value is None else "0" for value in reversed(values)])
    return int(digits, 2).to_bytes((len(values) + 7) // 8, "little")


def _ints(column: Column, values: Sequence[int]) -> None:
    try:
        column.int64s.values.extend(values)
    except ValueError:
        # Some values exceed int64. MySQL's BIGINT UNSIGNED fits uint64.
        column.ClearField("int64s")
        if min(values) >= 0 and max(values) < 2**64:
            column.uint64s.values.extend(values)
        else:
            column.decimals.values.extend(map(str, values))


def _timestamps_utc(column: Column, values: Sequence[int]) -> None:
    column.timestamps.has_zone = True
    column.timestamps.values.extend(values)


def _mixed(values: Sequence[Any], column: Column) -> None:
    encoded = column.mixed.values
    for place, value in enumerate(values):
        cell = encoded.add()
        if value is None:
            if not column.nulls:
                column.nulls = null_bits(values)
        elif isinstance(value, bool):
            cell.bool_value = value
        elif isinstance(value, int):
            _mixed_int(cell, value)
        elif isinstance(value, float):
            cell.double_value = value
        elif isinstance(value, str):
            cell.string_value = value
        elif isinstance(value, bytes):
            cell.blob_value = value
        else:
            raise TypeError(f"row {place} of a mixed column holds a {type(value).__name__}")


def _mixed_int(cell: Any, value: int) -> None:
    if -(2**63) <= value < 2**63:
        cell.int64_value = value
    elif 0 <= value < 2**64:
        cell.uint64_value = value
    else:
        cell.decimal_value = str(value)


ENCODERS: dict[Kind, Callable[[Column, Sequence[Any]], None]] = {
    Kind.BOOL: lambda column, values: column.bools.values.extend(values),
    Kind.INT: _ints,
    Kind.FLOAT: lambda column, values: column.doubles.values.extend(values),
    Kind.TEXT: lambda column, values: column.strings.values.extend(values),
    Kind.BLOB: lambda column, values: column.blobs.values.extend(values),
    Kind.DECIMAL: lambda column, values: column.decimals.values.extend(values),
    Kind.DATE: lambda column, values: column.dates.values.extend(values),
    Kind.TIMESTAMP: lambda column, values: column.timestamps.values.extend(values),
    Kind.TIMESTAMP_UTC: _timestamps_utc,
}

ZEROS: dict[Kind, Any] = {
    Kind.BOOL: False,
    Kind.INT: 0,
    Kind.FLOAT: 0.0,
    Kind.TEXT: "",
    Kind.BLOB: b"",
    Kind.DECIMAL: "",
    Kind.DATE: 0,
    Kind.TIMESTAMP: 0,
    Kind.TIMESTAMP_UTC: 0,
}
