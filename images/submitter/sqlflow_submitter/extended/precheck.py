"""Checks later statements before a statement starts its work, so that a misspelt column is not found after hours.

No statement is rejected that could succeed after the earlier statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.connect.open_writer import open_writer
from sqlflow_submitter.errors import SubmitterError, UserError
from sqlflow_submitter.extended.plan import (
    TrainPlan,
    check_continuation,
    check_estimator,
    other_inputs,
    plan_inputs,
    prefix_validation_errors,
)
from sqlflow_submitter.extended.result_table import check_column_case, check_result_table
from sqlflow_submitter.features.clause import Clause, locate, resolve_column
from sqlflow_submitter.features.texts import is_never_missing
from sqlflow_submitter.model import META, ModelMeta
from sqlflow_submitter.reads.dependencies import DatabaseObject
from sqlflow_submitter.reads.select_dependencies import may_create_tables, mention_any, select_dependencies
from sqlflow_submitter.step import Statement, first_word
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.estimator import resolve_booster
from sqlflow_submitter.xgb.objectives import Task, check_objective
from sqlflow_submitter.xgb.parameters import Parameters, as_list, check_attributes

MAX_REPORTED = 10
"""Maximum number of errors in one message."""


SAMPLED_ROWS = 100
"""Number of rows in which a value of a column is searched."""


class Plan(NamedTuple):
    """A model that the program trains before the checked statement."""

    select: str
    plan: TrainPlan


def check_later_statements(now: Statement, later: Iterable[Statement], database: Database) -> None:
    """Checks the statements of later steps, as far as the present state of the database allows.

    Args:
        now: the statement that is about to run. It reports its own errors.
        later: the later statements. For existing models, only their metadata is available.
        database: used to look up columns and tables; no statement is executed.

    Raises:
        UserError: some of them cannot succeed; the message has the number of each.
    """
    row = _ProgramState(now, database)
    errors = []
    for statement in later:
        if row.may_create_tables:
            # From here on, the set of tables is unknown.
            break
        try:
            row.check(statement)
        except UserError as error:
            if not row.depends_on_created_table(statement):
                database.add_suggestions(error)
                errors.append(f"statement {statement.index + 1} ({_title(statement)}): {error}")
        row.record_effects(statement)
    if errors:
        more = f"; and {len(errors) - MAX_REPORTED} more" if len(errors) > MAX_REPORTED else ""
        raise UserError("; ".join(errors[:MAX_REPORTED]) + more)


def _title(statement: Statement) -> str:
    return first_word(statement.sql) if statement.kind == "standard" else f"TO {statement.kind.upper()}"


def _selects(statement: Statement) -> list[str]:
    if statement.kind == "standard":
        return [statement.sql]
    return [select for select in (statement.select, str(statement.attributes.get("validation.select", ""))) if select]


class _ProgramState:
    """The known effects of the statements so far."""

    def __init__(self, now: Statement, database: Database) -> None:
        self._database = database
        self._plans: dict[str, Plan] = {}
        # Result tables of earlier statements: they may be replaced, because SQLFlow creates them.
        self._created_tables: set[str] = set()
        self.may_create_tables = False
        """A statement called a function that may create tables."""
        if now.kind == "train":
            self._plans[now.model] = Plan(now.select, TrainPlan(now, database))
        self.record_effects(now)

    def record_effects(self, statement: Statement) -> None:
        """Records the effects that a statement will have."""
        if statement.result_table:
            self._created_tables.add(_own_name(statement.result_table))
        if self._database.dialect == "postgresql":
            self.may_create_tables |= may_create_tables(self._dependencies(statement), self._database.dialect)

    def depends_on_created_table(self, statement: Statement) -> bool:
        """Returns whether a statement reads, through a view or function, a table that the program creates.

        The server has already checked whether the statement itself names such a table.
        """
        return bool(self._created_tables) and mention_any(self._dependencies(statement), self._created_tables)

    def _dependencies(self, statement: Statement) -> list[DatabaseObject]:
        return select_dependencies(_selects(statement), self._database.dialect, self._database.rows)

    def check(self, statement: Statement) -> None:
        """Raises UserError if a statement cannot succeed."""
        match statement.kind:
            case "standard":
                if not statement.depends_on_earlier:
                    self._database.check_query(statement.sql)
            case "train":
                self._check_train(statement)
            case "predict" | "evaluate" | "explain":
                self._check_use(statement)
            case "drop_model":
                self._plans.pop(statement.model, None)

    def _check_train(self, statement: Statement) -> None:
        earlier = self._plans.get(statement.using) if statement.using else None
        self._plans.pop(statement.model, None)
        if statement.depends_on_earlier:
            return
        if earlier is not None:
            _check_continuation(statement, earlier.plan)
            available = self._columns(statement.select)
            label = resolve_column("label", statement.label or "", available)
            self._check_same_inputs(statement, earlier, available, label)
            self._check_inputs(earlier, available)
            validation = statement.attributes.get("validation.select")
            if validation:
                with prefix_validation_errors():
                    available = self._columns(str(validation))
                    locate("column", [label], available)
                    self._check_inputs(earlier, available)
            self._plans[statement.model] = earlier
        elif (statement.using or statement.pretrained) and _meta(statement.pretrained) is None:
            # The earlier model decides which columns are read, and nothing is known about it.
            resolve_column("label", statement.label or "", self._columns(statement.select))
        else:
            self._plans[statement.model] = Plan(statement.select, TrainPlan(statement, self._database))

    def _check_use(self, statement: Statement) -> None:
        attributes = check_attributes(statement.attributes, rules.attributes(statement.kind))
        trained = self._plans.get(statement.model)
        meta = _meta(statement.model_dir) if trained is None else None
        task = check_objective(meta.objective) if meta else trained.plan.parameters.task if trained else None
        if task is not None:
            _check_task(statement, task)
        if statement.depends_on_earlier:
            return
        available = self._columns(statement.select)
        if trained is not None:
            self._check_inputs(trained, available)
        elif meta is not None:
            locate("the model's column", meta.inputs(), available)
        if statement.kind == "evaluate" and statement.label:
            resolve_column("label", statement.label, available)
        if statement.kind == "predict":
            from sqlflow_submitter.extended.layout import probability_classes, result_layout

            wants_probabilities = meta is not None and attributes.get("predict.probabilities")
            classes = probability_classes(meta, statement.model) if meta is not None and wants_probabilities else []
            with open_writer(self._database) as writer:
                kept = result_layout(statement, available, classes, writer, self._database.dialect).kept
            check_column_case(statement, kept, self._database)
        if _own_name(statement.result_table or "") not in self._created_tables:
            check_result_table(statement, attributes, self._database)

    def _check_same_inputs(self, statement: Statement, earlier: Plan, available: Sequence[str], label: str) -> None:
        """Raises UserError if COLUMN names other columns than the earlier model will read."""
        expressions = statement.columns.get("feature_columns")
        if not expressions:
            return
        own = set(plan_inputs(Clause(expressions, available, label)))
        inputs = earlier.plan.inputs()
        derived = set(earlier.plan.clause.derived)
        missing = [name for name in inputs if name not in own]
        # Training omits a column without a value.
        if own - set(inputs) or any(it not in derived or self._has_values(earlier.select, it) for it in missing):
            raise other_inputs(inputs)

    def _columns(self, select: str) -> list[str]:
        return [column.name for column in self._database.describe(select)]

    def _check_inputs(self, trained: Plan, available: Sequence[str]) -> None:
        """Raises UserError if a select lacks a column that the model will read, or has it twice."""
        derived = set(trained.plan.clause.derived)
        for name in trained.plan.inputs():
            try:
                locate("the model's column", [name], available)
            except UserError:
                if name not in derived or self._has_values(trained.select, name):
                    raise

    def _has_values(self, select: str, column: str) -> bool:
        """Returns whether a column certainly has a value. Training omits a column without one."""
        with open_writer(self._database) as writer:
            quoted = writer.quote(column)
        sql = f"SELECT {quoted} FROM ({select}\n) AS sqlflow_select WHERE {quoted} IS NOT NULL LIMIT {SAMPLED_ROWS}"
        try:
            return any(is_never_missing(value) for (value,) in self._database.rows(sql))
        except UserError:
            # For example, the select has the column twice. Training will report it.
            return False


def _check_continuation(statement: Statement, earlier: TrainPlan) -> None:
    """Checks that training can continue from a model that is not trained yet, as far as that is known."""
    parameters = Parameters(resolve_booster(statement.estimator), statement.attributes)
    objective = earlier.parameters.native.get("objective")
    if objective is not None:
        check_continuation(statement, parameters, earlier.estimator, objective)
    else:
        check_estimator(statement, earlier.estimator)


def _check_task(statement: Statement, task: Task) -> None:
    """Raises UserError if the statement requests what a model of this task cannot compute."""
    for_classes = task is not Task.NUMBER
    if statement.kind == "evaluate" and "validation.metrics" in statement.attributes:
        from sqlflow_submitter import metrics

        metrics.select_metrics([str(name) for name in as_list(statement.attributes["validation.metrics"])], for_classes)
    if statement.kind == "predict" and not for_classes and statement.attributes.get("predict.probabilities") is True:
        raise UserError(f"attribute predict.probabilities: model {statement.model} has none: it predicts a number")


def _meta(folder: str | None) -> ModelMeta | None:
    """Returns the metadata of an existing model, or None if it is not available.

    Raises:
        UserError: this release cannot read it.
    """
    if not folder or not (Path(folder) / META).exists():
        return None
    try:
        return ModelMeta.load(Path(folder))
    except SubmitterError as error:
        raise UserError(str(error)) from error


def _own_name(table: str) -> str:
    """Returns a table's name without its schema, as the server compares it."""
    return table.rpartition(".")[2].strip('`"[]').lower()
