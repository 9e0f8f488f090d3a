"""A statement's result table. It becomes visible when it is complete and its attempt has the grant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlflow_submitter.connect.database import ColumnInfo, Database
from sqlflow_submitter.connect.open_writer import open_writer
from sqlflow_submitter.connect.writer import ExistingTable, TableName, TableWriter
from sqlflow_submitter.errors import SubmitterError, UserError, listing
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement

REPLACE = "result.replace"
"""The attribute that allows a statement to replace a table without a marker, or a table that it reads."""


CASE_INSENSITIVE = {"sqlite": "SQLite", "mysql": "MySQL"}
"""Databases in which two columns of a table cannot have names that differ in case only."""

COUNTED_ROWS = 1_000_000
"""Limit for counting the rows of a replaced table, so that counting stays fast."""

MAX_NAMED = 10
"""Maximum number of lost objects in a message."""


def check_replaceable(writer: TableWriter, table: TableName, selects: Sequence[str], replace: bool) -> None:
    """Checks that the result table may be replaced.

    Args:
        writer: a writer of the database.
        table: the result table.
        selects: the selects of the statement.
        replace: whether the statement has `result.replace = true`.

    Raises:
        UserError: SQLFlow did not create the table, the statement reads it, or the database cannot replace it.
    """
    existing = writer.find_table(table)
    if existing is None:
        return
    if existing.kind != "table":
        article = "an" if existing.kind == "index" else "a"
        raise UserError(f"cannot write table {table}: it is {article} {existing.kind}; choose another name")
    obstacle = writer.replacement_obstacle(table)
    if obstacle:
        raise UserError(f"cannot write table {table}: {obstacle}; choose another name")
    dependents = writer.dependents(table)
    if dependents:
        raise UserError(
            f"cannot write table {table}: {', '.join(dependents)} depends on it, so the database cannot replace it; "
            "drop that first, or choose another name"
        )
    if replace:
        return
    reason = _read(writer, table, selects) if existing.is_marked else _origin(existing)
    if reason is None:
        return
    rows = _rows(writer, table)
    if not existing.is_marked:
        reason = f"it exists ({rows}) and {reason}"
    raise UserError(
        f"cannot write table {table}: {reason}; choose another name "
        f"(WITH {REPLACE} = true replaces it: what it holds now, {rows}, is lost)"
    )


def _origin(existing: ExistingTable) -> str:
    """Returns why a table does not count as SQLFlow's."""
    if existing.marked_as is None:
        return "this release of SQLFlow did not make it"
    if existing.marker.endswith(f".{existing.marked_as}"):
        return "its marker is of an earlier version, which does not show whether it was copied to here"
    return f"it was copied, moved or renamed: SQLFlow made it as {existing.marked_as}"


def _read(writer: TableWriter, table: TableName, selects: Sequence[str]) -> str | None:
    """Returns the reason why one of the selects reads a table, or may read it, or None."""
    for select in filter(None, selects):
        reason = writer.reads(select, table)
        if reason is not None:
            return reason
    return None


def _rows(writer: TableWriter, table: TableName) -> str:
    rows = writer.count(table, COUNTED_ROWS + 1)
    return f"more than {COUNTED_ROWS} rows" if rows > COUNTED_ROWS else f"{rows} row" + "s" * (rows != 1)


class ResultTable:
    """A result table that is filled as a staging table."""

    def __init__(self, writer: TableWriter, name: str, suffix: str, replace: bool) -> None:
        self.writer = writer
        self.name = writer.table_name(name)
        self.rows = 0
        self._suffix = suffix
        self._replace = replace
        self._staging = self.name.with_suffix(suffix, writer.name_limit)
        self._columns: list[ColumnInfo] = []

    def create(self, columns: Sequence[ColumnInfo]) -> None:
        """Creates the staging table with computed columns."""
        self._columns = list(columns)
        self.writer.create(self._staging, columns, self.name.name)

    def create_from_select(self, select: str, columns: Sequence[ColumnInfo], more: Sequence[ColumnInfo]) -> None:
        """Creates the staging table with columns of a select, and computed columns after them."""
        self._columns = [*columns, *more]
        self.writer.create_from_select(self._staging, select, columns, more, self.name.name)

    def insert(self, raw: Sequence[Sequence[Any]]) -> None:
        """Adds rows, given by column as the driver's raw values."""
        self.rows += len(raw[0])
        self.writer.insert(self._staging, self._columns, raw)

    def publish(self, channel: StatementChannel) -> None:
        """Waits for the grant, checks the old table again, and replaces it."""
        replaced = self._replaced() if self.writer.find_table(self.name) else None
        channel.commit()
        self.writer.swap(
            self._staging,
            self.name,
            self._suffix,
            lambda: check_replaceable(self.writer, self.name, (), self._replace),
        )
        if replaced is not None:
            channel.print_line(f"replaced table {self.name} {replaced}")

    def _replaced(self) -> str:
        """Returns what is lost with the old table: its rows, and what users added to it."""
        new = {column.name.lower() for column in self._columns}
        old = self.writer.columns(self.name)
        lost = [*self.writer.attached(self.name), *(f"column {name}" for name in old if name.lower() not in new)]
        listed = f"; lost with it: {listing(lost, MAX_NAMED)}" if lost else ""
        return f"({_rows(self.writer, self.name)}){listed}"

    def clear(self) -> None:
        """Drops the leftovers of this attempt and of earlier attempts of the same step."""
        for name in leftovers(self.writer, self.name, self._suffix):
            self.writer.drop(name)


def leftovers(writer: TableWriter, table: TableName, suffix: str) -> list[TableName]:
    """Returns the tables that attempts up to this one may have left. The suffix ends in the attempt's number."""
    step, _, attempt = suffix.rpartition("_")
    if not attempt.isdigit():
        return writer.leftovers(table, suffix)
    return [name for number in range(1, int(attempt) + 1) for name in writer.leftovers(table, f"{step}_{number}")]


def check_result_table(statement: Statement, attributes: Mapping[str, Any], database: Database) -> None:
    """Checks, before any work is done, that the result table can be created or replaced.

    Raises:
        UserError: it cannot be created, or `check_replaceable` raised it.
    """
    if statement.result_table:
        with open_writer(database) as writer:
            check_result_name(statement, attributes, writer)


def check_result_name(statement: Statement, attributes: Mapping[str, Any], writer: TableWriter) -> None:
    """Like `check_result_table`, with an open writer. The statement must have a result table."""
    table = writer.table_name(statement.result_table or "")
    reason = writer.creation_obstacle(table)
    if reason is not None:
        raise UserError(f"cannot write table {table}: {reason}; choose another name")
    selects = [statement.select, str(attributes.get("validation.select", ""))]
    check_replaceable(writer, table, selects, attributes.get(REPLACE, False))


def fold_case(name: str, dialect: str) -> str:
    """Returns a column's name such that two names are equal if a table of the database cannot have both."""
    if dialect == "postgresql":
        return name
    # SQLite folds the case of ASCII letters only.
    return name.encode().lower().decode() if dialect == "sqlite" else name.lower()


def check_column_case(statement: Statement, names: Iterable[str], database: Database) -> None:
    """Checks that a table of the database can have all passthrough columns.

    Raises:
        UserError: two names differ in case only, and the database does not allow that.
    """
    if database.dialect not in CASE_INSENSITIVE:
        return
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(fold_case(name, database.dialect), name)
        if other != name:
            raise UserError(
                f"cannot write table {statement.result_table}: the names of columns {other} and {name} differ in case "
                f"only, and a table of {CASE_INSENSITIVE[database.dialect]} cannot have both; rename one with AS"
            )


@contextmanager
def result_table(
    statement: Statement, attributes: Mapping[str, Any], suffix: str, database: Database
) -> Iterator[ResultTable]:
    """Opens a result table. Its staging table is dropped if an error occurs before it is published."""
    with open_writer(database) as writer:
        table = ResultTable(writer, statement.result_table or "", suffix, attributes.get(REPLACE, False))
        table.clear()
        try:
            yield table
        except BaseException as error:
            try:
                table.clear()
            except SubmitterError:
                # Report the first error. The server has the staging table dropped before the job ends.
                if isinstance(error, SubmitterError):
                    error.unclear = True
            else:
                # The dropped staging table had not replaced the old table.
                if isinstance(error, SubmitterError):
                    error.not_executed = True
            raise
