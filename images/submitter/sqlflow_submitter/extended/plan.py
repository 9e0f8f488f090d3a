"""Checks of a TRAIN statement before any row is read or any large library is imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlflow_submitter.database import Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.column_kinds import (
    certainly_has_values,
    check_kinds,
    check_label,
    learned_features,
)
from sqlflow_submitter.extended.label_kinds import check_words
from sqlflow_submitter.features.clause import Clause, locate, resolve_column
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.step import Query, Statement
from sqlflow_submitter.values import ColumnInfo
from sqlflow_submitter.xgb.estimator import resolve_booster
from sqlflow_submitter.xgb.parameters import Parameters


@contextmanager
def prefix_validation_errors() -> Iterator[None]:
    """Prefixes the UserErrors of the block with `validation.select`."""
    try:
        yield
    except UserError as error:
        error.args = (f"validation.select: {error}",)
        raise


def check_estimator(statement: Statement, class_name: str) -> None:
    """Raises UserError if USING names a model of another estimator."""
    if resolve_booster(class_name) != resolve_booster(statement.estimator):
        raise UserError(f"USING: the earlier model is of {class_name}, not of {statement.estimator}")


def check_continuation(statement: Statement, parameters: Parameters, class_name: str, objective: str) -> None:
    """Checks that training can continue from a model. Adopts its objective if the statement has none.

    Raises:
        UserError: the estimator or the objective differs.
    """
    check_estimator(statement, class_name)
    if parameters.task is None:
        parameters.set_objective(objective)
    elif parameters.native["objective"] != objective:
        raise UserError(f"USING: the earlier model has objective {objective}; set the same objective, or none")


def plan_inputs(clause: Clause) -> list[str]:
    """Returns the names of the columns that the features of a clause read."""
    names = [name for feature in clause.features for name in feature.columns()] + clause.derived
    return list(dict.fromkeys(names))


def other_inputs(names: Sequence[str]) -> UserError:
    """Returns the error that COLUMN names other columns than the earlier model reads."""
    return UserError(f"USING: the earlier model reads other columns: {', '.join(names)}")


class TrainPlan:
    """A TRAIN statement, checked against the columns of its selects."""

    def __init__(self, statement: Statement, database: Database, *, may_differ: bool = False) -> None:
        """Args:
        statement: the statement.
        database: describes the selects.
        may_differ: whether rows may change before the statement. Then no row is looked at.

        Raises:
        UserError: an estimator, attribute, column or label does not exist, or cannot be used here.
        """
        self.estimator = statement.estimator
        self.query = statement.query
        booster = resolve_booster(statement.estimator)
        self.one_hot = booster == "gblinear"
        """Whether each category gets a column, because the model reads codes as quantities."""
        self.parameters = Parameters(booster, statement.attributes)
        if statement.label is None:
            raise UserError(f"{statement.estimator} needs a label, as in LABEL class")
        for target in statement.columns:
            if target != "feature_columns":
                raise UserError(f"COLUMN … FOR {target}: XGBoost has one set of columns; leave out FOR")
        self.described = database.describe(statement.query)
        available = [column.name for column in self.described]
        self.types = {column.name: column.database_type for column in self.described}
        """The declared type of each column, by the database's name for it."""
        self.label = resolve_column("label", statement.label, available)
        self.earlier = self._earlier(statement)
        expressions = statement.columns.get("feature_columns") or [{"ident": "*"}]
        self.clause = Clause(expressions, available, self.label)
        if self.earlier is not None:
            self._check_same_inputs(self.earlier, bool(statement.columns))
        needed = [self.label, *self.inputs()]
        locate("column", needed, available)
        self.features = self.clause.features
        """The features that the model will have, as far as declared types decide them."""
        if self.earlier is None:
            self.features = learned_features(self.clause.features, self.clause.derived, self.described)
        self.has_number_label = not self.parameters.requested_task()[0]
        """Whether labels are numbers, or may be."""
        self._check_kinds(self.described, statement.query, database, may_differ)
        self.validation: list[ColumnInfo] = []
        """Columns of `validation.select`."""
        if self.parameters.validation_select:
            with prefix_validation_errors():
                self.validation = database.describe(statement.validation_query)
                locate("column", needed, [column.name for column in self.validation])
                self._check_kinds(self.validation, statement.validation_query, database, may_differ)

    def _check_kinds(self, described: Sequence[ColumnInfo], query: Query, database: Database, may_differ: bool) -> None:
        def is_read(name: str) -> bool:
            return name not in self.clause.derived or certainly_has_values(self.query, name, database)

        check_label(self.label, described, database.dialect, as_number=self.has_number_label)
        if not may_differ:
            check_kinds(self.features, described, query, database, is_read)

    def check_label_words(self, database: Database) -> None:
        """Raises UserError if the label has words in its first rows, and the statement asks for numbers.

        Training would find it in the first batch.
        """
        as_classes, reason = self.parameters.requested_task()
        if as_classes is not False:
            return
        if self.parameters.task is not None:
            reason = f"objective {self.parameters.native['objective']} predicts a number"
        advice = f"{reason}; for classes use an objective such as multi:softprob or binary:logistic"
        check_words(self.label, self.described, self.query, database, advice)

    def _earlier(self, statement: Statement) -> ModelMeta | None:
        """Returns the model that USING names, if any."""
        if not statement.pretrained:
            return None
        earlier = ModelMeta.load(Path(statement.pretrained))
        check_continuation(statement, self.parameters, earlier.class_name, earlier.objective)
        return earlier

    def _check_same_inputs(self, earlier: ModelMeta, has_clause: bool) -> None:
        if has_clause and set(self.inputs()) != set(earlier.inputs()):
            raise other_inputs(earlier.inputs())
        # Its features are reused: a vocabulary that is learned again could have other codes.
        self.clause.features, self.clause.derived = earlier.features, []

    def inputs(self) -> list[str]:
        """Returns the names of the columns that the features read."""
        return plan_inputs(self.clause)
