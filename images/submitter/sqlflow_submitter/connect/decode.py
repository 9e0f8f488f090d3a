"""Decodes the values that MySQL and PostgreSQL print. Each function takes a column's raw values, bytes or None.

A column without NULLs is decoded by one `map` in C. A None raises TypeError, and a slower loop is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TypeVar

from sqlflow_submitter.connect.database import Kind, Values

T = TypeVar("T")
Raw = Sequence[bytes | None]

EPOCH_DAY = date(1970, 1, 1).toordinal()
EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MICROS_PER_DAY = 86_400_000_000


def ints(raw: Raw) -> Values:
    return Values(Kind.INT, _each(int, raw))


def floats(raw: Raw) -> Values:
    return Values(Kind.FLOAT, _each(float, raw))


def blobs(raw: Raw) -> Values:
    return Values(Kind.BLOB, raw)


def decimals(raw: Raw) -> Values:
    return Values(Kind.DECIMAL, _each(bytes.decode, raw))


def texts(raw: Raw) -> Values:
    """Texts. Values that are not UTF-8 stay bytes."""
    try:
        return Values(Kind.TEXT, _each(bytes.decode, raw))
    except UnicodeDecodeError:
        return Values(Kind.MIXED, _each(_text_or_bytes, raw))


def dates(raw: Raw) -> Values:
    """Days. A column of a batch with a date outside Python's calendar (`infinity`, `0000-00-00`, `… BC`) stays text."""
    return _or_texts(Kind.DATE, _day, raw)


def timestamps(raw: Raw) -> Values:
    return _or_texts(Kind.TIMESTAMP, _micros, raw)


def timestamps_in(zone: tzinfo) -> Callable[[Raw], Values]:
    """Returns a decoder of local times of a zone. If a clock was set back, an hour that occurs twice is the first."""

    def micros(value: bytes) -> int:
        return (datetime.fromisoformat(value.decode()).replace(tzinfo=zone) - EPOCH_UTC) // MICROSECOND

    return lambda raw: _or_texts(Kind.TIMESTAMP_UTC, micros, raw)


def timestamps_with_zone(raw: Raw) -> Values:
    return _or_texts(Kind.TIMESTAMP_UTC, _micros_utc, raw)


def _each(decode: Callable[[bytes], T], raw: Raw) -> Sequence[T | None]:
    try:
        return list(map(decode, raw))  # type: ignore[arg-type]
    except TypeError:
        return [None if value is None else decode(value) for value in raw]


def _or_texts(kind: Kind, decode: Callable[[bytes], int], raw: Raw) -> Values:
    try:
        return Values(kind, [None if value is None else decode(value) for value in raw])
    except ValueError:
        return texts(raw)


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _day(value: bytes) -> int:
    return date.fromisoformat(value.decode()).toordinal() - EPOCH_DAY


def _micros(value: bytes) -> int:
    moment = datetime.fromisoformat(value.decode())
    seconds = (moment.hour * 60 + moment.minute) * 60 + moment.second
    return (moment.toordinal() - EPOCH_DAY) * MICROS_PER_DAY + seconds * 1_000_000 + moment.microsecond


def _micros_utc(value: bytes) -> int:
    return (datetime.fromisoformat(value.decode()) - EPOCH_UTC) // MICROSECOND
