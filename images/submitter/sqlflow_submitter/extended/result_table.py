"""A statement's result table: nobody sees it until it is whole and its attempt was granted the commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlflow_submitter.connect.database import ColumnInfo, Database
from sqlflow_submitter.connect.open_writer import open_writer
from sqlflow_submitter.connect.writer import TableName, TableWriter
from sqlflow_submitter.errors import SubmitterError, UserError
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement

REPLACE = "result.replace"
"""The attribute that lets a statement replace a table which is not one of ours, or which it reads."""


CASE_INSENSITIVE = {"sqlite": "SQLite", "mysql": "MySQL"}
"""Databases that take names of a table's columns for equal where they differ in case only."""

COUNTED_ROWS = 1_000_000
"""Rows of a replaced table are counted up to here: more would hold up the statement."""


def check_replaceable(writer: TableWriter, table: TableName, selects: Sequence[str], replace: bool) -> None:
    """Refuses to replace what a person has made, or what the statement reads.

    Args:
        writer: looks into the database.
        table: the result table.
        selects: what the statement reads.
        replace: the statement says `result.replace = true`.

    Raises:
        UserError: the table is somebody's own, or is read.
    """
    existing = writer.find_table(table)
    if existing is None:
        return
    if existing.kind != "table":
        raise UserError(f"cannot write table {table}: it is a {existing.kind}; choose another name")
    dependents = writer.dependents(table)
    if dependents:
        raise UserError(
            f"cannot write table {table}: {', '.join(dependents)} depends on it, and the database would not let it be "
            "replaced; drop that first, or choose another name"
        )
    if replace:
        return
    reason = _read(writer, table, selects) if existing.is_marked else "this release of SQLFlow did not make it"
    if reason is None:
        return
    rows = _rows(writer, table)
    if not existing.is_marked:
        reason = f"it exists ({rows}) and {reason}"
    raise UserError(
        f"cannot write table {table}: {reason}; choose another name "
        f"(WITH {REPLACE} = true replaces it: what it holds now, {rows}, is lost)"
    )


def _read(writer: TableWriter, table: TableName, selects: Sequence[str]) -> str | None:
    """Gives the reason why one of the selects reads a table, or may; None: none does."""
    for select in filter(None, selects):
        reason = writer.reads(select, table)
        if reason is not None:
            return reason
    return None


def _rows(writer: TableWriter, table: TableName) -> str:
    rows = writer.count(table, COUNTED_ROWS + 1)
    return f"more than {COUNTED_ROWS} rows" if rows > COUNTED_ROWS else f"{rows} row" + "s" * (rows != 1)


class ResultTable:
    """A table that is being filled under its scratch name."""

    def __init__(self, writer: TableWriter, name: str, suffix: str, replace: bool) -> None:
        self.writer = writer
        self.name = writer.table_name(name)
        self.rows = 0
        self._suffix = suffix
        self._replace = replace
        self._staging = self.name.with_suffix(suffix, writer.name_limit)
        self._columns: list[ColumnInfo] = []

    def create(self, columns: Sequence[ColumnInfo]) -> None:
        """Makes the table of columns of ours."""
        self._columns = list(columns)
        self.writer.create(self._staging, columns, self.name.name)

    def create_from_select(self, select: str, columns: Sequence[ColumnInfo], more: Sequence[ColumnInfo]) -> None:
        """Makes the table of columns of a select, and columns of ours after them."""
        self._columns = [*columns, *more]
        self.writer.create_from_select(self._staging, select, columns, more, self.name.name)

    def insert(self, raw: Sequence[Sequence[Any]]) -> None:
        """Adds rows, given by column in the driver's raw values."""
        self.rows += len(raw[0])
        self.writer.insert(self._staging, self._columns, raw)

    def publish(self, channel: StatementChannel) -> None:
        """Asks for leave, then puts the table in the place of the old one, which must not have become another's."""
        replaced = _rows(self.writer, self.name) if self.writer.find_table(self.name) else None
        channel.commit()
        self.writer.swap(
            self._staging,
            self.name,
            self._suffix,
            lambda: check_replaceable(self.writer, self.name, (), self._replace),
        )
        if replaced is not None:
            channel.print_line(f"replaced table {self.name} ({replaced})")

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


def check_result_table(statement: Statement, attributes: Mapping[str, Any], database: Database) -> None:
    """Refuses a result table that cannot be made, or must not be replaced, before any work is done.

    Raises:
        UserError: as of `check_replaceable`.
    """
    if statement.result_table:
        with open_writer(database) as writer:
            table = writer.table_name(statement.result_table)
            reason = writer.creation_obstacle(table)
            if reason is not None:
                raise UserError(f"cannot write table {table}: {reason}; choose another name")
            selects = [statement.select, str(attributes.get("validation.select", ""))]
            replace = attributes.get(REPLACE, False)
            check_replaceable(writer, table, selects, replace)


def passthrough_names(statement: Statement, available: Sequence[str]) -> list[str]:
    """Names the columns of the select that PREDICT writes: all but the result column, if the select has it."""
    return [name for name in available if name.lower() != (statement.result_column or "").lower()]


def check_column_case(statement: Statement, available: Sequence[str], database: Database) -> None:
    """Refuses columns of a select that no table of the database can have both.

    Raises:
        UserError: two names differ in case only.
    """
    if database.dialect not in CASE_INSENSITIVE:
        return
    seen: dict[str, str] = {}
    for name in passthrough_names(statement, available):
        # SQLite folds letters of ASCII only.
        folded = name.lower() if database.dialect != "sqlite" else name.encode().lower().decode()
        other = seen.setdefault(folded, name)
        if other != name:
            raise UserError(
                f"cannot write table {statement.result_table}: the names of columns {other} and {name} differ in case "
                f"only, and a table of {CASE_INSENSITIVE[database.dialect]} cannot have both; rename one with AS"
            )


@contextmanager
def result_table(
    statement: Statement, attributes: Mapping[str, Any], suffix: str, database: Database
) -> Iterator[ResultTable]:
    """Opens a result table; whatever goes wrong before it is published, its scratch table is dropped."""
    with open_writer(database) as writer:
        table = ResultTable(writer, statement.result_table or "", suffix, attributes.get(REPLACE, False))
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
