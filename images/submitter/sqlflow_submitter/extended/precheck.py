"""Checks later statements before a statement starts its work, so that a misspelt column is not found after hours.

No statement is rejected that could succeed after the earlier statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlflow_submitter.database import Database
from sqlflow_submitter.errors import DatabaseUnavailable, SubmitterError, UserError
from sqlflow_submitter.extended.column_kinds import (
    certainly_has_values,
    check_kinds,
    check_label,
)
from sqlflow_submitter.extended.label_kinds import check_words, label_has_classes
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
from sqlflow_submitter.model import META, ModelMeta
from sqlflow_submitter.step import Query, Statement, first_word
from sqlflow_submitter.values import ColumnInfo
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.estimator import resolve_booster
from sqlflow_submitter.xgb.objectives import Task, check_objective
from sqlflow_submitter.xgb.parameters import Parameters, as_list, check_attributes

MAX_REPORTED = 10
"""Maximum number of errors in one message."""


class Known(Enum):
    """What is known of the database when a later statement runs."""

    NAMES = "tables, columns and settings"
    GRAMMAR = "the grammar of statements only"
    NOTHING = "nothing"


class Plan(NamedTuple):
    """A model that the program trains before the checked statement."""

    plan: TrainPlan
    may_differ: bool
    """Rows may change before the training. So a column that has a value now may have none then, and be omitted."""


def check_later_statements(now: Statement, later: Iterable[Statement], database: Database) -> None:
    """Checks the statements of later steps, as far as the present state of the database allows.

    Args:
        now: the statement that is about to run. It reports its own errors.
        later: the later statements. For existing models, only their metadata is available.
        database: used to look up columns and tables. Of the later statements, only those that change settings are
            executed, in a session of their own.

    Raises:
        UserError: some of them cannot succeed; the message has the number of each.
    """
    errors = []
    row = _ProgramState(now, database)
    for statement in later:
        if row.known is Known.NOTHING:
            break
        try:
            try:
                row.check(statement)
            except UserError as error:
                if error.is_syntax or not row.depends_on_change(statement):
                    error.suggest()
                    if statement.hint:
                        error.args = (f"{error}; {statement.hint}",)
                    errors.append(f"statement {statement.index + 1} ({_title(statement)}): {error}")
                    if statement.effect == "session":
                        break
            row.record_effects(statement)
        except DatabaseUnavailable:
            if not row.has_session:
                raise
            # Another connection is not possible, or it is blocked: the statement itself needs none.
            break
    if errors:
        more = f"; and {len(errors) - MAX_REPORTED} more" if len(errors) > MAX_REPORTED else ""
        raise UserError("; ".join(errors[:MAX_REPORTED]) + more)


def _title(statement: Statement) -> str:
    return first_word(statement.sql) if statement.kind == "standard" else f"TO {statement.kind.upper()}"


class _ProgramState:
    """The known effects of the statements so far."""

    def __init__(self, now: Statement, database: Database) -> None:
        self.database = database
        self.has_session = False
        """Settings of the program hold in a session of its own, in which the data process checks later statements."""
        self.known = Known.NAMES
        self._plans: dict[str, Plan] = {}
        # Result tables of earlier statements: they may be replaced, because SQLFlow creates them. Also tables and views
        # that standard statements create, change or drop.
        self._changed_tables: set[str] = set()
        self._may_drop = False
        self._may_change_rows = False
        if now.kind == "train":
            self._plans[now.model] = Plan(TrainPlan(now, database), may_differ=False)
        self.record_effects(now)

    def record_effects(self, statement: Statement) -> None:
        """Records the effects that a statement will have."""
        if statement.effect == "unknown":
            # The server has checked that the grammar stays the same.
            self.known = Known.GRAMMAR
        if self.known is not Known.NAMES:
            return
        if statement.result_table:
            self._changed_tables.add(_own_name(statement.result_table))
        if statement.kind == "standard":
            self._record_standard(statement)
        elif self.database.dialect == "postgresql":
            self._record_calls(statement)

    def _record_standard(self, statement: Statement) -> None:
        if statement.effect == "rows":
            self._may_change_rows = True
        elif statement.effect == "objects":
            self._changed_tables |= set(statement.changed_names)
            self._may_drop |= statement.may_drop
            # Rows of a new table are read only by statements that depend on it.
            if self.database.dialect == "postgresql" and self.database.routines.has_event_triggers:
                self._forget_names()
        if self.database.dialect != "sqlite" and statement.effect != "session":
            self._record_calls(statement)

    def _record_calls(self, statement: Statement) -> None:
        """Records what functions and triggers may do."""
        if self._may_change_rows and not self.database.routines.may_change_names:
            # This saves the lookups for each of many INSERT statements.
            return
        if statement.kind == "standard" and not statement.sql:
            # The server omits the text of a long one.
            self._forget_names()
            return
        effects = self.database.effects(statement.index)
        if effects.may_change_names:
            self._forget_names()
        self._may_change_rows |= effects.calls_functions

    def _forget_names(self) -> None:
        """Records that names or settings are unknown. In MySQL, the grammar depends on settings."""
        self.known = Known.NOTHING if self.database.dialect == "mysql" else Known.GRAMMAR

    def depends_on_change(self, statement: Statement) -> bool:
        """Returns whether a statement reads, through a view or function, a table that the program creates or changes.

        The server has already checked whether the statement itself names such a table.
        """
        return bool(self._changed_tables) and self.database.depends(statement.index, sorted(self._changed_tables))

    def _set(self, statement: Statement) -> None:
        """Changes a setting as the program will do, in another session."""
        if statement.sql and self.database.set(statement.index):
            self.has_session = True
        else:
            self._forget_names()

    def check(self, statement: Statement) -> None:
        """Raises UserError if a statement cannot succeed."""
        if self.known is not Known.NAMES:
            statement.depends_on_earlier = True
        if statement.depends_on_earlier:
            self._check_syntax(statement)
        match statement.kind:
            case "standard":
                if statement.depends_on_earlier:
                    pass
                elif statement.effect == "session":
                    self._set(statement)
                else:
                    self.database.check(statement.index, may_drop=self._may_drop)
            case "train":
                self._check_train(statement)
            case "predict" | "evaluate" | "explain":
                self._check_use(statement)
            case "drop_model":
                self._plans.pop(statement.model, None)

    def _check_syntax(self, statement: Statement) -> None:
        """Raises UserError if the syntax of a statement, or of its selects, is wrong."""
        if statement.kind == "standard":
            if self._is_clear(statement.sql):
                self.database.check_syntax(statement.index)
            return
        if self._is_clear(statement.select):
            self.database.check_select(statement.query)
        with prefix_validation_errors():
            if self._is_clear(str(statement.attributes.get("validation.select", ""))):
                self.database.check_select(statement.validation_query)

    def _is_clear(self, sql: str) -> bool:
        # Unknown settings of PostgreSQL decide how it reads a backslash.
        return bool(sql) and not (self.database.dialect == "postgresql" and "\\" in sql)

    def _check_train(self, statement: Statement) -> None:
        earlier = self._plans.get(statement.using) if statement.using else None
        self._plans.pop(statement.model, None)
        if statement.depends_on_earlier:
            return
        if earlier is not None:
            _check_continuation(statement, earlier.plan)
            described = self.database.describe(statement.query)
            label = resolve_column("label", statement.label or "", _names(described))
            self._check_same_inputs(statement, earlier, _names(described), label)
            self._check_inputs(earlier, statement.query, described, label)
            if statement.attributes.get("validation.select"):
                query = statement.validation_query
                with prefix_validation_errors():
                    self._check_inputs(earlier, query, self.database.describe(query), label)
            self._plans[statement.model] = earlier
        elif (statement.using or statement.pretrained) and _meta(statement.pretrained) is None:
            # The earlier model decides which columns are read, and nothing is known about it.
            resolve_column("label", statement.label or "", _names(self.database.describe(statement.query)))
        else:
            plan = TrainPlan(statement, self.database, may_differ=self._may_change_rows)
            if not self._may_change_rows:
                plan.check_label_words(self.database)
            self._plans[statement.model] = Plan(plan, self._may_change_rows)

    def _check_use(self, statement: Statement) -> None:
        attributes = check_attributes(statement.attributes, rules.attributes(statement.kind))
        trained = self._plans.get(statement.model)
        meta = _meta(statement.model_dir) if trained is None else None
        for_classes: bool | None = None
        if meta is not None:
            for_classes = check_objective(meta.objective) is not Task.NUMBER
        elif trained is not None:
            for_classes = self._for_classes(trained, statement)
        if for_classes is not None:
            _check_task(statement, for_classes)
        if statement.depends_on_earlier:
            return
        described = self.database.describe(statement.query)
        available = _names(described)
        label = ""
        if statement.kind == "evaluate" and statement.label:
            label = resolve_column("label", statement.label, available)
        if trained is not None:
            self._check_inputs(trained, statement.query, described, label)
        elif meta is not None:
            locate("the model's column", meta.inputs(), available)
            if label:
                check_label(label, described, self.database.dialect, as_number=meta.classes is None)
                if meta.classes is None and not self._may_change_rows:
                    check_words(label, described, statement.query, self.database, "the model predicts a number")
            if not self._may_change_rows:
                check_kinds(meta.features, described, statement.query, self.database, of_model=True)
        # What depends on a result table may be dropped before.
        is_known = not self._may_drop and _own_name(statement.result_table or "") not in self._changed_tables
        if statement.kind == "predict":
            from sqlflow_submitter.extended.layout import probability_classes, result_layout

            wants_probabilities = meta is not None and attributes.get("predict.probabilities")
            classes = probability_classes(meta, statement.model) if meta is not None and wants_probabilities else []
            passthrough = result_layout(statement, available, classes, self.database.dialect).passthrough
            check_column_case(statement, passthrough, self.database)
        if is_known:
            check_result_table(statement, self.database)

    def _for_classes(self, trained: Plan, statement: Statement) -> bool | None:
        """Returns whether a model that the program trains will predict classes. None: unknown."""
        plan = trained.plan
        requested, _ = plan.parameters.requested_task()
        asks = _asks_for_task(statement)
        if requested is not None or trained.may_differ or not asks or self.has_session:
            # In another session, the names in its select may mean other tables.
            return requested
        return label_has_classes(plan.label, plan.described, plan.query, self.database)

    def _check_same_inputs(self, statement: Statement, earlier: Plan, available: Sequence[str], label: str) -> None:
        """Raises UserError if COLUMN names other columns than the earlier model will read."""
        expressions = statement.columns.get("feature_columns")
        if not expressions:
            return
        own = set(plan_inputs(Clause(expressions, available, label)))
        inputs = earlier.plan.inputs()
        missing = [name for name in inputs if name not in own]
        # Training omits a column without a value.
        if own - set(inputs) or any(self._is_read(earlier, it) for it in missing):
            raise other_inputs(inputs)

    def _check_inputs(self, trained: Plan, query: Query, described: Sequence[ColumnInfo], label: str) -> None:
        """Raises UserError if a select lacks a column that the model will read, has it twice, or cannot be read.

        The same for the label, if it is not empty.
        """
        available = _names(described)
        for name in trained.plan.inputs():
            try:
                locate("the model's column", [name], available)
            except UserError:
                if self._is_read(trained, name):
                    raise
        if label:
            as_number = trained.plan.parameters.requested_task()[0] is False
            check_label(label, described, self.database.dialect, as_number=as_number)
            if as_number and not self._may_change_rows:
                check_words(label, described, query, self.database, "the model predicts a number")
        if not self._may_change_rows:
            # A column that is not read may be missing.
            features = [it for it in trained.plan.features if all(available.count(name) == 1 for name in it.columns())]
            is_read = partial(self._is_read, trained)
            check_kinds(features, described, query, self.database, is_read, of_model=True)

    def _is_read(self, trained: Plan, column: str) -> bool:
        """Returns whether a model will certainly read a column. Training omits a derived one without a value."""
        if column not in trained.plan.clause.derived:
            return True
        return not trained.may_differ and certainly_has_values(trained.plan.query, column, self.database)


def _names(described: Sequence[ColumnInfo]) -> list[str]:
    return [column.name for column in described]


def _check_continuation(statement: Statement, earlier: TrainPlan) -> None:
    """Checks that training can continue from a model that is not trained yet, as far as that is known."""
    parameters = Parameters(resolve_booster(statement.estimator), statement.attributes)
    objective = earlier.parameters.native.get("objective")
    if objective is not None:
        check_continuation(statement, parameters, earlier.estimator, objective)
    else:
        check_estimator(statement, earlier.estimator)


def _asks_for_task(statement: Statement) -> bool:
    """Returns whether a statement requests what only models of classes, or of numbers, can compute."""
    return not {"validation.metrics", "predict.probabilities"}.isdisjoint(statement.attributes)


def _check_task(statement: Statement, for_classes: bool) -> None:
    """Raises UserError if the statement requests what a model of classes, or of numbers, cannot compute."""
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
