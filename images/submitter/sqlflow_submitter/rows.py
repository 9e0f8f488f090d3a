"""Encodes computed rows as a Rows message, which is passed to the client unchanged.

The documentation of the message is in `proto/sqlflow/v1/data.proto`. The rows of databases are the data process's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlflow_submitter import wire
from sqlflow_submitter.frames import Content


class Rows(Content):
    """Rows, by column. The values are integers, texts and None. All columns have the same length."""

    FIELD = 5

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self.columns = columns

    def encode(self) -> list[bytes]:
        parts = [wire.integer(1, len(self.columns[0]))]
        for values in self.columns:
            parts += wire.message(2, encode_column(values))
        return parts


def encode_column(values: Sequence[Any]) -> list[bytes]:
    """Encodes one column as a Column message, in parts."""
    missing = [value is None for value in values]
    nulls = wire.blob(1, null_bits(missing)) if any(missing) else b""
    if all(missing):
        return [nulls]
    if all(isinstance(value, str | None) for value in values):
        return [nulls, *wire.message(6, [wire.present_text(1, value or "") for value in values])]
    if all(isinstance(value, int | None) for value in values):
        return [nulls, *wire.message(3, wire.message(1, [wire.varint((value or 0) % 2**64) for value in values]))]
    return [nulls, *wire.message(11, [wire.present_bytes(1, _cell(value)) for value in values])]


def null_bits(missing: Sequence[bool]) -> bytes:
    """Returns the bitmap of NULLs. Row r is bit r % 8 of byte r / 8, least significant bit first."""
    digits = "".join(["1" if it else "0" for it in reversed(missing)])
    return int(digits, 2).to_bytes((len(missing) + 7) // 8, "little")


def _cell(value: Any) -> bytes:
    """Encodes one value of a mixed column."""
    match value:
        case None:
            return b""
        case str():
            return wire.present_text(5, value)
        case int():
            return wire.present_integer(2, value)
    raise TypeError(f"a computed column holds a {type(value).__name__}")
