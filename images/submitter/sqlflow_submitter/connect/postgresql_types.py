"""PostgreSQL's column types: names and decoders.

Types are identified by OID. The OIDs of built-in types never change. A type of a user or extension has no name here,
and its values are texts as the server prints them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlflow_submitter.connect import decode
from sqlflow_submitter.connect.database import ColumnInfo, Kind, Values

NUMERIC = 1700
BPCHAR = 1042
VARCHAR = 1043


def bools(raw: Sequence[bytes | None]) -> Values:
    return Values(Kind.BOOL, [None if value is None else value == b"t" for value in raw])


def hex_blobs(raw: Sequence[bytes | None]) -> Values:
    r"""bytea is printed as `\x0aff`."""
    return Values(Kind.BLOB, [None if value is None else bytes.fromhex(value[2:].decode()) for value in raw])


Decoder = Callable[[Sequence[Any]], Values]

TYPES: dict[int, tuple[str, Decoder]] = {
    16: ("boolean", bools),
    17: ("bytea", hex_blobs),
    18: ('"char"', decode.texts),
    19: ("name", decode.texts),
    20: ("bigint", decode.ints),
    21: ("smallint", decode.ints),
    23: ("integer", decode.ints),
    25: ("text", decode.texts),
    26: ("oid", decode.ints),
    114: ("json", decode.texts),
    142: ("xml", decode.texts),
    650: ("cidr", decode.texts),
    700: ("real", decode.floats),
    701: ("double precision", decode.floats),
    790: ("money", decode.texts),
    829: ("macaddr", decode.texts),
    869: ("inet", decode.texts),
    BPCHAR: ("character", decode.texts),
    VARCHAR: ("character varying", decode.texts),
    1082: ("date", decode.dates),
    1083: ("time without time zone", decode.texts),
    1114: ("timestamp without time zone", decode.timestamps),
    1184: ("timestamp with time zone", decode.timestamps_with_zone),
    1186: ("interval", decode.texts),
    1266: ("time with time zone", decode.texts),
    1560: ("bit", decode.texts),
    1562: ("bit varying", decode.texts),
    NUMERIC: ("numeric", decode.decimals),
    2950: ("uuid", decode.texts),
    3802: ("jsonb", decode.texts),
    1000: ("boolean[]", decode.texts),
    1005: ("smallint[]", decode.texts),
    1007: ("integer[]", decode.texts),
    1009: ("text[]", decode.texts),
    1015: ("character varying[]", decode.texts),
    1016: ("bigint[]", decode.texts),
    1021: ("real[]", decode.texts),
    1022: ("double precision[]", decode.texts),
    1231: ("numeric[]", decode.texts),
}


def column_info(result: Any, place: int) -> ColumnInfo:
    """Describes a column of a libpq result."""
    oid = result.ftype(place)
    name, decoder = TYPES.get(oid, ("", decode.texts))
    modifier = result.fmod(place)
    # The modifier includes its own four bytes.
    if oid == NUMERIC and modifier >= 4:
        # The scale is a signed number of 11 bits.
        scale = ((modifier - 4 & 0x7FF) ^ 1024) - 1024
        name += f"({modifier - 4 >> 16 & 0xFFFF},{scale})"
    elif oid in (VARCHAR, BPCHAR) and modifier >= 4:
        name += f"({modifier - 4})"
    column = (result.fname(place) or b"").decode("utf-8", "replace")
    return ColumnInfo(column, name, decoder)
