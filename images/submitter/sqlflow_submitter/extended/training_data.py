"""Loads what a TRAIN statement learns from."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.extended.classes import settle_classes
from sqlflow_submitter.extended.loading import load, open_select
from sqlflow_submitter.extended.plan import TrainPlan
from sqlflow_submitter.features.labels import Class, LabelReader
from sqlflow_submitter.features.matrix import Matrix
from sqlflow_submitter.features.spec import Feature
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.xgb.objectives import Task

Labelled = tuple[Matrix, Any]
"""Rows, and their labels: class codes or numbers."""


class TrainingData(NamedTuple):
    train: Labelled
    validation: Labelled | None
    features: list[Feature]
    """Those of the COLUMN clause, then those derived, vocabularies learned."""
    classes: list[Class] | None
    """Labels by class code; None where labels are numbers."""


def load_training_data(plan: TrainPlan, select: str, database: Database, channel: StatementChannel) -> TrainingData:
    """Loads the select and `validation.select`; settles the objective and the number of classes where they are open.

    Raises:
        UserError: there is no row, or a value or label cannot be used.
    """
    parameters, earlier = plan.parameters, plan.earlier
    one_hot = plan.booster == "gblinear"
    as_classes = None if parameters.task is None else parameters.task is not Task.NUMBER
    reader = LabelReader(plan.label, earlier.classes if earlier else None, as_classes)
    matrix, features = load(
        open_select(database, select),
        plan.clause.features,
        reader,
        channel,
        derived=plan.clause.derived,
        learn=earlier is None,
        one_hot=one_hot,
    )
    channel.say(f"loaded {matrix.rows} row(s)")
    labels = reader.finish()
    classes: list[Class] | None = None
    if reader.as_classes:
        classes, labels = settle_classes(plan.label, reader.seen(), labels, parameters)
    elif parameters.task is None:
        parameters.decide("reg:squarederror")
    if not parameters.validation_select:
        return TrainingData((matrix, labels), None, features, classes)
    result = open_select(database, parameters.validation_select)
    reader = LabelReader(plan.label, classes, reader.as_classes)
    held_out, _ = load(result, features, reader, channel, phase="load validation", one_hot=one_hot)
    return TrainingData((matrix, labels), (held_out, reader.finish()), features, classes)
