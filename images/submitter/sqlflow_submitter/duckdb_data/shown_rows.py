"""Encodes batches as Rows messages (`proto/sqlflow/v1/data.proto`), which reach the client unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sqlflow_submitter import wire
from sqlflow_submitter.duckdb_data.arrays import FORMAT_OF_INSTANTS, Batch, Column, missing, numbers
from sqlflow_submitter.frames import EncodedRows
from sqlflow_submitter.rows import null_bits

BOOLS, INTS, UINTS, FLOATS, TEXTS, BLOBS, DECIMALS, DATES, TIMESTAMPS, MIXED = range(2, 12)
"""Numbers of the fields of the message Column."""


BATCH_BYTES = 512 << 10
"""Size of the texts and byte strings of a message, if they are of several rows."""


def encode(batch: Batch, columns: Sequence[Column]) -> Iterator[EncodedRows]:
    """Encodes a batch, in several messages if its values are large."""
    texts = [array for found, array in zip(batch.formats, batch.arrays, strict=True) if found in ("u", "z")]
    begin = size = 0
    for row, more in enumerate(_sizes(texts, batch.rows)):
        if size + more > BATCH_BYTES and row > begin:
            yield _encoded(batch, columns, begin, row)
            begin, size = row, 0
        size += more
    yield _encoded(batch, columns, begin, batch.rows)


def _sizes(texts: Sequence[Any], rows: int) -> list[int]:
    """Returns the size of each row's texts."""
    total = np.zeros(rows, np.int64)
    for array in texts:
        total += np.diff(_offsets(array))
    # The usual batch is not divided.
    return [] if total.sum() <= BATCH_BYTES else total.tolist()


def _offsets(array: Any) -> Any:
    return np.asarray(array.view().buffer(1))[array.offset : array.offset + array.length + 1]


def _encoded(batch: Batch, columns: Sequence[Column], begin: int, end: int) -> EncodedRows:
    parts = [wire.integer(1, end - begin)]
    for found, array, column in zip(batch.formats, batch.arrays, columns, strict=True):
        parts += wire.message(2, _column(found, array[begin:end], is_decimal=column.kind == "decimal"))
    return EncodedRows(parts)


def encode_values(columns: Sequence[Sequence[Any]]) -> EncodedRows:
    """Encodes columns of Python's values: bool, int, float, str, bytes and None."""
    parts = [wire.integer(1, len(columns[0]))]
    for values in columns:
        parts += wire.message(2, _of_values(values))
    return EncodedRows(parts)


def _column(found: str, array: Any, *, is_decimal: bool) -> list[bytes]:
    if found == "n":
        return [_nulls(np.ones(array.length, np.bool_))]
    absent = missing(array)
    nulls = _nulls(absent)
    if found in ("u", "z"):
        texts = [wire.present_bytes(1, it) for it in byte_strings(array)]
        return [nulls, *wire.message(BLOBS if found == "z" else DECIMALS if is_decimal else TEXTS, texts)]
    values = _booleans(array) if found == "b" else numbers(array)[0]
    if absent is not None:
        values = np.where(absent, values.dtype.type(0), values)
    match found:
        case "b":
            return [nulls, *wire.message(BOOLS, wire.message(1, [values.astype(np.uint8).tobytes()]))]
        case "l":
            return [nulls, *wire.message(INTS, wire.message(1, [varints(values.view(np.uint64))]))]
        case "L":
            return [nulls, *wire.message(UINTS, wire.message(1, [varints(values)]))]
        case "g":
            return [nulls, *wire.message(FLOATS, wire.message(1, [values.tobytes()]))]
        case "tdD":
            return [nulls, *wire.message(DATES, wire.message(1, [varints(_zigzag(values))]))]
        case _:
            has_zone = wire.integer(2, int(found == FORMAT_OF_INSTANTS))
            return [nulls, *wire.message(TIMESTAMPS, [*wire.message(1, [varints(_zigzag(values))]), has_zone])]


def _nulls(absent: Any) -> bytes:
    return b"" if absent is None else wire.blob(1, np.packbits(absent, bitorder="little").tobytes())


def byte_strings(array: Any) -> list[bytes]:
    """Returns the values of an array of texts or byte strings. A missing one is empty."""
    view = array.view()
    offsets = _offsets(array).tolist()
    data = memoryview(view.buffer(2))
    return [bytes(data[start:end]) for start, end in pairwise(offsets)]


def _booleans(array: Any) -> Any:
    bits = np.asarray(array.view().buffer(1)).view(np.uint8)
    return np.unpackbits(bits, count=array.offset + array.length, bitorder="little")[array.offset :].astype(np.bool_)


def _zigzag(values: Any) -> Any:
    wide = values.astype(np.int64)
    return ((wide << 1) ^ (wide >> 63)).view(np.uint64)


def varints(values: Any) -> bytes:
    """Encodes an array of unsigned integers of 64 bits, one after the other."""
    if not len(values):
        return b""
    lengths = np.ones(len(values), np.int64)
    for bits in range(7, 64, 7):
        lengths += values >= np.uint64(1 << bits)
    width = int(lengths.max())
    places = np.arange(width)
    encoded = np.empty((len(values), width), np.uint8)
    for place in range(width):
        encoded[:, place] = values >> np.uint64(7 * place) & np.uint64(0x7F)
    encoded[places < lengths[:, None] - 1] |= 0x80
    return encoded[places < lengths[:, None]].tobytes()


def _of_values(values: Sequence[Any]) -> list[bytes]:
    absent = [it is None for it in values]
    nulls = wire.blob(1, null_bits(absent)) if any(absent) else b""
    kinds = {type(it) for it in values if it is not None}
    if not kinds:
        return [nulls]
    if kinds == {str}:
        return [nulls, *wire.message(TEXTS, [wire.present_text(1, it or "") for it in values])]
    if kinds == {float}:
        packed = np.array([0.0 if it is None else it for it in values]).tobytes()
        return [nulls, *wire.message(FLOATS, wire.message(1, [packed]))]
    if kinds == {int} and all(it is None or -(2**63) <= it < 2**63 for it in values):
        ints = np.array([it or 0 for it in values], np.int64)
        return [nulls, *wire.message(INTS, wire.message(1, [varints(ints.view(np.uint64))]))]
    if kinds == {bool}:
        return [nulls, *wire.message(BOOLS, wire.message(1, [bytes(map(bool, values))]))]
    return [nulls, *wire.message(MIXED, [wire.present_bytes(1, _cell(it)) for it in values])]


def _cell(value: Any) -> bytes:
    match value:
        case None:
            return b""
        case bool():
            return wire.present_integer(1, int(value))
        case int() if -(2**63) <= value < 2**63:
            return wire.present_integer(2, value)
        case float():
            return wire.present_double(4, value)
        case bytes():
            return wire.present_bytes(6, value)
    return wire.present_text(5, str(value))
