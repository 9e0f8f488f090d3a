"""PostgreSQL, through psycopg's binding to libpq.

It uses the simple query protocol, like psql: the statement is sent unchanged, and the server prints the values. Rows
arrive in chunks, so memory is bounded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlflow_submitter.connect import encoding
from sqlflow_submitter.connect.batching import CHUNK_ROWS, Batcher
from sqlflow_submitter.connect.database import MAX_TABLES, Batch, ColumnInfo, Database, ResultSet
from sqlflow_submitter.connect.libpq import (
    ConnStatus,
    DiagnosticField,
    ExecStatus,
    OperationalError,
    TransactionStatus,
    pq,
)
from sqlflow_submitter.connect.postgresql_types import column_info
from sqlflow_submitter.errors import DatabaseBusy, DatabaseUnavailable, SubmitterError, UserError, one_line

CONNECT_TIMEOUT_SECONDS = b"10"

# The formats that the decoders need. All other settings of the session are the user's.
OUTPUT_SETTINGS = b"SET datestyle TO ISO; SET bytea_output TO hex"

READ_SETTINGS = {"datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "3", "bytea_output": "hex"}
"""The formats in which values are read for a model. `ISO` keeps the order of day and month in the user's dates."""

MESSAGE = DiagnosticField.MESSAGE_PRIMARY

NUL_CHARACTER = "the statement holds a NUL character, which PostgreSQL does not support"

# SQLSTATE for a table or column that does not exist.
NO_SUCH_TABLE = "42P01"
NO_SUCH_COLUMN = "42703"
# SQLSTATE, and the files of the server that report errors of the grammar. What depends on tables has the same SQLSTATE.
SYNTAX_ERROR = "42601"
GRAMMAR = ("gram.y", "scan.l", "parser.c")
# Classes of SQLSTATE: connection, operator intervention.
CONNECTION_LOST = ("08", "57P")
# Resources, serialization failure, deadlock.
BUSY = ("53", "40001", "40P01")
# Statements that are executed completely or not at all. CALL and DO may commit in between, and so do statements with
# CONCURRENTLY.
ATOMIC = re.compile(
    r"(?!.*\bCONCURRENTLY\b)\s*(ALTER|CREATE|DELETE|DROP|INSERT|MERGE|SELECT|TRUNCATE|UPDATE|WITH)\b",
    re.IGNORECASE | re.DOTALL,
)


class PostgreSQLDatabase(Database):
    """A PostgreSQL server."""

    dialect = "postgresql"
    tables_query = (
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(oid) "
        f"AND relnamespace <> 'pg_catalog'::regnamespace LIMIT {MAX_TABLES}"
    )

    def __init__(self, rest: str, replay: Sequence[str]) -> None:
        self._rest = rest
        self._replay = replay
        self.connection, self._address = _connect(f"postgresql://{rest}")
        self._changed_settings: dict[str, str] = {}
        """The user's values of settings that `read` changed."""
        self.simple(OUTPUT_SETTINGS)
        for sql in replay:
            self.run(sql)

    def read(self, select: str) -> Iterator[ResultSet | int | None]:
        self._restore_settings()
        names = ", ".join(f"current_setting('{name}')" for name in READ_SETTINGS)
        ((*values,),) = self.rows(f"SELECT {names}")
        found = dict(zip(READ_SETTINGS, map(str, values), strict=True))
        changed = {name: value for name, value in found.items() if not _is_readable(name, value)}
        self._set({name: READ_SETTINGS[name] for name in changed})
        self._changed_settings = changed
        return self._execute(select)

    def execute(self, sql: str) -> Iterator[ResultSet | int | None]:
        self._restore_settings()
        yield from self._execute(sql)

    def _restore_settings(self) -> None:
        """Restores the user's settings. The connection is free only after a select has been read."""
        changed, self._changed_settings = self._changed_settings, {}
        self._set(changed)

    def _set(self, settings: Mapping[str, str]) -> None:
        # In a transaction, the value that the user set in it must return at its end.
        is_local = self.connection.transaction_status == TransactionStatus.INTRANS
        for name, value in settings.items():
            self.simple(f"SELECT set_config('{name}', '{value}', {str(is_local).lower()})".encode())

    def _execute(self, sql: str) -> Iterator[ResultSet | int | None]:
        text = sql.encode()
        if b"\0" in text:
            # libpq would truncate the statement there.
            raise UserError(NUL_CHARACTER)
        try:
            self.connection.send_query(text)
        except OperationalError as error:
            raise DatabaseUnavailable(f"PostgreSQL server at {self._address}: {one_line(str(error))}") from error
        self.connection.set_chunked_rows_mode(CHUNK_ROWS)
        result = self.connection.get_result()
        while result is not None:
            if result.status in (ExecStatus.TUPLES_CHUNK, ExecStatus.TUPLES_OK):
                result_set = PostgreSQLResultSet(self, result, sql)
                yield result_set
                result = result_set.finish()
            else:
                yield self._outcome(result, sql)
                result = self.connection.get_result()
        if self.connection.parameter_status(b"client_encoding") not in (b"UTF8", None):
            # The connection always uses UTF-8.
            self.simple(b"SET client_encoding TO 'UTF8'")
            encoding.print_note()

    def describe(self, select: str) -> list[ColumnInfo]:
        text = select.encode()
        if b"\0" in text:
            raise UserError(NUL_CHARACTER)
        # Preparing a statement returns its columns and does not execute it. An unnamed one is replaced by the next.
        self.check(self.connection.prepare(b"", text), select)
        described = self.connection.describe_prepared(b"")
        self.check(described, select)
        return [column_info(described, place) for place in range(described.nfields)]

    def simple(self, sql: bytes) -> None:
        """Runs internal statements and discards their results."""
        self.check(self.connection.exec_(sql), sql.decode())

    def copy_in(self, sql: str, rows: bytes) -> None:
        """Runs a `COPY … FROM STDIN` with rows in text format."""
        started = self.connection.exec_(sql.encode())
        self.check(started, sql)
        try:
            self.connection.put_copy_data(rows)
            self.connection.put_copy_end()
        except OperationalError as error:
            raise DatabaseUnavailable(f"PostgreSQL server at {self._address}: {one_line(str(error))}") from error
        while (result := self.connection.get_result()) is not None:
            self.check(result, sql)

    def writing_connection(self) -> PostgreSQLDatabase:
        second = PostgreSQLDatabase(self._rest, self._replay)
        # Notices about internal statements are not printed.
        second.connection.notice_handler = None
        return second

    checking_connection = writing_connection

    def close(self) -> None:
        self.connection.finish()

    def _outcome(self, result: Any, sql: str) -> int | None:
        self.check(result, sql)
        if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH):
            raise UserError("cannot run COPY to or from the client: a job has no access to the client's files")
        return result.command_tuples  # type: ignore[no-any-return]

    def check(self, result: Any, sql: str) -> None:
        """Raises an error if a result is one."""
        if result.status not in (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE):
            return
        # The connection accepts the next statement only after all results are read.
        while self.connection.get_result() is not None:
            pass
        raise self._error(result, sql)

    def _error(self, result: Any, sql: str) -> SubmitterError:
        def field(which: DiagnosticField) -> str:
            return (result.error_field(which) or b"").decode("utf-8", "replace")

        state = field(DiagnosticField.SQLSTATE)
        message = field(MESSAGE) or result.get_error_message()
        for extra in (DiagnosticField.MESSAGE_DETAIL, DiagnosticField.MESSAGE_HINT):
            if field(extra):
                message += f" ({field(extra)})"
        is_gone = not state or state.startswith(CONNECTION_LOST) or self.connection.status != ConnStatus.OK
        if is_gone or state.startswith(BUSY):
            # Drop libpq's guesses about the cause.
            message = message.partition("This probably means")[0]
            kind = DatabaseUnavailable if is_gone or not ATOMIC.match(sql) else DatabaseBusy
            return kind(f"PostgreSQL server at {self._address}: {one_line(message)}")
        position = field(DiagnosticField.STATEMENT_POSITION)
        # The position counts characters, from 1.
        line = sql.count("\n", 0, int(position) - 1) + 1 if position else 0
        table = re.search('"([^"]+)"', message) if state == NO_SUCH_TABLE else None
        # If the server has a hint, no suggestions are added.
        is_open = state == NO_SUCH_COLUMN and not field(DiagnosticField.MESSAGE_HINT)
        column = re.search(r'column "?([^"\s]+)', message) if is_open else None
        return UserError(
            one_line(f"line {line}: {message}" if line else message),
            table.group(1) if table else None,
            column.group(1) if column else None,
            is_syntax=state == SYNTAX_ERROR and field(DiagnosticField.SOURCE_FILE) in GRAMMAR,
        )


class PostgreSQLResultSet(ResultSet):
    def __init__(self, database: PostgreSQLDatabase, first: Any, sql: str) -> None:
        self._database = database
        self._sql = sql
        self._next: Any | None = first
        self._following: Any | None = None
        self.columns = [column_info(first, place) for place in range(first.nfields)]

    def batches(self) -> Iterator[Batch]:
        batcher = Batcher(len(self.columns))
        places = range(len(self.columns))
        while (chunk := self._take()) is not None:
            get: Callable[[int, int], bytes | None] = chunk.get_value
            rows = range(chunk.ntuples)
            yield from batcher.add(len(rows), [[get(row, place) for row in rows] for place in places])
        yield from batcher.rest()

    def finish(self) -> Any | None:
        """Reads the remaining rows. Returns the result that follows this result set."""
        while self._take() is not None:
            pass
        return self._following

    def _take(self) -> Any | None:
        """Returns the next chunk of rows, or None after the last."""
        result = self._next
        if result is None:
            return None
        self._database.check(result, self._sql)
        if result.status == ExecStatus.TUPLES_OK:
            # It follows the last chunk and has no rows. Reading the next result frees the connection.
            self._next = None
            self._following = self._database.connection.get_result()
            return None
        self._next = self._database.connection.get_result()
        return result


def _is_readable(name: str, value: str) -> bool:
    """Returns whether values are printed such that they can be decoded without loss."""
    if name == "extra_float_digits":
        # From version 12, any positive value means the shortest exact text.
        return int(value) > 0
    return value.startswith(READ_SETTINGS[name])


def _connect(uri: str) -> tuple[Any, str]:
    """Opens a connection. Returns it with the address for messages.

    Raises:
        UserError: the URI is malformed, or the server rejected the user or the database.
        DatabaseUnavailable: there is no response.
    """
    options = _parse(uri)
    options[b"client_encoding"] = b"UTF8"
    options.setdefault(b"connect_timeout", CONNECT_TIMEOUT_SECONDS)
    options.setdefault(b"fallback_application_name", b"sqlflow")
    address = (options.get(b"host", b"localhost") + b":" + options.get(b"port", b"5432")).decode("utf-8", "replace")
    connection = pq.PGconn.connect(b" ".join(key + b"=" + _quoted(value) for key, value in options.items()))
    connection.notice_handler = _print_notice
    if connection.status == ConnStatus.OK:
        return connection, address
    message = one_line(connection.get_error_message())
    if "FATAL:" in message and not any(word in message for word in ("starting up", "shutting down", "too many")):
        raise UserError(f"PostgreSQL server at {address}: {message.partition('FATAL:')[2].strip()}")
    raise DatabaseUnavailable(f"cannot reach PostgreSQL server at {address}: {_reason(message)}")


def _print_notice(notice: Any) -> None:
    """Prints a notice of the server, like psql."""
    severity, message = (notice.error_field(which) or b"" for which in (DiagnosticField.SEVERITY, MESSAGE))
    print(f"{severity.decode()}: {message.decode('utf-8', 'replace')}", file=sys.stderr, flush=True)


def _parse(uri: str) -> dict[bytes, bytes]:
    """Parses a URI as libpq does. Does not show libpq's messages, which may quote a part of the password.

    Rejects a password with an unescaped `/` or `@`, which would be taken for a host or port and shown in messages.
    """
    wrong = UserError(
        "cannot read data source postgresql; expected postgresql://user:password@host:5432/database, "
        "with special characters in the password escaped, such as %40 for @"
    )
    place, _, _ = uri.partition("://")[2].partition("?")
    if place.count("@") > 1 or "@" in place.partition("/")[2]:
        raise wrong
    try:
        parsed = pq.Conninfo.parse(uri.encode())
    except Exception:
        raise wrong from None
    options = {option.keyword: option.val for option in parsed if option.val is not None}
    if not all(port.isdigit() for port in options.get(b"port", b"0").split(b",") if port):
        raise wrong
    return options


def _reason(message: str) -> str:
    _, failed, reason = message.partition(" failed: ")
    return (reason if failed else message).partition(" Is the server running")[0]


def _quoted(value: bytes) -> bytes:
    return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
