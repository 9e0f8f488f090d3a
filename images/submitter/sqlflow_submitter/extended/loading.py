"""Loads a select into a matrix, in one pass over its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.encode import EPOCH, Columns
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.features.texts import micros
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.values import Batch, ColumnInfo, Kind, ResultSet, Values

MICROSECOND = timedelta(microseconds=1)
TIME_TYPE = re.compile(r"time\b", re.IGNORECASE)
TIMESTAMP_TYPE = re.compile(r"(datetime|timestamp)\b", re.IGNORECASE)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
"""The form of most timestamps, which needs no conversion."""
TRAILING_ZEROS = re.compile(r"(:\d\d)(?:\.0+|(\.\d*?)0+)(?=$|[-+])", re.ASCII)
"""Trailing zeros of a time's fraction, or the whole fraction if all its digits are zeros."""


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

    `described` has what result sets lack: SQLite's declared types.
    """
    return {
        # A column may have been added to the table since.
        name: _normalized(
            result.columns[place], described[place] if place < len(described) else None, batch.columns[place]
        )
        for name, place in places.items()
    }


def _normalized(column: ColumnInfo, described: ColumnInfo | None, values: Values) -> Values:
    declared_type = described.database_type if described else ""
    if described and declared_type == column.database_type:
        column = described
    parse = DATE_PARSERS.get(column.kind) if column.kind else None
    if column.kind and parse and values.kind is Kind.MIXED:
        # Days or microseconds, and texts for what no calendar has.
        return Values(column.kind, values.values)
    if values.kind is not Kind.TEXT:
        return values
    own_type = column.database_type
    if own_type.startswith("character("):
        # PostgreSQL pads CHAR(n) with spaces; other databases do not return them.
        return Values(Kind.TEXT, [None if value is None else value.rstrip(" ") for value in values.values])
    if own_type == "bit":
        # PostgreSQL prints binary digits, and MySQL returns a number.
        return Values(Kind.INT, [None if value is None else int(value, 2) for value in values.values])
    if column.kind and parse:
        # A date outside the calendar turns the whole batch into texts: decode each value by itself.
        return Values(column.kind, list(map(partial(_date, parse), values.values)))
    if TIMESTAMP_TYPE.match(declared_type):
        # SQLite stores them as texts; other databases print each moment in one form only.
        return Values(Kind.TEXT, [value and _moment(value) for value in values.values])
    if TIME_TYPE.match(declared_type):
        # MySQL and SQLite keep the trailing zeros of a fraction.
        times = (value and TRAILING_ZEROS.sub(r"\1\2", value) for value in values.values)
        return Values(Kind.TEXT, list(times))
    return values


def _day(text: str) -> int:
    return (date.fromisoformat(text) - EPOCH.date()).days


def _local(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def _instant(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH.replace(tzinfo=UTC)) // MICROSECOND


DATE_PARSERS: dict[Kind, Callable[[str], int]] = {
    Kind.DATE: _day,
    Kind.TIMESTAMP: _local,
    Kind.TIMESTAMP_UTC: _instant,
}


def _date(parse: Callable[[str], int], text: str | None) -> int | str | None:
    """Returns a text that is no date of the calendar unchanged."""
    try:
        return None if text is None else parse(text)
    except (ValueError, TypeError):
        return text


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
