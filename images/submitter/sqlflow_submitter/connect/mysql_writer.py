"""Writes tables in MySQL and MariaDB."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import count
from typing import Any, ClassVar

from sqlflow_submitter.connect import decode
from sqlflow_submitter.connect.database import ColumnInfo, Kind
from sqlflow_submitter.connect.mysql import REFERENCED, MySQLDatabase, error_code
from sqlflow_submitter.connect.mysql_types import bits
from sqlflow_submitter.connect.writer import ExistingTable, TableName, TableWriter, marker
from sqlflow_submitter.errors import SubmitterError, UserError
from sqlflow_submitter.reads import mysql

INSERT_BYTES = 1024 * 1024
"""Size at which an INSERT is sent. It is below the default of max_allowed_packet on all servers."""

MAX_NAME = 64
"""Maximum number of characters of a table's name."""

HIDDEN_REFERENCE = "a foreign key of a table that this user cannot see"

DECODERS = {Kind.BOOL: decode.ints, Kind.INT: decode.ints, Kind.FLOAT: decode.floats, Kind.TEXT: decode.texts}


class MySQLWriter(TableWriter):
    # The limit is 64 characters. Counting bytes also respects the limit of file names on the server.
    name_limit = 64
    types: ClassVar = {Kind.BOOL: "BOOLEAN", Kind.INT: "BIGINT", Kind.FLOAT: "DOUBLE", Kind.TEXT: "TEXT"}

    _database: MySQLDatabase

    def __init__(self, database: MySQLDatabase) -> None:
        super().__init__(database)
        # Independent of the settings of the reading session: written rows must be visible at once.
        self.run("SET autocommit = 1, sql_notes = 1")

    def quote(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        return ColumnInfo(name, self.types[kind], DECODERS[kind])

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        return [_raw(value) for value in values]

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        literals = [map(_literal(column), values) for column, values in zip(columns, raw, strict=True)]
        head = b"INSERT INTO " + self.quoted(table).encode() + b" VALUES "
        for rows in _pieces(zip(*literals, strict=True)):
            self._database.run_bytes(head + b",".join(rows))

    def mark(self, table: TableName, name: str) -> None:
        text = marker(name, self._schema(table)).replace("\\", "\\\\").replace("'", "''")
        self.run(f"ALTER TABLE {self.quoted(table)} COMMENT = '{text}'")

    def find_table(self, table: TableName) -> ExistingTable | None:
        found = self._database.table_kind(table.schema, table.name)
        if found is None:
            return None
        kind, comment = found
        is_table = kind == "BASE TABLE"
        return ExistingTable("table" if is_table else kind.lower(), comment, marker(table.name, self._schema(table)))

    def _schema(self, table: TableName) -> str | None:
        """Returns the table's database, or None if neither the table nor the data source names one."""
        return table.schema or self._default_schema

    @cached_property
    def _default_schema(self) -> str | None:
        schema: str | None = self._database.rows("SELECT DATABASE()")[0][0]
        return schema

    def creation_obstacle(self, table: TableName) -> str | None:
        if len(table.name) > MAX_NAME:
            return f"its name has {len(table.name)} characters, and the database allows {MAX_NAME}"
        schema = self._schema(table)
        if schema is None:
            return "the data source names no database, and neither does the table"
        if not self._database.has_schema(schema):
            return f"database {schema} does not exist"
        # The server checks the privileges first, and then rejects the statement because there is no such table.
        source, target = (self.quoted(table.with_suffix(f"probe{it}", self.name_limit)) for it in (1, 2))
        denied = self._database.denied(f"RENAME TABLE {source} TO {target}")
        return f"this user may not replace tables in database {schema}: {denied}" if denied else None

    def dependents(self, table: TableName) -> list[str]:
        # A foreign key needs an index here. The second query opens every table of the server, which may take long.
        if not any(it.startswith("index ") for it in self.attached(table)):
            return []
        place = f"= {_text(self._schema(table) or '')}"
        found = self._database.rows(
            "SELECT DISTINCT CONCAT('foreign key ', constraint_name, ' of table ', table_schema, '.', table_name) "
            "FROM information_schema.key_column_usage "
            f"WHERE referenced_table_schema {place} AND referenced_table_name = {_text(table.name)} "
            f"AND NOT (table_schema {place} AND table_name = {_text(table.name)})"
        )
        if not found and self._has_hidden_reference(table):
            return [HIDDEN_REFERENCE]
        return sorted(str(name) for (name,) in found)

    def _has_hidden_reference(self, table: TableName) -> bool:
        """Returns whether a foreign key of a table that this user cannot see certainly refers to a table.

        InnoDB rejects another engine for a table with foreign keys, its own ones or those of other tables. The server
        asks for that before it looks for the column. So the statement fails, whichever the reason is.
        """
        place = f"table_schema = {_text(self._schema(table) or '')} AND table_name = {_text(table.name)}"
        ((own, is_checked),) = self._database.rows(
            "SELECT (SELECT count(*) FROM information_schema.key_column_usage "
            f"WHERE {place} AND referenced_table_name IS NOT NULL), @@foreign_key_checks"
        )
        if int(own) or not int(is_checked):
            return False
        taken = {name.lower() for name in self.columns(table)}
        missing = next(name for name in (f"sqlflow_no_column_{it}" for it in count()) if name not in taken)
        return self._database.is_referenced(
            f"ALTER TABLE {self.quoted(table)} ENGINE = MEMORY, DROP COLUMN {self.quote(missing)}"
        )

    def attached(self, table: TableName) -> list[str]:
        schema, name = _text(self._schema(table) or ""), _text(table.name)
        found = self._database.rows(
            "SELECT DISTINCT CONCAT('index ', index_name) FROM information_schema.statistics "
            f"WHERE table_schema = {schema} AND table_name = {name} "
            "UNION ALL SELECT CONCAT('trigger ', trigger_name) FROM information_schema.triggers "
            f"WHERE event_object_schema = {schema} AND event_object_table = {name}"
        )
        return sorted(str(name) for (name,) in found)

    def reads(self, select: str, table: TableName) -> str | None:
        return mysql.reason(select, table.schema, table.name, self._database.rows)

    def swap(self, staging: TableName, table: TableName, suffix: str, check: Callable[[], None]) -> None:
        check()
        existing = self.find_table(table)
        if existing is None:
            self.run(f"RENAME TABLE {self.quoted(staging)} TO {self.quoted(table)}")
            return
        old = self._old(table, suffix)
        # One statement with both renames: the table exists at every moment.
        self.run(
            f"RENAME TABLE {self.quoted(table)} TO {self.quoted(old)}, {self.quoted(staging)} TO {self.quoted(table)}"
        )
        try:
            self.drop(old)
        except UserError as error:
            # For example, a foreign key that this user cannot see, created since the check. It refers to the old table,
            # so that must stay.
            new, final = self.quoted(staging), self.quoted(table)
            self.run(f"RENAME TABLE {final} TO {new}, {self.quoted(old)} TO {final}")
            is_referenced = error_code(error) in REFERENCED
            reason = f"{HIDDEN_REFERENCE} depends on it" if is_referenced else str(error)
            raise UserError(f"cannot replace table {table}: {reason}; choose another name") from error
        except SubmitterError as error:
            # The table has been replaced.
            error.unclear = True
            raise

    def leftovers(self, table: TableName, suffix: str) -> list[TableName]:
        return [*super().leftovers(table, suffix), self._old(table, suffix)]

    def _old(self, table: TableName, suffix: str) -> TableName:
        return table.with_suffix(f"{suffix}_old", self.name_limit)

    def close(self) -> None:
        self._database.close()


def _text(text: str) -> str:
    return f"_utf8mb4 X'{text.encode().hex()}'"


def _pieces(rows: Iterator[tuple[bytes, ...]]) -> Iterator[list[bytes]]:
    """Groups rows, in brackets, into parts of about INSERT_BYTES."""
    piece: list[bytes] = []
    size = 0
    for row in rows:
        text = b"(" + b",".join(row) + b")"
        piece.append(text)
        size += len(text)
        if size >= INSERT_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _literal(column: ColumnInfo) -> Callable[[bytes | None], bytes]:
    """Returns the encoder of a column's values. Text is in hexadecimal, which no session setting changes."""
    if column.decode in (decode.ints, decode.floats, decode.decimals):
        return lambda value: b"NULL" if value is None else value
    introducer = b"" if column.decode in (decode.blobs, bits) else b"_utf8mb4 "
    return lambda value: b"NULL" if value is None else introducer + b"X'" + value.hex().encode() + b"'"


def _raw(value: Any) -> bytes | None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return b"1" if value else b"0"
    return (repr(value) if isinstance(value, float) else str(value)).encode()
