"""Writes tables in MySQL and MariaDB."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from sqlflow_submitter.connect import decode
from sqlflow_submitter.connect.database import ColumnInfo, Kind
from sqlflow_submitter.connect.mysql import MySQLDatabase
from sqlflow_submitter.connect.mysql_types import bits
from sqlflow_submitter.connect.writer import ExistingTable, TableName, TableWriter, marker
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.reads import mysql

INSERT_BYTES = 1024 * 1024
"""Size at which an INSERT is sent. It is below the default of max_allowed_packet on all servers."""

MAX_NAME = 64
"""Maximum number of characters of a table's name."""

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
        text = marker(name).replace("\\", "\\\\").replace("'", "''")
        self.run(f"ALTER TABLE {self.quoted(table)} COMMENT = '{text}'")

    def find_table(self, table: TableName) -> ExistingTable | None:
        found = self._database.table_kind(table.schema, table.name)
        if found is None:
            return None
        kind, comment = found
        is_table = kind == "BASE TABLE"
        return ExistingTable("table" if is_table else kind.lower(), is_table and comment == marker(table.name))

    def creation_obstacle(self, table: TableName) -> str | None:
        if len(table.name) > MAX_NAME:
            return f"its name has {len(table.name)} characters, and the database allows {MAX_NAME}"
        ((default,),) = self._database.rows("SELECT DATABASE()")
        schema = table.schema or default
        if schema is None:
            return "the data source names no database, and neither does the table"
        return None if self._database.has_schema(str(schema)) else f"database {schema} does not exist"

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
