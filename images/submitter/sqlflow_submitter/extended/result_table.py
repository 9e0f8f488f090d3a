"""A statement's result table: nobody sees it until it is whole and its attempt was granted the commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlflow_submitter.connect.database import ColumnInfo, Database
from sqlflow_submitter.connect.writer import TableName, TableWriter
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.statement import StatementChannel


class ResultTable:
    """A table that is being filled under its scratch name."""

    def __init__(self, writer: TableWriter, name: str, suffix: str) -> None:
        self.writer = writer
        self.name = writer.table_name(name)
        self.rows = 0
        self._suffix = suffix
        self._scratch = self.name.beside(suffix, writer.name_limit)
        self._columns: list[ColumnInfo] = []

    def create(self, columns: Sequence[ColumnInfo]) -> None:
        """Makes the table of columns of ours."""
        self._columns = list(columns)
        self.writer.create(self._scratch, columns)

    def create_like(self, select: str, columns: Sequence[ColumnInfo], more: Sequence[ColumnInfo]) -> None:
        """Makes the table of columns of a select, and columns of ours after them."""
        self._columns = [*columns, *more]
        self.writer.create_like(self._scratch, select, [column.name for column in columns], more)

    def insert(self, raw: Sequence[Sequence[Any]]) -> None:
        """Adds rows, given by column in the driver's raw values."""
        self.rows += len(raw[0])
        self.writer.insert(self._scratch, self._columns, raw)

    def publish(self, channel: StatementChannel) -> None:
        """Asks for leave, then puts the table in the place of the old one."""
        channel.commit()
        self.writer.swap(self._scratch, self.name, self._suffix)

    def clear(self) -> None:
        """Drops what this attempt, and earlier attempts of the same step, have left behind."""
        for name in leftovers(self.writer, self.name, self._suffix):
            self.writer.drop(name)


def leftovers(writer: TableWriter, table: TableName, suffix: str) -> list[TableName]:
    """Names the tables that attempts up to this one may have left. The suffix ends in the attempt's number."""
    step, _, attempt = suffix.rpartition("_")
    if not attempt.isdigit():
        return writer.leftovers(table, suffix)
    return [name for number in range(1, int(attempt) + 1) for name in writer.leftovers(table, f"{step}_{number}")]


@contextmanager
def result_table(database: Database, name: str, suffix: str) -> Iterator[ResultTable]:
    """Opens a result table; whatever goes wrong before it is published, its scratch table is dropped."""
    with database.writer() as writer:
        table = ResultTable(writer, name, suffix)
        table.clear()
        try:
            yield table
        except BaseException as error:
            try:
                table.clear()
            except SubmitterError:
                # The first error is the one to tell. The server has the table removed before the job ends.
                if isinstance(error, SubmitterError):
                    error.unclear = True
            else:
                # What was dropped had not taken the old table's place.
                if isinstance(error, SubmitterError):
                    error.not_executed = True
            raise
