"""Classifies the declared types of columns, by the names of types in each database.

The declared type decides how a column is read. If it leaves that open, the column's values decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from sqlflow_submitter.connect.database import ColumnInfo
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate


class Declared(Enum):
    """What the declared type says about the values."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    DECIMAL = "decimal"
    """A decimal number; whole if all values are. `NUMERIC` has no fraction in MySQL, and may have one elsewhere."""
    NUMBER = "number"
    DATE = "date"
    """A date or a timestamp. In SQLite, which has neither type, the values decide, but words are rejected."""
    TEXT = "text"
    OPEN = "open"
    """Nothing: SQLite's expressions and columns without a type, and types of a single database."""


_BOOLEAN = re.compile(r"bool(ean)?|tinyint\(1\)")
_DECIMAL = re.compile(r"(decimal|numeric|number|dec|fixed)\b.*")
_INTEGER = re.compile(
    r"(tiny|small|medium|big|unsigned big )?int(eger)?\d?(\s*\(\d+\))?( unsigned)?|oid|year|bit\(\d+\)"
)
_NUMBER = re.compile(r"(double( precision)?|float\d?|real|money)\b.*")
_DATE = re.compile(r"(date(time)?|timestamp)\b.*")
_TEXT = re.compile(
    r"(n?(var)?char(acter)?( varying)?|(tiny|medium|long|n)?text|clob|enum|set|name|uuid|json|jsonb|\"char\")\b.*"
)


def declared(database_type: str) -> Declared:
    """Classifies a type by its name."""
    name = database_type.strip().lower()
    if _BOOLEAN.fullmatch(name):
        return Declared.BOOLEAN
    if _INTEGER.fullmatch(name):
        return Declared.INTEGER
    if _DECIMAL.fullmatch(name):
        return Declared.DECIMAL
    if _NUMBER.fullmatch(name):
        return Declared.NUMBER
    if _DATE.fullmatch(name):
        return Declared.DATE
    if _TEXT.fullmatch(name):
        return Declared.TEXT
    return Declared.OPEN


def check_numbers(names: Iterable[str], described: Sequence[ColumnInfo], dialect: str) -> None:
    """Checks that the types of columns can be read as numbers.

    Args:
        names: the columns that must be numbers; the select has them.
        described: the columns of the select.
        dialect: the database.

    Raises:
        UserError: a column has PostgreSQL's type `money`. In SQLite, a column of that type may have numbers.
    """
    if dialect != "postgresql":
        return
    for place in locate("column", names, [column.name for column in described]).values():
        name, database_type, _ = described[place]
        if database_type == "money":
            raise UserError(
                f"cannot read column {name} as a number: its type is money, which PostgreSQL prints in the format of "
                f"its locale; write CAST({name} AS numeric) AS {name} in the select"
            )
