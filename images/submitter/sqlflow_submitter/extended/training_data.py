"""Loads the training and validation data of a TRAIN statement."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlflow_submitter.database import Database
from sqlflow_submitter.extended.classes import assign_class_codes
from sqlflow_submitter.extended.loading import load, print_warnings
from sqlflow_submitter.extended.plan import TrainPlan, prefix_validation_errors
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.encode import Columns
from sqlflow_submitter.features.labels import Class, LabelReader
from sqlflow_submitter.features.learn import ColumnCounter, LearnedFeatures, Learner
from sqlflow_submitter.features.matrix import FixedFeatures, Matrix
from sqlflow_submitter.features.report import ColumnReport, table
from sqlflow_submitter.features.spec import Feature
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import VALIDATION
from sqlflow_submitter.values import ResultSet

Labelled = tuple[Matrix, Any]
"""Rows, and their labels as class codes or numbers."""


class TrainingData(NamedTuple):
    train: Labelled
    validation: Labelled | None
    features: list[Feature]
    """The features of the COLUMN clause, then the derived ones, with their vocabularies."""
    classes: list[Class] | None
    """Labels by class code. None if labels are numbers."""
    reports: list[ColumnReport]
    """How each column was read, the label first."""
    objective_reason: str


def load_training_data(plan: TrainPlan, database: Database, channel: StatementChannel) -> TrainingData:
    """Loads the select and `validation.select`. Chooses the objective and the number of classes if they are not set.

    The data process reads the select already.

    Raises:
        UserError: there are no rows, or a value or label cannot be used.
    """
    parameters, earlier = plan.parameters, plan.earlier
    is_given = parameters.task is not None
    as_classes, reason = parameters.requested_task()
    label_type = plan.types.get(plan.label, "")
    reader = LabelReader(plan.label, earlier.classes if earlier else None, as_classes, label_type)
    import sqlflow_submitter.xgb.booster  # noqa: F401

    result = database.rows_read(lambda rows: channel.progress("read", rows, 0, "rows"))
    if earlier is None:
        labels, learned = _learn(plan, result, reader, channel)
    else:
        labels, learned = _reuse(plan, earlier, result, reader, channel)
    matrix, features, reports = learned
    channel.print_line(f"loaded {matrix.rows} row(s)")
    classes: list[Class] | None = None
    reason = reason or reader.reason
    if earlier is not None:
        reason = "the earlier model has it"
    if reader.as_classes:
        classes, labels = assign_class_codes(plan.label, reader.seen(), labels, parameters)
    elif parameters.task is None:
        parameters.set_objective("reg:squarederror")
    reports = [reader.report(), *reports]
    _show(reports, parameters.native["objective"], reason, not is_given, channel)
    validation: Labelled | None = None
    if parameters.validation_select:
        place = locate("label", [plan.label], [column.name for column in plan.validation])[plan.label]
        label_type = plan.validation[place].database_type
        held_out = LabelReader(plan.label, classes, reader.as_classes, label_type, reader.form)
        with prefix_validation_errors():
            validation = _load_validation(plan, FixedFeatures(features, plan.one_hot), held_out, database, channel)
    return TrainingData((matrix, labels), validation, features, classes, reports, reason)


def _learn(
    plan: TrainPlan, result: ResultSet, reader: LabelReader, channel: StatementChannel
) -> tuple[Any, LearnedFeatures]:
    """Loads the select and learns its features. Returns the labels first: their errors are reported first."""
    learner = Learner(plan.clause.features, plan.clause.derived, plan.types, plan.one_hot)
    load(result, plan.inputs(), plan.described, learner.add, reader, channel)
    labels = reader.finish()
    return labels, learner.finish()


def _reuse(
    plan: TrainPlan, earlier: ModelMeta, result: ResultSet, reader: LabelReader, channel: StatementChannel
) -> tuple[Any, LearnedFeatures]:
    """Loads the select with the features of an earlier model."""
    inputs = plan.inputs()
    fixed = FixedFeatures(earlier.features, plan.one_hot)
    taken_as = {column["name"]: column["taken_as"] for column in earlier.columns}
    counters = [ColumnCounter(name, plan.types.get(name, ""), taken_as.get(name, "as before")) for name in inputs]

    def take(columns: Columns) -> None:
        fixed.add(columns)
        for counter, name in zip(counters, inputs, strict=True):
            counter.add(columns[name])

    load(result, inputs, plan.described, take, reader, channel)
    labels = reader.finish()
    matrix = fixed.build()
    print_warnings(fixed.warnings(), channel)
    return labels, LearnedFeatures(matrix, earlier.features, [counter.report() for counter in counters])


def _show(reports: list[ColumnReport], objective: str, reason: str, is_chosen: bool, channel: StatementChannel) -> None:
    for line in table(reports):
        channel.print_line(line)
    channel.print_line(f"objective {objective}: {reason}" + ("; set objective to choose another" if is_chosen else ""))


def _load_validation(
    plan: TrainPlan, features: FixedFeatures, labels: LabelReader, database: Database, channel: StatementChannel
) -> Labelled:
    """Loads `validation.select` with the learned features."""
    database.start_reading(VALIDATION)
    result = database.rows_read()
    inputs = [name for feature in features.features for name in feature.columns()]
    load(result, inputs, plan.validation, features.add, labels, channel, "load validation")
    found = features.build(), labels.finish()
    print_warnings((f"validation: {text}" for text in features.warnings()), channel)
    return found
