"""MySQL's column types: names and decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pymysql.charset import charset_by_id
from pymysql.connections import FieldDescriptorPacket
from pymysql.constants import FIELD_TYPE, FLAG

from sqlflow_submitter.connect import decode
from sqlflow_submitter.connect.database import ColumnInfo, Kind, Values

BINARY_CHARSET = 63


def bits(raw: Sequence[bytes | None]) -> Values:
    """BIT(n) is sent as n/8 bytes, most significant first."""
    return Values(Kind.INT, [None if value is None else int.from_bytes(value, "big") for value in raw])


Decoder = Callable[[Sequence[Any]], Values]

TYPES: dict[int, tuple[str, Decoder]] = {
    FIELD_TYPE.TINY: ("TINYINT", decode.ints),
    FIELD_TYPE.SHORT: ("SMALLINT", decode.ints),
    FIELD_TYPE.INT24: ("MEDIUMINT", decode.ints),
    FIELD_TYPE.LONG: ("INT", decode.ints),
    FIELD_TYPE.LONGLONG: ("BIGINT", decode.ints),
    FIELD_TYPE.YEAR: ("YEAR", decode.ints),
    FIELD_TYPE.BIT: ("BIT", bits),
    FIELD_TYPE.FLOAT: ("FLOAT", decode.floats),
    FIELD_TYPE.DOUBLE: ("DOUBLE", decode.floats),
    FIELD_TYPE.DECIMAL: ("DECIMAL", decode.decimals),
    FIELD_TYPE.NEWDECIMAL: ("DECIMAL", decode.decimals),
    FIELD_TYPE.DATE: ("DATE", decode.dates),
    FIELD_TYPE.NEWDATE: ("DATE", decode.dates),
    FIELD_TYPE.DATETIME: ("DATETIME", decode.timestamps),
    # Printed in the session's time zone, without naming it. `describe` has a decoder that converts to UTC.
    FIELD_TYPE.TIMESTAMP: ("TIMESTAMP", decode.timestamps),
    FIELD_TYPE.TIME: ("TIME", decode.texts),
    FIELD_TYPE.JSON: ("JSON", decode.texts),
    FIELD_TYPE.NULL: ("NULL", decode.texts),
    FIELD_TYPE.GEOMETRY: ("GEOMETRY", decode.blobs),
}

BLOB_TYPES = {FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB, FIELD_TYPE.BLOB}
WHOLE = {FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG}


def column_info(field: FieldDescriptorPacket) -> ColumnInfo:
    """Describes a column from the server's field packet."""
    if field.type_code in TYPES:
        name, decoder = TYPES[field.type_code]
        if field.type_code == FIELD_TYPE.TINY and field.length == 1:
            # BOOLEAN is an alias of it.
            name += "(1)"
        elif field.type_code in WHOLE and field.flags & FLAG.UNSIGNED:
            name += " UNSIGNED"
        elif field.type_code == FIELD_TYPE.NEWDECIMAL:
            name += f"({_precision(field)},{field.scale})"
        elif field.type_code == FIELD_TYPE.BIT:
            name += f"({field.length})"
        return ColumnInfo(field.name, name, decoder)
    # Texts and bytes share a few types; the character set distinguishes them.
    if field.charsetnr == BINARY_CHARSET:
        if field.type_code in BLOB_TYPES:
            return ColumnInfo(field.name, "BLOB", decode.blobs)
        kind = "VARBINARY" if field.type_code == FIELD_TYPE.VAR_STRING else "BINARY"
        return ColumnInfo(field.name, f"{kind}({field.length})", decode.blobs)
    if field.type_code in BLOB_TYPES:
        return ColumnInfo(field.name, "TEXT", decode.texts)
    if field.flags & FLAG.ENUM:
        return ColumnInfo(field.name, "ENUM", decode.texts)
    if field.flags & FLAG.SET:
        return ColumnInfo(field.name, "SET", decode.texts)
    kind = "CHAR" if field.type_code == FIELD_TYPE.STRING else "VARCHAR"
    return ColumnInfo(field.name, f"{kind}({field.length // _bytes_per_character(field)})", decode.texts)


def _precision(field: FieldDescriptorPacket) -> int:
    """Returns the precision. The announced length includes the point and the sign."""
    return int(field.length - (field.scale > 0) - (not field.flags & FLAG.UNSIGNED))


def _bytes_per_character(field: FieldDescriptorPacket) -> int:
    try:
        name = charset_by_id(field.charsetnr).name
    except KeyError:
        name = "utf8mb4"
    return {"utf8mb4": 4, "utf8": 3, "utf8mb3": 3}.get(name, 1)
