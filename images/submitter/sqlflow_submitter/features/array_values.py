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
        self._list: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, place: Any) -> Any:
        return self._values()[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def count(self, value: Any) -> int:
        if value is None:
            return 0 if self.missing is None else int(self.missing.sum())
        return self._values().count(value)

    def __contains__(self, value: object) -> bool:
        return self.count(value) > 0

    def _values(self) -> list[Any]:
        if self._list is None:
            self._list = self.array.tolist()
            if self.missing is not None:
                for place in np.flatnonzero(self.missing).tolist():
                    self._list[place] = None
        return self._list
