"""Loads a select into a matrix, in one pass over its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlflow_submitter.connect.database import Batch, ColumnInfo, Database, Kind, ResultSet, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.encode import Columns
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.statement import StatementChannel

TIME_TYPE = re.compile(r"time\b", re.IGNORECASE)
ENDING_ZEROS = re.compile(r"(:\d\d)(?:\.0+|(\.\d*?)0+)(?=$|[-+])", re.ASCII)
"""Zeros at the end of a time's fraction, and the whole fraction where it has no other digit."""


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
    described: Sequence[ColumnInfo],
    take: Callable[[Columns], None],
    labels: LabelReader,
    channel: StatementChannel,
    phase: str = "load",
) -> None:
    """Hands all rows of a result set on, batch by batch.

    Args:
        result: the opened select.
        columns: those that are needed, besides the label.
        described: the columns of the select, as the database describes them.
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
        columns_of_batch = decode_columns(result, batch, places, described)
        labels.add(columns_of_batch[labels.column])
        take(columns_of_batch)
        rows += batch.rows
        channel.progress(phase, rows, 0, "rows")
    if not rows:
        raise UserError("the select returned no rows")
    channel.progress(phase, rows, rows, "rows")


def decode_columns(
    result: ResultSet, batch: Batch, places: Mapping[str, int], described: Sequence[ColumnInfo]
) -> dict[str, Values]:
    """Gives columns of a batch by name, alike in every database.

    `described` has the declared types: the rows that SQLite gives have none.
    """
    types = [column.database_type for column in described]
    return {
        # A table may have got a column since.
        name: _normalized(result.columns[place], types[place] if place < len(types) else "", batch.raw[place])
        for name, place in places.items()
    }


def _normalized(column: ColumnInfo, declared_type: str, raw: Sequence[Any]) -> Values:
    values = column.decode(raw)
    if values.kind is not Kind.TEXT:
        return values
    own_type = column.database_type
    if own_type.startswith("character("):
        # PostgreSQL pads a CHAR(n) with blanks that mean nothing; others do not show them.
        return Values(Kind.TEXT, [None if value is None else value.rstrip(" ") for value in values.values])
    if own_type == "bit":
        # PostgreSQL prints binary digits where MySQL has a number.
        return Values(Kind.INT, [None if value is None else int(value, 2) for value in values.values])
    if declared(own_type) is Declared.DATE:
        # One date that Python's calendar does not hold makes texts of a whole batch.
        return Values(column.decode([None]).kind, [column.decode([value]).values[0] for value in raw])
    if TIME_TYPE.match(declared_type):
        # MySQL and SQLite keep zeros at a fraction's end.
        times = (value and ENDING_ZEROS.sub(r"\1\2", value) for value in values.values)
        return Values(Kind.TEXT, list(times))
    return values


def print_warnings(warnings: Iterable[str], channel: StatementChannel) -> None:
    """Prints what was taken as missing, and the like."""
    for warning in warnings:
        channel.print_line(f"warning: {warning}")
