"""Values of result sets: from the wire's columns to Python.

A batch of rows is stored by column. It stays as it was received until somebody asks for values, because protobuf keeps
numbers and texts in less memory than Python objects.

| in the database | in Python |
|---|---|
| NULL | `None` |
| boolean, integer, floating point | `bool`, `int`, `float` |
| exact decimal | `decimal.Decimal`, with all digits |
| text, and types without a counterpart (JSON, UUID, arrays, TIME …) | `str`, as the database prints them |
| byte string | `bytes` |
| date | `datetime.date` |
| local time, instant | `datetime.datetime`, naive or in UTC |

A date or time beyond the years 1 to 9999, which Python cannot have, is a text such as `1970-01-01+3000000d`.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from sqlflow._proto import data_pb2 as pb
from sqlflow.errors import ServerFault

Cell: TypeAlias = bool | int | float | str | bytes | Decimal | dt.date | dt.datetime | None
"""One value. `None` is NULL."""

_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Kind(enum.Enum):
    """Type of a column's values."""

    NULL = "null"
    """Every value is NULL."""
    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    """Integers of which one does not fit into 64 bits with a sign."""
    DOUBLE = "double"
    TEXT = "text"
    BLOB = "blob"
    DECIMAL = "decimal"
    DATE = "date"
    TIMESTAMP = "timestamp"
    """Local time without a zone."""
    INSTANT = "instant"
    """Time in UTC."""
    MIXED = "mixed"
    """Values of several types, as SQLite allows."""


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column of a result set."""

    name: str
    database_type: str
    """The database's name for its type, such as `DECIMAL(10,2)`; empty if the database does not report one."""


_KINDS = {
    "bools": Kind.BOOL,
    "int64s": Kind.INT,
    "uint64s": Kind.UINT,
    "doubles": Kind.DOUBLE,
    "strings": Kind.TEXT,
    "blobs": Kind.BLOB,
    "decimals": Kind.DECIMAL,
    "dates": Kind.DATE,
    "mixed": Kind.MIXED,
}


class Column:
    """The values of one column in one batch, in the encoding of the wire."""

    __slots__ = ("_nulls", "_values", "count", "kind")

    def __init__(self, column: pb.Column, count: int):
        """Wraps a column of `count` rows.

        Raises:
            ServerFault: it holds another number of values.
        """
        field = column.WhichOneof("values")
        self.count = count
        self._nulls = column.nulls
        self._values: Sequence[Any] = ()
        if field is None:
            self.kind = Kind.NULL
            return
        # A field that this client does not know is no member of the oneof, and so None above.
        message = getattr(column, field)
        self._values = message.values
        if field == "timestamps":
            self.kind = Kind.INSTANT if message.has_zone else Kind.TIMESTAMP
        else:
            self.kind = _KINDS[field]
        if len(self._values) != count:
            raise ServerFault(f"the server sent a column of {len(self._values)} values in a batch of {count} rows")

    def raw(self) -> Sequence[Any]:
        """The values as they were sent: days, microseconds, decimals as texts; zero in place of NULL."""
        return self._values

    def nulls(self) -> list[int]:
        """The rows that are NULL."""
        if self.kind is Kind.NULL:
            return list(range(self.count))
        nulls = [
            row
            for place, byte in enumerate(self._nulls)
            if byte
            for row in range(8 * place, min(8 * place + 8, self.count))
            if byte >> (row % 8) & 1
        ]
        if self.kind is Kind.MIXED:
            unset = (row for row, value in enumerate(self._values) if value.WhichOneof("value") is None)
            nulls = sorted({*nulls, *unset})
        return nulls

    def cells(self) -> list[Cell]:
        """The values in Python's types."""
        if self.kind is Kind.NULL:
            return [None] * self.count
        convert = _CONVERT.get(self.kind)
        cells: list[Cell] = list(self._values) if convert is None else [convert(value) for value in self._values]
        for row in self.nulls():
            cells[row] = None
        return cells


class Batch:
    """Consecutive rows of a result set."""

    __slots__ = ("columns", "count")

    def __init__(self, rows: pb.Rows):
        """Wraps rows.

        Raises:
            ServerFault: the columns differ in their number of values.
        """
        self.count: int = rows.count
        self.columns = [Column(column, rows.count) for column in rows.columns]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Cell, ...]]:
        if not self.columns:
            return iter([()] * self.count)
        return zip(*(column.cells() for column in self.columns), strict=True)


def date(days: int) -> dt.date | str:
    """The day that is `days` after 1970-01-01."""
    try:
        return dt.date.fromordinal(_EPOCH_DAY + days)
    except (ValueError, OverflowError):
        return f"1970-01-01{days:+d}d"


def timestamp(micros: int) -> dt.datetime | str:
    """The local time that is `micros` microseconds after 1970-01-01T00:00:00."""
    try:
        return _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return f"1970-01-01T00:00:00{micros:+d}us"


def instant(micros: int) -> dt.datetime | str:
    """The instant that is `micros` microseconds after 1970-01-01T00:00:00Z."""
    try:
        return _EPOCH_UTC + dt.timedelta(microseconds=micros)
    except OverflowError:
        return f"1970-01-01T00:00:00Z{micros:+d}us"


def mixed(value: pb.Value) -> Cell:
    """One value of a column with several types."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "decimal_value":
            return Decimal(value.decimal_value)
        case "date_value":
            return date(value.date_value)
        case "timestamp_value":
            return timestamp(value.timestamp_value)
        case field:
            plain: Cell = getattr(value, field)
            return plain


def decimal(text: str) -> Decimal | None:
    """An exact decimal. In place of NULL the text is empty."""
    return Decimal(text) if text else None


_CONVERT: dict[Kind, Callable[[Any], Cell]] = {
    Kind.DECIMAL: decimal,
    Kind.DATE: date,
    Kind.TIMESTAMP: timestamp,
    Kind.INSTANT: instant,
    Kind.MIXED: mixed,
}
