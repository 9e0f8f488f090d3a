"""Writing a table: made under a scratch name, filled in batches, then put in place of the old one in one step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from sqlflow_submitter.connect.database import ColumnInfo, Database, Kind

MARKER = "SQLFlow result table"


def marker(name: str) -> str:
    """Gives the comment of a table that was made by us, and so may be replaced by us.

    It has the table's own name: a table that a person has renamed, or made like ours, is the person's.
    """
    return f"{MARKER} {name.lower()}"


class ExistingTable(NamedTuple):
    """What has a table's name already."""

    kind: str
    """`table`, `view` …"""
    is_marked: bool
    """True: it is a table with our marker."""


class TableName(NamedTuple):
    """A table, perhaps in a schema or database."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    def with_suffix(self, suffix: str, limit: int | None) -> TableName:
        """Names a table of our own beside this one: `<table>__<suffix>`.

        Where that is longer than `limit` bytes, the table's part is cut, and told apart by a hash of the whole.
        """
        room = None if limit is None else limit - len(suffix) - 2
        name = self.name
        if room is not None and len(name.encode()) > room:
            digest = f"{zlib.crc32(name.encode()):08x}"
            name = name.encode()[: max(0, room - 9)].decode(errors="ignore") + "_" + digest
        return TableName(self.schema, f"{name}__{suffix}")


class TableWriter:
    """Writes tables in one dialect. It may hold a connection of its own, so as to write while another reads."""

    name_limit: int | None = None
    """Bytes that an identifier may have; None: no limit."""
    types: ClassVar[dict[Kind, str]]
    """The column types for values that we make."""

    def table_name(self, text: str) -> TableName:
        """Reads `t`, `d.t` or, in PostgreSQL, `d.s.t`, as the database reads it when it is not quoted."""
        schema, _, name = text.rpartition(".")
        return TableName(schema or None, name)

    def column_name(self, text: str) -> str:
        """Reads a column's name, as the database reads it when it is not quoted."""
        return text

    def quote(self, name: str) -> str:
        """Quotes an identifier."""
        return '"' + name.replace('"', '""') + '"'

    def quoted(self, table: TableName) -> str:
        parts = [*(table.schema.split(".") if table.schema else ()), table.name]
        return ".".join(map(self.quote, parts))

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        """Describes a column for values that we make."""
        raise NotImplementedError

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        """Turns bool, int, float, str and None into the driver's raw values; NaN becomes NULL."""
        raise NotImplementedError

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self, sql: str) -> None:
        """Runs a statement."""
        self._database.run(sql)

    def find_table(self, table: TableName) -> ExistingTable | None:
        """Tells what has this name; None: nothing."""
        raise NotImplementedError

    def creation_obstacle(self, table: TableName) -> str | None:
        """Gives the reason why no table of this name can be made; None: none is known."""
        return None

    def count(self, table: TableName, limit: int) -> int:
        """Counts the rows of a table, up to a limit."""
        sql = f"SELECT count(*) FROM (SELECT 1 AS one FROM {self.quoted(table)} LIMIT {limit}) AS counted"
        return int(self._database.rows(sql)[0][0])

    def dependents(self, table: TableName) -> list[str]:
        """Names what would keep a table from being replaced, such as views; none where nothing does."""
        return []

    def reads(self, select: str, table: TableName) -> str | None:
        """Gives the reason why a select reads a table, or may; None: it does not. The select is not executed."""
        raise NotImplementedError

    def create(self, table: TableName, columns: Sequence[ColumnInfo], name: str) -> None:
        """Makes an empty table of columns of ours, marked as the one that will have this name."""
        definitions = ", ".join(f"{self.quote(column.name)} {column.database_type}" for column in columns)
        self.run(f"CREATE TABLE {self.quoted(table)} ({definitions})")
        self.mark(table, name)

    def create_from_select(
        self, table: TableName, select: str, columns: Sequence[ColumnInfo], extra: Sequence[ColumnInfo], name: str
    ) -> None:
        """Makes an empty table with columns of a select, in the database's own types, and columns of ours."""
        if not columns:
            self.create(table, extra, name)
            return
        listed = ", ".join(self.quote(column.name) for column in columns)
        # The line's end keeps a comment at the select's end from swallowing the rest.
        no_rows = f"SELECT {listed} FROM ({select}\n) AS sqlflow_select WHERE 1 = 0"
        self.run(f"CREATE TABLE {self.quoted(table)} AS {no_rows}")
        for column in extra:
            self.run(f"ALTER TABLE {self.quoted(table)} ADD COLUMN {self.quote(column.name)} {column.database_type}")
        self.mark(table, name)

    def mark(self, table: TableName, name: str) -> None:
        """Puts the marker of a name on a table that was just made."""
        raise NotImplementedError

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        """Adds rows, given by column in the driver's raw values."""
        raise NotImplementedError

    def drop(self, table: TableName) -> None:
        """Drops a table, if it is there."""
        self.run(f"DROP TABLE IF EXISTS {self.quoted(table)}")

    def swap(self, staging: TableName, table: TableName, suffix: str, check: Callable[[], None]) -> None:
        """Puts `staging` in the place of `table`, so that no reader finds neither.

        `check` raises when `table` may not be replaced. It is called within the transaction, where there is one.

        Raises:
            UserError: the old table cannot be replaced, e.g. because a view hangs on it; it is still there.
        """
        raise NotImplementedError

    def leftovers(self, table: TableName, suffix: str) -> list[TableName]:
        """Names the tables that an attempt with this suffix may have left behind."""
        return [table.with_suffix(suffix, self.name_limit)]

    def close(self) -> None:
        """Closes the writer's own connection, if it has one."""

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
