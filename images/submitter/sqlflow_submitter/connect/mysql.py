"""MySQL and MariaDB, through PyMySQL's protocol code.

PyMySQL's cursors are not used, because they decode each value and interpolate parameters. `mysql_rows` reads raw rows
from PyMySQL's connection.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import tzinfo
from functools import cached_property
from typing import Any

import pymysql
from pymysql.connections import FieldDescriptorPacket, MySQLResult
from pymysql.constants import COMMAND, FIELD_TYPE

from sqlflow_submitter.connect import encoding
from sqlflow_submitter.connect.database import MAX_TABLES, Batch, ColumnInfo, Database, ResultSet
from sqlflow_submitter.connect.decode import timestamps_in
from sqlflow_submitter.connect.go_dsn import GoDsn, parse_go_dsn
from sqlflow_submitter.connect.mysql_rows import RowReader
from sqlflow_submitter.connect.mysql_types import column_info
from sqlflow_submitter.connect.mysql_zone import SYSTEM, time_zone
from sqlflow_submitter.errors import DatabaseUnavailable, SubmitterError, UserError, one_line

CONNECT_TIMEOUT_SECONDS = 10

# Options that configure Go's driver. All other options are session variables, as in Go.
GO_OPTIONS = {
    "allowAllFiles",
    "allowCleartextPasswords",
    "allowFallbackToPlaintext",
    "allowNativePasswords",
    "allowOldPasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "compress",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "serverPubKey",
    "timeTruncate",
    "timeout",
    "tls",
    "writeTimeout",
}

ENCODING = re.compile(r"\s*SET\b.*\b(NAMES|CHARSET|CHARACTER\s+SET|character_set_\w+)\b", re.IGNORECASE | re.DOTALL)

# Table or column does not exist.
NO_SUCH_TABLE = 1146
NO_SUCH_COLUMN = 1054
# For a database, a table, a column, any.
PRIVILEGE_MISSING = {1044, 1142, 1143, 1227}
# A foreign key refers to the table, or to a row of it.
REFERENCED = {1217, 1451, 3730}
SYNTAX_ERROR = 1064
# Right statements, as far as the syntax is concerned. They are prepared, and not executed.
RIGHT_STATEMENTS = ("DROP TABLE IF EXISTS sqlflow_no_such_table", "SELECT 1 FROM sqlflow_no_such_table")
# MySQL cannot prepare EXPLAIN.
NOT_PREPARABLE = 1295
# Too many connections, server shutting down or gone, lock wait timeout, deadlock, connection killed.
RETRYABLE = {1040, 1053, 1203, 1205, 1213, 1927, 2002, 2003, 2006, 2013}


class MySQLDatabase(Database):
    """A MySQL server."""

    dialect = "mysql"
    quote_mark = "`"
    tables_query = (
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() LIMIT {MAX_TABLES}"
    )

    def __init__(self, rest: str, replay: Sequence[str]) -> None:
        self._rest = rest
        self._replay = replay
        self._dsn = parse_go_dsn(rest)
        self._warned_of_zone = False
        try:
            self._connection = _connect(self._dsn)
        except pymysql.MySQLError as error:
            raise self._translate(error) from error
        settings = [f"SET {name}={value}" for name, value in self._dsn.options.items() if name not in GO_OPTIONS]
        for sql in [*settings, *replay]:
            self.run(sql)

    def execute(self, sql: str) -> Iterator[ResultSet | int | None]:
        yield from self._execute(sql.encode())
        if ENCODING.match(sql) and "utf8mb4" not in sql.lower():
            # The connection always uses UTF-8.
            self.run_bytes(b"SET NAMES utf8mb4")
            encoding.print_note()

    def _execute(self, sql: bytes) -> Iterator[ResultSet | int | None]:
        try:
            self._connection._execute_command(COMMAND.COM_QUERY, sql)
            while True:
                result = MySQLResult(self._connection)
                result.init_unbuffered_query()
                if not result.unbuffered_active:
                    yield int(result.affected_rows or 0)
                    more = result.has_next
                else:
                    # `RowReader` reads the rows from here on.
                    result.unbuffered_active = False
                    result_set = MySQLResultSet(self, RowReader(self._connection, result.field_count), result.fields)
                    yield result_set
                    more = result_set.finish()
                if not more:
                    return
        except pymysql.MySQLError as error:
            raise self._translate(error) from error

    def describe(self, select: str) -> list[ColumnInfo]:
        # Preparing a statement returns its columns and does not execute it.
        connection = self._connection
        try:
            connection._execute_command(COMMAND.COM_STMT_PREPARE, select.encode())
            answer = connection._read_packet()
            answer.advance(1)
            statement, columns, parameters = answer.read_struct("<IHH")
            fields: list[Any] = []
            for count in (parameters, columns):
                fields = [connection._read_packet(FieldDescriptorPacket) for _ in range(count)]
                if count:
                    connection._read_packet()  # EOF
            connection._execute_command(COMMAND.COM_STMT_CLOSE, int(statement).to_bytes(4, "little"))
        except pymysql.MySQLError as error:
            raise self._translate(error) from error
        columns = [column_info(field) for field in fields]
        places = [place for place, field in enumerate(fields) if field.type_code == FIELD_TYPE.TIMESTAMP]
        if places and (zone := self._time_zone()) is not None:
            for place in places:
                columns[place] = columns[place]._replace(decode=timestamps_in(zone))
        return columns

    def _time_zone(self) -> tzinfo | None:
        """Returns the session's time zone, or None if it is not known, after a warning."""
        ((session, system),) = self.rows("SELECT @@session.time_zone, @@system_time_zone")
        zone = time_zone(session, system)
        if zone is None and not self._warned_of_zone:
            self._warned_of_zone = True
            name = system if session == SYSTEM else session
            print(
                f"warning: columns of type TIMESTAMP are read in the server's time zone {name}, and not in UTC; "
                "write SET time_zone = '+00:00' before the statement",
                flush=True,
            )
        return zone

    def run_bytes(self, sql: bytes) -> None:
        """Runs an internal statement that returns no rows, and may contain bytes that are not UTF-8."""
        for _ in self._execute(sql):
            pass

    def check_query(self, sql: str) -> None:
        try:
            super().check_query(sql)
        except UserError as error:
            if error_code(error) != NOT_PREPARABLE:
                raise

    def check_syntax(self, sql: str) -> None:
        try:
            super().check_syntax(sql)
        except UserError:
            # Some servers with MySQL's protocol have this code for all errors, or cannot prepare all statements.
            if self._reports_syntax_errors:
                raise

    @cached_property
    def _reports_syntax_errors(self) -> bool:
        try:
            for sql in RIGHT_STATEMENTS:
                super().check_syntax(sql)
        except UserError:
            return False
        return True

    def denied(self, sql: str) -> str | None:
        """Runs a statement that must fail. Returns the message if the user lacks a privilege for it, or None."""
        return self._failure(sql, PRIVILEGE_MISSING)

    def is_referenced(self, sql: str) -> bool:
        """Runs a statement that must fail. Returns whether it fails because a foreign key refers to its table."""
        return self._failure(sql, REFERENCED) is not None

    def _failure(self, sql: str, codes: Collection[int]) -> str | None:
        try:
            self.run(sql)
        except UserError as error:
            return str(error) if error_code(error) in codes else None
        return None

    def has_schema(self, name: str) -> bool:
        """Returns whether a database of this name exists and is visible to the user."""
        literal = f"_utf8mb4 X'{name.encode().hex()}'"
        return bool(self.rows(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {literal}"))

    def table_kind(self, schema: str | None, name: str) -> tuple[str, str] | None:
        """Returns `BASE TABLE`, `VIEW` …, and the table's comment, or None if there is no such table."""
        literals = [f"_utf8mb4 X'{text.encode().hex()}'" for text in (schema or "", name)]
        database = literals[0] if schema else "DATABASE()"
        found = self.rows(
            "SELECT table_type, table_comment FROM information_schema.tables "
            f"WHERE table_schema = {database} AND table_name = {literals[1]}"
        )
        return (str(found[0][0]), str(found[0][1])) if found else None

    def writing_connection(self) -> MySQLDatabase:
        return MySQLDatabase(self._rest, self._replay)

    checking_connection = writing_connection

    def close(self) -> None:
        # Close the socket without COM_QUIT: unread rows may still arrive.
        self._connection._force_close()

    def _translate(self, error: pymysql.MySQLError) -> SubmitterError:
        code, text = error.args if len(error.args) == 2 else (0, str(error))
        text = one_line(str(text))
        if code in RETRYABLE:
            system = re.search(r"\((?:\[Errno -?\d+\] )?([^)]*)\)$", text)
            reason = system.group(1) if system else text
            # Also for a lock: effects of a CALL before it, and rows of tables without transactions, remain.
            return DatabaseUnavailable(f"MySQL server at {self._dsn.address()}: {reason}")
        if code in (NO_SUCH_TABLE, NO_SUCH_COLUMN):
            missing = re.search("'([^']+)'", text)
            name = missing.group(1) if missing else None
            return UserError(text, name) if code == NO_SUCH_TABLE else UserError(text, missing_column=name)
        line = re.search(r" at line (\d+)$", text)
        message = f"line {line.group(1)}: {text[: line.start()]}" if line else text
        return UserError(message, is_syntax=code == SYNTAX_ERROR)


class MySQLResultSet(ResultSet):
    def __init__(self, database: MySQLDatabase, reader: RowReader, fields: Sequence[FieldDescriptorPacket]) -> None:
        self._database = database
        self._reader = reader
        self.columns = [column_info(field) for field in fields]

    def batches(self) -> Iterator[Batch]:
        try:
            while batch := self._reader.read_batch():
                yield batch
        except pymysql.MySQLError as error:
            raise self._database._translate(error) from error

    def finish(self) -> bool:
        """Reads the remaining rows. Returns whether another result follows."""
        while self._reader.read_batch():
            pass
        return self._reader.more_results


def error_code(error: UserError) -> object:
    """Returns the server's code of an error."""
    return error.__cause__.args[0] if error.__cause__ is not None and error.__cause__.args else None


def _connect(dsn: GoDsn) -> Any:
    tls = dsn.options.get("tls", "")
    return pymysql.connect(
        user=dsn.user,
        password=dsn.password,
        host=dsn.host or None,
        port=dsn.port,
        unix_socket=dsn.unix_socket,
        database=dsn.database or None,
        charset="utf8mb4",
        # The server's default, as in its command line.
        autocommit=None,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        ssl={"check_hostname": tls == "true"} if tls in ("true", "skip-verify") else None,
        ssl_disabled=tls == "false" or None,
        program_name="sqlflow",
    )
