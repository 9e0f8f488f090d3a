"""Sends rows that a statement computed, in the form of a database's result set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlflow_submitter.frames import Head
from sqlflow_submitter.rows import Rows
from sqlflow_submitter.statement import StatementChannel

if TYPE_CHECKING:
    from sqlflow_submitter.database import Database


def send_rows(
    names: Sequence[str], columns: Sequence[Sequence[Any]], database: Database | None, channel: StatementChannel
) -> None:
    """Sends a result set, given by column, through the data process if there is one. No columns: it has no rows."""
    if database is not None:
        database.show(names, columns)
        return
    channel.send(Head(names, [""] * len(names)))
    if columns:
        channel.send(Rows(columns))
