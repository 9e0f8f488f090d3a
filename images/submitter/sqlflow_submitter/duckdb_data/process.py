"""Runs a step from its document to its exit code."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from typing import NoReturn

from sqlflow_submitter.channel import LINK_VARIABLE, Channel, inherited
from sqlflow_submitter.duckdb_data import failure, source
from sqlflow_submitter.duckdb_data.channel import DataChannel
from sqlflow_submitter.duckdb_data.files import SECRET, Reach
from sqlflow_submitter.duckdb_data.shutdown import Shutdown
from sqlflow_submitter.duckdb_data.step import STEP_DIGEST, Statement, Step, load
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.frames import Ended, Frame, Started
from sqlflow_submitter.spans import Spans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlflow_submitter.duckdb_data.session import Session

DATA_SOURCE = "db_conn_str"
PR_SET_DUMPABLE = 4


def run(path: str, shutdown: Shutdown) -> NoReturn:
    """Runs the step of a document, and ends the process. `shutdown` listens."""
    # User code of the same user, beside this process, must not use its descriptors and its memory.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    process = Process(shutdown)
    code = 0
    try:
        process.run(path)
    except Exception as error:
        code = 1
        # The agent knows why.
        shutdown.end_by_signal()
        if not isinstance(error, failure.Reported):
            process.report(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    process.close()
    # The thread that waits for signals would keep the process.
    os._exit(code)


class Process:
    """The run of a step."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown
        self._channel: DataChannel | None = None
        self._session: Session | None = None
        self._statement: Statement | None = None
        """The statement that runs."""

    def run(self, path: str) -> None:
        self._channel = channel = DataChannel.open()
        secrets = channel.secrets()
        if LINK_VARIABLE in os.environ:
            self._shutdown.set_leaves_nothing(channel)
        step = load(path, secrets.get(STEP_DIGEST))
        self._session = session = self._connect(step, secrets)
        for sql in step.replay:
            session.run(sql)
        if step.clean_up is not None:
            return self._clean_up(session, step, step.clean_up.get("granted_attempt"))
        self._shutdown.add_canceller(session.connection.interrupt)
        for statement in step.statements:
            self._statement = statement
            spans = Spans(channel, statement.index)
            try:
                if statement.is_standard:
                    with spans.span("statement standard"):
                        self._run_standard(session, statement, channel)
                else:
                    self._run_extended(session, step, statement, channel)
            finally:
                self._shutdown.end_statement()
        self._statement = None
        return None

    def _connect(self, step: Step, secrets: dict[str, str]) -> Session:
        from sqlflow_submitter.duckdb_data.opened import connect

        found = source.parse(secrets.get(DATA_SOURCE, ""))
        reach = Reach(secrets.get(SECRET))
        reads_only = step.reads_only()
        connection = connect(found, reach, reads_only=reads_only)
        from sqlflow_submitter.duckdb_data.session import Session

        return Session(connection, is_reading=reads_only and found.mode != "ro")

    def _clean_up(self, session: Session, step: Step, granted_attempt: int | None) -> None:
        """Drops what earlier attempts of the step left in the database."""
        from sqlflow_submitter.duckdb_data.result_table import clean_up

        for statement in step.statements:
            if statement.result_table is not None:
                report = clean_up(session, statement.result_table, step.suffix, granted_attempt)
                if report is not None:
                    print(report, flush=True)

    def _start(self, statement: Statement, channel: Channel) -> float:
        frame = Frame(Started(), statement.index)
        if statement.repeatable:
            channel.send(frame)
        else:
            channel.send_durable(frame)
        return time.monotonic()

    def _run_standard(self, session: Session, statement: Statement, channel: Channel) -> None:
        from sqlflow_submitter.duckdb_data.standard import execute

        started_at = self._start(statement, channel)
        self._shutdown.begin_statement()
        changed = execute(session, statement, channel)
        self._end(statement, channel, started_at, changed)

    def _run_extended(self, session: Session, step: Step, statement: Statement, channel: DataChannel) -> None:
        from sqlflow_submitter.duckdb_data.link import ServerLink
        from sqlflow_submitter.duckdb_data.serve import Server

        descriptor = inherited(LINK_VARIABLE, "the link to the submitter")
        if descriptor is None:
            raise SubmitterError(f"cannot run a statement of kind {statement.kind}: it needs a submitter")
        link = ServerLink(descriptor)
        started_at = self._start(statement, channel)
        self._shutdown.add_canceller(link.end_reading)
        self._shutdown.add_canceller(channel.end_reading)
        publication = Server(link, step, statement, session, channel, self._shutdown).serve()
        if publication is not None:
            publication.publish(statement.index, channel, self._shutdown)
        else:
            channel.wait_for_submitter()
            if statement.result_table is not None:
                what = "the submitter ended with 0, and did not complete its table"
                raise failure.NotExecuted(SubmitterError(what))
        self._end(statement, channel, started_at, None)

    def _end(self, statement: Statement, channel: Channel, started_at: float, changed: int | None) -> None:
        micros = int((time.monotonic() - started_at) * 1e6)
        channel.send(Frame(Ended(micros, changed), statement.index))

    def report(self, error: Exception) -> None:
        found = failure.failure_of(error)
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send(Frame(found, self._statement.index if self._statement else None))
                return
        print(found.message, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the database, which writes its log into its file."""
        if self._session is not None:
            with suppress(Exception):
                self._session.connection.close()
