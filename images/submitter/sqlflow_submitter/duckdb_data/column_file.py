"""The rows of a select for the submitter, as Arrow IPC streams: in a file of the workspace that grows, or in memory.

The form is that of `data/src/column_file.rs`: a new stream begins where a column has another type than before.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any

from nanoarrow import ipc

from sqlflow_submitter.duckdb_data.arrays import Batch, Column, record_batch
from sqlflow_submitter.errors import UserError

MAX_BYTES = 256 << 30


class ColumnFile:
    """A file without a name in the working folder."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._formats: tuple[str, ...] | None = None
        self._writer: Any = None
        self.rows = 0
        try:
            descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _cannot_store(error) from error
        self._file = os.fdopen(descriptor, "w+b")

    def fileno(self) -> int:
        return self._file.fileno()

    def add(self, batch: Batch) -> int:
        """Appends a batch. Returns the file's size.

        Raises:
            UserError: there is no room.
        """
        return self._write(lambda: self._append(batch), batch.rows)

    def finish(self) -> int:
        """Ends the last stream. Returns the file's size."""
        return self._write(self._end_stream, 0)

    def _write(self, write: Callable[[], None], rows: int) -> int:
        try:
            write()
            self._file.flush()
            size = self._file.tell()
        except (OSError, RuntimeError) as error:
            raise _cannot_store(error) from error
        if size > MAX_BYTES:
            raise _cannot_store(f"they have more than {MAX_BYTES} bytes; select fewer rows or columns")
        self.rows += rows
        return size

    def _append(self, batch: Batch) -> None:
        if batch.formats != self._formats:
            self._end_stream()
            self._writer = ipc.StreamWriter.from_writable(self._file)
            self._formats = batch.formats
        self._writer.write_array(record_batch(batch, self._columns))

    def _end_stream(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def in_memory(batch: Batch, columns: Sequence[Column]) -> int:
    """Writes one batch to memory, as a stream of its own. Returns a descriptor, with which the memory goes."""
    buffer = io.BytesIO()
    writer = ipc.StreamWriter.from_writable(buffer)
    writer.write_array(record_batch(batch, columns))
    writer.close()
    descriptor = os.memfd_create("rows", os.MFD_CLOEXEC)
    data = buffer.getbuffer()
    while data:
        data = data[os.write(descriptor, data) :]
    return descriptor


def _cannot_store(cause: object) -> UserError:
    return UserError(f"cannot store the rows of the select in the workspace: {cause}")
