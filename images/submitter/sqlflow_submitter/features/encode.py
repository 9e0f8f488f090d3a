"""Turns a column's values into the numbers of a feature, and learns vocabularies on the way.

NULL becomes NaN, which XGBoost treats as missing; so does a category that the model has never seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.errors import UserError
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

Floats = NDArray[np.float32]

MAX_VOCABULARY = 10_000
MICROS_PER_DAY = 86_400_000_000


class SparseBlock:
    """Some rows of a sparse feature: for each row the count of its entries, then all indices and values in a line."""

    def __init__(self, counts: NDArray[np.int64], indices: NDArray[np.int64], values: Floats) -> None:
        self.counts = counts
        self.indices = indices
        self.values = values


Block = Floats | SparseBlock
Columns = Mapping[str, Values]


def one_hot(codes: Block) -> SparseBlock:
    """Turns codes into one entry in the code's own column; a missing code into no entry."""
    assert isinstance(codes, np.ndarray), "codes are dense"
    known = ~np.isnan(codes[:, 0])
    indices = codes[known, 0].astype(np.int64)
    return SparseBlock(known.astype(np.int64), indices, np.ones(len(indices), dtype=np.float32))


class Encoder:
    """Encodes batch after batch of one feature; rows are counted for messages."""

    def __init__(self, feature: Feature, learn: bool) -> None:
        self.feature = feature
        self._inputs = [Encoder(inner, learn) for inner in feature.inputs]
        self._learn = learn and feature.kind == VOCABULARY
        self._codes = {text: code for code, text in enumerate(feature.vocabulary or ())}
        self._rows = 0

    def encode(self, columns: Columns) -> Block:
        """Encodes a batch, given by column name."""
        block = ENCODERS[self.feature.kind](self, columns)
        self._rows += len(next(iter(columns.values())).values)
        return block

    def finish(self, blocks: list[Block]) -> list[Block]:
        """Fixes what was learned: sorts the vocabulary, so that it does not hang on the order of rows."""
        if not self._learn:
            return blocks
        self.feature.vocabulary = sorted(self._codes)
        places = {text: place for place, text in enumerate(self.feature.vocabulary)}
        # The last entry stands for "missing".
        final = np.array([places[text] for text in self._codes] + [np.nan], dtype=np.float32)
        return [final[np.where(np.isnan(block), len(places), block).astype(np.int64)] for block in blocks]  # type: ignore[arg-type]

    def _dense(self, columns: Columns) -> Block:
        values = columns[self.feature.column]
        if self.feature.width == 1:
            return self._numbers(values).reshape(-1, 1)
        width = self.feature.width
        matrix = np.full((len(values.values), width), np.nan, dtype=np.float32)
        for row, value in enumerate(values.values):
            if value is None:
                continue
            parts = _split(str(value), self.feature.separator)
            if len(parts) != width:
                raise self._error(row, f"holds {len(parts)} number(s), not {width}", value)
            try:
                matrix[row] = [float(part) for part in parts]
            except ValueError:
                raise self._error(row, "is no list of numbers", value) from None
        return matrix

    def _numbers(self, values: Values) -> Floats:
        try:
            numbers = np.array(values.values, dtype=np.float64)
        except (ValueError, TypeError):
            numbers = np.array([self._number(row, value) for row, value in enumerate(values.values)], dtype=np.float64)
        if values.kind in (Kind.TIMESTAMP, Kind.TIMESTAMP_UTC):
            numbers /= MICROS_PER_DAY
        return numbers.astype(np.float32)

    def _number(self, row: int, value: Any) -> float:
        if value is None:
            return np.nan
        try:
            return float(value)
        except (ValueError, TypeError):
            raise self._error(row, "is not a number", value, self._advice()) from None

    def _advice(self) -> str:
        return f"; for text use INDICATOR(CATEGORY_HASH({self.feature.column}, 100)) or CATEGORY_HASH"

    def _sparse(self, columns: Columns) -> Block:
        width = self.feature.width
        counts: list[int] = []
        indices: list[int] = []
        weights: list[float] = []
        for row, value in enumerate(columns[self.feature.column].values):
            entries = {} if value is None else self._entries(row, str(value))
            if entries and max(entries) >= width:
                raise self._error(row, f"has the index {max(entries)}, the size is {width}", value)
            counts.append(len(entries))
            indices += entries.keys()
            weights += entries.values()
        return SparseBlock(
            np.array(counts, dtype=np.int64),
            np.array(indices, dtype=np.int64),
            np.array(weights, dtype=np.float32),
        )

    def _entries(self, row: int, text: str) -> dict[int, float]:
        """Gives a text's entries by index, in order; an index that comes twice counts twice."""
        entries: dict[int, float] = {}
        for part in _split(text, self.feature.separator):
            index, separator, value = part.partition(self.feature.pair_separator)
            try:
                number = int(index)
                if number < 0:
                    raise ValueError
                entries[number] = entries.get(number, 0.0) + (float(value) if separator else 1.0)
            except ValueError:
                raise self._error(row, "is no list of index:value", text) from None
        return dict(sorted(entries.items()))

    def _bucket(self, columns: Columns) -> Block:
        numbers = self._inputs[0].encode(columns)
        assert isinstance(numbers, np.ndarray), "clause lets only one number into BUCKET"
        places = np.searchsorted(np.array(self.feature.boundaries), numbers, side="right").astype(np.float32)
        places[np.isnan(numbers)] = np.nan
        return places

    def _category_id(self, columns: Columns) -> Block:
        numbers = self._numbers(columns[self.feature.column])
        wrong = (numbers < 0) | (numbers >= self.feature.width) | (numbers != np.floor(numbers))
        wrong &= ~np.isnan(numbers)
        if wrong.any():
            row = int(np.argmax(wrong))
            value = columns[self.feature.column].values[row]
            raise self._error(row, f"is no whole number from 0 to {self.feature.width - 1}", value)
        return numbers.reshape(-1, 1)

    def _category_hash(self, columns: Columns) -> Block:
        values = columns[self.feature.column].values
        hashed = [np.nan if value is None else _hash(str(value)) % self.feature.width for value in values]
        return np.array(hashed, dtype=np.float32).reshape(-1, 1)

    def _vocabulary(self, columns: Columns) -> Block:
        codes = self._codes
        values = columns[self.feature.column].values
        if self._learn:
            for value in values:
                if value is not None and str(value) not in codes:
                    codes[str(value)] = len(codes)
            if len(codes) > MAX_VOCABULARY:
                column = self.feature.column
                raise UserError(
                    f"column {column} holds more than {MAX_VOCABULARY} different texts: "
                    f"leave it out of the select, or use CATEGORY_HASH({column}, {MAX_VOCABULARY})"
                )
        found = [np.nan if value is None else codes.get(str(value), np.nan) for value in values]
        return np.array(found, dtype=np.float32).reshape(-1, 1)

    def _cross(self, columns: Columns) -> Block:
        blocks = [encoder.encode(columns) for encoder in self._inputs]
        rows = zip(*(block[:, 0].tolist() for block in blocks if isinstance(block, np.ndarray)), strict=True)
        # NaN is the one float that differs from itself.
        hashed = [
            np.nan if any(code != code for code in row) else _hash("_X_".join(map(str, row))) % self.feature.width
            for row in rows
        ]
        return np.array(hashed, dtype=np.float32).reshape(-1, 1)

    def _indicator(self, columns: Columns) -> Block:
        return one_hot(self._inputs[0].encode(columns))

    def _error(self, row: int, what: str, value: Any, advice: str = "") -> UserError:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
        return UserError(f"column {self.feature.column}, row {self._rows + row + 1}: {shown} {what}{advice}")


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


def _split(text: str, separator: str | None) -> Sequence[str]:
    parts = text.replace(",", " ").split() if separator is None else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _hash(text: str) -> int:
    """A hash that is the same in every process and release."""
    return zlib.crc32(text.encode("utf-8", "surrogateescape"))
