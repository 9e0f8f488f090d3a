"""The one interface that the rest of the package has to a database.

A result set comes in batches, laid out by column, because that is how it goes on: into a Rows message or into numpy.
A batch holds the driver's raw values (bytes as the server printed them, or SQLite's own values); a column's `decode`
turns them into values of one kind. Raw values are kept because PREDICT writes them back as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple

from sqlflow_submitter.errors import SubmitterError, UserError, suggestions

BATCH_ROWS = 4096
BATCH_BYTES = 512 * 1024
FIRST_BATCH_ROWS = 100
MAX_TABLES = 10_000
"""Tables among which a misspelt one is looked for."""
MAX_NAMED_TABLES = 20
"""Tables of a statement whose columns a misspelt one is looked for among."""


class Kind(Enum):
    """The kinds of values, each with the Python type that a decoded column holds."""

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

    # Members are single objects: comparing and hashing by identity is right, and Enum's own hash is slow.
    __hash__ = object.__hash__


class Values(NamedTuple):
    """A decoded column of a batch; NULL is None whatever the kind."""

    kind: Kind
    values: Sequence[Any]


class ColumnInfo(NamedTuple):
    """A column of a result set."""

    name: str
    database_type: str
    """The database's own name for the type; empty where the driver does not tell."""
    decode: Callable[[Sequence[Any]], Values]
    """Turns a column's raw values into values of one kind."""


class Batch(NamedTuple):
    """Consecutive rows of a result set, by column."""

    rows: int
    raw: Sequence[Sequence[Any]]
    """The driver's values, one sequence of `rows` for each column; NULL is None."""


class ResultSet:
    """A result set that is being received. Its batches can be taken once."""

    columns: list[ColumnInfo]

    def batches(self) -> Iterator[Batch]:
        """Gives the rows in batches of at most about BATCH_ROWS rows and BATCH_BYTES bytes, in bounded memory.

        The first is small, so that the first rows of a slow query show soon.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Gives up the rows that were not read."""

    def __enter__(self) -> ResultSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def names(self) -> list[str]:
        return [column.name for column in self.columns]


class Database:
    """A connection that behaves as the database's own command line does.

    Each statement commits, unless BEGIN came first.
    """

    dialect: str

    def execute(self, sql: str) -> Iterator[ResultSet | int | None]:
        """Runs one statement, byte for byte as given.

        Gives each result set, to be consumed before the next is asked for, and for each part that returned none the
        number of rows changed, None where the database does not tell.

        Raises:
            UserError: the database refused the statement; with the line, where the database tells it.
            DatabaseUnavailable: the connection was lost, or the database is locked.
        """
        raise NotImplementedError

    def describe(self, select: str) -> list[ColumnInfo]:
        """Gives the columns that a select would return, without executing it.

        Raises:
            UserError: the database refused the select.
        """
        raise NotImplementedError

    def check_query(self, sql: str) -> None:
        """Raises UserError when the database would refuse a standard SELECT. Nothing is executed; others pass."""
        if re.match(r"\s*(SELECT|WITH)\b", sql, re.IGNORECASE):
            self.describe(sql)

    tables_query: str
    """A query that names the tables and views that need no schema, at most MAX_TABLES of them."""

    quote_mark = '"'
    """What stands around a name."""

    def add_suggestions(self, error: UserError, sql: str = "") -> None:
        """Adds what may have been meant to an error of a table or column that does not exist.

        Columns are looked for in the tables that the statement `sql` names.
        """
        missing = error.missing_table or error.missing_column
        if missing is None:
            return
        try:
            known = [str(name) for (name,) in self.rows(self.tables_query)]
            if error.missing_table is None:
                known = self._columns_of(known, sql)
        except SubmitterError:
            # As within a transaction that has failed.
            return
        similar = suggestions(missing.rpartition(".")[2], known)
        if similar:
            error.args = (f"{error}; did you mean {' or '.join(similar)}?",)

    def _columns_of(self, tables: Sequence[str], sql: str) -> list[str]:
        """Names the columns of those tables that a statement names."""
        words = set(re.findall(r"\w+", sql.lower()))
        named = [name for name in tables if name.lower() in words][:MAX_NAMED_TABLES]
        mark = self.quote_mark
        return [
            column.name
            for name in named
            for column in self.describe(f"SELECT * FROM {mark}{name.replace(mark, 2 * mark)}{mark}")
        ]

    def writing_connection(self) -> Database:
        """Returns the connection that `open_writer` uses: a second one where one cannot write while it reads."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the connection; an open transaction is rolled back."""
        raise NotImplementedError

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, sql: str) -> None:
        """Runs a statement and drops what it returns."""
        for result in self.execute(sql):
            if isinstance(result, ResultSet):
                for _ in result.batches():
                    pass

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs a query of our own that gives few rows; gives their decoded values."""
        rows: list[tuple[Any, ...]] = []
        for result in self.execute(sql):
            if isinstance(result, ResultSet):
                for batch in result.batches():
                    columns = [
                        info.decode(values).values for info, values in zip(result.columns, batch.raw, strict=True)
                    ]
                    rows += zip(*columns, strict=True)
        return rows
