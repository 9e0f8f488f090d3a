"""Sends rows that a statement computed, in the form of a database's result set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlflow_submitter.connect.database import Batch, ColumnInfo
from sqlflow_submitter.connect.sqlite import decode
from sqlflow_submitter.rows import encode_head, encode_rows
from sqlflow_submitter.statement import StatementChannel


def send_rows(names: Sequence[str], columns: Sequence[Sequence[Any]], channel: StatementChannel) -> None:
    """Sends a result set, given by column. Without columns it has no rows. The values of a column decide its kind."""
    described = [ColumnInfo(name, "", decode) for name in names]
    channel.head(encode_head(described))
    if columns:
        channel.rows(encode_rows(described, Batch(len(columns[0]), columns)))
