"""DB-API 2.0 (PEP 249), for standard SQL: what `pandas.read_sql` and other tools of tables take.

    with sqlflow.dbapi.connect() as connection:
        pandas.read_sql("SELECT * FROM iris", connection)

Each `execute` is a job of its own, with a session of its own in the database, and each statement is committed.
Statements that belong together go into one `execute`, separated by semicolons. Rows are read page by page as they are
fetched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date as Date
from datetime import datetime as Timestamp
from datetime import time as Time
from types import TracebackType
from typing import Any, TypeAlias

import sqlflow.connection
import sqlflow.errors
from sqlflow.declared import declared_kind
from sqlflow.events import Columns, Event, JobEnded, Rows, StatementEnded
from sqlflow.job import Job
from sqlflow.literals import bound, dialect_of
from sqlflow.values import Batch, Cell, ColumnInfo, Kind

apilevel = "2.0"
threadsafety = 2
paramstyle = "pyformat"

Binary = bytes
DateFromTicks = Date.fromtimestamp
TimestampFromTicks = Timestamp.fromtimestamp

Row: TypeAlias = tuple[Cell, ...]
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

STATEMENTS_OF_A_JOB = 500
"""Statements of `executemany` in one job."""


def TimeFromTicks(ticks: float) -> Time:
    return Timestamp.fromtimestamp(ticks).time()


class Warning(Exception):
    """PEP 249 demands it; it is never raised."""


class Error(Exception):
    """Any error of a connection or cursor. `__cause__` is that of `sqlflow`."""


class InterfaceError(Error):
    """A connection or cursor is used in a wrong way."""


class DatabaseError(Error):
    """An error of the job or the server."""


class DataError(DatabaseError):
    """A value cannot be bound."""


class OperationalError(DatabaseError):
    """The server cannot be reached or refuses, or the job ended without a fault of its program."""


class IntegrityError(DatabaseError):
    """Never raised: the server does not distinguish it."""


class InternalError(DatabaseError):
    """The server sent something that it should not."""


class ProgrammingError(DatabaseError):
    """The program is wrong."""


class NotSupportedError(DatabaseError):
    """Each statement is committed at once, so there is nothing to roll back."""


class _TypeObject:
    """Equal to the names that databases give to types of some kinds."""

    def __init__(self, name: str, *kinds: Kind):
        self._name = name
        self._kinds = kinds

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return declared_kind(other) in self._kinds or other in {kind.value for kind in self._kinds}
        return self is other

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return self._name


STRING = _TypeObject("STRING", Kind.TEXT)
BINARY = _TypeObject("BINARY", Kind.BLOB)
NUMBER = _TypeObject("NUMBER", Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.DECIMAL, Kind.BOOL)
DATETIME = _TypeObject("DATETIME", Kind.DATE, Kind.TIMESTAMP, Kind.INSTANT)
ROWID = _TypeObject("ROWID")


def connect(
    server: str | None = None,
    *,
    datasource: str | os.PathLike[str] | None = None,
    dialect: str | None = None,
    **options: Any,
) -> Connection:
    """Returns a connection. The arguments are those of `sqlflow.connect`.

    Args:
        server: Address of the server.
        datasource: Data source.
        dialect: `sqlite`, `duckdb`, `mysql` or `postgresql`: how bytes and backslashes in parameters are written. By
            default that of the data source's URI.
        options: Further arguments of `sqlflow.connect`.

    Raises:
        InterfaceError: a setting is wrong.
    """
    with _translated():
        client = sqlflow.connection.connect(server, datasource=datasource, **options)
    return Connection(client, dialect or dialect_of(client.datasource))


class Connection:
    """A connection. Threads may share it."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    DataError = DataError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    InternalError = InternalError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(self, client: sqlflow.connection.Client, dialect: str | None = None):
        self.client = client
        self._dialect = dialect
        self._is_closed = False

    def cursor(self) -> Cursor:
        self._check_open()
        return Cursor(self)

    def commit(self) -> None:
        """Does nothing: each statement is committed."""
        self._check_open()

    def rollback(self) -> None:
        raise NotSupportedError(
            "cannot roll back: each execute has a session of its own; write BEGIN and COMMIT into one program"
        )

    def close(self) -> None:
        self._is_closed = True
        self.client.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise InterfaceError("cannot use the connection: it is closed")


class Cursor:
    """Runs programs, and reads their rows."""

    def __init__(self, connection: Connection):
        self.connection = connection
        self.arraysize = 1
        self._is_closed = False
        self._reset()

    def _reset(self) -> None:
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self.job: Job | None = None
        self._events: Iterator[Event] = iter(())
        self._rows: Iterator[Row] = iter(())
        self._batch: Batch | None = None
        self._next: Columns | None = None
        self._has_ended = True

    def execute(self, operation: str, parameters: Parameters | None = None) -> Cursor:
        """Runs a program and waits for its first rows, or for its end.

        Parameters replace `%s` or `%(name)s`. Without any, the operation is sent as it is.
        """
        self._start(self._bound(operation, parameters))
        self._next_set()
        return self

    def executemany(self, operation: str, many: Sequence[Parameters]) -> Cursor:
        """Runs an operation for each of some parameters, and waits for the end. Rows that it returns are discarded."""
        if len(many) == 0:
            # As `_start` does it for others.
            self._check_open()
            self._abandon()
        changed = 0
        for begin in range(0, len(many), STATEMENTS_OF_A_JOB):
            each = [self._bound(operation, parameters) for parameters in many[begin : begin + STATEMENTS_OF_A_JOB]]
            self._start("\n;\n".join(text.rstrip().removesuffix(";") for text in each))
            while self._next_set():
                pass
            changed += max(self.rowcount, 0)
        self._reset()
        self.rowcount = changed
        return self

    def fetchone(self) -> Row | None:
        self._check_rows()
        with _translated():
            while True:
                row = next(self._rows, None)
                if row is not None or not self._next_batch():
                    return row

    def fetchmany(self, size: int | None = None) -> list[Row]:
        rows: list[Row] = []
        wanted = self.arraysize if size is None else size
        while len(rows) < wanted and (row := self.fetchone()) is not None:
            rows.append(row)
        return rows

    def fetchall(self) -> list[Row]:
        self._check_rows()
        rows: list[Row] = []
        with _translated():
            while True:
                rows.extend(self._rows)
                if not self._next_batch():
                    return rows

    def nextset(self) -> bool | None:
        """Skips to the next result set. None: there is none."""
        self._check_open()
        return True if self._next_set() else None

    def setinputsizes(self, sizes: Any) -> None:
        """Does nothing."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Ends the cursor, and cancels its job if it still runs."""
        with contextlib.suppress(Error):
            self._abandon()
        self._reset()
        self._is_closed = True

    def __iter__(self) -> Iterator[Row]:
        while (row := self.fetchone()) is not None:
            yield row

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _bound(self, operation: str, parameters: Parameters | None) -> str:
        if parameters is None:
            return operation
        with _translated():
            return bound(operation, parameters, self.connection._dialect)

    def _start(self, program: str) -> None:
        self._check_open()
        self._abandon()
        self._reset()
        with _translated():
            self.job = self.connection.client.run(program, remember=False)
        self._events = self.job.events()
        self._has_ended = False

    def _abandon(self) -> None:
        if self.job is not None and not self._has_ended:
            with _translated():
                self.job.cancel()

    def _next_set(self) -> bool:
        """Moves to the next result set. Without one, to the job's end."""
        self.description = None
        self._rows = iter(())
        with _translated():
            if self._next is None:
                self._next_batch(in_set=False)
        columns, self._next = self._next, None
        if columns is None:
            return False
        self.rowcount = -1
        # The first rows show the types that the database does not report, as SQLite does not.
        with _translated():
            has_rows = self._next_batch()
        kinds = [column.kind for column in self._batch.columns] if has_rows and self._batch is not None else []
        kinds += [Kind.NULL] * (len(columns.columns) - len(kinds))
        self.description = [_described(column, kind) for column, kind in zip(columns.columns, kinds, strict=True)]
        return True

    def _next_batch(self, in_set: bool = True) -> bool:
        """Reads up to the next rows of this result set. False: there are none."""
        if in_set and self._next is not None:
            return False
        for event in self._events:
            match event:
                case Columns():
                    self._next = event
                    return False
                case Rows() if in_set:
                    self._rows, self._batch = iter(event), event.batch
                    return True
                case StatementEnded(rows_affected=int(rows)):
                    self.rowcount = max(self.rowcount, 0) + rows
                case JobEnded():
                    self._has_ended = True
                    failure = event.error()
                    if failure is not None:
                        raise failure
                case _:
                    pass
        if not self._has_ended:
            # An exception has ended the generator of events, and it yields no more.
            raise sqlflow.errors.ServerUnavailable("cannot read on: an earlier fetch was interrupted; execute again")
        return False

    def _check_open(self) -> None:
        self.connection._check_open()
        if self._is_closed:
            raise InterfaceError("cannot use the cursor: it is closed")

    def _check_rows(self) -> None:
        self._check_open()
        if self.description is None:
            raise ProgrammingError("cannot fetch rows: the last program returned none")


def _described(column: ColumnInfo, kind: Kind) -> tuple[Any, ...]:
    return (column.name, column.database_type or kind.value, None, None, None, None, None)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raises the errors of `sqlflow` as those of PEP 249."""
    try:
        yield
    except sqlflow.errors.Error as error:
        raise _kind(error)(str(error)) from error


def _kind(error: sqlflow.errors.Error) -> type[Error]:
    match error:
        case sqlflow.errors.ConversionError():
            return DataError
        case sqlflow.errors.InvalidProgram():
            return ProgrammingError
        case sqlflow.errors.JobFailed(cause="STATEMENT_FAILED"):
            return ProgrammingError
        case sqlflow.errors.UsageError():
            return InterfaceError
        case sqlflow.errors.ServerFault():
            return InternalError
        case _:
            return OperationalError
