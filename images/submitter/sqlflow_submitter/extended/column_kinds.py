"""Finds columns that a model cannot read, from their declared types and a few values, before all rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum

from sqlflow_submitter.database import Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.spec import CATEGORY_HASH, CATEGORY_ID, DENSE, VOCABULARY, Feature
from sqlflow_submitter.features.texts import is_never_missing
from sqlflow_submitter.step import Query
from sqlflow_submitter.values import DATE_KINDS, NUMERIC_KINDS, ColumnInfo, Kind

NUMERIC_TYPES = (Declared.BOOLEAN, Declared.INTEGER, Declared.DECIMAL, Declared.NUMBER)
DECODED = {
    "sqlite": "CAST({} AS TEXT)",
    "mysql": "CONVERT({} USING utf8mb4)",
    "postgresql": "convert_from({}, 'UTF8')",
    "duckdb": "decode({})",
}
AS_TEXT = {"sqlite": "hex({})", "mysql": "HEX({})", "postgresql": "encode({}, 'hex')", "duckdb": "hex({})"}


class Expected(Enum):
    """The values that a feature reads."""

    NUMBER = "number"
    DATE = "date"
    EITHER = "number or date"
    ANY = "number, date or text"


def learned_features(
    features: Sequence[Feature], derived: Iterable[str], described: Sequence[ColumnInfo]
) -> list[Feature]:
    """Returns the features that training will learn, as far as declared types decide them.

    Args:
        features: the features that the COLUMN clause defines.
        derived: the columns whose features are derived.
        described: the columns of the training data.
    """
    columns = {column.name: column for column in described}
    found = []
    for feature in features:
        feature.use_canonical_text()
        is_number = feature.kind == DENSE and feature.width == 1
        form = _learned_form(columns[feature.column]) if is_number else ""
        found.append(Feature(DENSE, column=feature.column, form=form) if form else feature)
    for name in derived:
        form = _learned_form(columns[name])
        found.append(Feature(DENSE if form else VOCABULARY, column=name, form=form))
    return found


def _learned_form(column: ColumnInfo) -> str:
    kind = column.kind
    if kind in DATE_KINDS:
        return Expected.DATE.value
    is_number = kind in NUMERIC_KINDS or declared(column.database_type) in NUMERIC_TYPES
    return Expected.NUMBER.value if is_number else ""


def check_kinds(
    features: Iterable[Feature],
    described: Sequence[ColumnInfo],
    query: Query,
    database: Database,
    is_read: Callable[[str], bool] = lambda _: True,
    *,
    of_model: bool = False,
) -> None:
    """Checks that a model can read the types of its columns.

    Args:
        features: the model's features; the select has their columns.
        described: the columns of the select.
        query: the select. Some of its rows are read if a type is unsuitable.
        database: the database.
        is_read: whether the model certainly reads a column. Training omits one without a value.
        of_model: whether a trained model decides which columns are read.

    Raises:
        UserError: a column with a value has binary data, PostgreSQL's type `money`, or a date where the model reads a
            number, or the reverse.
    """
    names = [column.name for column in described]
    for name, expected in _columns(features):
        column = described[locate("column", [name], names)[name]]
        reason = _reason(column, expected, database.dialect, of_model=of_model)
        if reason is not None and is_read(name) and _has_typed_value(query, column, database):
            raise UserError(f"cannot read column {name}{reason}")


def check_label(label: str, described: Sequence[ColumnInfo], dialect: str, *, as_number: bool) -> None:
    """Checks that a label's type can be read. Each row must have a label, so no value is needed.

    Raises:
        UserError: it is binary data, or of PostgreSQL's type `money` where labels are numbers.
    """
    names = [column.name for column in described]
    column = described[locate("label", [label], names)[label]]
    if column.kind is Kind.BLOB:
        raise UserError(
            f"cannot read label {label}: its type is {column.database_type.lower()}, "
            "and a label is a number, a text or a boolean; "
            f"if it holds text, write {DECODED[dialect].format(label)} AS {label} in the select"
        )
    if as_number and _is_money(column, dialect):
        raise UserError(f"cannot read column {label} as a number{_money(label)}")


def certainly_has_values(query: Query, column: str, database: Database) -> bool:
    """Returns whether a column certainly has a value that is not missing. Training omits a column without one."""
    return any(map(is_never_missing, database.sample(query, column)))


def _columns(features: Iterable[Feature]) -> Iterator[tuple[str, Expected]]:
    """Returns the columns that features read."""
    for feature in features:
        if feature.inputs:
            yield from _columns(feature.inputs)
        elif feature.kind == CATEGORY_ID:
            yield feature.column, Expected.NUMBER
        elif feature.kind == DENSE:
            yield feature.column, Expected(feature.form) if feature.form else Expected.EITHER
        elif feature.kind != CATEGORY_HASH or feature.canonical:
            # A model of format 1 hashes binary data, too.
            yield feature.column, Expected.ANY


def _reason(column: ColumnInfo, expected: Expected, dialect: str, *, of_model: bool) -> str | None:
    """Returns the rest of the message if a value of this column cannot be read."""
    kind = column.kind
    if kind is Kind.BLOB or (dialect == "sqlite" and "blob" in column.database_type.lower()):
        return _binary(column, dialect, of_model=of_model)
    if expected is not Expected.ANY and _is_money(column, dialect):
        return f" as a number{_money(column.name)}"
    is_wrong = (expected is Expected.NUMBER and kind in DATE_KINDS) or (
        expected is Expected.DATE and kind in NUMERIC_KINDS
    )
    other = f"the model reads a {expected.value} there; select a {expected.value}"
    return f": its type is {column.database_type.lower()}, and {other}" if is_wrong else None


def _binary(column: ColumnInfo, dialect: str, *, of_model: bool) -> str:
    convert = f"write {AS_TEXT[dialect].format(column.name)} AS {column.name} in the select"
    advice = f"if the model was trained so, {convert}" if of_model else f"omit it, or {convert}"
    return f": its type is {column.database_type.lower()}, and a model reads no binary data; {advice}"


def _is_money(column: ColumnInfo, dialect: str) -> bool:
    # In SQLite, a column of that type may have numbers.
    return dialect == "postgresql" and column.database_type == "money"


def _money(name: str) -> str:
    return (
        ": its type is money, which PostgreSQL prints in the format of its locale; "
        f"write CAST({name} AS numeric) AS {name} in the select"
    )


def _has_typed_value(query: Query, column: ColumnInfo, database: Database) -> bool:
    """Returns whether some row certainly has a value of the declared type."""
    if database.dialect == "sqlite":
        return bool(database.sample(query, column.name, of_type="blob"))
    # A date outside every calendar, such as `infinity`, is a text, and is missing.
    is_date = column.kind in DATE_KINDS
    return any(not is_date or isinstance(value, int) for value in database.sample(query, column.name))
