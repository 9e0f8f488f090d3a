"""Stores the numbers of a column until all are known, then fits them into 32 bits.

XGBoost's values are 32-bit floats. Above 16,777,216 they cannot represent odd numbers, and their resolution for a
timestamp is about two minutes. If values of a column would become equal, an offset moves the column towards zero;
PREDICT applies the same offset. Whole numbers beyond 64 bits have a base. They stay exact while the largest is less
than 2^63 above the smallest. Otherwise they become floats; up to MAX_ROUNDED of them are recorded first, to count the
values that become equal.

Memory: 4 bytes for a value that is exact in 32 bits, else 8 until `fit`, which is called for two columns at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.features.numbers import EXACT_FLOAT, Numbers
from sqlflow_submitter.features.texts import MICROS_PER_DAY

MAX_ROUNDED = 10_000
"""Maximum number of large whole numbers that are recorded before they become floats."""
EXACT = 2**24
"""All whole numbers up to here are exact as 32-bit floats."""
NOTABLE_LOSS = 0.01
"""The share of distinct fractions that may become equal before the column is moved, or a warning is printed."""
DENSE_KEY = 0.9
"""The share of the whole numbers between the smallest and the largest that row numbers have."""
MIN_IMPROVEMENT = 4
"""An offset must reduce the number of lost values by this factor; otherwise it is not used."""

Floats = NDArray[np.float32]
Wide = NDArray[np.int64] | NDArray[np.float64]


class Scaling(NamedTuple):
    """Converts a column's values to 32 bits: (value - offset) / scale. Dates are microseconds, scaled to days."""

    offset: int | float = 0
    scale: int = 1

    def apply(self, numbers: Numbers) -> Floats:
        """Returns the numbers in 32 bits, with NaN for missing values."""
        values, offset = numbers.values, self.offset - numbers.base
        if offset:
            # Whole numbers are shifted exactly, unless int64 would overflow.
            moved = _shifted(numbers, self.offset) if isinstance(self.offset, int) else None
            values = values.astype(np.float64) - float(offset) if moved is None else moved
        scaled = values / self.scale if self.scale != 1 else values
        with np.errstate(over="ignore"):
            # `astype` copies, so the input is not changed below.
            result = scaled.astype(np.float32)
        result[numbers.missing] = np.nan
        return result


class FittedNumbers(NamedTuple):
    """A column in 32 bits."""

    block: Floats
    scaling: Scaling
    distinct: int
    lost: int
    """Number of distinct values that became equal to others."""
    is_row_number: bool
    """Whether it is a key without many gaps, such as 1, 2, 3, 5. The order of the rows does not matter."""
    is_key: bool
    """Whether all are whole numbers, none is missing, and all differ."""


class NumberStore:
    """Stores a column's numbers, batch by batch."""

    def __init__(self, is_date: bool) -> None:
        self._is_date = is_date
        self._batches: list[Floats | Numbers] = []
        """In 32 bits if a batch fits, else unchanged."""
        self._rounded: set[int] = set()

    def add(self, numbers: Numbers) -> None:
        """Adds a batch."""
        narrow = self._fits(numbers)
        self._add_rounded(numbers.rounded)
        self._batches.append(numbers if narrow is None else narrow)

    def _fits(self, numbers: Numbers) -> Floats | None:
        """Returns a batch in 32 bits, with dates in days, or None if values would lose precision."""
        values, missing = numbers.values, numbers.missing
        if numbers.base or numbers.rounded:
            return None
        if self._is_date:
            return Scaling(0, MICROS_PER_DAY).apply(numbers) if not (values % MICROS_PER_DAY).any() else None
        narrow = Scaling().apply(numbers)
        with np.errstate(invalid="ignore"):
            # Compare in the type of the values: as floats, different whole numbers could be equal.
            is_same = narrow.astype(values.dtype) == values
            # A number in 32 bits that is this large must have been a whole number, not a float.
            is_same &= np.abs(narrow) < (2**63 if values.dtype == np.int64 else EXACT_FLOAT)
        return narrow if bool((is_same | missing).all()) else None

    def count(self) -> int:
        """Counts the distinct values. The store cannot be used afterwards."""
        if not self._batches:
            return 0
        numbers = self._join()
        lost = len(self._rounded) - len(set(map(float, self._rounded)))
        return count_distinct(numbers.values[~numbers.missing]) + lost

    def fit(self) -> FittedNumbers:
        """Fits the column into 32 bits. The store cannot be used afterwards."""
        base = Scaling(0, MICROS_PER_DAY) if self._is_date else Scaling()
        narrow = [batch for batch in self._batches if not isinstance(batch, Numbers)]
        if len(narrow) == len(self._batches):
            self._batches = []
            block = np.concatenate(narrow) if narrow else np.empty(0, dtype=np.float32)
            narrow.clear()
            all_known = _sorted(block[~np.isnan(block)])
            return _fitted(block, all_known, _count_sorted(all_known), base, 0, not self._is_date)
        del narrow
        numbers = self._join()
        lost_before = len(self._rounded) - len(set(map(float, self._rounded)))
        base_value = numbers.base
        # From here on, numbers are distances from the base.
        numbers = numbers._replace(base=0)
        # Sorted once: values that are moved and scaled keep their order.
        known: Wide = _sorted(numbers.values[~numbers.missing])
        if known.dtype == np.float64 and not _largest(known) >= EXACT_FLOAT and _whole(known):
            known = known.astype(np.int64)
            numbers = Numbers(np.where(numbers.missing, 0, numbers.values).astype(np.int64), numbers.missing)
        distinct = _count_sorted(known)
        is_fraction = known.dtype == np.float64
        lost, scaling = distinct, base
        for place, candidate in enumerate(_candidate_scalings(known, base)):
            now = (
                0 if _is_exact(known, candidate) else distinct - _count_sorted(candidate.apply(_without_missing(known)))
            )
            if not place or now < (lost / MIN_IMPROVEMENT if is_fraction else lost):
                lost, scaling = now, candidate
            if lost <= (distinct * NOTABLE_LOSS if is_fraction else 0):
                break
        if is_fraction and lost <= distinct * NOTABLE_LOSS:
            lost = 0
        is_number = known.dtype == np.int64 and not self._is_date
        fitted = _fitted(scaling.apply(numbers), known, distinct, scaling, lost, is_number)
        return fitted._replace(
            scaling=scaling._replace(offset=scaling.offset + base_value),
            distinct=distinct + lost_before,
            lost=lost + lost_before,
        )

    def _join(self) -> Numbers:
        """Joins all batches in 64 bits: as whole numbers if all are whole, else as floats.

        The result depends on the values only, and not on how they are split into batches.
        """
        is_whole = all(map(self._is_whole, self._batches))
        parts = []
        while self._batches:
            parts.append(self._in_64_bits(self._batches.pop(0), is_whole))
        missing = np.concatenate([part.missing for part in parts])
        if is_whole:
            if not any(part.base for part in parts):
                return Numbers(np.concatenate([part.values for part in parts]), missing)
            if (joined := _merged(parts, missing)) is not None:
                return joined
        for part in parts:
            self._record_rounded(part)
        return Numbers(np.concatenate([part.floats() for part in parts]), missing)

    def _is_whole(self, batch: Floats | Numbers) -> bool:
        if not isinstance(batch, Numbers):
            return self._is_date or _whole(batch[~np.isnan(batch)])
        known = batch.values[~batch.missing]
        return known.dtype == np.int64 or (_whole(known) and np.abs(known).max(initial=0) < EXACT_FLOAT)

    def _in_64_bits(self, batch: Floats | Numbers, is_whole: bool) -> Numbers:
        if not isinstance(batch, Numbers):
            # `_fits` accepts only whole numbers that are this large.
            is_whole |= bool((np.abs(batch) >= EXACT_FLOAT).any())
            scaled = batch.astype(np.float64) * (MICROS_PER_DAY if self._is_date else 1)
            batch = Numbers(scaled, np.isnan(batch))
        if is_whole and batch.values.dtype != np.int64:
            return Numbers(np.where(batch.missing, 0, batch.values).astype(np.int64), batch.missing)
        return batch

    def _record_rounded(self, part: Numbers) -> None:
        """Records the whole numbers that may become equal to others as floats, before they are converted."""
        if part.values.dtype == np.int64:
            known = part.values[~part.missing]
            if not part.base:
                known = known[(known >= EXACT_FLOAT) | (known <= -EXACT_FLOAT)]
            self._add_rounded({value + part.base for value in np.unique(known).tolist()})

    def _add_rounded(self, values: Collection[int]) -> None:
        if values and len(self._rounded) < MAX_ROUNDED:
            self._rounded.update(islice(values, MAX_ROUNDED - len(self._rounded)))


def _candidate_scalings(known: Wide, base: Scaling) -> Iterator[Scaling]:
    """Returns the scalings to try for sorted values, the simplest first."""
    is_date = base.scale != 1
    if not is_date:
        yield base
    if not len(known):
        yield base
        return
    low, median, high = known[0], known[len(known) // 2], known[-1]
    for middle in (median, low / 2 + high / 2):
        yield Scaling(_offset(middle, known, is_date), base.scale)
    if known.dtype == np.int64 and not is_date:
        step = int(np.gcd.reduce(known - low)) if int(high) - int(low) < 2**63 else 1
        if step > 1:
            yield Scaling(int(median), step)


def _offset(middle: Any, known: Wide, is_date: bool) -> int | float:
    if is_date:
        # Whole days, so that dates without a time stay whole numbers.
        return int(middle) // MICROS_PER_DAY * MICROS_PER_DAY
    return int(middle) if known.dtype == np.int64 else float(middle)


def _is_exact(known: Wide, scaling: Scaling) -> bool:
    """Returns whether all sorted whole numbers are exact in 32 bits."""
    if known.dtype != np.int64 or not len(known) or scaling.scale >= MICROS_PER_DAY:
        return False
    low, high = int(known[0]) - int(scaling.offset), int(known[-1]) - int(scaling.offset)
    return max(-low, high) <= EXACT * scaling.scale


def _can_shift(values: Any, offset: int) -> bool:
    low, high = int(values.min()) - offset, int(values.max()) - offset
    return low >= -(2**63) and high < 2**63 and abs(offset) < 2**64 - 2


def _fitted(block: Floats, known: Any, distinct: int, scaling: Scaling, lost: int, is_number: bool) -> FittedNumbers:
    is_key = is_number and distinct == len(block) and _whole(known)
    is_row_number = is_key and distinct > 0 and distinct >= DENSE_KEY * (int(known[-1]) - int(known[0]) + 1)
    return FittedNumbers(block.reshape(-1, 1), scaling, distinct, lost, is_row_number, is_key)


def count_distinct(known: Any) -> int:
    """Counts distinct values."""
    return _count_sorted(np.sort(known))


def _count_sorted(known: Any) -> int:
    return 1 + int(np.count_nonzero(known[1:] != known[:-1])) if len(known) else 0


def _sorted(known: Any) -> Any:
    """Sorts an array in place."""
    known.sort()
    return known


def _largest(known: Wide) -> float:
    """Returns the largest magnitude of sorted numbers."""
    return max(-float(known[0]), float(known[-1])) if len(known) else 0.0


def _merged(parts: Sequence[Numbers], missing: NDArray[np.bool_]) -> Numbers | None:
    """Returns whole numbers as their distance from the smallest, or None if that exceeds 64 bits."""
    base = next(part.base for part in parts if part.base)
    moved = [found for part in parts if (found := _shifted(part, base)) is not None]
    if len(moved) < len(parts):
        return None
    whole = np.concatenate(moved)
    known = whole[~missing]
    low = int(known.min())
    return Numbers(np.where(missing, 0, whole - low), missing, base + low) if int(known.max()) - low < 2**63 else None


def _without_missing(known: Wide) -> Numbers:
    return Numbers(known, np.zeros(len(known), dtype=np.bool_))


def _shifted(numbers: Numbers, base: int) -> NDArray[np.int64] | None:
    """Returns whole numbers as their distance from the base, or None if that exceeds 64 bits."""
    if numbers.values.dtype != np.int64:
        return None
    # Missing values are stored as 0, which may be far from the base.
    values = np.where(numbers.missing, numbers.values[~numbers.missing].max(initial=-(2**63)), numbers.values)
    shift = base - numbers.base
    if numbers.missing.all():
        return values * 0
    if not _can_shift(values, shift):
        return None
    # In two steps, because the shift itself may exceed 64 bits.
    half = shift // 2
    return values - half - (shift - half)


def _whole(values: Any) -> bool:
    # The first ones often decide.
    return all(bool((part == np.floor(part)).all()) for part in (values[:1024], values[1024:]))
