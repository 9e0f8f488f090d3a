"""Decides from a label's declared type, and a few rows, whether it has classes or numbers. See `features.labels`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlflow_submitter.database import Database
from sqlflow_submitter.errors import UserError, shortened
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.texts import Form, form_of
from sqlflow_submitter.step import Query
from sqlflow_submitter.values import DATE_KINDS, ColumnInfo, Kind

MAX_SHOWN = 60
"""Maximum length of a value in a message, in characters."""


def label_has_classes(label: str, described: Sequence[ColumnInfo], query: Query, database: Database) -> bool | None:
    """Returns whether a label without an objective certainly has classes (True) or numbers (False). None: unknown."""
    column = _column(label, described)
    kind = column.kind
    if kind is Kind.BOOL:
        return True
    if kind in DATE_KINDS or declared(column.database_type) is Declared.NUMBER:
        return False
    return True if _word(column, query, database) is not None else None


def check_words(label: str, described: Sequence[ColumnInfo], query: Query, database: Database, reason: str) -> None:
    """Raises UserError if a label that must be a number has a word in its first rows.

    `reason` is why it must be a number, and what to do about it.
    """
    word = _word(_column(label, described), query, database)
    if word is not None:
        raise UserError(f"label {label}: {shortened(word, MAX_SHOWN)!r} is not a number, and {reason}")


def _column(label: str, described: Sequence[ColumnInfo]) -> ColumnInfo:
    return described[locate("label", [label], [column.name for column in described])[label]]


def _word(column: ColumnInfo, query: Query, database: Database) -> str | None:
    """Returns a word in a column that may have words, or None. A word makes all values classes."""
    if column.kind is not None or declared(column.database_type) not in (Declared.TEXT, Declared.OPEN):
        return None
    found = database.sample(query, column.name)
    return next((value for value in found if isinstance(value, str) and form_of(value) is Form.WORDS), None)
