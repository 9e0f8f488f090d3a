"""Sends rows that a statement computed, in the form of a database's result set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlflow_submitter.connect.database import Batch, ColumnInfo
from sqlflow_submitter.connect.sqlite import decode
from sqlflow_submitter.rows import head_of, rows_of
from sqlflow_submitter.statement import StatementChannel


def send_rows(names: Sequence[str], columns: Sequence[Sequence[Any]], channel: StatementChannel) -> None:
    """Sends a result set, given by column. Without columns it has no rows. The values of a column decide its kind."""
    described = [ColumnInfo(name, "", decode) for name in names]
    channel.send(head_of(described))
    if columns:
        channel.send(rows_of(described, Batch(len(columns[0]), columns)))
