"""Types by the names that databases give them, for columns without a value, and for `Cursor.description`."""

from __future__ import annotations

import re

from sqlflow.values import Kind

_NAMES = {
    Kind.BOOL: "bool boolean",
    Kind.INT: (
        "int integer tinyint smallint mediumint bigint int2 int4 int8 serial bigserial smallserial oid year unsigned "
        "utinyint usmallint uinteger"
    ),
    Kind.UINT: "ubigint",
    Kind.DOUBLE: "double real float float4 float8",
    Kind.DECIMAL: "decimal numeric dec hugeint uhugeint bignum",
    Kind.TEXT: (
        "char varchar text tinytext mediumtext longtext clob nchar nvarchar character bpchar name uuid json jsonb "
        "enum set time timetz interval xml inet cidr macaddr money citext struct map union variant "
        "time_ns timestamp_ns timestamptz_ns"
    ),
    Kind.BLOB: "blob tinyblob mediumblob longblob binary varbinary bytea geometry",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "datetime timestamp timestamp_s timestamp_ms",
    Kind.INSTANT: "timestamptz",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_WORD = re.compile(r"[a-z][a-z0-9_]*")


def declared_kind(database_type: str) -> Kind:
    """The type of values in a column that the database declares so; `NULL`: not known.

    `DECIMAL(10,2)`, `double precision`, `timestamp with time zone` and `int unsigned` are known by their first word.
    """
    text = database_type.lower()
    word = _WORD.match(text)
    if word is None or text.endswith("]"):
        # PostgreSQL's `int4[]`, and DuckDB's `INTEGER[]` and `INTEGER[3]`.
        return Kind.TEXT if word is not None else Kind.NULL
    if word[0] == "bit":
        # MySQL's BIT(10) is a number. PostgreSQL's has no length in its name, and is printed.
        return Kind.INT if "(" in text else Kind.TEXT
    kind = _KINDS.get(word[0], Kind.NULL)
    if kind is Kind.TIMESTAMP and "with time zone" in text:
        return Kind.INSTANT
    return Kind.TEXT if word[0] == "time" else kind
