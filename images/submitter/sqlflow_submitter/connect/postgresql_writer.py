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

KINDS = {
    "r": "table",
    "p": "partitioned table",
    "f": "foreign table",
    "v": "view",
    "m": "materialized view",
    "i": "index",
    "I": "index",
    "S": "sequence",
    "c": "composite type",
}
NUMBERS = (decode.ints, decode.floats, decode.decimals, bools)
DECODERS = {Kind.BOOL: bools, Kind.INT: decode.ints, Kind.FLOAT: decode.floats, Kind.TEXT: decode.texts}

# What depends on a table or its row type, and is not a part of it: DROP TABLE would fail. A view has its own name.
DEPENDENTS = """
SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass
  THEN (SELECT relname::text FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid = d.objid)
  ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
FROM pg_depend d, (SELECT {table}::oid AS oid) own WHERE d.deptype = 'n' AND (
  d.refclassid = 'pg_class'::regclass AND (d.refobjid = own.oid
    OR d.refobjid IN (SELECT indexrelid FROM pg_index WHERE indrelid = own.oid))
  OR d.refclassid = 'pg_constraint'::regclass
    AND d.refobjid IN (SELECT c.oid FROM pg_constraint c WHERE conrelid = own.oid)
  OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT t.oid FROM pg_type t
    WHERE t.typrelid = own.oid OR t.typelem = (SELECT reltype FROM pg_class c WHERE c.oid = own.oid)))
AND NOT EXISTS (SELECT 1 FROM pg_rewrite r
  WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_class = own.oid)
AND NOT EXISTS (SELECT 1 FROM pg_constraint c
  WHERE d.classid = 'pg_constraint'::regclass AND c.oid = d.objid AND c.conrelid = own.oid)
AND NOT EXISTS (SELECT 1 FROM pg_policy p
  WHERE d.classid = 'pg_policy'::regclass AND p.oid = d.objid AND p.polrelid = own.oid)
AND NOT EXISTS (SELECT 1 FROM pg_trigger t
  WHERE d.classid = 'pg_trigger'::regclass AND t.oid = d.objid AND t.tgrelid = own.oid)
AND NOT (d.classid = 'pg_class'::regclass AND d.objid = own.oid)
AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = own.oid))
"""

# Indexes, constraints without an index, triggers, policies and rules, and what is granted.
ATTACHED = """
SELECT 'index ' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {table}
UNION ALL
SELECT 'constraint ' || conname FROM pg_constraint WHERE conrelid = {table} AND contype IN ('c', 'f')
UNION ALL
SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = {table} AND NOT tgisinternal
UNION ALL
SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = {table}
UNION ALL
SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = {table}
UNION ALL
SELECT DISTINCT 'privileges of ' || CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = {table} AND a.grantee <> c.relowner
"""


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
        ((schema,),) = self._database.rows(
            "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.oid = {self._oid(table)}"
        )
        self.run(f"COMMENT ON TABLE {self.quoted(table)} IS {literal(marker(name, schema))}")

    def find_table(self, table: TableName) -> ExistingTable | None:
        found = self._database.rows(
            "SELECT relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''), relname::text, nspname::text "
            f"FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = {self._oid(table)}"
        )
        if not found:
            return None
        kind, comment, name, schema = found[0]
        return ExistingTable(KINDS.get(kind, "relation"), comment, marker(name, schema))

    def creation_obstacle(self, table: TableName) -> str | None:
        schema = (table.schema or "").rpartition(".")[2]
        found = f"to_regnamespace({literal(self.quote(schema))})" if schema else "to_regnamespace(current_schema())"
        # A table has a type of its own name. An array type gives its name away.
        ((oid, may_create, has_type),) = self._database.rows(
            f"SELECT found::oid::text, coalesce(has_schema_privilege(found::oid, 'CREATE'), false)::text, "
            f"EXISTS (SELECT 1 FROM pg_type WHERE typname = {literal(table.name)}::name "
            "AND typnamespace = found::oid AND typrelid = 0 AND typcategory <> 'A')::text "
            f"FROM (SELECT {found} AS found) AS schema"
        )
        if oid is None:
            return f"schema {schema} does not exist" if schema else "no schema of the search path exists"
        if schema.startswith("pg_"):
            return f"PostgreSQL reserves schema {schema}"
        if has_type == "true":
            return "it is a type"
        return None if may_create == "true" else "this user may not create tables in its schema"

    def dependents(self, table: TableName) -> list[str]:
        found = self._database.rows(DEPENDENTS.format(table=self._oid(table)))
        return sorted(str(name) for (name,) in found)

    def replacement_obstacle(self, table: TableName) -> str | None:
        ((owner, may_drop),) = self._database.rows(
            "SELECT pg_get_userbyid(c.relowner)::text, "
            "(pg_has_role(c.relowner, 'USAGE') OR pg_has_role(n.nspowner, 'USAGE'))::text FROM pg_class c "
            f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {self._oid(table)}"
        )
        return None if may_drop == "true" else f"it belongs to user {owner}, and only its owner can replace it"

    def attached(self, table: TableName) -> list[str]:
        found = self._database.rows(ATTACHED.format(table=self._oid(table)))
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
