"""The columns of a PREDICT statement's result table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.result_table import fold_case, own_case
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.step import Statement

MAX_PROBABILITIES = 500
"""Maximum number of probability columns. Databases allow about 1,000 columns in all."""

MAX_NAME_BYTES = 63
"""Limit for a column's name in PostgreSQL. Other databases allow at least as many."""

MAX_MYSQL_NAME = 64
"""Limit for a column's name in MySQL, in characters. PostgreSQL truncates a longer name, and SQLite has no limit."""


class Layout(NamedTuple):
    """The columns, in order."""

    passthrough: dict[str, int]
    """Columns of the select, each with its position in the select."""
    result: str
    probabilities: list[str]


def result_layout(statement: Statement, available: Sequence[str], classes: Sequence[str], dialect: str) -> Layout:
    """Returns the result table's columns.

    Args:
        statement: the PREDICT statement.
        available: the select's columns.
        classes: the classes that get a probability column, as texts.
        dialect: the database.

    Raises:
        UserError: the select has a column twice, or one with the name of a probability column. Or a name is too long.
    """
    result = own_case(statement.result_column or "", dialect)
    passthrough = [name for name in available if fold_case(name, dialect) != fold_case(result, dialect)]
    for name in (result, *passthrough):
        if dialect == "mysql" and len(name) > MAX_MYSQL_NAME:
            advice = "choose another name" if name == result else "rename it with AS in the select"
            raise UserError(
                f"cannot write column {name}: its name has {len(name)} characters, and the database allows "
                f"{MAX_MYSQL_NAME}; {advice}"
            )
    places = locate("column", passthrough, available)
    names = probability_names([own_case(f"p_{text}", dialect) for text in classes], [*passthrough, result], dialect)
    return Layout(places, result, names)


def probability_classes(meta: ModelMeta, name: str) -> list[str]:
    """Returns the classes that get a probability column, as texts.

    Raises:
        UserError: the model has no probabilities, or too many classes.
    """
    classes, objective = meta.classes, meta.objective
    if classes is None or objective == "binary:hinge":
        raise UserError(f"attribute predict.probabilities: model {name} has none: its objective is {objective}")
    if len(classes) > MAX_PROBABILITIES:
        raise UserError(
            f"attribute predict.probabilities: model {name} has {len(classes)} classes, "
            f"and the limit is {MAX_PROBABILITIES}"
        )
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in classes]


def probability_names(names: Sequence[str], taken: Sequence[str], dialect: str) -> list[str]:
    """Returns the names of the probability columns, `p_<class>`, truncated to the length that every database allows.

    If two names are equal, or differ in case only, a number is appended to the later one: `p_Yes`, `p_yes_2`.

    Raises:
        UserError: the select has a column of that name.
    """
    others = {fold_case(name, dialect) for name in taken}
    found: list[str] = []
    for name in names:
        wanted = chosen = _truncated(name, MAX_NAME_BYTES)
        number = 1
        while chosen.lower() in {name.lower() for name in found}:
            number += 1
            chosen = f"{_truncated(wanted, MAX_NAME_BYTES - len(str(number)) - 1)}_{number}"
        if fold_case(chosen, dialect) in others:
            raise UserError(
                f"attribute predict.probabilities: the select already has a column {chosen}; "
                "omit it, or rename it with AS"
            )
        found.append(chosen)
    return found


def _truncated(name: str, limit: int) -> str:
    return name.encode()[:limit].decode(errors="ignore").rstrip()
