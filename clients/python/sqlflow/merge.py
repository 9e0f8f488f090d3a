"""One type for a column whose batches differ.

The server chooses the type of a column for each batch by its values: a batch of NULLs has none, and integers that do
not fit into 64 bits with a sign come as unsigned. In SQLite each value has a type of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlflow.declared import declared_kind
from sqlflow.values import Batch, Cell, Column, ColumnInfo, Kind

LARGEST_EXACT = 2**53
"""Up to here every integer is a double."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A column of all batches."""

    info: ColumnInfo
    kind: Kind
    """Type that holds all values. `MIXED`: there is none."""
    parts: Sequence[Column]

    def cells(self) -> list[Cell]:
        """All values in Python's types."""
        return [cell for part in self.parts for cell in part.cells()]

    def nulls(self) -> list[int]:
        """The rows that are NULL."""
        rows: list[int] = []
        begin = 0
        for part in self.parts:
            rows += [begin + row for row in part.nulls()]
            begin += part.count
        return rows


def merged(columns: Sequence[ColumnInfo], batches: Sequence[Batch]) -> list[Merged]:
    """The columns of all batches together."""
    return [_merged(info, [batch.columns[place] for batch in batches]) for place, info in enumerate(columns)]


def _merged(info: ColumnInfo, parts: Sequence[Column]) -> Merged:
    kinds = {part.kind for part in parts} - {Kind.NULL}
    if not kinds:
        # What the database declares, so that an empty table has the same types as a full one.
        return Merged(info, declared_kind(info.database_type), parts)
    if len(kinds) == 1 and kinds != {Kind.MIXED}:
        return Merged(info, kinds.pop(), parts)
    return Merged(info, _common(parts), parts)


def _common(parts: Sequence[Column]) -> Kind:
    """The type for values of several types: numbers have one if none of them changes in it."""
    least, most = 0, 0
    has_double = False
    for part in parts:
        for cell in part.cells():
            if cell is None:
                continue
            if isinstance(cell, float):
                has_double = True
            elif isinstance(cell, int) and not isinstance(cell, bool):
                least, most = min(least, cell), max(most, cell)
            else:
                return Kind.MIXED
    if has_double:
        return Kind.DOUBLE if max(-least, most) <= LARGEST_EXACT else Kind.MIXED
    if most < 2**63:
        return Kind.INT
    return Kind.UINT if least == 0 else Kind.MIXED
