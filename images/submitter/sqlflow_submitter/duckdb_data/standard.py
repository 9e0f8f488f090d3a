"""Runs standard statements, and sends their results."""

from __future__ import annotations

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.duckdb_data.session import SHOWN_ROWS, Session, Shown
from sqlflow_submitter.duckdb_data.shown_rows import encode, encode_values
from sqlflow_submitter.duckdb_data.step import Statement
from sqlflow_submitter.frames import Frame, Head


def execute(session: Session, statement: Statement, channel: Channel) -> int | None:
    """Runs a statement and sends its result set. Returns the number of changed rows, if the database reports it."""
    parsed = session.parse(statement.sql)
    if session.is_select(parsed):
        _select(session, statement, channel)
        return None
    result = session.execute(parsed)
    if not isinstance(result, Shown):
        return result
    channel.send(Frame(Head(result.names, result.types), statement.index))
    for columns in result.columns:
        channel.send(Frame(encode_values(columns), statement.index))
    return None


def _select(session: Session, statement: Statement, channel: Channel) -> None:
    """Sends the rows of a select while it runs. The head waits for the first rows: until then it can be repeated."""
    columns = session.describe(statement.sql)
    head: Frame | None = Frame(Head([it.name for it in columns], [it.database_type for it in columns]), statement.index)
    for batch in session.read(statement.sql, columns, SHOWN_ROWS):
        if head is not None:
            channel.send(head)
            head = None
        for rows in encode(batch, columns):
            channel.send(Frame(rows, statement.index))
    if head is not None:
        channel.send(head)
