"""Loads a select into a matrix, in one pass over its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlflow_submitter.connect.database import Batch, ColumnInfo, Database, Kind, ResultSet, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.encode import EPOCH, Columns
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.features.texts import micros
from sqlflow_submitter.link import STATEMENT
from sqlflow_submitter.statement import StatementChannel

TIME_TYPE = re.compile(r"time\b", re.IGNORECASE)
TIMESTAMP_TYPE = re.compile(r"(datetime|timestamp)\b", re.IGNORECASE)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
"""The form of most timestamps, which needs no conversion."""
TRAILING_ZEROS = re.compile(r"(:\d\d)(?:\.0+|(\.\d*?)0+)(?=$|[-+])", re.ASCII)
"""Trailing zeros of a time's fraction, or the whole fraction if all its digits are zeros."""


def open_select(
    database: Database, select: str, name: str = STATEMENT, on_rows: Callable[[int], None] = lambda rows: None
) -> ResultSet:
    """Executes a select and returns its result set.

    Args:
        database: the database.
        select: the select.
        name: its name for the data process.
        on_rows: called with the number of rows that the data process has read so far.

    Raises:
        UserError: the statement returns no result set.
    """
    if database.link is not None:
        from sqlflow_submitter.column_file import FileResultSet

        database.link.request_rows(name)
        return FileResultSet(*database.link.rows(on_rows))
    for result in database.read(select):
        if isinstance(result, ResultSet):
            return result
    raise UserError("cannot read the select: it returns no result set; write a SELECT")


def load(
    result: ResultSet,
    columns: Iterable[str],
    described: Sequence[ColumnInfo],
    take: Callable[[Columns], None],
    labels: LabelReader,
    channel: StatementChannel,
    phase: str = "load",
) -> None:
    """Passes all rows of a result set on, batch by batch.

    Args:
        result: the opened select.
        columns: the required columns, without the label.
        described: the columns of the select, as the database describes them.
        take: called with each batch, given by column name.
        labels: receives the label column.
        channel: receives progress.
        phase: name of the progress.

    Raises:
        UserError: the select returned no rows, or a value cannot be read.
    """
    places = locate("column", dict.fromkeys([*columns, labels.column]), result.names())
    rows = 0
    for batch in result.batches():
        columns_of_batch = decode_columns(result, batch, places, described)
        labels.add(columns_of_batch[labels.column])
        take(columns_of_batch)
        rows += batch.rows
        channel.progress(phase, rows, 0, "rows")
    end_of_rows(rows, phase, channel)


def end_of_rows(rows: int, phase: str, channel: StatementChannel) -> None:
    """Reports that a phase has read all rows.

    Raises:
        UserError: there were none.
    """
    if not rows:
        raise UserError("the select returned no rows")
    channel.progress(phase, rows, rows, "rows")


def decode_columns(
    result: ResultSet, batch: Batch, places: Mapping[str, int], described: Sequence[ColumnInfo]
) -> dict[str, Values]:
    """Returns columns of a batch by name. The same data gives the same values in every database.

    `described` has what result sets lack: SQLite's declared types, and the time zone of MySQL's session.
    """
    return {
        # A column may have been added to the table since.
        name: _normalized(result.columns[place], described[place] if place < len(described) else None, batch.raw[place])
        for name, place in places.items()
    }


def _normalized(column: ColumnInfo, described: ColumnInfo | None, raw: Sequence[Any]) -> Values:
    declared_type = described.database_type if described else ""
    if described and declared_type == column.database_type:
        column = described
    is_decoded = isinstance(raw, Values)
    values = raw if isinstance(raw, Values) else column.decode(raw)
    if values.kind is not Kind.TEXT:
        return values
    own_type = column.database_type
    if own_type.startswith("character("):
        # PostgreSQL pads CHAR(n) with spaces; other databases do not return them.
        return Values(Kind.TEXT, [None if value is None else value.rstrip(" ") for value in values.values])
    if own_type == "bit":
        # PostgreSQL prints binary digits, and MySQL returns a number.
        return Values(Kind.INT, [None if value is None else int(value, 2) for value in values.values])
    if declared(own_type) is Declared.DATE:
        # A date outside Python's calendar turns the whole batch into texts: decode each value by itself.
        if is_decoded:
            raw = [None if value is None else value.encode() for value in values.values]
        return Values(column.decode([None]).kind, [column.decode([value]).values[0] for value in raw])
    if TIMESTAMP_TYPE.match(declared_type):
        # SQLite stores them as texts; other databases print each moment in one form only.
        return Values(Kind.TEXT, [value and _moment(value) for value in values.values])
    if TIME_TYPE.match(declared_type):
        # MySQL and SQLite keep the trailing zeros of a fraction.
        times = (value and TRAILING_ZEROS.sub(r"\1\2", value) for value in values.values)
        return Values(Kind.TEXT, list(times))
    return values


def _moment(text: str) -> str:
    """Formats a timestamp as `text_of` does for other databases. Another text is unchanged."""
    if MOMENT.fullmatch(text):
        return text
    found = micros(text)
    try:
        return text if found is None else str(EPOCH + timedelta(microseconds=found))
    except OverflowError:
        return text


def print_warnings(warnings: Iterable[str], channel: StatementChannel) -> None:
    """Prints warnings, such as which values were read as missing."""
    for warning in warnings:
        channel.print_line(f"warning: {warning}")
