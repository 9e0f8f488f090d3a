"""Keeps the numbers of a column until all are known, then fits them into 32 bits.

XGBoost's values have 32 bits: above 16,777,216 they hold no odd number, and of a timestamp three minutes. Where values
of a column would become equal, the column is moved towards zero, and PREDICT moves it likewise. Whole numbers beyond 64
bits come with a base, and stay exact as long as the largest is less than 2^63 above the smallest; else up to
MAX_ROUNDED of them are noted before they become floats, so that what is lost is known.

Memory: 4 bytes a value where 32 bits hold it exactly, else 8 until `fit`, which is done column by column.
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
"""So many large whole numbers that become floats are kept, to count what is lost."""
EXACT = 2**24
"""Whole numbers up to here have a place of their own in 32 bits."""
NOTABLE_LOSS = 0.01
"""Of fractions, so many different values may become equal before the column is moved, or else it is said."""
MIN_IMPROVEMENT = 4
"""A move must keep so many times more values apart: else the numbers stay as they are."""

Floats = NDArray[np.float32]
Wide = NDArray[np.int64] | NDArray[np.float64]


class Scaling(NamedTuple):
    """How a column's values become 32-bit numbers: (value - offset) / scale. Dates: microseconds, scaled to days."""

    offset: int | float = 0
    scale: int = 1

    def apply(self, numbers: Numbers) -> Floats:
        """Gives the numbers of some rows, NaN where missing."""
        values, offset = numbers.values, self.offset - numbers.base
        if offset:
            # Whole numbers are moved exactly, unless int64 would overflow.
            moved = _shifted(numbers, self.offset) if isinstance(self.offset, int) else None
            values = values.astype(np.float64) - float(offset) if moved is None else moved
        scaled = values / self.scale if self.scale != 1 else values
        with np.errstate(over="ignore"):
            # `astype` always copies, so what is marked is ours.
            result = scaled.astype(np.float32)
        result[numbers.missing] = np.nan
        return result


class FittedNumbers(NamedTuple):
    """A column in 32 bits."""

    block: Floats
    scaling: Scaling
    distinct: int
    lost: int
    """So many different values have become equal to others."""
    is_row_number: bool
    """Whole numbers without a gap of missing ones, each larger than the one before."""
    is_key: bool
    """Whole numbers, all different, none missing."""


class NumberStore:
    """Takes batch after batch of a column's numbers."""

    def __init__(self, is_date: bool) -> None:
        self._is_date = is_date
        self._batches: list[Floats | Numbers] = []
        """In 32 bits where these hold a batch, else as it came."""
        self._rounded: set[int] = set()

    def add(self, numbers: Numbers) -> None:
        """Adds a batch."""
        narrow = self._fits(numbers)
        self._add_rounded(numbers.rounded)
        self._batches.append(numbers if narrow is None else narrow)

    def _fits(self, numbers: Numbers) -> Floats | None:
        """Gives a batch in 32 bits, where that is certain to lose nothing that matters; dates in days."""
        values, missing = numbers.values, numbers.missing
        if numbers.base or numbers.rounded:
            return None
        if self._is_date:
            return Scaling(0, MICROS_PER_DAY).apply(numbers) if not (values % MICROS_PER_DAY).any() else None
        narrow = Scaling().apply(numbers)
        with np.errstate(invalid="ignore"):
            # Compared in the type of the values: as floats, large whole numbers would seem equal.
            is_same = narrow.astype(values.dtype) == values
            # What is kept in 32 bits and is as large as this was a whole number, not a float that may be one.
            is_same &= np.abs(narrow) < (2**63 if values.dtype == np.int64 else EXACT_FLOAT)
        return narrow if bool((is_same | missing).all()) else None

    def fit(self) -> FittedNumbers:
        """Fits the column into 32 bits; the store is used up."""
        base = Scaling(0, MICROS_PER_DAY) if self._is_date else Scaling()
        narrow = [batch for batch in self._batches if not isinstance(batch, Numbers)]
        if len(narrow) == len(self._batches):
            self._batches = []
            block = np.concatenate(narrow) if narrow else np.empty(0, dtype=np.float32)
            narrow.clear()
            all_known = block[~np.isnan(block)]
            return _fitted(block, all_known, count_distinct(all_known), base, 0, not self._is_date)
        del narrow
        numbers = self._all()
        lost_before = len(self._rounded) - len(set(map(float, self._rounded)))
        base_value = numbers.base
        # From here on, all is told by its distance from the base.
        numbers = numbers._replace(base=0)
        known: Wide = numbers.values[~numbers.missing]
        if known.dtype == np.float64 and not np.abs(known).max(initial=0) >= EXACT_FLOAT and _whole(known):
            known = known.astype(np.int64)
            numbers = Numbers(np.where(numbers.missing, 0, numbers.values).astype(np.int64), numbers.missing)
        distinct = count_distinct(known)
        is_fraction = known.dtype == np.float64
        lost, scaling = distinct, base
        for place, candidate in enumerate(_candidate_scalings(known, base)):
            now = (
                0
                if _is_exact(known, candidate)
                else distinct - count_distinct(candidate.apply(_without_missing(known)))
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

    def _all(self) -> Numbers:
        """Puts all batches together in 64 bits: whole numbers if all are, else floats.

        It depends on the values alone, not on the batch that each came in.
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
        return known.dtype == np.int64 or (np.abs(known).max(initial=0) < EXACT_FLOAT and _whole(known))

    def _in_64_bits(self, batch: Floats | Numbers, is_whole: bool) -> Numbers:
        if not isinstance(batch, Numbers):
            # `_fits` has let whole numbers only be so large.
            is_whole |= bool((np.abs(batch) >= EXACT_FLOAT).any())
            scaled = batch.astype(np.float64) * (MICROS_PER_DAY if self._is_date else 1)
            batch = Numbers(scaled, np.isnan(batch))
        if is_whole and batch.values.dtype != np.int64:
            return Numbers(np.where(batch.missing, 0, batch.values).astype(np.int64), batch.missing)
        return batch

    def _record_rounded(self, part: Numbers) -> None:
        """Notes the whole numbers that may become equal to others as floats: later it would be too late."""
        if part.values.dtype == np.int64:
            known = part.values[~part.missing]
            if not part.base:
                known = known[(known >= EXACT_FLOAT) | (known <= -EXACT_FLOAT)]
            self._add_rounded({value + part.base for value in np.unique(known).tolist()})

    def _add_rounded(self, values: Collection[int]) -> None:
        if values and len(self._rounded) < MAX_ROUNDED:
            self._rounded.update(islice(values, MAX_ROUNDED - len(self._rounded)))


def _candidate_scalings(known: Wide, base: Scaling) -> Iterator[Scaling]:
    """Gives what may be tried, the plainest first."""
    is_date = base.scale != 1
    if not is_date:
        yield base
    if not len(known):
        yield base
        return
    low, high = known.min(), known.max()
    median = np.partition(known, len(known) // 2)[len(known) // 2]
    for middle in (median, low / 2 + high / 2):
        yield Scaling(_offset(middle, known, is_date), base.scale)
    if known.dtype == np.int64 and not is_date:
        step = int(np.gcd.reduce(known - low)) if int(high) - int(low) < 2**63 else 1
        if step > 1:
            yield Scaling(int(median), step)


def _offset(middle: Any, known: Wide, is_date: bool) -> int | float:
    if is_date:
        # A whole day: dates without a time stay whole numbers.
        return int(middle) // MICROS_PER_DAY * MICROS_PER_DAY
    return int(middle) if known.dtype == np.int64 else float(middle)


def _is_exact(known: Wide, scaling: Scaling) -> bool:
    """Whether each whole number has a place of its own in 32 bits."""
    if known.dtype != np.int64 or not len(known) or scaling.scale >= MICROS_PER_DAY:
        return False
    low, high = int(known.min()) - int(scaling.offset), int(known.max()) - int(scaling.offset)
    return max(-low, high) <= EXACT * scaling.scale


def _can_shift(values: Any, offset: int) -> bool:
    low, high = int(values.min()) - offset, int(values.max()) - offset
    return low >= -(2**63) and high < 2**63 and abs(offset) < 2**64 - 2


def _fitted(block: Floats, known: Any, distinct: int, scaling: Scaling, lost: int, is_number: bool) -> FittedNumbers:
    is_key = is_number and distinct == len(block) and _whole(known)
    rises = is_key and bool((known[1:] > known[:-1]).all())
    return FittedNumbers(block.reshape(-1, 1), scaling, distinct, lost, rises, is_key)


def count_distinct(known: Any) -> int:
    """Counts different values. Not by numpy's `unique`, which takes a second for a million of 64 bits."""
    if not len(known):
        return 0
    ordered = np.sort(known)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _merged(parts: Sequence[Numbers], missing: NDArray[np.bool_]) -> Numbers | None:
    """Gives whole numbers by their distance from the smallest; None where 64 bits do not hold it."""
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
    """Gives whole numbers by their distance from the base; None where 64 bits do not hold it."""
    if numbers.values.dtype != np.int64:
        return None
    # Missing ones are 0, which may be far away.
    values = np.where(numbers.missing, numbers.values[~numbers.missing].max(initial=-(2**63)), numbers.values)
    shift = base - numbers.base
    if numbers.missing.all():
        return values * 0
    if not _can_shift(values, shift):
        return None
    # In two steps: the shift itself may be beyond 64 bits.
    half = shift // 2
    return values - half - (shift - half)


def _whole(values: Any) -> bool:
    return bool((values == np.floor(values)).all())
