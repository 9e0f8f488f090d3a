"""Writes tables in PostgreSQL, with COPY."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sqlflow_submitter.connect import decode
from sqlflow_submitter.connect.database import ColumnInfo, Kind
from sqlflow_submitter.connect.postgresql_types import bools
from sqlflow_submitter.connect.writer import TableName, TableWriter

if TYPE_CHECKING:
    from sqlflow_submitter.connect.postgresql import PostgreSQLDatabase

NUMBERS = (decode.ints, decode.floats, decode.decimals, bools)
DECODERS = {Kind.BOOL: bools, Kind.INT: decode.ints, Kind.FLOAT: decode.floats, Kind.TEXT: decode.texts}


class PostgreSQLWriter(TableWriter):
    name_limit = 63
    types: ClassVar = {Kind.BOOL: "boolean", Kind.INT: "bigint", Kind.FLOAT: "double precision", Kind.TEXT: "text"}

    def __init__(self, database: PostgreSQLDatabase) -> None:
        self._database = database

    def table_name(self, text: str) -> TableName:
        return super().table_name(text.lower())

    def column_name(self, text: str) -> str:
        return text.lower()

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        return ColumnInfo(name, self.types[kind], DECODERS[kind])

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        return [_raw(value) for value in values]

    def run(self, sql: str) -> None:
        self._database.run(sql)

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        cells = [_copy_cells(column, values) for column, values in zip(columns, raw, strict=True)]
        rows = b"\n".join(map(b"\t".join, zip(*cells, strict=True))) + b"\n"
        self._database.copy_in(f"COPY {self.quoted(table)} FROM STDIN", rows)

    def swap(self, scratch: TableName, table: TableName, suffix: str) -> None:
        self.run("BEGIN")
        try:
            self.drop(table)
            self.run(f"ALTER TABLE {self.quoted(scratch)} RENAME TO {self.quote(table.name)}")
        except BaseException:
            self.run("ROLLBACK")
            raise
        self.run("COMMIT")

    def close(self) -> None:
        self._database.close()


def _copy_cells(column: ColumnInfo, values: Sequence[bytes | None]) -> list[bytes]:
    if column.decode in NUMBERS:
        return [rb"\N" if value is None else value for value in values]
    return [rb"\N" if value is None else _escaped(value) for value in values]


def _escaped(value: bytes) -> bytes:
    value = value.replace(b"\\", b"\\\\")
    return value.replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _raw(value: Any) -> bytes | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return (repr(value) if isinstance(value, float) else str(value)).encode()
