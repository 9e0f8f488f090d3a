"""Writes tables in PostgreSQL, with COPY."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sqlflow_submitter.connect import decode
from sqlflow_submitter.connect.database import ColumnInfo, Kind
from sqlflow_submitter.connect.postgresql import PostgreSQLDatabase
from sqlflow_submitter.connect.postgresql_types import bools
from sqlflow_submitter.connect.writer import ExistingTable, TableName, TableWriter, marker
from sqlflow_submitter.reads import postgresql
from sqlflow_submitter.reads.postgresql import literal

KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
NUMBERS = (decode.ints, decode.floats, decode.decimals, bools)
DECODERS = {Kind.BOOL: bools, Kind.INT: decode.ints, Kind.FLOAT: decode.floats, Kind.TEXT: decode.texts}


class PostgreSQLWriter(TableWriter):
    name_limit = 63
    types: ClassVar = {Kind.BOOL: "boolean", Kind.INT: "bigint", Kind.FLOAT: "double precision", Kind.TEXT: "text"}

    _database: PostgreSQLDatabase

    def table_name(self, text: str) -> TableName:
        return super().table_name(text.lower())

    def column_name(self, text: str) -> str:
        return text.lower()

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        return ColumnInfo(name, self.types[kind], DECODERS[kind])

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        return [_raw(value) for value in values]

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        cells = [_copy_cells(column, values) for column, values in zip(columns, raw, strict=True)]
        rows = b"\n".join(map(b"\t".join, zip(*cells, strict=True))) + b"\n"
        self._database.copy_in(f"COPY {self.quoted(table)} FROM STDIN", rows)

    def mark(self, table: TableName, name: str) -> None:
        self.run(f"COMMENT ON TABLE {self.quoted(table)} IS {literal(marker(name))}")

    def find_table(self, table: TableName) -> ExistingTable | None:
        found = self._database.rows(
            "SELECT relkind::text, coalesce(obj_description(oid, 'pg_class'), ''), relname::text FROM pg_class "
            f"WHERE oid = {self._oid(table)}"
        )
        if not found:
            return None
        kind = KINDS.get(found[0][0], "relation")
        return ExistingTable(kind, kind == "table" and found[0][1] == marker(found[0][2]))

    def creation_obstacle(self, table: TableName) -> str | None:
        schema = (table.schema or "").rpartition(".")[2]
        found = f"to_regnamespace({literal(self.quote(schema))})" if schema else "to_regnamespace(current_schema())"
        ((oid, may_create),) = self._database.rows(
            f"SELECT found::oid::text, coalesce(has_schema_privilege(found::oid, 'CREATE'), false)::text "
            f"FROM (SELECT {found} AS found) AS schema"
        )
        if oid is None:
            return f"schema {schema} does not exist" if schema else "no schema of the search path exists"
        return None if may_create == "true" else "this user may not create tables in its schema"

    def dependents(self, table: TableName) -> list[str]:
        found = self._database.rows(
            "SELECT DISTINCT c.relname::text FROM pg_depend d "
            "JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid "
            f"JOIN pg_class c ON c.oid = r.ev_class WHERE d.refobjid = {self._oid(table)} AND c.oid <> d.refobjid"
        )
        return sorted(str(name) for (name,) in found)

    def reads(self, select: str, table: TableName) -> str | None:
        return postgresql.reason(select, self.quoted(table), table.name, self._database.rows)

    def _oid(self, table: TableName) -> str:
        return f"to_regclass({literal(self.quoted(table))})"

    def swap(self, staging: TableName, table: TableName, suffix: str, check: Callable[[], None]) -> None:
        self.run("BEGIN")
        try:
            check()
            self.drop(table)
            self.run(f"ALTER TABLE {self.quoted(staging)} RENAME TO {self.quote(table.name)}")
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
