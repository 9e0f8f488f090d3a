"""Classifies texts: numbers, dates, lists, missing values and words."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

EPOCH_DAY = date(1970, 1, 1).toordinal()
MICROS_PER_DAY = 86_400_000_000

MISSING_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "?", "-", "--", "."})
"""Texts that mean a missing value if all others are numbers, dates or lists. Case and whitespace do not matter."""

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
BOOLEANS = {word[:end]: value for word, value in _WORDS.items() for end in range(1, len(word) + 1)} | {
    "1": True,
    "0": False,
}
"""Texts that mean a boolean in a column declared as boolean, where SQLite stores them unchanged.

The rule is PostgreSQL's: a word or an unambiguous prefix of it, in any case."""
del BOOLEANS["o"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
NUMBER = re.compile(rf"\s*{_NUMBER}\s*", re.ASCII)
WHOLE = re.compile(r"\s*[-+]?\d+\s*", re.ASCII)
WHOLE_DECIMAL = re.compile(r"[-+]?\d+(?:\.0*)?", re.ASCII)
NUMBERS = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER})+\s*", re.ASCII)
PAIRS = re.compile(rf"\s*\d+:{_NUMBER}(?:[\s,]+\d+:{_NUMBER})*\s*", re.ASCII)
PAIR = re.compile(rf"\s*\d+:{_NUMBER}\s*", re.ASCII)
CODE = re.compile(r"\s*[-+]?0\d", re.ASCII)
"""The beginning of a number that is a code, such as 007. As numbers, 01 and 1 would be equal."""
TIME = re.compile(r"\s*-?\d{1,3}:\d\d(?::\d\d(?:\.\d+)?)?(?:[-+]\d\d(?::?\d\d)?)?\s*", re.ASCII)
NOT_FINITE = re.compile(r"\s*[-+]?inf(?:inity)?\s*", re.IGNORECASE)
_TIME = r"[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?\s?(?:Z|[-+]\d\d(?::?\d\d){0,2})?"
DATE = re.compile(rf"\s*(\d{{4,7}})-(\d\d)-(\d\d)({_TIME})?( BC)?\s*", re.ASCII)
OTHER_DATE = re.compile(
    rf"\s*(?:\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}|\d{{4}}[/.]\d{{1,2}}[/.]\d{{1,2}})(?:{_TIME})?\s*", re.ASCII
)
"""Dates that are not ISO dates; day and month may be ambiguous."""


class Form(Enum):
    """The form of a text."""

    NUMBER = "number"
    DATE = "date"
    NUMBERS = "list of numbers"
    CODE = "number with leading zeros"
    PAIR = "single index:value"
    """A single pair may also be a time or a ratio."""
    PAIRS = "list of index:value"
    MISSING = "missing value"
    WORDS = "text"


def form_of(text: str) -> Form:
    """Returns the form of a text by itself. `infinity` counts as missing, because a model cannot learn from it."""
    if NUMBER.fullmatch(text):
        return Form.CODE if CODE.match(text) else Form.NUMBER
    if is_missing_form(text):
        return Form.MISSING
    if DATE.fullmatch(text):
        return Form.DATE
    if NUMBERS.fullmatch(text):
        return Form.NUMBERS
    if PAIR.fullmatch(text):
        return Form.PAIR
    return Form.PAIRS if PAIRS.fullmatch(text) else Form.WORDS


def is_missing(text: str) -> bool:
    return text.strip().casefold() in MISSING_WORDS


def is_missing_form(text: str) -> bool:
    """Returns whether the form of a text is MISSING."""
    return is_missing(text) or NOT_FINITE.fullmatch(text) is not None


MAX_EXACT_DIGITS = 300
"""Longer whole numbers are read as floats, which are infinite unless they begin with zeros."""


def number(text: str) -> int | float | None:
    """Parses a number. It is infinite if it is too large for 64 bits, and None if the text is not a number."""
    if WHOLE.fullmatch(text) and len(text) <= MAX_EXACT_DIGITS:
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else None


def micros(text: str) -> int | None:
    """Parses an ISO date or timestamp as microseconds since 1970, in UTC if it has a time zone.

    The calendar is Gregorian, also for years before 1, which end in BC as in PostgreSQL, and for years after 9999.

    Returns None if the text is not a date, or if the date does not exist or exceeds 64 bits.
    """
    match = DATE.fullmatch(text)
    if match is None:
        return None
    moment: datetime | time
    try:
        moment = datetime.fromisoformat(text.strip())
        days = moment.toordinal() - EPOCH_DAY
    except ValueError:
        # The year is outside Python's calendar, a space precedes the time zone, or the text is not a date.
        year, month, day, clock, is_bc = match.groups()
        try:
            days = _days(1 - int(year) if is_bc else int(year), int(month), int(day))
            moment = time.fromisoformat(clock[1:].replace(" ", "")) if clock else time()
        except ValueError:
            return None
        if not int(year):
            return None
    seconds = (moment.hour * 60 + moment.minute) * 60 + moment.second
    found = days * MICROS_PER_DAY + seconds * 1_000_000 + moment.microsecond
    if (offset := moment.utcoffset()) is not None:
        found -= offset // timedelta(microseconds=1)
    return found if -(2**63) <= found < 2**63 else None


FAR_YEARS = 290_000
"""Dates as many years from 1970 may exceed 64 bits."""


def is_far_date(text: str) -> bool:
    """Returns whether a text is a date whose year is so far away that microseconds may exceed 64 bits."""
    match = DATE.fullmatch(text)
    return match is not None and int(match.group(1)) >= FAR_YEARS


def _days(year: int, month: int, day: int) -> int:
    """Returns the days since 1970 for any year, because the calendar repeats every 400 years."""
    cycles, year = divmod(year, 400)
    return date(year + 400, month, day).toordinal() + (cycles - 1) * 146_097 - EPOCH_DAY


def is_never_missing(value: Any) -> bool:
    """Returns whether a value is never read as missing, whatever the column's other values are."""
    if isinstance(value, str):
        match form_of(value):
            case Form.MISSING:
                return False
            case Form.DATE:
                return micros(value) is not None
            case Form.NUMBER | Form.CODE:
                value = number(value)
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
