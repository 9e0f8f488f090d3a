"""Result sets as Arrow tables."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sqlflow.errors import ConversionError
from sqlflow.merge import Merged, merged
from sqlflow.values import Cell, Kind

if TYPE_CHECKING:
    from sqlflow.result import Table

MAX_DIGITS = 76
"""Maximum number of digits of Arrow's decimals."""


def to_arrow(table: Table) -> pa.Table:
    """An Arrow table with a column for each column, also for several of one name.

    Raises:
        ConversionError: a column has values of several types.
    """
    columns = [_array(column) for column in merged(table.columns, table.batches)]
    fields = [pa.field(name, array.type) for name, array in zip(table.column_names, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _array(column: Merged) -> Any:
    match column.kind:
        case Kind.NULL:
            return pa.nulls(sum(part.count for part in column.parts))
        case Kind.MIXED:
            raise ConversionError(
                f"cannot convert column {column.info.name!r} to Arrow: it has values of several types; "
                "write CAST in the program"
            )
        case Kind.DECIMAL:
            return _decimals(column.cells())
        case Kind.DATE:
            return _temporal(column, pa.int32(), pa.date32())
        case Kind.TIMESTAMP:
            return _temporal(column, pa.int64(), pa.timestamp("us"))
        case Kind.INSTANT:
            return _temporal(column, pa.int64(), pa.timestamp("us", "UTC"))
        case kind:
            return pa.array(column.cells(), _TYPES[kind])


_TYPES = {
    Kind.BOOL: pa.bool_(),
    Kind.INT: pa.int64(),
    Kind.UINT: pa.uint64(),
    Kind.DOUBLE: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.BLOB: pa.binary(),
}


def _temporal(column: Merged, stored: Any, wanted: Any) -> Any:
    """Days or microseconds, also beyond the years of Python."""
    arrays = []
    for part in column.parts:
        values: list[int | None] = [None] * part.count if part.kind is Kind.NULL else list(part.raw())
        for row in part.nulls():
            values[row] = None
        arrays.append(pa.array(values, stored))
    return (pa.concat_arrays(arrays) if arrays else pa.array([], stored)).cast(wanted)


def _decimals(cells: list[Cell]) -> Any:
    """Exact decimals; texts if Arrow has none that are exact, as for NaN and for more than 76 digits."""
    whole, scale = 1, 0
    for cell in cells:
        if not isinstance(cell, Decimal):
            continue
        if not cell.is_finite():
            return _texts(cells)
        digits, exponent = cell.as_tuple().digits, int(cell.as_tuple().exponent)
        scale = max(scale, -exponent)
        whole = max(whole, len(digits) + exponent)
    precision = whole + scale
    if precision > MAX_DIGITS:
        return _texts(cells)
    kind = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    return pa.array(cells, kind)


def _texts(cells: list[Cell]) -> Any:
    return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
