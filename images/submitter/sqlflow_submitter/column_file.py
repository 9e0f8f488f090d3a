"""Column files: result sets that the data process writes, as Arrow IPC streams."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from nanoarrow import c_array_stream, ipc
from numpy.typing import NDArray

from sqlflow_submitter.features.array_values import ArrayValues
from sqlflow_submitter.values import Batch, ColumnInfo, Kind, ResultSet, Values

KIND_OF_FORMAT = {
    "n": Kind.TEXT,
    "b": Kind.BOOL,
    "l": Kind.INT,
    "L": Kind.INT,
    "g": Kind.FLOAT,
    "u": Kind.TEXT,
    "z": Kind.BLOB,
    "tdD": Kind.DATE,
    "tsu:": Kind.TIMESTAMP,
    "tsu:UTC": Kind.TIMESTAMP_UTC,
}


class FileResultSet(ResultSet):
    """The rows of a select, in a file that the data process is writing. They can be read once."""

    def __init__(self, columns: Sequence[tuple[str, str]], descriptor: int, sizes: Iterator[int]) -> None:
        """Args:
        columns: name and type of each column.
        descriptor: the file.
        sizes: how much of the file can be read. It waits until there is more, and ends with the file.
        """
        self.columns = [ColumnInfo(name, database_type) for name, database_type in columns]
        self._file = _GrowingFile(descriptor, sizes)

    def batches(self) -> Iterator[Batch]:
        try:
            while self._file.has(1):
                yield from _batches(self._file)
        except Exception:
            # nanoarrow replaces what a read raises by an error of its own.
            if self._file.error is not None:
                raise self._file.error from None
            raise


class _GrowingFile:
    """A file from which nanoarrow reads what another program is writing."""

    def __init__(self, descriptor: int, sizes: Iterator[int]) -> None:
        # nanoarrow copies each batch. A mapped file would be in memory twice.
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._sizes = sizes
        self._size = 0
        self._read = 0
        self.error: Exception | None = None
        """Why there is no more of it."""

    def has(self, count: int) -> bool:
        """Waits until there are so many more bytes. Returns False if the file has ended before."""
        while self._size < self._read + count:
            try:
                size = next(self._sizes, None)
            except Exception as error:
                self.error = error
                raise
            if size is None:
                return False
            self._size = size
        return True

    def readinto(self, buffer: memoryview) -> int:
        # The writer shares the file's position.
        count = os.preadv(self._file.fileno(), [buffer], self._read) if self.has(len(buffer)) else 0
        self._read += count
        return count


def read_stream(descriptor: int) -> Iterator[Batch]:
    """Returns the batches of a stream in memory, and closes the descriptor."""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        file.seek(0)
        yield from _batches(file)


def _batches(file: Any) -> Iterator[Batch]:
    stream = c_array_stream(ipc.InputStream.from_readable(file))
    fields = list(stream.get_schema().children)
    for array in stream:
        yield Batch(
            array.length,
            [_values(field, child) for field, child in zip(fields, array.children, strict=True)],
        )


def _values(field: Any, array: Any) -> Values:
    view = array.view()
    if field.format.startswith("+ud"):
        return Values(Kind.MIXED, _mixed(view, array))
    kind = KIND_OF_FORMAT[field.format]
    if field.format == "n":
        return Values(kind, [None] * array.length)
    missing = _missing(view)
    if field.format in ("u", "z"):
        values: list[Any] = _slices(view, field.format == "u")
        if missing is not None:
            for place in np.flatnonzero(missing).tolist():
                values[place] = None
        return Values(Kind.DECIMAL if field.metadata else kind, values)
    if field.format == "b":
        bits = np.unpackbits(np.asarray(view.buffer(1)), count=array.length, bitorder="little")
        return Values(kind, ArrayValues(bits.astype(np.bool_), missing))
    return Values(kind, ArrayValues(np.asarray(view.buffer(1)), missing))


def _missing(view: Any) -> NDArray[np.bool_] | None:
    if not view.null_count:
        return None
    bits = np.unpackbits(np.asarray(view.buffer(0)), count=view.length, bitorder="little")
    return np.equal(bits, 0)


def _slices(view: Any, is_text: bool) -> list[Any]:
    offsets = np.asarray(view.buffer(1)).tolist()
    data = bytes(view.buffer(2))
    if is_text and data.isascii():
        text = data.decode("ascii")
        return [text[start:end] for start, end in pairwise(offsets)]
    slices = [data[start:end] for start, end in pairwise(offsets)]
    return [piece.decode() for piece in slices] if is_text else slices


def _mixed(view: Any, array: Any) -> list[Any]:
    children: list[list[Any]] = []
    for place, child in enumerate(array.children):
        inner = child.view()
        match place:
            case 0:
                children.append([None] * child.length)
            case 1 | 2:
                children.append(np.asarray(inner.buffer(1)).tolist())
            case _:
                children.append(_slices(inner, place == 3))
    kinds, places = np.asarray(view.buffer(0)).tolist(), np.asarray(view.buffer(1)).tolist()
    return [children[kind][place] for kind, place in zip(kinds, places, strict=True)]
