"""Result sets as DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sqlflow.merge import Merged, merged
from sqlflow.values import Kind

if TYPE_CHECKING:
    from sqlflow.result import Table


def to_pandas(table: Table) -> pd.DataFrame:
    """A DataFrame with a column for each column, also for several of one name."""
    series = [_series(column) for column in merged(table.columns, table.batches)]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=pd.RangeIndex(len(table)))
    frame.columns = pd.Index(table.column_names)
    return frame


def _series(column: Merged) -> pd.Series[Any]:
    match column.kind:
        case Kind.INT:
            return _integers(column, "int64")
        case Kind.UINT:
            return _integers(column, "uint64")
        case Kind.BOOL:
            return _booleans(column)
        case Kind.DOUBLE:
            return pd.Series(_raw(column, "float64", np.nan))
        case Kind.DATE:
            # In seconds, which has room for each date that a database has.
            return _times(column, "datetime64[D]", "datetime64[s]")
        case Kind.TIMESTAMP:
            return _times(column, "datetime64[us]", "datetime64[us]")
        case Kind.INSTANT:
            instants: pd.Series[Any] = _times(column, "datetime64[us]", "datetime64[us]").dt.tz_localize("UTC")
            return instants
        case Kind.TEXT:
            # pandas chooses its type for texts, which a column of NULLs does not show.
            return pd.Series(column.cells(), dtype=pd.Series(["a"]).dtype)
        case _:
            return pd.Series(column.cells(), dtype="object")


def _raw(column: Merged, dtype: str, null: Any) -> np.ndarray[Any, Any]:
    """The values as they were sent, with `null` in place of NULL."""
    arrays = []
    for part in column.parts:
        if part.kind is Kind.NULL:
            values = np.full(part.count, null, dtype)
        elif part.kind is Kind.MIXED:
            values = np.array([null if cell is None else cell for cell in part.cells()], dtype)
        else:
            values = np.fromiter(part.raw(), dtype, part.count)
            values[part.nulls()] = null
        arrays.append(values)
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _integers(column: Merged, dtype: str) -> pd.Series[Any]:
    values, mask = _raw(column, dtype, 0), _mask(column)
    return pd.Series(pd.arrays.IntegerArray(values, mask) if mask.any() else values)


def _booleans(column: Merged) -> pd.Series[Any]:
    values, mask = _raw(column, "bool", False), _mask(column)
    return pd.Series(pd.arrays.BooleanArray(values, mask) if mask.any() else values)


def _mask(column: Merged) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are NULL."""
    mask = np.zeros(sum(part.count for part in column.parts), np.bool_)
    mask[column.nulls()] = True
    return mask


def _times(column: Merged, sent: str, wanted: str) -> pd.Series[Any]:
    # The smallest number is numpy's "not a time".
    return pd.Series(_raw(column, "int64", np.iinfo("int64").min).view(sent).astype(wanted))
