"""Writes tables in SQLite, on the connection that reads: another one would meet its lock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from sqlflow_submitter.connect.database import ColumnInfo, Kind
from sqlflow_submitter.connect.writer import TableName, TableWriter
from sqlflow_submitter.errors import SubmitterError, UserError

if TYPE_CHECKING:
    from sqlflow_submitter.connect.sqlite import SQLiteDatabase


class SQLiteWriter(TableWriter):
    types: ClassVar = {Kind.BOOL: "INTEGER", Kind.INT: "INTEGER", Kind.FLOAT: "REAL", Kind.TEXT: "TEXT"}

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def column(self, name: str, kind: Kind) -> ColumnInfo:
        from sqlflow_submitter.connect.sqlite import decode

        return ColumnInfo(name, self.types[kind], decode)

    def raw(self, values: Sequence[Any]) -> Sequence[Any]:
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values]

    def run(self, sql: str) -> None:
        self._database.run(sql)

    def insert(self, table: TableName, columns: Sequence[ColumnInfo], raw: Sequence[Sequence[Any]]) -> None:
        places = ", ".join("?" * len(columns))
        with self._transaction("BEGIN"):
            try:
                self._database.insert(f"INSERT INTO {self.quoted(table)} VALUES ({places})", raw)
            except UnicodeEncodeError as error:
                raise UserError("a text of the select is not UTF-8: it cannot be written") from error

    def swap(self, scratch: TableName, table: TableName, suffix: str) -> None:
        # Else a view on the old table would keep the new one from taking the name.
        self.run("PRAGMA legacy_alter_table = ON")
        with self._transaction("BEGIN IMMEDIATE"):
            self.drop(table)
            self.run(f"ALTER TABLE {self.quoted(scratch)} RENAME TO {self.quote(table.name)}")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self.run(begin)
        try:
            yield
            # Refused, as while somebody reads, it leaves the transaction open.
            self.run("COMMIT")
        except BaseException:
            # After some errors SQLite has done so itself.
            with suppress(SubmitterError):
                self.run("ROLLBACK")
            raise
