"""Loads a select into a matrix, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlflow_submitter.connect.database import Batch, ColumnInfo, Database, Kind, ResultSet, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.encode import Columns
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.statement import StatementChannel


def open_select(database: Database, select: str) -> ResultSet:
    """Executes a select and gives its result set.

    Raises:
        UserError: the statement is none that returns rows.
    """
    for result in database.execute(select):
        if isinstance(result, ResultSet):
            return result
    raise UserError("the select returns no rows and no columns: is it a SELECT?")


def load(
    result: ResultSet,
    columns: Iterable[str],
    take: Callable[[Columns], None],
    labels: LabelReader,
    channel: StatementChannel,
    phase: str = "load",
) -> None:
    """Hands all rows of a result set on, batch by batch.

    Args:
        result: the opened select.
        columns: those that are needed, besides the label.
        take: takes a batch, given by column name.
        labels: takes the label column.
        channel: told the progress.
        phase: name of the progress.

    Raises:
        UserError: the select returned no row, or a value is none that its feature can read.
    """
    places = locate("column", dict.fromkeys([*columns, labels.column]), result.names())
    rows = 0
    for batch in result.batches():
        columns_of_batch = decoded(result, batch, places)
        labels.add(columns_of_batch[labels.column])
        take(columns_of_batch)
        rows += batch.rows
        channel.progress(phase, rows, 0, "rows")
    if not rows:
        raise UserError("the select returned no rows")
    channel.progress(phase, rows, rows, "rows")


def decoded(result: ResultSet, batch: Batch, places: Mapping[str, int]) -> dict[str, Values]:
    """Gives columns of a batch by name, alike in every database."""
    return {name: _alike(result.columns[place], batch.raw[place]) for name, place in places.items()}


def _alike(column: ColumnInfo, raw: Sequence[Any]) -> Values:
    values = column.decode(raw)
    if column.database_type.startswith("character(") and values.kind is Kind.TEXT:
        # PostgreSQL pads a CHAR(n) with blanks that mean nothing; others do not show them.
        return Values(Kind.TEXT, [None if value is None else value.rstrip(" ") for value in values.values])
    return values


def tell(warnings: Iterable[str], channel: StatementChannel) -> None:
    """Prints what was taken as missing, and the like."""
    for warning in warnings:
        channel.say(f"warning: {warning}")
