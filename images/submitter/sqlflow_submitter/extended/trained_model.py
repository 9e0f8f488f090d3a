"""A trained model that a statement uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sqlflow_submitter.database import Computed, Database
from sqlflow_submitter.extended.column_kinds import check_kinds
from sqlflow_submitter.extended.loading import decode_columns
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.features.matrix import FixedFeatures, Matrix
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.step import Query
from sqlflow_submitter.values import Batch, ColumnInfo, Kind, ResultSet
from sqlflow_submitter.xgb.estimator import resolve_booster
from sqlflow_submitter.xgb.objectives import Task, check_objective


class Predicted(NamedTuple):
    """A model's predictions for some rows."""

    values: Any
    """For each row the place of its class, or a number."""
    margins: Any | None
    """Raw scores. None if the model predicts numbers."""


class TrainedModel:
    """A model's metadata. Its weights are loaded on request."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self.meta = ModelMeta.load(self._folder)
        self.task = check_objective(self.meta.objective)
        self.one_hot = resolve_booster(self.meta.class_name) == "gblinear"

    def check_columns(self, described: Sequence[ColumnInfo], query: Query, database: Database) -> None:
        """Raises UserError if a select lacks a column that the model reads, or if the column cannot be read."""
        locate("the model's column", self.meta.inputs(), [column.name for column in described])
        check_kinds(self.meta.features, described, query, database, of_model=True)

    def booster(self) -> Any:
        """Loads the weights."""
        from sqlflow_submitter.xgb.booster import load_booster

        return load_booster(self._folder, self.meta)

    def result_kind(self) -> Kind:
        """Returns the kind of the predicted values."""
        if self.meta.classes is None:
            return Kind.FLOAT
        if all(isinstance(value, bool) for value in self.meta.classes):
            return Kind.BOOL
        fits = all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in self.meta.classes)
        return Kind.INT if fits else Kind.TEXT

    def result_column(self, name: str) -> Computed:
        """Describes the column of the predicted values."""
        kind, classes = self.result_kind(), self.meta.classes
        return Computed(name, kind, list(map(str, classes)) if kind is Kind.TEXT and classes else classes)

    def predict(self, booster: Any, matrix: Matrix) -> Predicted:
        """Returns a class or a number for each row."""
        from sqlflow_submitter.xgb import booster as xgb

        if self.meta.classes is None:
            return Predicted(xgb.values(booster, matrix), None)
        margins = xgb.margins(booster, matrix)
        return Predicted(class_codes(margins, self.task), margins)

    def label_reader(self, column: str) -> LabelReader:
        return LabelReader(column, self.meta.classes, self.meta.classes is not None, of_model=True)


def class_codes(margins: Any, task: Task) -> Any:
    """Returns the most likely class. Of two classes, it is the second if the score is above 0."""
    if task is Task.BINARY:
        return (margins > 0).astype(np.int64)
    return margins.argmax(axis=1)


def probabilities(margins: Any, task: Task) -> Any:
    """Converts raw scores to the probability of each class: (rows, classes)."""
    margins = margins.astype(np.float64)
    if task is Task.BINARY:
        # tanh does not overflow; exp of a large margin would.
        positive = 0.5 * (1.0 + np.tanh(0.5 * margins))
        return np.column_stack([1.0 - positive, positive])
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class BatchEncoder:
    """Encodes each batch of a select as a matrix."""

    def __init__(self, model: TrainedModel, result: ResultSet, described: Sequence[ColumnInfo]) -> None:
        """`described`: the columns of the select, as the database describes them."""
        self._result = result
        self._described = described
        self._places = locate("the model's column", model.meta.inputs(), result.names())
        self._features = FixedFeatures(model.meta.features, model.one_hot)

    def encode(self, batch: Batch) -> Matrix:
        self._features.add(decode_columns(self._result, batch, self._places, self._described))
        return self._features.build()

    def warnings(self) -> list[str]:
        """Returns which values were read as missing. To be called after the last batch."""
        return self._features.warnings()
