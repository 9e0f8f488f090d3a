"""Reads the numbers and dates of a column, and counts missing values.

The rules are the same in training and prediction, and in every database:

- NULL is missing. These are also missing, and a warning has their count: an empty text or one of `texts.MISSING_WORDS`
  among numbers or dates, NaN, an infinite number or date, and a date that does not exist in the calendar.
- Any other value that is not a number or date is an error that names column, row and value. Words such as `yes` and
  `false` are numbers only in a column declared as boolean, because SQLite stores such words there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features import texts
from sqlflow_submitter.features.array_values import ArrayValues
from sqlflow_submitter.features.texts import MICROS_PER_DAY, Form
from sqlflow_submitter.values import DATE_KINDS, NUMERIC_KINDS, Kind, Values

EXACT_FLOAT = 2**53
"""All whole numbers below it are exact as 64-bit floats."""

DATE_ADVICE = "; write dates as 2024-12-31 or 2024-12-31 23:59:59"
BOOLEAN_WORDS = "true, yes, on, 1 or false, no, off, 0"

EMPTY = "empty text or word for a missing value"
NAN = "NaN"
INFINITE = "infinite value"
NO_DATE = "date that no calendar has"
FAR_DATE = "date beyond the year 294246"
UNSEEN = "value that the model has not seen"
NOT_BOOLEAN = "other than 0 and 1 in a boolean column"
UNSEEN_INDEX = "index that the model has not seen"


class Numbers(NamedTuple):
    """Rows of a column: whole numbers as int64, others as float64, dates as microseconds since 1970."""

    values: NDArray[np.int64] | NDArray[np.float64]
    missing: NDArray[np.bool_]
    base: int = 0
    """Must be added to each value. Whole numbers beyond 64 bits are stored as their distance from it."""
    rounded: frozenset[int] = frozenset()
    """Distinct whole numbers that were converted to floats and may have lost precision."""
    has_fractions: bool = False
    """All numbers are whole, and some were written as fractions such as 1.0."""

    def floats(self) -> NDArray[np.float64]:
        """Returns the numbers as floats, with NaN for missing values."""
        if self.values.dtype == np.float64 and not self.base and not self.missing.any():
            return self.values  # type: ignore[return-value]
        # With a base, add Python integers: the sum of two rounded floats would depend on the base.
        floats = (
            np.array([float(value + self.base) for value in self.values.tolist()])
            if self.base
            else self.values.astype(np.float64)
        )
        floats[self.missing] = np.nan
        return floats


class Tally:
    """Counts the values of a column that are read as missing, by reason."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._found: dict[str, tuple[int, int, str]] = {}
        self._notes: dict[str, tuple[int, int, str]] = {}

    def add(self, reason: str, row: int, value: Any, count: int = 1) -> None:
        """Counts a value. `row` counts from 1."""
        before, first_row, first = self._found.get(reason, (0, row, preview(value)))
        if row < first_row:
            first_row, first = row, preview(value)
        self._found[reason] = (before + count, first_row, first)

    def note(self, what: str, row: int, value: Any, count: int) -> None:
        """Counts values that are not missing, but may be wrong."""
        before, first_row, first = self._notes.get(what, (0, row, preview(value)))
        self._notes[what] = (before + count, first_row, first)

    def notes(self) -> list[str]:
        """Returns one sentence for each kind of value that may be wrong."""
        return [
            f"{count} value(s) {what}, read as numbers, first {value} in row {row}"
            for what, (count, row, value) in self._notes.items()
        ]

    def total(self) -> int:
        return sum(count for count, _, _ in self._found.values())

    def sentences(self) -> list[str]:
        """Returns one sentence for each reason."""
        return [
            f"{count} value(s) taken as missing: {reason}, first {value} in row {row}"
            for reason, (count, row, value) in self._found.items()
        ]


class NumberReader:
    """Reads one column, batch by batch. Counts rows, for messages.

    Args:
        column: the column in messages, such as `column x`.
        form: NUMBER, DATE (read as microseconds), or None for both, with dates read as days.
        tally: counts missing values; None means that a missing value is an error, as in a label.
        advice: the end of the message about a value that is not a number.
        is_boolean: whether words for true and false are read as 1 and 0.
        refuses_codes: whether a number with leading zeros is an error.
        is_date: whether messages say that a date is expected.
    """

    def __init__(
        self,
        column: str,
        form: Form | None,
        tally: Tally | None,
        advice: str = "",
        *,
        is_boolean: bool = False,
        refuses_codes: bool = False,
        is_date: bool = False,
    ) -> None:
        self._column = column
        self.form = form
        self._tally = tally
        self._advice = advice
        self._is_boolean = is_boolean
        self._refuses_codes = refuses_codes
        self._noun = "date" if is_date or form is Form.DATE else "number"
        self.rows = 0
        self.nulls = 0
        self.boolean_words = 0
        """If `is_boolean`: number of texts that are words."""
        self.not_boolean = 0
        """If `is_boolean`: number of values other than 0 and 1, which are read as numbers."""

    def read(self, values: Values) -> Numbers:
        """Reads a batch."""
        kind, raw = values
        if kind in NUMERIC_KINDS and self.form is not Form.DATE:
            numbers = self._typed(kind, raw)
        elif kind in DATE_KINDS and self.form is not Form.NUMBER:
            numbers = self._dates(kind, raw)
        else:
            numbers = self._each(kind, raw)
        if self._is_boolean:
            self._count_not_boolean(numbers, raw)
        self.rows += len(raw)
        return numbers

    def _count_not_boolean(self, numbers: Numbers, raw: Sequence[Any]) -> None:
        values = numbers.values + numbers.base
        odd = np.flatnonzero(~numbers.missing & (values != 0) & (values != 1))
        self.not_boolean += len(odd)
        if len(odd) and self._tally is not None:
            self._tally.note(NOT_BOOLEAN, self.rows + int(odd[0]) + 1, raw[int(odd[0])], len(odd))

    def read_texts(self, distinct: Iterable[tuple[int, str, int]]) -> Numbers:
        """Reads distinct texts of earlier batches, each with its first row and its number of rows."""
        return _numbers([self._text(row, text, count) for row, text, count in distinct])

    def _typed(self, kind: Kind, raw: Sequence[Any]) -> Numbers:
        if isinstance(raw, ArrayValues):
            return self._array(kind, raw)
        if kind is Kind.FLOAT:
            return self._floats(np.array(raw, dtype=np.float64), raw)
        if kind is Kind.DECIMAL:
            if not all(value is None or _is_whole(value, texts.WHOLE) for value in raw):
                return self._decimals(raw)
            raw = [None if value is None else int(value) for value in raw]
        missing = np.zeros(len(raw), dtype=np.bool_)
        if None in raw:
            missing = np.array([value is None for value in raw], dtype=np.bool_)
            self.nulls += int(missing.sum())
            raw = [0 if value is None else value for value in raw]
        try:
            return Numbers(np.array(raw, dtype=np.int64), missing)
        except OverflowError:
            return _large(raw, missing)

    def _array(self, kind: Kind, raw: ArrayValues) -> Numbers:
        missing = np.zeros(len(raw), dtype=np.bool_) if raw.missing is None else raw.missing
        if kind is Kind.FLOAT:
            if raw.missing is None and np.isfinite(raw.array).all():
                return Numbers(raw.array, missing)
            return self._floats(np.where(missing, np.nan, raw.array), raw)
        self.nulls += raw.count(None)
        if raw.array.dtype == np.uint64 and (raw.array >= 2**63).any():
            return _large([0 if value is None else value for value in raw], missing)
        return Numbers(raw.array.astype(np.int64), missing)

    def _decimals(self, raw: Sequence[str | None]) -> Numbers:
        floats = np.array([math.nan if value is None else float(value) for value in raw])
        if not (np.abs(floats[np.isfinite(floats)]) >= EXACT_FLOAT).any():
            return self._floats(floats, raw)
        found: list[int | float | None] = []
        for place, value in enumerate(raw):
            if value is None:
                self.nulls += 1
            elif not math.isfinite(floats[place]):
                self._count_missing(INFINITE, self.rows + place + 1, value)
                value = None
            is_whole = value is not None and _is_whole(value, texts.WHOLE_DECIMAL)
            found.append(None if value is None else int(value.partition(".")[0]) if is_whole else float(value))
        return _numbers(found)

    def _floats(self, numbers: NDArray[np.float64], raw: Sequence[Any]) -> Numbers:
        missing = ~np.isfinite(numbers)
        if missing.any():
            for row in np.flatnonzero(missing).tolist():
                if raw[row] is None:
                    self.nulls += 1
                else:
                    value = float(numbers[row])
                    self._count_missing(NAN if math.isnan(value) else INFINITE, self.rows + row + 1, value)
            numbers[missing] = np.nan
        return Numbers(numbers, missing)

    def _dates(self, kind: Kind, raw: Sequence[Any]) -> Numbers:
        self.nulls += raw.count(None)
        if isinstance(raw, ArrayValues):
            missing = np.zeros(len(raw), dtype=np.bool_) if raw.missing is None else raw.missing
            return self._moments(kind, raw.array.astype(np.int64), missing)
        if str in set(map(type, raw)):
            raw = [self._parse_odd_date(kind, place, value) for place, value in enumerate(raw)]
        missing = np.array([value is None for value in raw], dtype=np.bool_)
        values = np.array([0 if value is None else value for value in raw], dtype=np.int64)
        return self._moments(kind, values, missing)

    def _moments(self, kind: Kind, values: NDArray[np.int64], missing: NDArray[np.bool_]) -> Numbers:
        if self.form is None:
            days = values / (1 if kind is Kind.DATE else MICROS_PER_DAY)
            days[missing] = np.nan
            return Numbers(days, missing)
        return Numbers(values * MICROS_PER_DAY if kind is Kind.DATE else values, missing)

    def _parse_odd_date(self, kind: Kind, place: int, value: int | str | None) -> int | None:
        # A date outside Python's calendar comes as a text, such as `infinity` or the year 44 BC.
        if not isinstance(value, str):
            return value
        micros = texts.micros(value)
        if micros is None:
            self._text(self.rows + place + 1, value)
            return None
        return micros // MICROS_PER_DAY if kind is Kind.DATE else micros

    def _each(self, kind: Kind, raw: Sequence[Any]) -> Numbers:
        found: list[int | float | None] = []
        for place, value in enumerate(raw):
            row = self.rows + place + 1
            if value is None:
                self.nulls += 1
                found.append(None)
            elif isinstance(value, str) and kind not in NUMERIC_KINDS:
                found.append(self._text(row, value))
            elif isinstance(value, bytes):
                raise value_error(self._column, row, value, "is binary data, or text that is not UTF-8", self._advice)
            elif self.form is Form.DATE:
                raise value_error(
                    self._column, row, value, "is not a date, as the column's other values are", self._advice
                )
            elif kind in DATE_KINDS:
                raise value_error(self._column, row, value, "is a date; a number is needed, such as days since 1970")
            elif isinstance(value, float) and not math.isfinite(value):
                self._count_missing(NAN if math.isnan(value) else INFINITE, row, value)
                found.append(None)
            else:
                found.append(value)
        return _numbers(found)

    def _text(self, row: int, text: str, count: int = 1) -> int | float | None:
        number = None if self.form is Form.DATE else texts.number(text)
        if number is not None and math.isfinite(number):
            if self._refuses_codes and texts.CODE.match(text):
                what = "has leading zeros like a code, and other values are numbers; CAST the column if all are numbers"
                raise value_error(self._column, row, text, what, self._advice)
            return number
        if self.form is not Form.NUMBER and (micros := texts.micros(text)) is not None:
            return micros if self.form is Form.DATE else micros / MICROS_PER_DAY
        if self._is_boolean and (boolean := texts.BOOLEANS.get(text.strip().lower())) is not None:
            self.boolean_words += count
            return int(boolean)
        if texts.is_missing(text):
            self._count_missing(EMPTY, row, text, count)
        elif number is not None or texts.NOT_FINITE.fullmatch(text):
            self._count_missing(INFINITE, row, text, count)
        elif self.form is not Form.NUMBER and texts.DATE.fullmatch(text):
            self._count_missing(FAR_DATE if texts.is_far_date(text) else NO_DATE, row, text, count)
        else:
            raise value_error(self._column, row, text, self._expected(text), self._advice)
        return None

    def _expected(self, text: str) -> str:
        if self._is_boolean:
            return f"is not a boolean ({BOOLEAN_WORDS})"
        if self.form is Form.DATE or (self.form is None and texts.OTHER_DATE.fullmatch(text)):
            return f"is not a date{DATE_ADVICE}"
        return "is not a number"

    def _count_missing(self, reason: str, row: int, value: Any, count: int = 1) -> None:
        if self._tally is None:
            what = f"is a {reason}" if reason in (NO_DATE, FAR_DATE) else f"is not a {self._noun}"
            raise value_error(self._column, row, value, what)
        self._tally.add(reason, row, value, count)


def _is_whole(text: str, pattern: re.Pattern[str]) -> bool:
    return len(text) <= texts.MAX_EXACT_DIGITS and pattern.fullmatch(text) is not None


def _numbers(found: Sequence[int | float | None]) -> Numbers:
    missing = np.array([value is None for value in found], dtype=np.bool_)
    filled: list[int | float] = [0 if value is None else value for value in found]
    whole = [value for value in filled if isinstance(value, int)]
    if len(whole) == len(filled):
        return _whole(whole, missing)
    large = _large_of(whole)
    if large and all(value == math.floor(value) and abs(value) < EXACT_FLOAT for value in filled if value not in large):
        # As floats, the large ones would lose precision that they keep in a batch without fractions.
        return _whole([int(value) for value in filled], missing)._replace(has_fractions=True)
    floats = np.array(filled, dtype=np.float64)
    floats[missing] = np.nan
    return Numbers(floats, missing, rounded=large)


def _large_of(whole: Iterable[int]) -> frozenset[int]:
    return frozenset(value for value in whole if abs(value) >= EXACT_FLOAT)


def _whole(whole: Sequence[int], missing: NDArray[np.bool_]) -> Numbers:
    if all(-(2**63) <= value < 2**63 for value in whole):
        return Numbers(np.array(whole, dtype=np.int64), missing)
    return _large(whole, missing)


def _large(whole: Sequence[int], missing: NDArray[np.bool_]) -> Numbers:
    """Stores whole numbers of which some are beyond 64 bits: with a base if possible, else as floats."""
    known = [value for value, is_missing in zip(whole, missing.tolist(), strict=True) if not is_missing]
    base = min(known)
    if max(known) - base < 2**63:
        shifted = [0 if is_missing else value - base for value, is_missing in zip(whole, missing.tolist(), strict=True)]
        return Numbers(np.array(shifted, dtype=np.int64), missing, base)
    floats = np.array([float(value) for value in whole])
    floats[missing] = np.nan
    return Numbers(floats, missing, rounded=_large_of(known))


def value_error(column: str, row: int, value: Any, what: str, advice: str = "") -> UserError:
    """Returns the error about a value that cannot be used. `row` counts from 1."""
    return UserError(f"{column}, row {row}: {preview(value)} {what}{advice}")


def preview(value: Any) -> str:
    """Formats a value for a message, truncated to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
