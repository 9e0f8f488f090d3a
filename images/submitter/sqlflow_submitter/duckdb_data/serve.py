"""Serves the submitter of an extended statement: its selects, its result table and its checks, and nothing else."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from sqlflow_submitter.duckdb_data.arrays import Batch, Column
from sqlflow_submitter.duckdb_data.channel import DataChannel
from sqlflow_submitter.duckdb_data.checks import Checks
from sqlflow_submitter.duckdb_data.column_file import ColumnFile, in_memory
from sqlflow_submitter.duckdb_data.failure import Broken, NotExecuted, Reported, Unclear, failure_of
from sqlflow_submitter.duckdb_data.link import Ended, ServerLink
from sqlflow_submitter.duckdb_data.result_table import ResultTable
from sqlflow_submitter.duckdb_data.session import Session
from sqlflow_submitter.duckdb_data.shown_rows import encode_values
from sqlflow_submitter.duckdb_data.shutdown import Shutdown
from sqlflow_submitter.duckdb_data.step import Statement, Step
from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError
from sqlflow_submitter.frames import Frame, Head
from sqlflow_submitter.link import from_cell

MAX_AHEAD = 2
"""Maximum number of batches of a stream that the submitter has."""
MAX_ROWS_BYTES = 64 << 20
"""Maximum size of computed columns in one request."""
READ_ROWS = 65_536
WIDE_ROWS = 8_192
"""Number of rows of a batch, without texts and with some."""


class Computed(NamedTuple):
    """A computed column."""

    name: str
    kind: str
    values: list[Any] | None
    """The possible values. A row has the place of its value, in 32 bits. None: a row has its value, in 64 bits."""


class Result:
    """The staging table of the statement, with the batches whose rows are still to be written."""

    def __init__(self, table: ResultTable, computed: Sequence[Computed], copies: int, *, has_passthrough: bool) -> None:
        self.table = table
        self._computed = computed
        self._copies = copies
        self._has_passthrough = has_passthrough
        self._batches: deque[Batch] = deque()
        self._written = 0
        """Number of rows of the oldest batch that were written."""

    def add_batch(self, batch: Batch) -> None:
        self._batches.append(batch)

    def end_batch(self) -> None:
        """The submitter needs the oldest batch no more."""
        batch = self._batches.popleft() if self._batches else None
        if batch is None or batch.rows != self._written:
            raise protocol("a batch has another number of rows")
        self._written = 0

    def rows(self, rows: int, data: bytes) -> None:
        """Writes the next rows of the oldest batch, with computed columns."""
        begin, batch = self._written, None
        if self._has_passthrough:
            if not self._batches or begin + rows > self._batches[0].rows:
                raise protocol("there are more rows than in the batch")
            batch = self._batches[0].whole
        # Without columns of the select, the batches only count.
        self._written += rows
        computed = decode(self._computed, rows * self._copies, data)
        self.table.insert(batch, begin, rows, self._copies, computed)


def decode(columns: Sequence[Computed], rows: int, data: bytes) -> dict[str, Any]:
    """Decodes computed columns: one after the other, little-endian."""
    found: dict[str, Any] = {}
    start = 0
    for place, column in enumerate(columns):
        kind = "<u4" if column.values is not None else "<f8" if column.kind == "float" else "<i8"
        end = start + rows * int(kind[-1])
        if end > len(data):
            raise protocol("the columns are too short")
        values: Any = np.frombuffer(data[start:end], kind)
        if column.values is not None:
            if len(values) and values.max() >= len(column.values):
                raise protocol("a value has no place")
            of_values = np.array(column.values, object if column.kind == "text" else None)
            values = of_values[values]
        # DuckDB reads what is not a number as NULL.
        found[f"k{place}"] = values
        start = end
    if start != len(data):
        raise protocol("the columns are too long")
    return found


def protocol(what: str) -> SubmitterError:
    """Returns the error of a request that no submitter sends."""
    return Protocol(f"cannot answer a request of the submitter: {what}")


class Protocol(SubmitterError):
    """The step has failed."""


class Server:
    """Serves one statement."""

    def __init__(
        self,
        link: ServerLink,
        step: Step,
        statement: Statement,
        session: Session,
        channel: DataChannel,
        shutdown: Shutdown,
    ) -> None:
        self._link = link
        self._step = step
        self._statement = statement
        self._session = session
        self._channel = channel
        self._shutdown = shutdown
        self._checks = Checks(session, step)
        self._result: Result | None = None
        self._has_failed = False
        """The select or its table has failed. The submitter may have sent more before it reads that."""
        self._line: str | None = None
        """What to tell the user when the table is published; None: it is not complete."""

    def serve(self) -> Publication | None:
        """Answers requests until the submitter ends. Returns the result table to publish, if the submitter succeeds."""
        error: Exception | None = None
        try:
            self._answer_all()
        except Exception as found:
            error = found
        if self._result is not None:
            if self._line is not None and error is None:
                return Publication(self._result.table, self._line)
            drop_staging(self._result.table, self._shutdown)
            self._shutdown.set_leaves_nothing(self._channel)
        self._shutdown.end_statement()
        # One that arrived meanwhile has ended nothing.
        self._shutdown.check()
        if error is not None:
            raise error
        return None

    def _answer_all(self) -> None:
        while (request := self._link.next()) is not None:
            self._shutdown.begin_statement()
            try:
                self._answer(*request)
            except Ended:
                return
            except (Protocol, Broken):
                raise
            except SubmitterError as error:
                self._has_failed |= request[0] in ("stream", "rows", "write")
                with suppress(Ended):
                    self._link.send_error(error)
            finally:
                # While there is a staging table, a signal has it dropped.
                if self._result is None:
                    self._shutdown.end_statement()

    def _answer(self, name: str, content: Any) -> None:
        match name:
            case "dialect":
                self._link.send({"dialect": "duckdb"})
            case "describe":
                select = self._step.statement(content["statement"]).select(content["select"])
                columns = self._checks.session(content["statement"]).describe(select)
                self._link.send({"columns": _described(columns)})
            case "read":
                self._read(self._statement.select(content))
            case "write":
                self._write(content)
                self._link.send("done")
            case "stream":
                self._stream(int(content["max_rows"]))
            case "rows":
                data = self._link.bytes(_bounded(int(content["bytes"])))
                if not self._has_failed:
                    self._rows(int(content["rows"]), data)
            case "taken":
                if not self._has_failed:
                    raise protocol("a batch that was not sent was taken")
            case "show":
                self._show(content["columns"], content["values"])
                self._link.send("done")
            case "publish":
                if self._has_failed:
                    return
                if self._result is None:
                    raise protocol("there is no table")
                self._shutdown.set_leaves_nothing(None)
                self._line = content["line"]
                self._link.send("done")
            case _:
                try:
                    answer = self._checks.answer(name, content)
                except KeyError as error:
                    raise protocol(f"{name} is not known") from error
                self._link.send(answer)

    def _read(self, select: str) -> None:
        columns = self._session.describe(select)
        file = ColumnFile(columns)
        self._link.send({"column_file": [[it.name, it.database_type] for it in columns]}, file.fileno())
        for batch in self._batches(select, columns, READ_ROWS):
            size = file.add(batch)
            self._link.send({"rows": {"rows": file.rows, "bytes": size}})
        self._link.send({"rows": {"rows": file.rows, "bytes": file.finish()}})
        self._link.send({"end": file.rows})

    def _batches(self, select: str, columns: Sequence[Column], max_rows: int) -> Iterator[Batch]:
        has_texts = any(it.kind in (None, "blob", "decimal") for it in columns)
        return self._session.read(select, columns, min(max_rows, WIDE_ROWS if has_texts else READ_ROWS))

    def _write(self, write: Any) -> None:
        passthrough = [(int(place), str(name)) for place, name in write["passthrough"]]
        computed = [Computed(it["name"], it["kind"], it["values"]) for it in write["computed"]]
        select = self._statement.select("statement")
        described = self._session.describe(select) if passthrough else []
        copies = int(write["copies"])
        if any(place >= len(described) for place, _ in passthrough) or copies < 1:
            raise protocol("the select has no such column")
        spec = self._step.result(self._statement)
        writer = self._session.cursor()
        self._shutdown.set_leaves_nothing(None)
        self._shutdown.add_canceller(writer.connection.interrupt)
        table = ResultTable(writer, spec)
        self._result = Result(table, computed, copies, has_passthrough=bool(passthrough))
        table.create(select, described, passthrough, [(it.name, it.kind) for it in computed])

    def _rows(self, rows: int, data: bytes) -> None:
        if self._result is None:
            raise protocol("rows without a table")
        self._result.rows(rows, data)

    def _stream(self, max_rows: int) -> None:
        """Reads the select as a stream. A batch is sent when the submitter needs an earlier one no more."""
        select = self._statement.select("statement")
        columns = self._session.describe(select)
        self._link.send({"columns": _described(columns)})
        ahead = rows = 0
        for batch in self._batches(select, columns, max(1, min(max_rows, READ_ROWS))):
            ahead = self._wait_until_ahead(ahead, MAX_AHEAD - 1)
            descriptor = in_memory(batch, columns)
            try:
                self._link.send({"batch": batch.rows}, descriptor)
            finally:
                os.close(descriptor)
            ahead += 1
            rows += batch.rows
            if self._result is not None:
                self._result.add_batch(batch)
        self._wait_until_ahead(ahead, 0)
        self._link.send({"end": rows})

    def _wait_until_ahead(self, ahead: int, count: int) -> int:
        """Waits until the submitter has no more than this number of batches, and writes what it has computed."""
        while ahead > count:
            match self._link.next():
                case None:
                    raise Ended
                case "rows", content if self._result is not None:
                    self._result.rows(int(content["rows"]), self._link.bytes(_bounded(int(content["bytes"]))))
                case "taken", _:
                    ahead -= 1
                    if self._result is not None:
                        self._result.end_batch()
                case _:
                    raise protocol("it is not one of a stream")
        return ahead

    def _show(self, names: list[str], columns: list[list[Any]]) -> None:
        values = [list(map(from_cell, column)) for column in columns]
        if len({len(it) for it in values}) > 1:
            raise protocol("columns of different lengths")
        self._channel.send(Frame(Head(names, [""] * len(names)), self._statement.index))
        if values and values[0]:
            self._channel.send(Frame(encode_values(values), self._statement.index))


def _bounded(size: int) -> int:
    if not 0 <= size <= MAX_ROWS_BYTES:
        raise protocol("there are too many rows in it")
    return size


def _described(columns: Sequence[Column]) -> list[dict[str, str | None]]:
    return [{"name": it.name, "database_type": it.database_type, "kind": it.kind} for it in columns]


def drop_staging(table: ResultTable, shutdown: Shutdown) -> None:
    """Drops a staging table. Raises Unclear if it may remain."""
    shutdown.begin_clean_up()
    try:
        try:
            table.clear()
        except UserError:
            # A late cancellation may end the first statement.
            table.clear()
    except Exception as error:
        raise Unclear(error) from error


class Publication:
    """A complete staging table, to be published when the submitter has succeeded."""

    def __init__(self, table: ResultTable, line: str) -> None:
        self._table = table
        self._line = line

    def publish(self, statement: int, channel: DataChannel, shutdown: Shutdown) -> None:
        """Waits for the submitter's success and the grant, and replaces the old table."""
        try:
            channel.wait_for_submitter()
        except Exception as error:
            self._give_up(error, shutdown)
            shutdown.set_leaves_nothing(channel)
            raise NotExecuted(error) from error
        try:
            replaced = self._table.replaced()
        except Exception as error:
            self._give_up(error, shutdown)
            raise NotExecuted(error) from error
        try:
            channel.commit(statement)
        except CommitRefused as error:
            self._give_up(error, shutdown)
            raise NotExecuted(error) from error
        # If the agent is lost here, the server may have recorded the grant. As long as the staging table exists, the
        # old table was not replaced: the cleanup says so.
        shutdown.begin_clean_up()
        try:
            self._table.publish()
        except UserError as error:
            # Before the staging table goes: without it and without a report, the table counts as replaced.
            channel.send(Frame(failure_of(NotExecuted(error)), statement))
            drop_staging(self._table, shutdown)
            raise Reported from error
        if replaced is not None:
            print(f"replaced table {self._table.table.text} {replaced}", flush=True)
        print(self._line, flush=True)

    def _give_up(self, error: Exception, shutdown: Shutdown) -> None:
        """Drops the staging table after an error."""
        try:
            drop_staging(self._table, shutdown)
        except Unclear:
            raise Unclear(error) from error
