"""Encodes result sets as Head and Rows messages, which are passed to the client unchanged.

The documentation of the messages is in `proto/sqlflow/v1/data.proto`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

from sqlflow_submitter import packed, wire
from sqlflow_submitter.connect.database import Batch, ColumnInfo, Kind, Values
from sqlflow_submitter.frames import Content, Head


class Rows(Content):
    """A batch of rows, by column."""

    FIELD = 5

    def __init__(self, count: int, columns: list[Values]) -> None:
        self.count = count
        self.columns = columns

    def encode(self) -> list[bytes]:
        parts = [wire.integer(1, self.count)]
        for column in self.columns:
            parts += wire.message(2, encode_column(column))
        return parts


def head_of(columns: Sequence[ColumnInfo]) -> Head:
    """Describes the columns of a result set."""
    return Head([column.name for column in columns], [column.database_type for column in columns])


def rows_of(columns: Sequence[ColumnInfo], batch: Batch) -> Rows:
    """Decodes a batch of rows."""
    return Rows(batch.rows, [column.decode(raw) for column, raw in zip(columns, batch.raw, strict=True)])


def encode_column(column: Values) -> list[bytes]:
    """Encodes one column as a Column message, in parts. For speed, each value is processed in C."""
    kind, values = column
    nulls = b""
    if None in values:
        nulls = wire.blob(1, null_bits(values))
        if values.count(None) == len(values):
            return [nulls]
        if kind is not Kind.MIXED:
            zero = ZEROS[kind]
            values = [zero if value is None else value for value in values]
    field, encoded = ENCODERS[kind](values)
    return [nulls, *wire.message(field, encoded)]


def null_bits(values: Sequence[Any]) -> bytes:
    """Returns the bitmap of None values. Row r is bit r % 8 of byte r / 8, least significant bit first."""
    digits = "".join(["1" if value is None else "0" for value in reversed(values)])
    return int(digits, 2).to_bytes((len(values) + 7) // 8, "little")


Encoded = tuple[int, list[bytes]]
"""A field of Column, and the message in it, in parts."""


def _bools(values: Sequence[bool]) -> Encoded:
    return 2, wire.message(1, [bytes(values)])


def _ints(values: Sequence[int]) -> Encoded:
    try:
        return 3, wire.message(1, [packed.varints(array("q", values))])
    except OverflowError:
        pass
    try:
        # Some values exceed int64. MySQL's BIGINT UNSIGNED fits uint64.
        return 4, wire.message(1, [packed.varints(array("Q", values))])
    except OverflowError:
        return _decimals(list(map(str, values)))


def _floats(values: Sequence[float]) -> Encoded:
    return 5, wire.message(1, [packed.doubles(values)])


def _texts(values: Sequence[str]) -> Encoded:
    return 6, [packed.strings(1, values)]


def _blobs(values: Sequence[bytes]) -> Encoded:
    return 7, [packed.blobs(1, values)]


def _decimals(values: Sequence[str]) -> Encoded:
    return 8, [packed.strings(1, values)]


def _dates(values: Sequence[int]) -> Encoded:
    return 9, wire.message(1, [packed.varints(array("q", values), zigzag=True)])


def _timestamps(values: Sequence[int]) -> Encoded:
    return 10, wire.message(1, [packed.varints(array("q", values), zigzag=True)])


def _timestamps_utc(values: Sequence[int]) -> Encoded:
    field, encoded = _timestamps(values)
    return field, [*encoded, wire.integer(2, 1)]


def _mixed(values: Sequence[Any]) -> Encoded:
    return 11, [packed.blobs(1, [_cell(value) for value in values])]


def _cell(value: Any) -> bytes:
    """Encodes one value of a mixed column."""
    match value:
        case None:
            return b""
        case str():
            return wire.present_bytes(5, value.encode())
        case bool():
            return wire.present_integer(1, value)
        case int():
            if -(2**63) <= value < 2**63:
                return wire.present_integer(2, value)
            return wire.present_integer(3, value) if 0 <= value < 2**64 else wire.present_text(7, str(value))
        case float():
            return wire.present_double(4, value)
        case bytes():
            return wire.present_bytes(6, value)
    raise TypeError(f"a mixed column holds a {type(value).__name__}")


ENCODERS: dict[Kind, Callable[[Any], Encoded]] = {
    Kind.BOOL: _bools,
    Kind.INT: _ints,
    Kind.FLOAT: _floats,
    Kind.TEXT: _texts,
    Kind.BLOB: _blobs,
    Kind.DECIMAL: _decimals,
    Kind.DATE: _dates,
    Kind.TIMESTAMP: _timestamps,
    Kind.TIMESTAMP_UTC: _timestamps_utc,
    Kind.MIXED: _mixed,
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
