"""Checks the tables and columns of later statements before a statement does its work: a training of hours must not end
in a misspelt column of the next statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.plan import TrainPlan
from sqlflow_submitter.extended.result_table import check_kept_columns, check_result_table
from sqlflow_submitter.features.clause import locate, resolve_column
from sqlflow_submitter.step import Statement
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes

MAX_TOLD = 10
"""Faults that one message names."""


class Plan(NamedTuple):
    """A TRAIN statement, and what was found out about it."""

    statement: Statement
    plan: TrainPlan


def check_ahead(now: Statement, ahead: Iterable[Statement], database: Database) -> None:
    """Checks statements that will run in later steps, as far as the database can tell now.

    Args:
        now: the statement that is about to run; its own faults are its own to report.
        ahead: the later ones, without their models.
        database: asked for columns and tables; nothing is executed.

    Raises:
        UserError: some cannot run; with the number of each statement.
    """
    plans: dict[str, Plan] = {}
    if now.kind == "train":
        plans[now.model] = Plan(now, TrainPlan(now, database))
    # A table that an earlier statement makes is SQLFlow's own by then.
    made = {(now.result_table or "").lower()}
    faults = []
    for statement in ahead:
        try:
            _check(statement, database, plans, made)
            made.add((statement.result_table or "").lower())
        except UserError as error:
            database.add_near_misses(error)
            faults.append(f"statement {statement.index + 1} (TO {statement.kind.upper()}): {error}")
    if faults:
        more = f"; and {len(faults) - MAX_TOLD} more" if len(faults) > MAX_TOLD else ""
        raise UserError("; ".join(faults[:MAX_TOLD]) + more)


def _check_columns(trained: Plan, available: Sequence[str], database: Database) -> None:
    """Refuses a select that lacks a column which the model will read."""
    derived = set(trained.plan.clause.derived)
    folded = {name.lower() for name in available}
    for name in trained.plan.inputs():
        if name.lower() in folded or (name in derived and not _has_values(trained.statement.select, name, database)):
            continue
        locate("the model's column", [name], available)


def _has_values(select: str, column: str, database: Database) -> bool:
    """Tells whether a column has a value: one without is left out. Asked only of what a later select lacks."""
    with database.writer() as writer:
        quoted = writer.quote(column)
        try:
            return bool(
                database.rows(f"SELECT 1 FROM ({select}\n) AS sqlflow_select WHERE {quoted} IS NOT NULL LIMIT 1")
            )
        except UserError:
            # Such as a column that comes twice: training will say so.
            return False


def _check(statement: Statement, database: Database, plans: dict[str, Plan], made: set[str]) -> None:
    if statement.kind == "train":
        plans.pop(statement.model, None)
        if statement.pretrained is None:
            plans[statement.model] = Plan(statement, TrainPlan(statement, database))
        elif statement.label:
            # Which columns the model reads hangs on the earlier model, which is not here.
            available = [column.name for column in database.describe(statement.select)]
            resolve_column("label", statement.label, available)
        return
    if statement.kind not in ("predict", "evaluate", "explain"):
        return
    available = [column.name for column in database.describe(statement.select)]
    plan = plans.get(statement.model)
    if plan is not None:
        _check_columns(plan, available, database)
    if statement.kind == "evaluate" and statement.label:
        resolve_column("label", statement.label, available)
    if statement.kind == "predict":
        check_kept_columns(statement, available, database)
    attributes = check_attributes(statement.attributes, rules.attributes(statement.kind))
    if (statement.result_table or "").lower() not in made:
        check_result_table(statement, attributes, database)
