"""A connection to the database: it runs statements unchanged, and each statement commits, unless it follows BEGIN."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlflow_submitter.duckdb_data.arrays import Batch, Column, StreamError, batches, columns_of, converted, without_end
from sqlflow_submitter.duckdb_data.failure import Broken
from sqlflow_submitter.duckdb_data.opened import first_part, library
from sqlflow_submitter.errors import UserError

if TYPE_CHECKING:
    import duckdb

SHOWN_ROWS = 2048
"""Number of rows of a batch for the client."""


class Shown(NamedTuple):
    """A result set of values of Python."""

    names: list[str]
    types: list[str]
    columns: Iterator[list[list[Any]]]
    """The rows by column, in batches."""


class Session:
    """A connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, is_reading: bool = False) -> None:
        """`is_reading`: the file is open to read only because the step does no more. Later steps may write."""
        self.connection = connection
        self.is_reading = is_reading
        self._duckdb = library()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Converts DuckDB's errors."""
        duckdb = self._duckdb
        try:
            yield
        except duckdb.ParserException as error:
            raise UserError(first_part(error), is_syntax=True) from error
        except (duckdb.FatalException, duckdb.InternalException) as error:
            raise Broken(first_part(error)) from error
        except duckdb.Error as error:
            raise UserError(first_part(error)) from error
        except StreamError as error:
            raise UserError(str(error)) from error

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs an internal statement with few rows."""
        with self.errors():
            return self.connection.execute(sql, list(parameters)).fetchall()

    def parse(self, sql: str) -> list[Any]:
        """Returns what DuckDB makes of a statement: several for PIVOT. Raises UserError if the syntax is wrong."""
        if "\0" in sql:
            # DuckDB would ignore what follows.
            raise UserError("cannot run the statement: it has a zero byte; remove it")
        with self.errors():
            found: list[Any] = self.connection.extract_statements(sql)
        if not found:
            raise UserError("cannot run the statement: it is empty")
        return found

    def describe(self, select: str) -> list[Column]:
        """Returns the columns of a select, which is not executed.

        Raises:
            UserError: the database rejects it, or it is another statement.
        """
        parsed = self.parse(select)
        if not self.is_select(parsed):
            raise UserError("cannot read the select: it returns no result set; write a SELECT")
        with self.errors():
            return columns_of(self.connection.query(without_end(select)))

    def is_select(self, parsed: Sequence[Any]) -> bool:
        return len(parsed) == 1 and parsed[0].type == self._duckdb.StatementType.SELECT

    def plan(self, sql: str) -> None:
        """Checks a query or a change of rows, which is not executed. Raises UserError if the database rejects it."""
        try:
            with self.errors():
                self.connection.execute(f"EXPLAIN {sql}").fetchall()
        except UserError as error:
            # Names and types were checked before.
            if not (self.is_reading and isinstance(error.__cause__, self._duckdb.InvalidInputException)):
                raise

    def read(self, select: str, columns: Sequence[Column], max_rows: int) -> Iterator[Batch]:
        """Executes a select while its batches are read."""
        with self.errors():
            yield from batches(self.connection, converted(select, columns), max_rows)

    def sample(self, select: str, column: str, rows: int) -> list[tuple[Column, Batch]]:
        """Returns some values of a column that are not NULL: none if the select cannot be read."""
        try:
            columns = self.describe(select)
            places = [place for place, it in enumerate(columns) if it.name == column]
            if len(places) != 1:
                return []
            condition = f" WHERE c{places[0]} IS NOT NULL LIMIT {rows}"
            query = f"SELECT c{places[0]} FROM ({converted(select, columns, condition)})"
            with self.errors():
                return [(columns[places[0]], batch) for batch in batches(self.connection, query, rows)]
        except UserError:
            return []

    def execute(self, parsed: Sequence[Any]) -> Shown | int | None:
        """Runs a statement. Returns its result set, or the number of changed rows if the database reports it."""
        result: Shown | int | None = None
        for statement in parsed:
            with self.errors():
                self.connection.execute(statement)
                result = self._result(statement)
        return result

    def _result(self, statement: Any) -> Shown | int | None:
        kinds = self._duckdb.ExpectedResultType
        described = self.connection.description or []
        names, types = [it[0] for it in described], [str(it[1]) for it in described]
        expected = statement.expected_result_type
        if not names or expected == [kinds.NOTHING] or names == ["Success"]:
            self.connection.fetchall()
            return None
        if names == ["Count"] and kinds.CHANGED_ROWS in expected:
            # CREATE TABLE without a select has none.
            counts = self.connection.fetchall()
            return int(counts[0][0]) if counts else None
        return Shown(names, types, self._fetched())

    def _fetched(self) -> Iterator[list[list[Any]]]:
        with self.errors():
            while rows := self.connection.fetchmany(SHOWN_ROWS):
                yield [[self._shown(value) for value in column] for column in zip(*rows, strict=True)]

    def _shown(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str() | bytes():
                return value
            case decimal.Decimal() | datetime.date():
                return str(value)
        with self.connection.cursor() as cursor:
            ((text,),) = cursor.execute("SELECT CAST(? AS VARCHAR)", [value]).fetchall()
        return text

    def cursor(self) -> Session:
        """Returns another connection to the same database, with the same place of names."""
        other = Session(self.connection.cursor(), is_reading=self.is_reading)
        ((catalog, schema, path),) = self.run(
            "SELECT current_database(), current_schema(), current_setting('search_path')"
        )
        quoted = f"{quote(catalog)}.{quote(schema)}"
        other.run(f"SET search_path = {literal(path)}" if path else f"USE {quoted}")
        return other


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
