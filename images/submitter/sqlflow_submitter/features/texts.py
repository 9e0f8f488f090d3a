"""What a text may stand for: a number, a date, a list, or a value that is missing."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

EPOCH_DAY = date(1970, 1, 1).toordinal()
MICROS_PER_DAY = 86_400_000_000

MISSING_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "?", "-", "--", "."})
"""Texts that are a missing value where all others are numbers, dates or lists; compared without case and blanks."""

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
BOOLEANS = {word[:end]: value for word, value in _WORDS.items() for end in range(1, len(word) + 1)} | {
    "1": True,
    "0": False,
}
"""Texts that stand for a boolean where the declared type is one: SQLite keeps them as they are written.

As in PostgreSQL: a word, or the beginning of one word only, in any case."""
del BOOLEANS["o"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
NUMBER = re.compile(rf"\s*{_NUMBER}\s*", re.ASCII)
WHOLE = re.compile(r"\s*[-+]?\d+\s*", re.ASCII)
WHOLE_DECIMAL = re.compile(r"[-+]?\d+(?:\.0*)?", re.ASCII)
NUMBERS = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER})+\s*", re.ASCII)
PAIRS = re.compile(rf"\s*\d+:{_NUMBER}(?:[\s,]+\d+:{_NUMBER})*\s*", re.ASCII)
PAIR = re.compile(rf"\s*\d+:{_NUMBER}\s*", re.ASCII)
CODE = re.compile(r"\s*[-+]?0\d", re.ASCII)
"""How a number begins that is a code, such as 007: as numbers, 01 and 1 would be the same."""
TIME = re.compile(r"\s*-?\d{1,3}:\d\d(?::\d\d(?:\.\d+)?)?(?:[-+]\d\d(?::?\d\d)?)?\s*", re.ASCII)
NOT_FINITE = re.compile(r"\s*[-+]?inf(?:inity)?\s*", re.IGNORECASE)
_TIME = r"[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?\s?(?:Z|[-+]\d\d(?::?\d\d){0,2})?"
DATE = re.compile(rf"\s*(\d{{4,6}})-(\d\d)-(\d\d)({_TIME})?( BC)?\s*", re.ASCII)
OTHER_DATE = re.compile(
    rf"\s*(?:\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}|\d{{4}}[/.]\d{{1,2}}[/.]\d{{1,2}})(?:{_TIME})?\s*", re.ASCII
)
"""Dates of which nobody can tell what is the day and what the month, or that are no ISO dates."""


class Form(Enum):
    """What a text stands for."""

    NUMBER = "number"
    DATE = "date"
    NUMBERS = "list of numbers"
    CODE = "number with leading zeros"
    PAIR = "single index:value"
    """By itself, it may as well be a time or a ratio."""
    PAIRS = "list of index:value"
    MISSING = "missing value"
    WORDS = "text"


def form_of(text: str) -> Form:
    """Tells what a text by itself looks like. `infinity` counts as missing: it is no number to learn from."""
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
    """Whether the form of a text is MISSING."""
    return is_missing(text) or NOT_FINITE.fullmatch(text) is not None


MAX_EXACT_DIGITS = 300
"""Longer whole numbers are read as floats: infinite ones, but for leading zeros."""


def number(text: str) -> int | float | None:
    """Reads a number, infinite where it is too large for 64 bits; None where the text is none."""
    if WHOLE.fullmatch(text) and len(text) <= MAX_EXACT_DIGITS:
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else None


def micros(text: str) -> int | None:
    """Reads an ISO date or timestamp as microseconds since 1970, in UTC where it has a zone.

    The calendar is the Gregorian one, also for years before 1, which end in BC as in PostgreSQL, and after 9999.

    None where the text is no date, or one that no calendar or 64 bits have.
    """
    match = DATE.fullmatch(text)
    if match is None:
        return None
    moment: datetime | time
    try:
        moment = datetime.fromisoformat(text.strip())
        days = moment.toordinal() - EPOCH_DAY
    except ValueError:
        # Of a year that Python does not have, with a blank before the zone, or wrong.
        year, month, day, clock, before_christ = match.groups()
        try:
            days = _days(1 - int(year) if before_christ else int(year), int(month), int(day))
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


def _days(year: int, month: int, day: int) -> int:
    """Gives the days since 1970, of any year: the calendar repeats every 400 years."""
    cycles, year = divmod(year, 400)
    return date(year + 400, month, day).toordinal() + (cycles - 1) * 146_097 - EPOCH_DAY


def is_never_missing(value: Any) -> bool:
    """Tells whether a value of a column is missing by no rule, whatever the others are."""
    if isinstance(value, str):
        match form_of(value):
            case Form.MISSING:
                return False
            case Form.DATE:
                return micros(value) is not None
            case Form.NUMBER | Form.CODE:
                value = number(value)
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
