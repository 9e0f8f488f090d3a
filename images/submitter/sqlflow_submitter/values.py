"""Columns and their values. Rows come in batches, by column, which is also the form of numpy's arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple


class Kind(Enum):
    """The kinds of values, each with the Python type that a column holds."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    TEXT = "str"
    BLOB = "bytes"
    DECIMAL = "str: exact digits"
    DATE = "int: days since 1970-01-01"
    TIMESTAMP = "int: microseconds since 1970-01-01 by the local clock"
    TIMESTAMP_UTC = "int: microseconds since 1970-01-01 in UTC"
    MIXED = "any of bool, int, float, str, bytes"

    # Members are singletons, so identity is enough. Enum's own hash is slow.
    __hash__ = object.__hash__


NUMERIC_KINDS = (Kind.BOOL, Kind.INT, Kind.FLOAT, Kind.DECIMAL)
DATE_KINDS = (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMP_UTC)


class Values(NamedTuple):
    """A column of a batch. NULL is None in every kind."""

    kind: Kind
    values: Sequence[Any]


class ColumnInfo(NamedTuple):
    """A column of a result set."""

    name: str
    database_type: str
    """The database's name for the type; empty if it is not known."""
    kind: Kind | None = None
    """The kind of all values, if the type decides it. It decides nothing in SQLite."""


class Batch(NamedTuple):
    """Consecutive rows of a result set."""

    rows: int
    columns: Sequence[Values]


class ResultSet:
    """The rows of a select."""

    columns: Sequence[ColumnInfo]

    def batches(self) -> Iterator[Batch]:
        """Returns the rows, in batches of bounded size."""
        raise NotImplementedError

    def names(self) -> list[str]:
        return [column.name for column in self.columns]
