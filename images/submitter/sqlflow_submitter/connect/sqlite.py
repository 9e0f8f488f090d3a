"""SQLite, through Python's own driver."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from sqlflow_submitter.connect.batching import CHUNK_ROWS, Batcher
from sqlflow_submitter.connect.database import (
    CHECKED,
    MAX_TABLES,
    Batch,
    ColumnInfo,
    Database,
    Kind,
    ResultSet,
    Values,
    created_select,
)
from sqlflow_submitter.errors import DatabaseBusy, SubmitterError, UserError, unknown_name
from sqlflow_submitter.step import first_word, first_words

BUSY_TIMEOUT_SECONDS = 30.0
QUICK_SECONDS = 0.01
MODES = ("ro", "rw", "rwc")

SYNTAX_ERROR = re.compile(r'near ".*": syntax error|incomplete input|unrecognized token: .*', re.DOTALL)
"""SQLite has no error code for these."""
MAX_PLACEHOLDERS = 10
"""Maximum number of tables and databases that a check of the syntax creates in memory."""

KIND_OF_TYPE = {int: Kind.INT, float: Kind.FLOAT, str: Kind.TEXT, bytes: Kind.BLOB}


def database_path(rest: str) -> str:
    """Returns the path of the file from the part of a DSN after `sqlite://`.

    The user does not know the submitter's working folder, so a path is always absolute: `sqlite:///data/a.db` and
    `sqlite:////data/a.db` both mean `/data/a.db`. (In SQLAlchemy the first is relative.)

    Raises:
        UserError: the DSN has a host, or no file.
    """
    path = rest.partition("?")[0]
    if not path.startswith("/"):
        raise UserError(
            "data source sqlite: expected sqlite:///path/to/file.db, with three slashes and an absolute path"
        )
    path = "/" + path.lstrip("/")
    if path == "/:memory:":
        return ":memory:"
    if path.endswith("/"):
        raise UserError(f"data source sqlite: {path} is a folder; expected sqlite:///path/to/file.db")
    return path


def open_mode(rest: str) -> str:
    """Returns how the file is opened, from the part of a DSN after `sqlite://`.

    `ro` does not write, `rw` does not create the file, and `rwc`, the default, may do both.

    Raises:
        UserError: the DSN has another option, or another mode.
    """
    mode = "rwc"
    for option in filter(None, rest.partition("?")[2].split("&")):
        name, _, mode = option.partition("=")
        if name != "mode":
            raise UserError(unknown_name("data source sqlite: option", name, ["mode"]))
        if mode not in MODES:
            raise UserError(unknown_name("data source sqlite: mode", mode, MODES))
    return mode


def check_creatable(path: str) -> None:
    """Checks the path of a file that does not exist, because SQLite would create it.

    Raises:
        UserError: its folder does not exist, or is the root folder, which is probably a mistake.
    """
    folder = os.path.dirname(path)
    if folder == "/":
        raise UserError(
            f"cannot open SQLite file {path}: it does not exist, and the path of a data source is absolute; "
            f"write sqlite:////folder{path}, or create the file first"
        )
    if not os.path.isdir(folder):
        raise UserError(
            f"cannot open SQLite file {path}: the folder {folder} does not exist; create it, or correct the path"
        )


def _uri(path: str, mode: str) -> str:
    escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{escaped}?mode={mode}"


class SQLiteDatabase(Database):
    """An SQLite file."""

    dialect = "sqlite"
    tables_query = f"SELECT name FROM sqlite_master WHERE type IN ('table', 'view') LIMIT {MAX_TABLES}"

    def __init__(self, rest: str, replay: Sequence[str], may_create: bool, is_quiet: bool = False) -> None:
        self._rest = rest
        self._replay = replay
        self._path = database_path(rest)
        mode = open_mode(rest)
        self.is_read_only = mode == "ro"
        may_create = may_create and mode == "rwc"
        # An error about a missing table then mentions the file: its path may be misspelt.
        self._was_absent = self._path != ":memory:" and not os.path.exists(self._path)
        self._is_absent = self._was_absent and not may_create
        if self._was_absent:
            check_creatable(self._path)
            if is_quiet:
                pass
            elif may_create:
                print(f"SQLite file {self._path} did not exist and is created", flush=True)
            else:
                print(
                    f"SQLite file {self._path} does not exist: its database is empty, and no change is kept", flush=True
                )
        file = ":memory:" if self._is_absent or self._path == ":memory:" else _uri(self._path, mode)
        try:
            self._connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, uri=True)
        except sqlite3.Error as error:
            raise UserError(f"cannot open SQLite file {self._path}: {error}") from error
        # SQLite does not check that text is UTF-8. Other bytes become lone surrogates, which `decode` detects.
        self._connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        for sql in replay:
            self.run(sql)

    def execute(self, sql: str) -> Iterator[ResultSet | int | None]:
        with self._errors():
            cursor = self._connection.execute(sql)
        if cursor.description is not None:
            yield SQLiteResultSet(cursor, self._errors)
        else:
            yield cursor.rowcount if cursor.rowcount >= 0 else None
        cursor.close()

    def describe(self, select: str) -> list[ColumnInfo]:
        # A view is compiled and not run. Executing the select would compute its first row, which may take long.
        view = "sqlflow_described_select"
        self.run(f"CREATE TEMP VIEW {view} AS {select}")
        try:
            with self._errors():
                rows = self._connection.execute(f"PRAGMA temp.table_info({view})").fetchall()
        finally:
            self.run(f"DROP VIEW temp.{view}")
        names = original_names([row[1] for row in rows])
        return [ColumnInfo(name, row[2], decode) for name, row in zip(names, rows, strict=True)]

    def check_query(self, sql: str) -> None:
        word = first_word(sql)
        created = created_select(sql)
        # The select of a view is analysed when it is used.
        if created and not created["view"]:
            self.run(f"EXPLAIN {created['select']}")
        elif word in CHECKED:
            # A view cannot be used: it may have no parameters.
            self.run(sql if word == "EXPLAIN" else f"EXPLAIN {sql}")
        else:
            self.check_syntax(sql)

    def check_syntax(self, sql: str) -> None:
        words = first_words(sql, 2)
        if "PRAGMA" in words:
            # SQLite may execute it when it compiles it.
            return
        explained = sql if words[:1] == ["EXPLAIN"] else f"EXPLAIN {sql}"
        # In the database itself, an existing or a missing table would hide an error after its name.
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
            for _ in range(MAX_PLACEHOLDERS):
                try:
                    memory.execute(explained).close()
                    return
                except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                    if SYNTAX_ERROR.fullmatch(str(error)):
                        raise self._errors().translate(error) from error
                    if not _add_placeholder(memory, str(error)):
                        return

    def tables_read(self, select: str) -> set[tuple[str, str]]:
        """Returns the tables that a select reads, with their schemas. SQLite reports them when it compiles a select."""
        read: set[tuple[str, str]] = set()

        def note(action: int, name: str | None, _column: str | None, schema: str | None, _by: str | None) -> int:
            if action == sqlite3.SQLITE_READ and name:
                read.add((schema or "main", name))
            return sqlite3.SQLITE_OK

        self._connection.set_authorizer(note)
        try:
            self.run(f"EXPLAIN {select}")
        finally:
            self._connection.set_authorizer(None)
        return read

    def insert(self, sql: str, columns: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for each row of parameters, given by column."""
        with self._errors():
            self._connection.executemany(sql, zip(*columns, strict=True))

    def writing_connection(self) -> SQLiteDatabase:
        if self._is_absent:
            raise UserError(
                f"cannot write into SQLite file {self._path}: it does not exist; correct the path of the data source, "
                "or create a table in it first"
            )
        return self

    def checking_connection(self) -> SQLiteDatabase:
        checking = SQLiteDatabase(self._rest, self._replay, may_create=False, is_quiet=True)
        # The file may be locked for the whole step.
        checking.run("PRAGMA busy_timeout = 0")
        return checking

    def add_setting(self, sql: str) -> bool:
        self._connection.set_authorizer(_deny_creation)
        try:
            return super().add_setting(sql)
        except UserError as error:
            if getattr(error.__cause__, "sqlite_errorname", "") != "SQLITE_AUTH":
                raise
            return False
        finally:
            self._connection.set_authorizer(None)

    def close(self) -> None:
        self._connection.close()

    def _errors(self) -> _Errors:
        return _Errors(self._path, self._was_absent)


def _add_placeholder(memory: sqlite3.Connection, message: str) -> bool:
    """Creates what a statement misses. Returns whether something was created."""
    database = re.fullmatch(r"unknown database \"?(.+?)\"?", message)
    table = re.fullmatch(r"no such table: (?:(\w+)\.)?(.+)", message)
    try:
        if database:
            memory.execute(f"ATTACH ':memory:' AS {_quoted(database[1])}")
        elif table:
            memory.execute(f"CREATE TABLE {_quoted(table[1] or 'main')}.{_quoted(table[2])} (sqlflow_placeholder)")
        else:
            return False
    except sqlite3.Error:
        return False
    return True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _deny_creation(action: int, file: str | None, *_: object) -> int:
    """Denies to attach a file that does not exist, because SQLite would create it."""
    is_new = action == sqlite3.SQLITE_ATTACH and not (file and os.path.exists(file))
    return sqlite3.SQLITE_DENY if is_new else sqlite3.SQLITE_OK


class SQLiteResultSet(ResultSet):
    def __init__(self, cursor: sqlite3.Cursor, errors: Callable[[], _Errors]) -> None:
        self._cursor = cursor
        self._errors = errors
        # SQLite has types of values, not of columns, so no type is known before the rows.
        self.columns = [ColumnInfo(column[0], "", decode) for column in cursor.description]

    def batches(self) -> Iterator[Batch]:
        batcher = Batcher(len(self.columns))
        # SQLite computes rows when they are fetched: fetch few at once from a slow query.
        size = 1
        while True:
            fetched_at = time.monotonic()
            with self._errors():
                rows = self._cursor.fetchmany(size)
            if not rows:
                break
            yield from batcher.add(len(rows), list(zip(*rows, strict=True)))
            if time.monotonic() - fetched_at < QUICK_SECONDS:
                size = min(2 * size, CHUNK_ROWS)
        yield from batcher.rest()

    def close(self) -> None:
        # An open select would prevent a table from being dropped.
        self._cursor.close()


def original_names(names: Sequence[str]) -> list[str]:
    """Restores duplicate names, to which a view appends a number: `a`, `A:1` → `a`, `A`."""
    found: list[str] = []
    before: set[str] = set()
    for name in names:
        match = re.fullmatch(r"(.*):\d+", name, re.DOTALL)
        found.append(match.group(1) if match and match.group(1).lower() in before else name)
        before.add(name.lower())
    return found


def decode(raw: Sequence[Any]) -> Values:
    """Returns the values of a column of a batch with their kind, or with MIXED if they have several."""
    types = set(map(type, raw))
    types.discard(type(None))
    if len(types) > 1:
        return Values(Kind.MIXED, [_text_or_bytes(value) for value in raw])
    kind = KIND_OF_TYPE[types.pop()] if types else Kind.TEXT
    if kind is Kind.TEXT and not all(value is None or value.isascii() or _is_unicode(value) for value in raw):
        return Values(Kind.MIXED, [_text_or_bytes(value) for value in raw])
    return Values(kind, raw)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text_or_bytes(value: Any) -> Any:
    """Converts a text that is not UTF-8 back to its bytes."""
    if isinstance(value, str) and not _is_unicode(value):
        return value.encode("utf-8", "surrogateescape")
    return value


class _Errors:
    """Translates the driver's errors. It is a class because a generator-based context manager is slow."""

    def __init__(self, path: str, was_absent: bool) -> None:
        self._path = path
        self._was_absent = was_absent

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # ValueError: the text has a NUL character.
        if isinstance(error, sqlite3.Error | sqlite3.Warning | ValueError):
            raise self.translate(error) from error

    def translate(self, error: Exception) -> SubmitterError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return DatabaseBusy(f"SQLite file {self._path}: {error}")
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_FULL")):
            return UserError(f"SQLite file {self._path}: {error}")
        if self._was_absent and "no such table" in str(error):
            return UserError(f"{error}; SQLite file {self._path} did not exist, check its path")
        # SQLite has no error code for these.
        table = re.search(r"no such table: (\S+)", str(error))
        column = re.search(r"(?:no such column:|has no column named) \"?([^\s\"]+)", str(error))
        return UserError(
            str(error),
            table.group(1) if table else None,
            column.group(1) if column else None,
            is_syntax=SYNTAX_ERROR.fullmatch(str(error)) is not None,
        )
