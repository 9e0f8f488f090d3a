"""Runs a step from its document to its exit code."""

from __future__ import annotations

import os
import sys

from sqlflow_submitter.channel import CHANNEL_VARIABLE, LINK_VARIABLE, AgentChannel, Channel, inherited
from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError, one_line, shortened
from sqlflow_submitter.frames import Failure, Frame
from sqlflow_submitter.spans import attach_context
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step, load_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sqlflow_submitter.database import Database

MAX_MESSAGE = 2_000
MAX_DETAIL = 64 * 1024
"""Limits for the message and the detail of a failure, in characters."""


def run_step(path: str) -> None:
    """Runs the step of a document. Returns if all its statements succeeded; otherwise exits the process with status 1.

    Before it exits, it sends a Failure frame, and the agent appends the failure's message to standard error. Without an
    agent the message is printed.
    """
    channel: Channel | None = None
    statement: Statement | None = None
    has_data_process = LINK_VARIABLE in os.environ
    try:
        channel = open_channel()
        channel.start()
        step = load_step(path)
        attach_context()
        database = open_database()
        for statement in step.statements:
            statement_channel = StatementChannel(channel, statement.index)
            with statement_channel.spans.span(f"statement {statement.kind}"):
                run_statement(statement, step, database, statement_channel)
        statement = None
    except Exception as error:
        _report_failure(error, channel, statement, has_data_process=has_data_process)


def open_channel() -> Channel:
    """Opens the channel to the agent, or a console if the program was started by hand."""
    descriptor = inherited(CHANNEL_VARIABLE, "the agent's channel")
    if descriptor is None:
        from sqlflow_submitter.console import Console

        return Console()
    return AgentChannel(descriptor)


def open_database() -> Database | None:
    """Returns the database, if the data process stands beside this process."""
    descriptor = inherited(LINK_VARIABLE, "the link to the data process")
    if descriptor is None:
        return None
    from sqlflow_submitter.database import Database
    from sqlflow_submitter.link import Link

    return Database(Link(descriptor))


def run_statement(statement: Statement, step: Step, database: Database | None, channel: StatementChannel) -> None:
    """Runs one statement. If there is no data process, sends the frames that mark its start and its end."""
    if database is None:
        channel.started(statement.repeatable)
    try:
        _run(statement, step, database, channel)
    except UserError as error:
        error.suggest()
        raise
    if database is None:
        channel.ended()


def _run(statement: Statement, step: Step, database: Database | None, channel: StatementChannel) -> None:
    from sqlflow_submitter.extended import run_extended

    if step.later_statements and database is not None:
        from sqlflow_submitter.extended.precheck import check_later_statements

        with channel.spans.span("check ahead"):
            check_later_statements(statement, step.later_statements, database)
    run_extended(statement, step, database, channel)


def _report_failure(
    error: Exception, channel: Channel | None, statement: Statement | None, *, has_data_process: bool
) -> NoReturn:
    message = str(error)
    if not isinstance(error, SubmitterError):
        message = f"the submitter failed: {type(error).__name__}: {error}"
    # A database's message may quote the whole statement.
    failure = Failure(shortened(one_line(message), MAX_MESSAGE))
    if isinstance(error, SubmitterError):
        failure.user_error = error.user_error
        failure.transient = error.retryable
        failure.peer_lost = error.peer_lost
    # The data process makes an effect visible only after this process has succeeded.
    failure.not_executed = has_data_process
    failure.unclear = not has_data_process and not isinstance(error, SubmitterError)
    if not isinstance(error, UserError | CommitRefused):
        import traceback

        failure.detail = "".join(traceback.format_exception(error))[-MAX_DETAIL:]
    import contextlib

    # The agent reads both before it appends the message.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    is_printed = False
    if channel is not None:
        failure.unprinted = True
        # If the agent has exited, only the line on standard error remains.
        with contextlib.suppress(OSError):
            channel.send(Frame(failure, statement.index if statement else None))
            is_printed = isinstance(channel, AgentChannel)
    if not is_printed:
        print(failure.message, file=sys.stderr, flush=True)
    # Exit at once: threads and atexit handlers of user code must not change the exit code or keep the process alive.
    os._exit(1)
