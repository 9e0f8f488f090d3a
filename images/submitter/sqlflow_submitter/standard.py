"""Runs a standard statement and sends its results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlflow_submitter.connect.database import Database, ResultSet
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.rows import head_of, rows_of
from sqlflow_submitter.statement import StatementChannel


def run_standard(sql: str, database: Database, channel: StatementChannel) -> int | None:
    """Runs one statement as the database's own command-line client would. Returns the number of rows that it changed.

    Returns None if the statement returned rows, or if the database does not report the number.
    """
    affected: int | None = None
    returned_rows = False
    for result in database.execute(sql):
        if isinstance(result, ResultSet):
            returned_rows = True
            send_result_set(result, channel)
        elif result is not None:
            affected = result
    return None if returned_rows else affected


def send_result_set(result: ResultSet, channel: StatementChannel) -> None:
    """Sends a result set: the head, even if there are no rows, and then each batch of rows as it arrives."""
    with _marked_unclear():
        channel.send(head_of(result.columns))
    # An error of `batches` is not marked, because the database reports it about the statement.
    for batch in result.batches():
        with _marked_unclear():
            channel.send(rows_of(result.columns, batch))


@contextmanager
def _marked_unclear() -> Iterator[None]:
    """Marks errors as unclear: the database has executed the statement, but its result cannot be sent."""
    try:
        yield
    except SubmitterError as error:
        error.unclear = True
        raise
