"""The columns of a PREDICT statement's result table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlflow_submitter.connect.writer import TableWriter
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.step import Statement

MAX_PROBABILITIES = 500
"""Columns of probabilities; databases stop at some 1,000 columns of any kind."""

MAX_NAME_BYTES = 63
"""Of a column in PostgreSQL; others allow as many, or more."""


class Layout(NamedTuple):
    """The columns, in order."""

    kept: dict[str, int]
    """Columns of the select, each with its place there."""
    result: str
    probabilities: list[str]


def result_layout(
    statement: Statement, available: Sequence[str], classes: Sequence[str], writer: TableWriter
) -> Layout:
    """Gives the result table's columns.

    Args:
        statement: the PREDICT statement.
        available: the select's columns.
        classes: those whose probabilities are wanted, as texts.
        writer: knows how the database reads names.

    Raises:
        UserError: the select has a column twice, or one that is made here.
    """
    result = writer.column_name(statement.result_column or "")
    kept = [name for name in available if name.lower() != result.lower()]
    places = locate("column", kept, available)
    names = probability_names([writer.column_name(f"p_{text}") for text in classes], [*kept, result])
    return Layout(places, result, names)


def probability_classes(meta: ModelMeta, name: str) -> list[str]:
    """Gives the classes whose probabilities are wanted, as texts.

    Raises:
        UserError: the model has none.
    """
    classes, objective = meta.classes, meta.objective
    if classes is None or objective == "binary:hinge":
        raise UserError(f"attribute predict.probabilities: model {name} has none, its objective is {objective}")
    if len(classes) > MAX_PROBABILITIES:
        raise UserError(
            f"attribute predict.probabilities: model {name} has {len(classes)} classes, "
            f"and a table has room for {MAX_PROBABILITIES}"
        )
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in classes]


def probability_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Makes names of columns: `p_<class>`, cut to what every database allows.

    Where classes differ in case only, or are long, a number is added to those that come later: `p_Yes`, `p_yes_2`.

    Raises:
        UserError: the select has a column of the name.
    """
    others = {name.lower() for name in taken}
    found: list[str] = []
    for name in names:
        wanted = chosen = _truncated(name, MAX_NAME_BYTES)
        number = 1
        while chosen.lower() in {name.lower() for name in found}:
            number += 1
            chosen = f"{_truncated(wanted, MAX_NAME_BYTES - len(str(number)) - 1)}_{number}"
        if chosen.lower() in others:
            raise UserError(
                f"attribute predict.probabilities: the select has a column {chosen} already; "
                "leave it out, or rename it with AS"
            )
        found.append(chosen)
    return found


def _truncated(name: str, limit: int) -> str:
    return name.encode()[:limit].decode(errors="ignore").rstrip()
