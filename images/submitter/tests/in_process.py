"""Runs a statement with the data process, and Python's part in the tests' process, which starts faster."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from agent import Recorder, Run
from data_process import Process, command, granted, write_step
from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, Failure

from sqlflow_submitter.database import Database
from sqlflow_submitter.errors import CommitRefused, DatabaseUnavailable, SubmitterError, UserError
from sqlflow_submitter.extended import WITH_SELECT
from sqlflow_submitter.link import Link, PeerLost
from sqlflow_submitter.runner import run_statement
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Query, Step
from sqlflow_submitter.values import ColumnInfo


def run_in_process(
    document: dict[str, Any], dsn: str, folder: Path, *, grant: bool = True, recorder: Recorder | None = None
) -> Run:
    """Runs the only statement of a step. A failure raises its exception."""
    recorder = recorder or Recorder()
    step = Step(document)
    (statement,) = step.statements
    if statement.kind == "standard" or statement.kind in WITH_SELECT:
        with data_process(document, dsn, folder, recorder.run, grant=grant) as database:
            if statement.kind != "standard":
                run_statement(statement, step, database, StatementChannel(recorder, 0))
    else:
        run_statement(statement, step, None, StatementChannel(recorder, 0))
    return recorder.run


def described(select: str, dsn: str, folder: Path) -> list[ColumnInfo]:
    """Returns the columns of a select."""
    statement = {"index": 0, "kind": "evaluate", "select": select}
    with data_process({"version": 1, "statements": [statement]}, dsn, folder, Run()) as database:
        return database.describe(Query(0, "statement"))


@contextmanager
def data_process(
    document: dict[str, Any], dsn: str, folder: Path, run: Run, *, grant: bool = True
) -> Iterator[Database]:
    """Starts the data process of a step, and yields the database as Python gets it.

    At the end of the block, the data process completes its work. What it prints is printed.

    Raises:
        SubmitterError: it has failed.
    """
    write_step(folder, document)
    ours, theirs = socket.socketpair()
    is_standard = all(it["kind"] == "standard" for it in document["statements"])
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        process = Process(
            command(dsn),
            folder,
            dsn,
            run.frames.append,
            link=None if is_standard else theirs,
            stdout=stdout,
            stderr=stderr,
        )
        process.answer_commit = granted if grant else refused
        end = ours.dup()
        try:
            yield Database(Link(ours.detach()))
            end.shutdown(socket.SHUT_RDWR)
            process.report_success()
        except PeerLost:
            # Its own failure says why.
            pass
        except BaseException:
            end.shutdown(socket.SHUT_RDWR)
            process.terminate()
            raise
        finally:
            end.close()
            process.wait()
            for file, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
                file.seek(0)
                stream.write(file.read())
    failures = run.payloads("failure")
    if failures:
        raise error_of(failures[0])


def refused() -> AgentFrame:
    answer = AgentFrame()
    answer.refused.reason = "another attempt has started"
    return answer


def error_of(failure: Failure) -> SubmitterError:
    """Returns the exception of a failure."""
    if failure.user_error:
        return UserError(failure.message)
    if failure.transient:
        return DatabaseUnavailable(failure.message)
    kind = CommitRefused if failure.message.startswith("cannot commit") else SubmitterError
    return kind(failure.message)


def execute(dsn: str, *statements: str, replay: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Runs standard statements on one connection. Returns the rows of all, formatted for people."""
    run = Run()
    document = {
        "version": 1,
        "replay": [{"index": 90, "sql": sql} for sql in replay],
        "statements": [
            {"index": place, "kind": "standard", "sql": sql, "repeatable": True} for place, sql in enumerate(statements)
        ],
    }
    with TemporaryDirectory() as folder, data_process(document, dsn, Path(folder), run):
        pass
    return run.rows()


def check_result(table: str, dsn: str, folder: Path) -> None:
    """Checks that a result table can be written.

    Raises:
        UserError: it cannot.
    """
    statement = {"index": 0, "kind": "evaluate", "select": "SELECT 1 AS a", "result_table": table}
    document = {"version": 1, "scratch_suffix": "x_1_1", "statements": [statement]}
    with data_process(document, dsn, folder, Run()) as database:
        database.check_result(0)
