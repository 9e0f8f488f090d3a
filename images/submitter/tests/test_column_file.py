"""Column files, as the data process writes them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import nanoarrow
import pytest
from nanoarrow import ipc

from sqlflow_submitter.column_file import FileResultSet
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.values import Batch


def stream(*batches: list[int | str]) -> bytes:
    """An Arrow IPC stream of a table with one column."""
    kind = nanoarrow.string() if isinstance(batches[0][0], str) else nanoarrow.int64()
    schema = nanoarrow.struct({"a": kind})
    arrays = [
        nanoarrow.c_array_from_buffers(schema, len(batch), [None], children=[nanoarrow.c_array(batch, kind)])
        for batch in batches
    ]
    written = io.BytesIO()
    with ipc.StreamWriter.from_writable(written) as writer:
        writer.write_stream(nanoarrow.c_array_stream(nanoarrow.Array.from_chunks(arrays)))
    return written.getvalue()


class Writer:
    """Writes parts of a file. The reader has a copy of its descriptor, with the same position."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self._file = os.memfd_create("file")
        self._parts = parts
        self.written = 0

    def descriptor(self) -> int:
        return os.dup(self._file)

    def sizes(self) -> Iterator[int]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            self.written += 1
            os.write(self._file, part)
            yield os.lseek(self._file, 0, os.SEEK_CUR)


def values(batch: Batch) -> list[int | str]:
    return list(batch.columns[0].values)


def test_batch_is_read_while_the_next_one_is_written() -> None:
    whole, second = stream([1, 2], [3]), stream(["x"], ["y", "z"])
    # The first stream up to its second batch.
    cut = len(stream([1, 2])) - 8
    writer = Writer(whole[:cut], whole[cut:], second[:100], second[100:])
    rows = FileResultSet([("a", "INT")], writer.descriptor(), writer.sizes())
    assert [(column.name, column.database_type) for column in rows.columns] == [("a", "INT")]
    batches = rows.batches()
    assert values(next(batches)) == [1, 2]
    assert writer.written == 1
    assert values(next(batches)) == [3]
    assert writer.written == 2
    # A column changes its type where a stream ends.
    assert [values(batch) for batch in batches] == [["x"], ["y", "z"]]


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_error_of_the_select_ends_the_rows(parts: int) -> None:
    whole = stream([1, 2], [3])
    error = UserError("division by zero")
    writer = Writer(*[whole[:20], whole[20:]][:parts], error)
    rows = FileResultSet([("a", "INT")], writer.descriptor(), writer.sizes())
    found = []
    with pytest.raises(UserError) as raised:
        found += [values(batch) for batch in rows.batches()]
    assert raised.value is error


def test_select_without_rows_has_no_stream() -> None:
    writer = Writer(b"")
    rows = FileResultSet([("a", "INT")], writer.descriptor(), writer.sizes())
    assert list(rows.batches()) == []
