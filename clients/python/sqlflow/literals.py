"""Values as SQL literals, for the parameters of DB-API cursors: the server takes a program, which is one text."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlflow.errors import ConversionError

DIALECTS = ("sqlite", "duckdb", "mysql", "postgresql")


def dialect_of(datasource: str) -> str | None:
    """The dialect of a data source; None: only the server knows it."""
    scheme = datasource.partition("://")[0].lower()
    scheme = {"postgres": "postgresql", "sqlite3": "sqlite"}.get(scheme, scheme)
    return scheme if scheme in DIALECTS else None


def bound(operation: str, parameters: Sequence[Any] | Mapping[str, Any], dialect: str | None) -> str:
    """The operation with `%s` and `%(name)s` replaced by literals, and `%%` by `%`.

    Raises:
        ConversionError: a value has no literal, or the parameters do not fit the operation.
    """
    arguments: Any
    if isinstance(parameters, Mapping):
        arguments = {name: literal(value, dialect) for name, value in parameters.items()}
    else:
        arguments = tuple(literal(value, dialect) for value in parameters)
    try:
        program: str = operation % arguments
        return program
    except (TypeError, ValueError, KeyError) as error:
        raise ConversionError(
            f"cannot bind the parameters: {error}; write %s or %(name)s for each of them, and %% for a percent sign"
        ) from error


def literal(value: Any, dialect: str | None) -> str:
    """The literal of a value.

    Raises:
        ConversionError: there is none.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return _number(str(int(value)))
        case float() if math.isfinite(value):
            return _number(repr(float(value)))
        case Decimal() if value.is_finite():
            return _number(format(value, "f"))
        case float() | Decimal():
            if dialect == "postgresql":
                return f"'{value}'::float8" if isinstance(value, float) else f"'{value}'::numeric"
            if dialect == "duckdb" and isinstance(value, float):
                return f"'{value}'::DOUBLE"
            raise ConversionError(f"cannot bind {value}: it has no literal in SQL; bind None")
        case str():
            return _text(value, dialect)
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value), dialect)
        case dt.datetime() if value != value:
            # NaT of pandas.
            raise ConversionError("cannot bind NaT: it has no literal in SQL; bind None")
        case dt.datetime():
            return f"'{value.isoformat(sep=' ')}'"
        case dt.date() | dt.time():
            return f"'{value.isoformat()}'"
        case _ if hasattr(value, "item") and getattr(value, "shape", None) == ():
            return literal(_item(value), dialect)
        case _:
            raise ConversionError(f"cannot bind a {type(value).__name__}: it has no literal in SQL")


def _item(scalar: Any) -> Any:
    """A scalar of numpy as one of Python."""
    item = scalar.item()
    if scalar.dtype.kind in "mM" and isinstance(item, int):
        # Python's times have no nanoseconds, so numpy returns their count.
        raise ConversionError(f"cannot bind a {scalar.dtype}: Python has no such unit; convert it to [us]")
    return item


def _number(text: str) -> str:
    # Two minus signs in a row would begin a comment.
    return f" {text}" if text.startswith("-") else text


def _text(value: str, dialect: str | None) -> str:
    if "\0" in value:
        raise ConversionError("cannot bind a text with a zero byte: programs have none")
    quoted = value.replace("'", "''")
    if "\\" not in value or dialect in ("sqlite", "duckdb"):
        return f"'{quoted}'"
    # Whether a backslash is a character or begins an escape depends on the database and its settings.
    escaped = quoted.replace("\\", "\\\\")
    if dialect == "postgresql":
        return f" E'{escaped}'"
    if dialect == "mysql":
        return f"'{escaped}'"
    raise ConversionError(
        "cannot bind a text with a backslash: the database's dialect is not known; "
        f"give dialect= one of {', '.join(DIALECTS)} to connect"
    )


def _bytes(value: bytes, dialect: str | None) -> str:
    if dialect == "postgresql":
        return f"'\\x{value.hex()}'::bytea"
    if dialect in ("sqlite", "duckdb", "mysql"):
        return f"X'{value.hex()}'"
    raise ConversionError(
        f"cannot bind bytes: the database's dialect is not known; give dialect= one of {', '.join(DIALECTS)} to connect"
    )
