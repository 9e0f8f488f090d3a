"""What a column's declared type says about its values, by the names that each database gives its types.

The declared type decides what a column is taken for; where it leaves that open, all of the column's values do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from sqlflow_submitter.connect.database import ColumnInfo
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate


class Declared(Enum):
    """What the declared type promises."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    DECIMAL = "decimal"
    """A decimal number: whole if all of its values are. `NUMERIC` alone has no fraction in MySQL, and may elsewhere."""
    NUMBER = "number"
    DATE = "date"
    """A date or a timestamp. SQLite has neither: there its values decide, but words are refused."""
    TEXT = "text"
    OPEN = "open"
    """Nothing: SQLite's expressions and columns without a type, and types that only a database knows."""


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
    """Reads the name of a column's type."""
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
    """Refuses columns that are to be numbers, where the database's own type for amounts is none that can be read.

    Args:
        names: those of the columns, which the select has.
        described: the columns of the select.
        dialect: the database.

    Raises:
        UserError: one is of PostgreSQL's `money`. SQLite, which has no types of values, may have a number there.
    """
    if dialect != "postgresql":
        return
    for place in locate("column", names, [column.name for column in described]).values():
        name, database_type, _ = described[place]
        if database_type == "money":
            raise UserError(
                f"cannot read column {name} as a number: its type is money, which PostgreSQL prints with the signs of "
                f"its locale; write CAST({name} AS numeric) AS {name} in the select"
            )
