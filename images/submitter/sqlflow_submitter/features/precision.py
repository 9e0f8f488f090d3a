"""Counts the numbers of lists that become equal in XGBoost's 32 bits.

A column of single numbers gets an offset and a scale instead; see `store`. Lists have none.

Memory: at most 2 * MAX_RECORDED numbers of a column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from sqlflow_submitter.features import texts
from sqlflow_submitter.features.numbers import EXACT_FLOAT
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.store import EXACT, NOTABLE_LOSS

MAX_RECORDED = 20_000
"""Maximum number of distinct whole numbers, and of distinct fractions, that are compared. Later ones are not."""


def exact_number(text: str) -> int | float:
    """Parses a number. A whole number beyond 2^53 is an int, because a float could not represent it.

    Raises:
        ValueError: it is not a number.
    """
    number = float(text)
    if abs(number) >= EXACT_FLOAT and isinstance(whole := texts.number(text), int):
        return whole
    return number


class PrecisionCheck:
    """Records distinct numbers, each with its place in the list or its index."""

    def __init__(self) -> None:
        self._whole: set[tuple[int, int | float]] = set()
        self._fractions: set[tuple[int, int | float]] = set()

    def add(self, numbers: Iterable[tuple[int, int | float]]) -> None:
        """Records pairs of a place and a number."""
        for found in numbers:
            number = found[1]
            if number != number // 1:
                if len(self._fractions) < MAX_RECORDED:
                    self._fractions.add(found)
            elif not -EXACT <= number <= EXACT and len(self._whole) < MAX_RECORDED:
                self._whole.add(found)

    def warn(self, report: ColumnReport) -> None:
        """Adds a warning if numbers became equal to others: any whole number, or a notable share of fractions."""
        for recorded, tolerated, kind in (
            (self._whole, 0.0, "large whole numbers"),
            (self._fractions, NOTABLE_LOSS, "fractions"),
        ):
            before = Counter(place for place, _ in recorded)
            after = Counter(place for place, _ in {(place, np.float32(number)) for place, number in recorded})
            # By place: a place that loses much must not hide among many that lose nothing.
            lost = sum(
                count - after[place] for place, count in before.items() if count - after[place] > tolerated * count
            )
            if lost:
                report.warn(
                    "loses precision",
                    f"{lost} of its {len(recorded)} different {kind} become equal to others in XGBoost's 32 bits; "
                    "subtract a constant in the select, or select each number as a column of its own",
                )
