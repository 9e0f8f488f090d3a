"""Classifies the declared types of columns, by the names of types in each database.

The declared type decides how a column is read. If it leaves that open, the column's values decide.
"""

from __future__ import annotations

import re
from enum import Enum


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


PATTERNS = {
    Declared.BOOLEAN: re.compile(r"bool(ean)?|tinyint\(1\)"),
    Declared.INTEGER: re.compile(
        r"(tiny|small|medium|big|unsigned big )?int(eger)?\d?(\s*\(\d+\))?( unsigned)?|oid|year|bit\(\d+\)"
    ),
    Declared.DECIMAL: re.compile(r"(decimal|numeric|number|dec|fixed)\b.*"),
    Declared.NUMBER: re.compile(r"(double( precision)?|float\d?|real|money)\b.*"),
    Declared.DATE: re.compile(r"(date(time)?|timestamp)\b.*"),
    Declared.TEXT: re.compile(
        r"(n?(var)?char(acter)?( varying)?|(tiny|medium|long|n)?text|clob|enum|set|name|uuid|json|jsonb|\"char\")\b.*"
    ),
}
"""The whole name of a type, in lower case. The first match counts."""


def declared(database_type: str) -> Declared:
    """Classifies a type by its name."""
    name = database_type.strip().lower()
    return next((kind for kind, pattern in PATTERNS.items() if pattern.fullmatch(name)), Declared.OPEN)
