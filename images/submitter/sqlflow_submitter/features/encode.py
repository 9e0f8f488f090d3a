"""Encodes a column's values as numbers, for a feature that is fixed by the clause or by training.

NULL becomes NaN, which XGBoost treats as missing. So do, and are counted: a category that training has not seen, an
index beyond a learned width, and a word for a missing value among lists.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.numbers import EMPTY, UNSEEN, UNSEEN_INDEX, NumberReader, Tally, value_error
from sqlflow_submitter.features.precision import PrecisionCheck, exact_number
from sqlflow_submitter.features.spec import (
    BUCKET,
    CATEGORY_HASH,
    CATEGORY_ID,
    CROSS,
    DENSE,
    INDICATOR,
    SPARSE,
    VOCABULARY,
    Feature,
)
from sqlflow_submitter.features.store import Floats, Scaling
from sqlflow_submitter.features.texts import Form, is_missing_form, micros
from sqlflow_submitter.values import DATE_KINDS, Kind, Values

EPOCH = datetime(1970, 1, 1)


class SparseBlock:
    """Rows of a sparse feature: the number of entries of each row, and all their indices and values in order."""

    def __init__(self, counts: NDArray[np.int64], indices: NDArray[np.int64], values: Floats) -> None:
        self.counts = counts
        self.indices = indices
        self.values = values


Block = Floats | SparseBlock
Columns = Mapping[str, Values]


def one_hot(codes: Block) -> SparseBlock:
    """Converts each code to an entry in a column of its own. A missing code has no entry."""
    assert isinstance(codes, np.ndarray), "codes are dense"
    known = ~np.isnan(codes[:, 0])
    indices = codes[known, 0].astype(np.int64)
    return SparseBlock(known.astype(np.int64), indices, np.ones(len(indices), dtype=np.float32))


class Encoder:
    """Encodes one feature, batch by batch. Counts rows, for messages, and missing values, in `tally`."""

    def __init__(self, feature: Feature, tally: Tally | None = None, *, checks_precision: bool = False) -> None:
        """Args:
        feature: the feature.
        tally: counts missing values.
        checks_precision: whether numbers of lists are recorded for `precision`, which is needed in training only.
        """
        self.feature = feature
        self._inputs = [Encoder(inner, checks_precision=checks_precision) for inner in feature.inputs]
        self._precision = PrecisionCheck() if checks_precision else None
        self._codes = {text: code for code, text in enumerate(feature.vocabulary or ())}
        self._rows = 0
        self._tally = tally or Tally(feature.column)
        form = Form(feature.form) if feature.form else Form.NUMBER if feature.kind == CATEGORY_ID else None
        advice = f"; for text use INDICATOR(CATEGORY_HASH({feature.column}, 100)) or CATEGORY_HASH"
        if not checks_precision:
            advice = "; the model reads a number there: select a number"
        if form is Form.DATE:
            advice = ""
        self._reader = NumberReader(f"column {feature.column}", form, self._tally, advice, is_boolean=feature.boolean)

    def encode(self, columns: Columns) -> Block:
        """Encodes a batch, given by column name."""
        block = ENCODERS[self.feature.kind](self, columns)
        self._rows += len(next(iter(columns.values())).values)
        return block

    def tallies(self) -> list[Tally]:
        """Returns the counts of missing values, by column."""
        found = [self._tally] if self.feature.column else []
        return found + [tally for encoder in self._inputs for tally in encoder.tallies()]

    def precision(self) -> list[tuple[str, PrecisionCheck]]:
        """Returns the recorded numbers, by column."""
        found = [(self.feature.column, self._precision)] if self.feature.column and self._precision else []
        return found + [check for encoder in self._inputs for check in encoder.precision()]

    def _dense(self, columns: Columns) -> Block:
        values = columns[self.feature.column]
        if self.feature.width == 1:
            return self._in_32_bits(values).reshape(-1, 1)
        width = self.feature.width
        matrix = np.full((len(values.values), width), np.nan, dtype=np.float32)
        for row, value in enumerate(self._lists(values)):
            if value is None:
                continue
            parts = _split(str(value), self.feature.separator)
            if len(parts) != width:
                raise self._error(row, f"holds {len(parts)} number(s), not {width}", value)
            try:
                numbers = [exact_number(part) for part in parts]
            except ValueError:
                raise self._error(row, "is not a list of numbers", value) from None
            matrix[row] = [float(number) for number in numbers]
            if self._precision is not None:
                self._precision.add((place, number) for place, number in enumerate(numbers) if math.isfinite(number))
        if np.isinf(matrix).any():
            row = int(np.argmax(np.isinf(matrix).any(axis=1)))
            raise self._error(row, "holds a number that is infinite, or too large for 32 bits", values.values[row])
        return matrix

    def _lists(self, values: Values) -> Sequence[Any]:
        """Returns the values of a column of lists. As in training, a word for a missing value becomes None."""
        found = list(values.values)
        for row, value in enumerate(found):
            if isinstance(value, str) and is_missing_form(value):
                self._tally.add(EMPTY, self._rows + row + 1, value)
                found[row] = None
        return found

    def _in_32_bits(self, values: Values) -> Floats:
        block = Scaling(self.feature.offset, self.feature.scale).apply(self._reader.read(values))
        if np.isinf(block).any():
            row = int(np.argmax(np.isinf(block)))
            raise self._error(row, TOO_LARGE, values.values[row])
        return block

    def _numbers(self, values: Values) -> NDArray[np.float64]:
        return self._reader.read(values).floats()

    def _sparse(self, columns: Columns) -> Block:
        width = self.feature.width
        counts: list[int] = []
        indices: list[int] = []
        weights: list[int | float] = []
        for row, value in enumerate(self._lists(columns[self.feature.column])):
            entries = {} if value is None else self._entries(row, str(value))
            if entries and max(entries) >= width:
                if not self.feature.drops_unseen:
                    raise self._error(row, f"has the index {max(entries)}, and the size is {width}", value)
                unseen = [index for index in entries if index >= width]
                self._tally.add(UNSEEN_INDEX, self._rows + row + 1, value, len(unseen))
                entries = {index: weight for index, weight in entries.items() if index < width}
            counts.append(len(entries))
            indices += entries.keys()
            weights += entries.values()
            if self._precision is not None:
                self._precision.add(entries.items())
        return SparseBlock(
            np.array(counts, dtype=np.int64),
            np.array(indices, dtype=np.int64),
            np.array(list(map(float, weights)), dtype=np.float32),
        )

    def _entries(self, row: int, text: str) -> dict[int, int | float]:
        """Returns a text's entries, sorted by index. An index without a value is counted: `3 3` is `3:2`."""
        entries: dict[int, int | float] = {}
        with_value: set[int] = set()
        for part in _split(text, self.feature.separator):
            index, separator, value = part.partition(self.feature.pair_separator)
            try:
                number, weight = int(index), exact_number(value) if separator else 1.0
                if number < 0 or not abs(weight) < 3.4e38:
                    raise ValueError
            except ValueError:
                raise self._error(row, "is not a list of index:value", text) from None
            if number in with_value or (separator and number in entries):
                raise self._error(row, f"has the index {number} twice", text)
            if separator:
                with_value.add(number)
            entries[number] = entries.get(number, 0) + weight
        return dict(sorted(entries.items()))

    def _bucket(self, columns: Columns) -> Block:
        # In 64 bits, so that a value compares exactly with a boundary.
        inner = self._inputs[0]
        numbers = inner._numbers(columns[inner.feature.column])
        inner._rows += len(numbers)
        places = np.searchsorted(np.array(self.feature.boundaries), numbers, side="right").astype(np.float32)
        places[np.isnan(numbers)] = np.nan
        return places.reshape(-1, 1)

    def _category_id(self, columns: Columns) -> Block:
        numbers = self._numbers(columns[self.feature.column])
        wrong = (numbers < 0) | (numbers >= self.feature.width) | (numbers != np.floor(numbers))
        wrong &= ~np.isnan(numbers)
        if wrong.any():
            row = int(np.argmax(wrong))
            value = columns[self.feature.column].values[row]
            raise self._error(row, f"is not a whole number from 0 to {self.feature.width - 1}", value)
        return numbers.astype(np.float32).reshape(-1, 1)

    def _category_hash(self, columns: Columns) -> Block:
        values = columns[self.feature.column]
        if self.feature.canonical:
            texts = [self._text(row, values.kind, value) for row, value in enumerate(values.values)]
        else:
            texts = [None if value is None else str(value) for value in values.values]
        hashed = [np.nan if text is None else _hash(text) % self.feature.width for text in texts]
        return np.array(hashed, dtype=np.float32).reshape(-1, 1)

    def _vocabulary(self, columns: Columns) -> Block:
        kind, values = columns[self.feature.column]
        found = np.full((len(values), 1), np.nan, dtype=np.float32)
        for row, value in enumerate(values):
            text = self._text(row, kind, value)
            if text is None:
                continue
            code = self._codes.get(text)
            if code is None:
                self._tally.add(UNSEEN, self._rows + row + 1, text)
            else:
                found[row] = code
        return found

    def _text(self, row: int, kind: Kind, value: Any) -> str | None:
        if isinstance(value, bytes):
            raise self._error(row, "is binary data, or text that is not UTF-8", value)
        return None if value is None else text_of(kind, value)

    def _cross(self, columns: Columns) -> Block:
        blocks = [encoder.encode(columns) for encoder in self._inputs]
        rows = zip(*(block[:, 0].tolist() for block in blocks if isinstance(block, np.ndarray)), strict=True)
        # Only NaN differs from itself.
        hashed = [
            np.nan if any(code != code for code in row) else _hash("_X_".join(map(str, row))) % self.feature.width
            for row in rows
        ]
        return np.array(hashed, dtype=np.float32).reshape(-1, 1)

    def _indicator(self, columns: Columns) -> Block:
        return one_hot(self._inputs[0].encode(columns))

    def _error(self, row: int, what: str, value: Any) -> UserError:
        return value_error(f"column {self.feature.column}", self._rows + row + 1, value, what)


TOO_LARGE = "is too large for 32 bits; divide the column in the select"

ENCODERS = {
    DENSE: Encoder._dense,
    SPARSE: Encoder._sparse,
    BUCKET: Encoder._bucket,
    CATEGORY_ID: Encoder._category_id,
    CATEGORY_HASH: Encoder._category_hash,
    VOCABULARY: Encoder._vocabulary,
    CROSS: Encoder._cross,
    INDICATOR: Encoder._indicator,
}


def text_of(kind: Kind, value: Any) -> str:
    """Formats a value that is read as a category. The result is the same in every database."""
    if kind in DATE_KINDS and isinstance(value, str):
        # A date outside Python's calendar. With a time zone, its text depends on the session: use the number instead.
        moment = micros(value) if kind is Kind.TIMESTAMP_UTC else None
        return value if moment is None else str(moment)
    try:
        if kind is Kind.DATE:
            return str((EPOCH + timedelta(days=value)).date())
        if kind in DATE_KINDS:
            return str(EPOCH + timedelta(microseconds=value))
    except OverflowError:
        # Before year 1 or after 9999 in UTC: use the number.
        return str(value)
    if kind is Kind.DECIMAL:
        value = float(value)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _split(text: str, separator: str | None) -> Sequence[str]:
    parts = text.replace(",", " ").split() if separator is None else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _hash(text: str) -> int:
    """Returns a hash that is the same in every process and release."""
    return zlib.crc32(text.encode("utf-8", "surrogateescape"))
