"""Writes a table: creates a staging table, fills it in batches, and replaces the old table in one step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from sqlflow_submitter.connect.database import ColumnInfo, Database, Kind

MARKER = "SQLFlow result table"


def marker(name: str, schema: str | None = None) -> str:
    """Returns the comment of a table that SQLFlow created, and may therefore replace.

    It contains the table's name, and its schema or database if it has one. So a table that was renamed, moved or
    copied does not count as SQLFlow's.
    """
    return f"{MARKER} {f'{schema}.{name}'.lower() if schema else name.lower()}"


class ExistingTable(NamedTuple):
    """An existing object with a table's name."""

    kind: str
    """`table`, `view` …"""
    comment: str
    """The comment of a table, or in SQLite the text of CREATE TABLE."""
    marker: str
    """The marker of this name in this place."""

    @property
    def is_marked(self) -> bool:
        """Whether it is a table with a marker of its name."""
        return self.kind == "table" and self.comment == self.marker

    @property
    def marked_as(self) -> str | None:
        """The name in a marker that is not of this name and place."""
        is_other = self.kind == "table" and not self.is_marked and self.comment.startswith(f"{MARKER} ")
        return self.comment.removeprefix(f"{MARKER} ") if is_other else None


class TableName(NamedTuple):
    """The name of a table, with or without a schema or database."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    def with_suffix(self, suffix: str, limit: int | None) -> TableName:
        """Returns the name of an internal table in the same schema: `<table>__<suffix>`.

        If it is longer than `limit` bytes, the table's part is truncated and a hash of it is appended.
        """
        room = None if limit is None else limit - len(suffix) - 2
        name = self.name
        if room is not None and len(name.encode()) > room:
            digest = f"{zlib.crc32(name.encode()):08x}"
            name = name.encode()[: max(0, room - 9)].decode(errors="ignore") + "_" + digest
        return TableName(self.schema, f"{name}__{suffix}")


class TableWriter:
    """Writes tables in one dialect. It may use a second connection, to write while the first one reads."""

    name_limit: int | None = None
    """Maximum length of an identifier in bytes; None means no limit."""
    types: ClassVar[dict[Kind, str]]
    """The column types of computed values."""

    def table_name(self, text: str) -> TableName:
        """Parses `t`, `d.t` or, in PostgreSQL, `d.s.t`, by the database's rules for names without quotes."""
        schema, _, name = text.rpartition(".")
        return TableName(schema or None, name)

    def column_name(self, text: str) -> str:
        """Converts a column's name by the database's rules for names without quotes."""
        return text

    def quote(self, name: str) -> str:
        """Quotes an identifier."""
        return '"' + name.replace('"', '""') + '"'

    def quoted(self, table: TableName) -> str:
        parts = [*(table.schema.split(".") if table.schema else ()), table.name]
        return ".".join(map(self.quote, parts))

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        """Describes a column of computed values."""
        raise NotImplementedError

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        """Converts bool, int, float, str and None to the driver's raw values. NaN becomes NULL."""
        raise NotImplementedError

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self, sql: str) -> None:
        """Runs a statement."""
        self._database.run(sql)

    def find_table(self, table: TableName) -> ExistingTable | None:
        """Returns the object with this name, if any."""
        raise NotImplementedError

    def creation_obstacle(self, table: TableName) -> str | None:
        """Returns the reason why a table of this name cannot be created, if one is known."""
        return None

    def columns(self, table: TableName) -> list[str]:
        """Returns the names of a table's columns."""
        return [column.name for column in self._database.describe(f"SELECT * FROM {self.quoted(table)}")]

    def count(self, table: TableName, limit: int) -> int:
        """Counts the rows of a table, up to a limit."""
        sql = f"SELECT count(*) FROM (SELECT 1 AS one FROM {self.quoted(table)} LIMIT {limit}) AS counted"
        return int(self._database.rows(sql)[0][0])

    def dependents(self, table: TableName) -> list[str]:
        """Returns the objects that prevent the replacement of a table, such as views and foreign keys."""
        return []

    def replacement_obstacle(self, table: TableName) -> str | None:
        """Returns the reason why this user cannot replace an existing table, if one is known."""
        return None

    def attached(self, table: TableName) -> list[str]:
        """Returns what users added to a table, and what is lost when it is replaced, such as indexes and triggers."""
        return []

    def reads(self, select: str, table: TableName) -> str | None:
        """Returns the reason why a select reads a table, or may read it, or None. Does not execute the select."""
        raise NotImplementedError

    def create(self, table: TableName, columns: Sequence[ColumnInfo], name: str) -> None:
        """Creates an empty table of computed columns, with the marker of its final name."""
        definitions = ", ".join(f"{self.quote(column.name)} {column.database_type}" for column in columns)
        self.run(f"CREATE TABLE {self.quoted(table)} ({definitions})")
        self.mark(table, name)

    def create_from_select(
        self, table: TableName, select: str, columns: Sequence[ColumnInfo], extra: Sequence[ColumnInfo], name: str
    ) -> None:
        """Creates an empty table with columns of a select, in the database's own types, and extra computed columns."""
        if not columns:
            self.create(table, extra, name)
            return
        listed = ", ".join(self.quote(column.name) for column in columns)
        # The newline ends a comment that the select may end with.
        no_rows = f"SELECT {listed} FROM ({select}\n) AS sqlflow_select WHERE 1 = 0"
        self.run(f"CREATE TABLE {self.quoted(table)} AS {no_rows}")
        for column in extra:
            self.run(f"ALTER TABLE {self.quoted(table)} ADD COLUMN {self.quote(column.name)} {column.database_type}")
        self.mark(table, name)

    def mark(self, table: TableName, name: str) -> None:
        """Adds the marker of a name to a new table."""
        raise NotImplementedError

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        """Adds rows, given by column as the driver's raw values."""
        raise NotImplementedError

    def drop(self, table: TableName) -> None:
        """Drops a table, if it exists."""
        self.run(f"DROP TABLE IF EXISTS {self.quoted(table)}")

    def swap(self, staging: TableName, table: TableName, suffix: str, check: Callable[[], None]) -> None:
        """Replaces `table` by `staging`. Readers see the old table or the new one at every moment.

        `check` raises an error if `table` may not be replaced. It is called in the transaction, if there is one.

        Raises:
            UserError: the old table cannot be replaced, for example because a view depends on it. It is unchanged.
        """
        raise NotImplementedError

    def leftovers(self, table: TableName, suffix: str) -> list[TableName]:
        """Returns the tables that an attempt with this suffix may have left."""
        return [table.with_suffix(suffix, self.name_limit)]

    def close(self) -> None:
        """Closes the writer's connection, if it is a second one."""

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
