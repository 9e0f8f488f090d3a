"""Trains, saves, loads and applies models with the xgboost library."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.features.matrix import Matrix
from sqlflow_submitter.import_guard import blocked_import
from sqlflow_submitter.model import WEIGHTS, ModelMeta
from sqlflow_submitter.xgb.parameters import Parameters

# By default idle threads spin for long. On a busy machine, or in a container with less CPU than cores, they take CPU
# time from the working threads. If they sleep at once, they often wake up too late: training takes a fifth longer. So
# they spin for a tenth of libgomp's default. The library reads these variables once, when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")

with blocked_import("sklearn"):
    import xgboost

from sqlflow_submitter.xgb.errors import translated_errors

OnRound = Callable[[dict[str, float]], None]
"""Called after each round with its metrics by name, such as `train-rmse`."""


def to_dmatrix(matrix: Matrix, labels: NDArray[np.float64] | None = None) -> Any:
    """Converts a matrix to XGBoost's type."""
    with translated_errors():
        return xgboost.DMatrix(
            matrix.data,
            label=labels,
            missing=np.nan,
            feature_types=matrix.types,
            enable_categorical="c" in matrix.types,
        )


def to_training_data(
    parameters: Parameters, matrix: Matrix, labels: NDArray[np.float64], reference: Any | None = None
) -> Any:
    """Converts a matrix for training. `hist` needs quantiles only, which take a quarter of the memory.

    Args:
        parameters: the parameters of training.
        matrix: the features.
        labels: the labels.
        reference: the converted training data, for data that it is validated with.
    """
    native = parameters.native
    uses_quantiles = (
        native.get("booster", "gbtree") != "gblinear"
        and native.get("tree_method", "hist") in ("hist", "auto")
        # These may choose another method.
        and "updater" not in native
        and "process_type" not in native
    )
    if not uses_quantiles:
        return to_dmatrix(matrix, labels)
    is_dense = isinstance(matrix.data, np.ndarray)
    of_sparse: dict[str, Any] = {} if is_dense else {"label": labels, "feature_types": matrix.types}
    with translated_errors():
        return xgboost.QuantileDMatrix(
            _Columns(matrix, labels) if is_dense else matrix.data,
            missing=np.nan,
            enable_categorical="c" in matrix.types,
            max_bin=native.get("max_bin", 256),
            nthread=native.get("nthread"),
            ref=reference,
            **of_sparse,
        )


class _Columns(xgboost.DataIter):
    """Hands a dense matrix to XGBoost column by column, as a data frame is.

    XGBoost looks each value of an array up by row and column, and takes a third longer for it. The result is the same.
    """

    def __init__(self, matrix: Matrix, labels: NDArray[np.float64]) -> None:
        super().__init__()
        # Kept, because XGBoost reads the memory that they point to.
        self._whole = matrix.data
        self._columns = list(matrix.data.T)
        self._types = matrix.types
        self._labels = labels
        self._is_done = False

    def reset(self) -> None:
        self._is_done = False

    def next(self, input_data: Any) -> bool:
        if self._is_done:
            return False
        self._is_done = True
        # `input_data` takes columns of pandas, polars and pyarrow only, which are not installed. The method below it is
        # not public: an XGBoost without it reads the array as a whole.
        by_columns = getattr(self.proxy, "_ref_data_from_columnar", None)
        if by_columns is None:
            input_data(data=self._whole, label=self._labels, feature_types=self._types)
            return True
        by_columns(self)
        self.proxy.set_info(label=self._labels, feature_types=self._types)
        return True

    def array_interface(self) -> bytes:
        """Describes the memory of each column, as XGBoost's C interface expects it."""
        return json.dumps([column.__array_interface__ for column in self._columns]).encode()


class _Reporter(xgboost.callback.TrainingCallback):
    def __init__(self, on_round: OnRound) -> None:
        super().__init__()
        self._on_round = on_round

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._on_round(
            {
                f"{data}-{metric}": float(history[-1])
                for data, metrics in evals_log.items()
                for metric, history in metrics.items()
            }
        )
        return False


def fit(
    parameters: Parameters,
    train: tuple[Matrix, NDArray[np.float64]],
    validation: tuple[Matrix, NDArray[np.float64]] | None,
    earlier: Any | None,
    on_round: OnRound,
) -> tuple[Any, int]:
    """Trains a booster, or continues the training of an earlier one.

    `train.batch_size` and `train.epoch` have the meaning of upstream SQLFlow: each epoch boosts
    `train.num_boost_round` rounds on each batch of rows in turn.

    Returns the booster, and the number of reported rounds that it keeps. After an early stop, these are not all rounds.
    """
    booster: Any = earlier
    before = earlier.num_boosted_rounds() if earlier is not None else 0
    whole = to_training_data(parameters, *train) if parameters.batch_size is None else None
    held_out = []
    if validation:
        known = to_dmatrix(*validation) if whole is None else to_training_data(parameters, *validation, whole)
        held_out = [(known, "validate")]
    rounds = 0
    with translated_errors():
        for _ in range(parameters.epochs):
            for data in [whole] if whole is not None else _batches(train, parameters.batch_size or 0):
                callbacks: list[Any] = [_Reporter(on_round)]
                if parameters.early_stopping_rounds:
                    callbacks.append(xgboost.callback.EarlyStopping(rounds=parameters.early_stopping_rounds))
                booster = xgboost.train(
                    parameters.native,
                    data,
                    num_boost_round=parameters.rounds,
                    evals=[(data, "train"), *held_out],
                    xgb_model=booster,
                    callbacks=callbacks,
                    verbose_eval=False,
                )
                rounds += parameters.rounds
        if parameters.early_stopping_rounds:
            # `best_iteration` includes the rounds of the earlier model.
            booster = booster[: booster.best_iteration + 1]
            rounds = booster.num_boosted_rounds() - before
    return booster, rounds


def _batches(train: tuple[Matrix, NDArray[np.float64]], size: int) -> Iterator[Any]:
    matrix, labels = train
    for start in range(0, matrix.rows, size):
        rows = slice(start, start + size)
        yield to_dmatrix(Matrix(matrix.data[rows], matrix.types), labels[rows])


def save(booster: Any, folder: Path) -> None:
    with translated_errors():
        booster.save_model(folder / WEIGHTS)


def load_booster(folder: Path, meta: ModelMeta) -> Any:
    """Loads the weights of a model, if they are those that were trained.

    XGBoost itself uses changed weights without an error, needs any amount of memory for them, or crashes.
    """
    meta.check_weights(folder)
    with translated_errors():
        return xgboost.Booster(model_file=folder / WEIGHTS)


def margins(booster: Any, matrix: Matrix) -> NDArray[np.float32]:
    """Returns raw scores: (rows,) or, with several classes, (rows, classes)."""
    with translated_errors():
        return booster.predict(to_dmatrix(matrix), output_margin=True)  # type: ignore[no-any-return]


def values(booster: Any, matrix: Matrix) -> NDArray[np.float32]:
    """Returns predictions as the objective defines them: numbers or probabilities."""
    with translated_errors():
        return booster.predict(to_dmatrix(matrix))  # type: ignore[no-any-return]


def contributions(booster: Any, matrix: Matrix) -> NDArray[np.float32]:
    """Returns SHAP values: (rows, columns + 1), or (rows, classes, columns + 1); the last column is the bias."""
    with translated_errors():
        return booster.predict(to_dmatrix(matrix), pred_contribs=True)  # type: ignore[no-any-return]
