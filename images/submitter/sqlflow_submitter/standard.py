"""Runs a standard statement and sends what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlflow_submitter.connect.database import Database, ResultSet
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.rows import encode_head, encode_rows
from sqlflow_submitter.statement import StatementChannel


def run_standard(sql: str, database: Database, channel: StatementChannel) -> int | None:
    """Runs one statement as the database's own command line would; gives the number of rows that it changed.

    The number is None where the statement returned rows, or where the database does not tell.
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
    """Sends a result set: its head, also when there are no rows, and its rows in batches as they come."""
    with _marked_unclear():
        channel.head(encode_head(result.columns))
    # What the database says here is its word on the statement.
    for batch in result.batches():
        with _marked_unclear():
            channel.rows(encode_rows(result.columns, batch))


@contextmanager
def _marked_unclear() -> Iterator[None]:
    """Marks what goes wrong: the database has done what it was asked to, only what it returned cannot be shown."""
    try:
        yield
    except SubmitterError as error:
        error.unclear = True
        raise
