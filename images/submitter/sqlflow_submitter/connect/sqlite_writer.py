"""Writes tables in SQLite, on the reading connection: a second one would wait for its lock."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from sqlflow_submitter.connect.database import ColumnInfo, Kind
from sqlflow_submitter.connect.sqlite import SQLiteDatabase, decode
from sqlflow_submitter.connect.writer import ExistingTable, TableName, TableWriter, marker
from sqlflow_submitter.errors import SubmitterError, UserError
from sqlflow_submitter.reads import READS
from sqlflow_submitter.reads.sqlite import names_table


class SQLiteWriter(TableWriter):
    types: ClassVar = {Kind.BOOL: "INTEGER", Kind.INT: "INTEGER", Kind.FLOAT: "REAL", Kind.TEXT: "TEXT"}

    _database: SQLiteDatabase

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        return ColumnInfo(name, self.types[kind], decode)

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values]

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        places = ", ".join("?" * len(columns))
        with self._transaction("BEGIN"):
            try:
                self._database.insert(f"INSERT INTO {self.quoted(table)} VALUES ({places})", raw)
            except UnicodeEncodeError as error:
                raise UserError("cannot write a text of the select: it is not UTF-8") from error

    def create(self, table: TableName, columns: Sequence[ColumnInfo], name: str) -> None:
        # SQLite has no comments on tables, but stores the text of CREATE TABLE. Computed columns have no type.
        definitions = ", ".join(f"{self.quote(column.name)} {column.database_type}" for column in columns)
        self.run(f"CREATE TABLE {self.quoted(table)} ({_comment(name)} {definitions})")

    def create_from_select(
        self, table: TableName, select: str, columns: Sequence[ColumnInfo], extra: Sequence[ColumnInfo], name: str
    ) -> None:
        self.create(table, [*columns, *extra], name)

    def find_table(self, table: TableName) -> ExistingTable | None:
        schema = self.quote(table.schema or "main")
        found = self._database.rows(
            f"SELECT type, coalesce(sql, ''), name FROM {schema}.sqlite_master "
            f"WHERE lower(name) = lower({_literal(table.name)}) AND type IN ('table', 'view', 'index')"
        )
        if not found:
            return None
        kind, sql, name = found[0]
        # A file has no name of its own, so the marker has none, either.
        expected = marker(name)
        return ExistingTable(kind, expected if f"({_comment(name)}" in sql else "", expected)

    def dependents(self, table: TableName) -> list[str]:
        # If foreign keys are enforced, DROP TABLE deletes all rows first: ON DELETE CASCADE empties the other table.
        if not self._database.rows("SELECT 1 FROM pragma_foreign_keys WHERE foreign_keys"):
            return []
        schema, name = table.schema or "main", _literal(table.name)
        found = self._database.rows(
            f"SELECT DISTINCT 'foreign key of table ' || m.name FROM {self.quote(schema)}.sqlite_master AS m "
            f'JOIN pragma_foreign_key_list(m.name, {_literal(schema)}) AS k ON lower(k."table") = lower({name}) '
            f"WHERE m.type = 'table' AND lower(m.name) <> lower({name})"
        )
        return sorted(str(it) for (it,) in found)

    def attached(self, table: TableName) -> list[str]:
        found = self._database.rows(
            f"SELECT type || ' ' || name FROM {self.quote(table.schema or 'main')}.sqlite_master "
            f"WHERE lower(tbl_name) = lower({_literal(table.name)}) AND type IN ('index', 'trigger') "
            "AND sql IS NOT NULL ORDER BY 1"
        )
        return [str(name) for (name,) in found]

    def creation_obstacle(self, table: TableName) -> str | None:
        schemas = [str(name) for (name,) in self._database.rows("SELECT name FROM pragma_database_list")]
        if table.schema and table.schema.lower() not in (name.lower() for name in [*schemas, "temp"]):
            return f"schema {table.schema} does not exist (known: {', '.join(schemas)})"
        if table.name.lower().startswith("sqlite_"):
            return "SQLite reserves names that begin with sqlite_"
        if self._database.is_read_only:
            return "the data source is opened with mode=ro"
        return None

    def reads(self, select: str, table: TableName) -> str | None:
        wanted = ((table.schema or "main").lower(), table.name.lower())
        read = self._database.tables_read(select)
        if any((schema.lower(), name.lower()) == wanted for schema, name in read):
            return READS
        return READS if names_table(select, *wanted, self._database.rows) else None

    def swap(self, staging: TableName, table: TableName, suffix: str, check: Callable[[], None]) -> None:
        # Otherwise a view on the old table would prevent the rename.
        self.run("PRAGMA legacy_alter_table = ON")
        with self._transaction("BEGIN IMMEDIATE"):
            check()
            self.drop(table)
            self.run(f"ALTER TABLE {self.quoted(staging)} RENAME TO {self.quote(table.name)}")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self.run(begin)
        try:
            yield
            # If COMMIT fails, for example because of a reader, the transaction stays open.
            self.run("COMMIT")
        except BaseException:
            # After some errors, SQLite has already rolled back.
            with suppress(SubmitterError):
                self.run("ROLLBACK")
            raise


def _comment(name: str) -> str:
    return f"/* {marker(name).replace('*/', '* /')} */"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
