"""A trained model that a statement uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sqlflow_submitter.connect.database import Batch, Kind, ResultSet
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.features.matrix import Matrix, MatrixBuilder
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.xgb.estimator import resolve_booster
from sqlflow_submitter.xgb.objectives import Task, check_objective


class UsedModel:
    """A model's meta and, once it is needed, its weights."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self.meta = ModelMeta.load(self._folder)
        self.task = check_objective(self.meta.objective)
        self.one_hot = resolve_booster(self.meta.class_name) == "gblinear"

    def check_columns(self, available: Sequence[str]) -> None:
        """Raises UserError when a select lacks a column that the model reads."""
        locate("the model's column", self.meta.inputs(), available)

    def booster(self) -> Any:
        """Loads the weights."""
        from sqlflow_submitter.xgb.booster import load_booster

        return load_booster(self._folder)

    def result_kind(self) -> Kind:
        """Gives the kind of what the model predicts."""
        if self.meta.classes is None:
            return Kind.FLOAT
        if all(isinstance(value, bool) for value in self.meta.classes):
            return Kind.BOOL
        return Kind.INT if all(isinstance(value, int) for value in self.meta.classes) else Kind.TEXT

    def predict(self, booster: Any, matrix: Matrix) -> list[Any]:
        """Gives a class, or a number, for each row."""
        from sqlflow_submitter.xgb import booster as xgb

        classes = self.meta.classes
        if classes is None:
            return [float(value) for value in xgb.values(booster, matrix)]
        codes = class_codes(xgb.margins(booster, matrix), self.task)
        if self.result_kind() is Kind.TEXT:
            classes = [str(value) for value in classes]
        return [classes[code] for code in codes.tolist()]

    def label_reader(self, column: str) -> LabelReader:
        return LabelReader(column, self.meta.classes, self.meta.classes is not None)


def class_codes(margins: Any, task: Task) -> Any:
    """Gives the likeliest class: a score above 0 is the second of two."""
    if task is Task.BINARY:
        return (margins > 0).astype(np.int64)
    return margins.argmax(axis=1)


class BatchEncoder:
    """Turns the batches of a select into matrices, one by one."""

    def __init__(self, model: UsedModel, result: ResultSet) -> None:
        self._model = model
        self._result = result
        self._places = locate("the model's column", model.meta.inputs(), result.names())
        self._rows = 0

    def encode(self, batch: Batch) -> Matrix:
        builder = MatrixBuilder(self._model.meta.features, learn=False, one_hot=self._model.one_hot)
        builder.add(
            {name: self._result.columns[place].decode(batch.raw[place]) for name, place in self._places.items()},
            batch.rows,
        )
        return builder.build()
