"""The interface to databases.

A result set comes in batches, by column, which is also the form of Rows messages and of numpy's arrays. A batch has
the driver's raw values: bytes as the server printed them, or SQLite's own values. A column's `decode` converts them to
values of one kind. Raw values are kept, because PREDICT writes them back unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlflow_submitter.errors import SubmitterError, UserError, suggestions
from sqlflow_submitter.step import first_word

if TYPE_CHECKING:
    from sqlflow_submitter.link import Link

BATCH_ROWS = 4096
BATCH_BYTES = 512 * 1024
FIRST_BATCH_ROWS = 100
MAX_TABLES = 10_000
"""Maximum number of tables that are searched for suggestions."""
MAX_NAMED_TABLES = 20
"""Maximum number of tables whose columns are searched for suggestions."""

CHECKED = {
    *("SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN"),
    *("INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"),
}
"""First words of statements that all databases can prepare without executing them."""


# Possessive: a long name must not be divided in every way.
_NAME = r"""(?:"[^"]+"|`[^`]+`|[\w$.])++"""
_CREATION = (
    rf"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:TEMP\s+|TEMPORARY\s+|UNLOGGED\s+)?(?:TABLE|(?P<view>VIEW))\s+{_NAME}"
    r"\s+AS\s+(?P<select>(?:SELECT|WITH)\b(?!.*\bWITH\s+(?:NO\s+DATA|DATA|CHECK|CASCADED|LOCAL)\b).*)"
)


def created_select(sql: str) -> re.Match[str] | None:
    """Matches the creation of a table or view of a `select` without a further clause.

    The database analyses the select when it creates one.
    """
    # Compiled at its first use: most steps have none.
    return re.fullmatch(_CREATION, sql, re.IGNORECASE | re.DOTALL)


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

    # Members are singletons, so identity is enough. Enum's own hash is slow.
    __hash__ = object.__hash__


class Values(NamedTuple):
    """A decoded column of a batch. NULL is None in every kind."""

    kind: Kind
    values: Sequence[Any]


class ColumnInfo(NamedTuple):
    """A column of a result set."""

    name: str
    database_type: str
    """The database's name for the type; empty if the driver does not report it."""
    decode: Callable[[Sequence[Any]], Values]
    """Converts a column's raw values to values of one kind."""


class Batch(NamedTuple):
    """Consecutive rows of a result set, by column."""

    rows: int
    raw: Sequence[Sequence[Any]]
    """The driver's values: for each column a sequence of `rows` values. NULL is None."""


class ResultSet:
    """A result set that is being received. Its batches can be read once."""

    columns: list[ColumnInfo]

    def batches(self) -> Iterator[Batch]:
        """Returns the rows in batches of about BATCH_ROWS rows or BATCH_BYTES bytes at most.

        The first batch is small, so that the first rows of a slow query arrive early.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Discards the rows that were not read."""

    def __enter__(self) -> ResultSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def names(self) -> list[str]:
        return [column.name for column in self.columns]


class Database:
    """A connection. It behaves like the database's own command line.

    Each statement commits, unless it follows BEGIN.
    """

    dialect: str

    link: Link | None = None
    """The link to the data process, if there is one."""

    def execute(self, sql: str) -> Iterator[ResultSet | int | None]:
        """Runs one statement, unchanged.

        Yields each result set, which must be read before the next one is requested. For a part without a result set,
        yields the number of changed rows, or None if the database does not report it.

        Raises:
            UserError: the database rejected the statement; the message has the line, if the database reports it.
            DatabaseUnavailable: the connection was lost, or the database is locked.
        """
        raise NotImplementedError

    def read(self, select: str) -> Iterator[ResultSet | int | None]:
        """Runs a select like `execute`, for decoding: settings of the session do not change how values are printed."""
        return self.execute(select)

    def describe(self, select: str) -> list[ColumnInfo]:
        """Returns the columns of a select without executing it.

        Raises:
            UserError: the database rejected the select.
        """
        raise NotImplementedError

    def check_query(self, sql: str) -> None:
        """Raises UserError if the database rejects a query or a change of rows. Does not execute it.

        Of another statement, checks the syntax.
        """
        created = created_select(sql)
        if created:
            # Errors have the line of the whole statement.
            lines = sql.count("\n", 0, created.start("select"))
            self.describe("\n" * lines + created["select"])
        elif first_word(sql) in CHECKED:
            self.describe(sql)
        else:
            self.check_syntax(sql)

    def check_syntax(self, sql: str) -> None:
        """Raises UserError if the syntax of a statement is wrong. Does not execute it.

        Tables and columns may be missing: an earlier statement may create them.
        """
        try:
            self.describe(sql)
        except UserError as error:
            if error.is_syntax:
                raise

    tables_query: str
    """A query for the names of tables and views that need no schema, with at most MAX_TABLES rows."""

    quote_mark = '"'
    """The quote for names."""

    def add_suggestions(self, error: UserError, sql: str = "") -> None:
        """Adds similar names to an error about a table or column that does not exist.

        Columns are searched in the tables that the statement `sql` names.
        """
        missing = error.missing_table or error.missing_column
        if missing is None:
            return
        try:
            known = [str(name) for (name,) in self.rows(self.tables_query)]
            if error.missing_table is None:
                known = self._columns_of(known, sql)
        except SubmitterError:
            # For example, the transaction has failed.
            return
        similar = suggestions(missing.rpartition(".")[2], known)
        if similar:
            error.args = (f"{error}; did you mean {' or '.join(similar)}?",)

    def _columns_of(self, tables: Sequence[str], sql: str) -> list[str]:
        """Returns the columns of those tables that a statement names."""
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

    def checking_connection(self) -> Database:
        """Returns another connection with the settings that are replayed, for checks with further settings.

        Raises:
            DatabaseUnavailable: it cannot be opened.
        """
        raise NotImplementedError

    def add_setting(self, sql: str) -> bool:
        """Changes a setting of the session, also for connections that it opens from now on.

        Returns False, and changes nothing, if that would change more than the session.

        Raises:
            UserError: the database rejected the statement.
        """
        self.run(sql)
        self._replay = [*self._replay, sql]
        return True

    _replay: Sequence[str]

    def close(self) -> None:
        """Closes the connection. An open transaction is rolled back."""
        raise NotImplementedError

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, sql: str) -> None:
        """Runs a statement and discards its results."""
        for result in self.execute(sql):
            if isinstance(result, ResultSet):
                for _ in result.batches():
                    pass

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs an internal query with few rows and returns their decoded values."""
        rows: list[tuple[Any, ...]] = []
        for result in self.execute(sql):
            if isinstance(result, ResultSet):
                for batch in result.batches():
                    columns = [
                        info.decode(values).values for info, values in zip(result.columns, batch.raw, strict=True)
                    ]
                    rows += zip(*columns, strict=True)
        return rows
