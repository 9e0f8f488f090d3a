"""Collects rows into batches of bounded size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from sys import getsizeof
from typing import Any

from sqlflow_submitter.connect.database import BATCH_BYTES, BATCH_ROWS, FIRST_BATCH_ROWS, Batch

CHUNK_ROWS = 32
"""Rows that are taken from a driver at once. Memory is bounded by one batch and one chunk of the largest rows."""

MAX_DELAY_SECONDS = 0.2
"""Maximum time for which the rows of a slow query wait for more rows."""


class Batcher:
    """Collects chunks of rows, given by column."""

    def __init__(self, columns: int) -> None:
        self._columns: list[list[Any]] = [[] for _ in range(columns)]
        self._rows = self._bytes = 0
        self._limit = FIRST_BATCH_ROWS
        self._since = 0.0

    def add(self, rows: int, chunk: Sequence[Sequence[Any]]) -> Iterator[Batch]:
        """Adds a chunk. Returns the batches that are complete."""
        size = sum(sum(map(getsizeof, column)) for column in chunk)
        if size > BATCH_BYTES:
            yield from self.rest()
            step = max(1, rows * BATCH_BYTES // size)
            for start in range(0, rows, step):
                part = [column[start : start + step] for column in chunk]
                yield Batch(min(step, rows - start), part)
            return
        if not self._rows:
            self._since = time.monotonic()
        for column, values in zip(self._columns, chunk, strict=True):
            column += values
        self._rows += rows
        self._bytes += size
        is_full = self._rows >= self._limit or self._bytes >= BATCH_BYTES
        if is_full or time.monotonic() - self._since > MAX_DELAY_SECONDS:
            yield from self.rest()

    def rest(self) -> Iterator[Batch]:
        """Returns the remaining rows, if any."""
        if self._rows:
            yield Batch(self._rows, self._columns)
        self._columns = [[] for _ in self._columns]
        self._rows = self._bytes = 0
        self._limit = BATCH_ROWS
