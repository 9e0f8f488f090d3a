"""Columns of DuckDB as Arrow arrays of the few types that the submitter and the server know.

Other types are texts, as DuckDB prints them. The conversion is a part of the query, so no value is a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from nanoarrow import c_array, c_array_from_buffers, c_array_stream, c_schema
from nanoarrow import string as arrow_string
from nanoarrow import struct as arrow_struct

from sqlflow_submitter.duckdb_data.opened import first_part

if TYPE_CHECKING:
    import duckdb

INTEGERS = {"tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger"}
DECIMALS = {"decimal", "hugeint", "uhugeint", "bignum"}
"""Printed, they are exact."""
PLAIN = {
    "boolean": "bool",
    "ubigint": "int",
    "double": "float",
    "blob": "blob",
    "date": "date",
    "timestamp": "timestamp",
    "timestamp with time zone": "instant",
}
"""Types that need no conversion, and the kind of their values."""
FORMAT_OF_INSTANTS = "tsu:UTC"
DAY_RANGE = (-719_162, 2_932_896)
"""The years 1 to 9999 in days since 1970-01-01: what dates of clients can hold."""
MICROS_OF_DAY = 86_400_000_000
PRINTED = {
    "tdD": "(DATE '1970-01-01' + v::INTEGER)::VARCHAR",
    "tsu:": "make_timestamp(v)::VARCHAR",
    FORMAT_OF_INSTANTS: "make_timestamp(v)::VARCHAR || '+00'",
}
INFINITE_DAYS = 2**31 - 1
INFINITE_MICROS = 2**63 - 1


class Column(NamedTuple):
    """A column of a result set."""

    name: str
    database_type: str
    kind: str | None
    """The kind of all values, as the link names it, if the type decides it."""
    conversion: str
    """SQL that converts a value `{}`."""

    @staticmethod
    def of(name: str, found: Any) -> Column:
        """`found`: DuckDB's type."""
        kind, conversion = _conversion(str(found.id))
        return Column(name, str(found).strip('"'), kind, conversion)


def _conversion(type_id: str) -> tuple[str | None, str]:
    if type_id in PLAIN:
        return PLAIN[type_id], "{}"
    if type_id in INTEGERS:
        return "int", "CAST({} AS BIGINT)"
    if type_id in DECIMALS:
        return "decimal", "CAST({} AS VARCHAR)"
    if type_id == "float":
        # With the digits that DuckDB prints.
        return "float", "CAST(CAST({} AS VARCHAR) AS DOUBLE)"
    if type_id in ("timestamp_s", "timestamp_ms"):
        return "timestamp", "CAST({} AS TIMESTAMP)"
    return None, "{}" if type_id in ("varchar", "null") else "CAST({} AS VARCHAR)"


def columns_of(relation: Any) -> list[Column]:
    return [Column.of(name, found) for name, found in zip(relation.columns, relation.types, strict=True)]


def converted(select: str, columns: Sequence[Column], condition: str = "") -> str:
    """Returns a query with the columns of a select, converted. Its names are `c0`, `c1`, …"""
    values = ", ".join(f"{it.conversion.format(f'c{place}')} AS c{place}" for place, it in enumerate(columns))
    names = ", ".join(f"c{place}" for place in range(len(columns)))
    # The newline ends a comment that the select may end with.
    return f"SELECT {values} FROM ({without_end(select)}\n) AS sqlflow_select({names}){condition}"


def without_end(select: str) -> str:
    return select.rstrip().rstrip(";")


class Batch(NamedTuple):
    """Consecutive rows of a result set."""

    rows: int
    formats: tuple[str, ...]
    """Arrow's formats of the columns."""
    arrays: list[Any]
    """Arrow arrays."""
    whole: Any
    """The same as DuckDB has sent it, to write it back."""


class StreamError(Exception):
    """The database has rejected the select while its rows were read. The message is DuckDB's."""


def batches(connection: duckdb.DuckDBPyConnection, query: str, max_rows: int) -> Iterator[Batch]:
    """Executes a query of `converted` columns. It runs while its batches are read."""
    relation: Any = connection.query(query)
    # What is public has batches of 131,072 rows, whatever their size, or needs pyarrow.
    stream = c_array_stream(relation._submit("stream", max_rows).arrow_capsule())
    formats = tuple(_format(child.format) for child in stream.get_schema().children)
    while True:
        try:
            array = stream.get_next()
        except StopIteration:
            return
        except RuntimeError as error:
            # nanoarrow prefixes the message.
            raise StreamError(first_part(Exception(str(error).partition("failed (5): ")[2] or str(error)))) from error
        if array.length:
            yield _printable(connection, Batch(array.length, formats, list(array.children), array))


def _format(found: str) -> str:
    # DuckDB names the session's zone. The values are in UTC.
    return FORMAT_OF_INSTANTS if found.startswith("tsu:") and found != "tsu:" else found


def _printable(connection: duckdb.DuckDBPyConnection, batch: Batch) -> Batch:
    """Converts columns with a date outside of the calendar of clients, such as `infinity`, to texts."""
    formats, arrays = list(batch.formats), batch.arrays
    for place, found in enumerate(formats):
        if found in PRINTED and not _is_in_range(found, arrays[place]):
            arrays[place] = c_array(_printed(connection, found, arrays[place]), arrow_string())
            formats[place] = "u"
    return batch._replace(formats=tuple(formats))


def _is_in_range(found: str, array: Any) -> bool:
    values, absent = numbers(array)
    if absent is not None:
        values = values[~absent]
    if not len(values):
        return True
    low, high = DAY_RANGE
    if found != "tdD":
        low, high = low * MICROS_OF_DAY, (high + 1) * MICROS_OF_DAY - 1
    return bool(low <= values.min() and values.max() <= high)


def _printed(connection: duckdb.DuckDBPyConnection, found: str, array: Any) -> list[str | None]:
    values, absent = numbers(array)
    is_there = np.ones(len(values), np.bool_) if absent is None else ~absent
    infinite = INFINITE_DAYS if found == "tdD" else INFINITE_MICROS
    known = {infinite: "infinity", -infinite: "-infinity"}
    finite = sorted({int(it) for it in values[is_there]} - known.keys())
    with connection.cursor() as cursor:
        rows = cursor.execute(f"SELECT v, {PRINTED[found]} FROM (SELECT unnest(?::BIGINT[]) AS v)", [finite]).fetchall()
    known |= dict(rows)
    return [known[int(it)] if present else None for it, present in zip(values, is_there, strict=True)]


def numbers(array: Any) -> tuple[Any, Any]:
    """Returns the values of an array of numbers or dates, and where there is none. Both are arrays of numpy.

    The values where there is none are unspecified; None: there is one everywhere.
    """
    view = array.view()
    values = np.asarray(view.buffer(1))[array.offset : array.offset + array.length]
    return values, missing(array)


def missing(array: Any) -> Any:
    """Returns where an array has no value; None: it has one everywhere."""
    view = array.view()
    if not view.null_count:
        return None
    end = array.offset + array.length
    bits = np.unpackbits(np.asarray(view.buffer(0)).view(np.uint8), count=end, bitorder="little")
    return np.equal(bits[array.offset :], 0)


def record_batch(batch: Batch, columns: Sequence[Column]) -> Any:
    """Returns a batch as an Arrow array with the schema that readers expect."""
    return c_array_from_buffers(schema(batch.formats, columns), batch.rows, [None], children=batch.arrays)


def schema(formats: Sequence[str], columns: Sequence[Column]) -> Any:
    children = []
    for place, (found, column) in enumerate(zip(formats, columns, strict=True)):
        is_decimal = column.kind == "decimal" and found == "u"
        child = c_schema(arrow_string()).modify(
            format=found, name=f"c{place}", metadata={"kind": "decimal"} if is_decimal else None
        )
        children.append(child)
    return c_schema(arrow_struct([])).modify(children=children)


class Reread:
    """An array that DuckDB can scan as a table."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return c_array_stream(self._array).__arrow_c_stream__()
