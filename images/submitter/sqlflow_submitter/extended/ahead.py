"""Checks the tables and columns of later statements before a statement does its work: a training of hours must not end
in a misspelt column of the next statement."""

from __future__ import annotations

from collections.abc import Iterable

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.plan import TrainPlan
from sqlflow_submitter.extended.result_table import check_result_table
from sqlflow_submitter.features.clause import locate, resolve_column
from sqlflow_submitter.step import Statement
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes

MAX_TOLD = 10
"""Faults that one message names."""


def check_ahead(now: Statement, ahead: Iterable[Statement], database: Database) -> None:
    """Checks statements that will run in later steps, as far as the database can tell now.

    Args:
        now: the statement that is about to run; its own faults are its own to report.
        ahead: the later ones, without their models.
        database: asked for columns and tables; nothing is executed.

    Raises:
        UserError: some cannot run; with the number of each statement.
    """
    inputs: dict[str, list[str]] = {}
    if now.kind == "train":
        inputs[now.model] = TrainPlan(now, database).inputs()
    faults = []
    for statement in ahead:
        try:
            _check(statement, database, inputs)
        except UserError as error:
            database.add_near_misses(error)
            faults.append(f"statement {statement.index + 1} (TO {statement.kind.upper()}): {error}")
    if faults:
        more = f"; and {len(faults) - MAX_TOLD} more" if len(faults) > MAX_TOLD else ""
        raise UserError("; ".join(faults[:MAX_TOLD]) + more)


def _check(statement: Statement, database: Database, inputs: dict[str, list[str]]) -> None:
    if statement.kind == "train":
        inputs.pop(statement.model, None)
        if statement.pretrained is None:
            inputs[statement.model] = TrainPlan(statement, database).inputs()
        elif statement.label:
            # Which columns the model reads hangs on the earlier model, which is not here.
            available = [column.name for column in database.describe(statement.select)]
            resolve_column("label", statement.label, available)
        return
    if statement.kind not in ("predict", "evaluate", "explain"):
        return
    available = [column.name for column in database.describe(statement.select)]
    locate("the model's column", inputs.get(statement.model, ()), available)
    if statement.kind == "evaluate" and statement.label:
        resolve_column("label", statement.label, available)
    check_result_table(statement, check_attributes(statement.attributes, rules.attributes(statement.kind)), database)
