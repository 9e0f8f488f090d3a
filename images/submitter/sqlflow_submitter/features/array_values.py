"""A column's numbers in an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ArrayValues(Sequence[Any]):
    """Numbers in an array of numpy. As a sequence they are Python's numbers, with None for NULL."""

    def __init__(self, array: NDArray[Any], missing: NDArray[np.bool_] | None) -> None:
        self.array = array
        self.missing = missing

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return ArrayValues(self.array[place], None if self.missing is None else self.missing[place])._values()
        return None if self.missing is not None and self.missing[place] else self.array[place].item()

    def __iter__(self) -> Iterator[Any]:
        # Often only the first values are read.
        for start in range(0, len(self.array), 1024):
            yield from self[start : start + 1024]

    def count(self, value: Any) -> int:
        if value is None:
            return 0 if self.missing is None else int(self.missing.sum())
        return self._values().count(value)

    def __contains__(self, value: object) -> bool:
        return self.count(value) > 0

    def _values(self) -> list[Any]:
        values: list[Any] = self.array.tolist()
        if self.missing is not None:
            for place in np.flatnonzero(self.missing).tolist():
                values[place] = None
        return values
