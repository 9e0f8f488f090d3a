"""Runs a step from its document to its exit code."""

from __future__ import annotations

import os
import sys

from sqlflow_submitter.channel import DESCRIPTOR_VARIABLE, AgentChannel, Channel
from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError, one_line, shortened
from sqlflow_submitter.frames import Failure, Frame
from sqlflow_submitter.redact import Redactor
from sqlflow_submitter.spans import attach_context
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step, first_word, load_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sqlflow_submitter.connect.database import Database

SECRET = "db_conn_str"
MAX_MESSAGE = 2_000
MAX_DETAIL = 64 * 1024
"""Limits for the message and the detail of a failure, in characters."""


def run_step(path: str) -> None:
    """Runs the step of a document. Returns if all its statements succeeded; otherwise exits the process with status 1.

    Before it exits, it sends a Failure frame, and the agent appends the failure's message to standard error. Without an
    agent the message is printed.
    """
    redactor = Redactor()
    channel: Channel | None = None
    statement: Statement | None = None
    try:
        from sqlflow_submitter.connect import connect

        channel = open_channel()
        step = load_step(path)
        dsn = channel.secrets().get(SECRET, "")
        redactor.add_dsn(dsn)
        attach_context()
        with connect(dsn, step.replay, may_create=bool(step.clean_up) or step.may_create_table()) as database:
            link = os.environ.pop("SQLFLOW_COMPANION_FD", None)
            if link is not None:
                from sqlflow_submitter.link import open_link

                database.link = open_link(link)
            if step.clean_up:
                from sqlflow_submitter.extended.clean_up import clean_up

                clean_up(step, step.clean_up, database)
                return
            for statement in step.statements:
                statement_channel = StatementChannel(channel, statement.index)
                with statement_channel.spans.span(f"statement {statement.kind}"):
                    run_statement(statement, step, database, statement_channel)
            statement = None
    except Exception as error:
        _report_failure(error, channel, statement, redactor)


def open_channel() -> Channel:
    """Opens the channel to the agent, or a console if the program was started by hand."""
    descriptor = os.environ.pop(DESCRIPTOR_VARIABLE, None)
    if descriptor is None:
        from sqlflow_submitter.console import Console

        return Console()
    if not descriptor.isdigit():
        raise SubmitterError(f"cannot open the agent's channel: {DESCRIPTOR_VARIABLE} is not a number: {descriptor}")
    return AgentChannel(int(descriptor))


def run_statement(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Runs one statement, and sends the frames that mark its start and its end."""
    if database.link is None:
        channel.started(statement.repeatable)
    try:
        rows_affected = _run(statement, step, database, channel)
        if database.link is None:
            channel.ended(rows_affected)
    except UserError as error:
        # DROP gets no suggestions: the user might drop another table or column by mistake.
        word = first_word(statement.sql)
        if word != "DROP" and not (word == "ALTER" and error.missing_column):
            database.add_suggestions(error, statement.sql)
        if statement.hint:
            error.args = (f"{error}; {statement.hint}",)
        raise


def _run(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> int | None:
    """Runs one statement. Returns the number of rows that it changed, if known."""
    if statement.kind == "standard":
        from sqlflow_submitter.standard import run_standard

        return run_standard(statement.sql, database, channel)
    from sqlflow_submitter.extended import run_extended

    if step.later_statements:
        from sqlflow_submitter.extended.precheck import check_later_statements

        with channel.spans.span("check ahead"):
            check_later_statements(statement, step.later_statements, database)
    run_extended(statement, step, database, channel)
    return None


def _report_failure(
    error: Exception, channel: Channel | None, statement: Statement | None, redactor: Redactor
) -> NoReturn:
    message = str(error)
    if not isinstance(error, SubmitterError):
        message = f"the submitter failed: {type(error).__name__}: {error}"
    # A database's message may quote the whole statement.
    failure = Failure(shortened(redactor.redact(one_line(message)), MAX_MESSAGE))
    if isinstance(error, SubmitterError):
        failure.user_error = error.user_error
        failure.transient = error.retryable
        failure.unclear = error.unclear
        failure.peer_lost = error.peer_lost
        failure.not_executed = error.not_executed and not error.unclear
    else:
        failure.unclear = True
    if not isinstance(error, UserError | CommitRefused):
        import traceback

        failure.detail = redactor.redact("".join(traceback.format_exception(error)))[-MAX_DETAIL:]
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
