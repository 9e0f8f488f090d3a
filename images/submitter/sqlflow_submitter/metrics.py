"""Measures how well predictions fit the labels.

This module uses numpy only. scikit-learn has the same metrics, but importing it takes longer than most evaluations,
and it would be the largest package of the image. The tests compare the results with scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.errors import UserError, unknown_name
from sqlflow_submitter.xgb import rules

Array = NDArray[Any]


class Scores(NamedTuple):
    """Labels and predictions, by row."""

    truth: Array
    """Class codes, or numbers."""
    predicted: Array
    """Class codes, or numbers."""
    probabilities: Array | None
    """(rows, classes); None for numbers."""


def accuracy(scores: Scores) -> float:
    return float(np.mean(scores.truth == scores.predicted))


def confusion(scores: Scores) -> Array:
    """The confusion matrix: counts by (true class, predicted class)."""
    assert scores.probabilities is not None, "only of classes"
    classes = scores.probabilities.shape[1]
    flat = scores.truth.astype(np.int64) * classes + scores.predicted.astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _averaged(per_class: Array, scores: Scores) -> float:
    """The value of the second class if there are two, else the mean over the classes that occur."""
    if len(per_class) == 2:
        return float(per_class[1])
    counts = confusion(scores)
    return float(np.mean(per_class[(counts.sum(axis=0) + counts.sum(axis=1)) > 0]))


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def precision(scores: Scores) -> float:
    counts = confusion(scores)
    return _averaged(_ratio(np.diag(counts), counts.sum(axis=0)), scores)


def recall(scores: Scores) -> float:
    counts = confusion(scores)
    return _averaged(_ratio(np.diag(counts), counts.sum(axis=1)), scores)


def f1(scores: Scores) -> float:
    counts = confusion(scores)
    return _averaged(_ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)), scores)


def auc(scores: Scores) -> float:
    """Area under the ROC curve, computed from ranks. Several classes: the mean of one-vs-rest. NaN if undefined."""
    assert scores.probabilities is not None, "only of classes"
    classes = scores.probabilities.shape[1]
    wanted = [1] if classes == 2 else range(classes)
    return float(np.mean([_auc_of(scores.truth == code, scores.probabilities[:, code]) for code in wanted]))


def _auc_of(positive: Array, score: Array) -> float:
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    # Tied scores share the mean of their ranks.
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(scores: Scores) -> float:
    assert scores.probabilities is not None, "only of classes"
    rows = np.arange(len(scores.truth))
    chosen = scores.probabilities[rows, scores.truth.astype(np.int64)].astype(np.float64)
    return float(-np.mean(np.log(np.clip(chosen, np.finfo(np.float32).eps, 1.0))))


def mse(scores: Scores) -> float:
    return float(np.mean((scores.truth - scores.predicted) ** 2))


def rmse(scores: Scores) -> float:
    return float(np.sqrt(mse(scores)))


def mae(scores: Scores) -> float:
    return float(np.mean(np.abs(scores.truth - scores.predicted)))


def mape(scores: Scores) -> float:
    return float(np.mean(np.abs(scores.truth - scores.predicted) / np.maximum(np.abs(scores.truth), 1e-12)))


def r2(scores: Scores) -> float:
    total = float(np.sum((scores.truth - scores.truth.mean()) ** 2))
    return 1.0 - float(np.sum((scores.truth - scores.predicted) ** 2)) / total if total else float("nan")


Metric = Callable[[Scores], float]

CLASS_METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "auc": auc,
    "log_loss": log_loss,
}
NUMBER_METRICS: dict[str, Metric] = {"rmse": rmse, "mae": mae, "r2": r2, "mse": mse, "mape": mape}

SECOND_CLASS_METRICS = (precision, recall, f1)
"""If there are two classes, these metrics measure the second one only."""

DEFAULT_CLASS_METRICS = ("accuracy", "precision", "recall", "f1", "auc")
DEFAULT_NUMBER_METRICS = ("rmse", "mae", "r2")


def measures_second_class(metrics: Iterable[Metric]) -> bool:
    return any(metric in SECOND_CLASS_METRICS for metric in metrics)


def select_metrics(names: list[str], for_classes: bool) -> dict[str, Metric]:
    """Returns metrics by the names that the program uses for them, or the default metrics if it names none.

    Raises:
        UserError: a name is unknown, or the metric does not fit this kind of model.
    """
    known = CLASS_METRICS if for_classes else NUMBER_METRICS
    if not names:
        return {name: known[name] for name in (DEFAULT_CLASS_METRICS if for_classes else DEFAULT_NUMBER_METRICS)}
    aliases = rules.document()["metrics"]["aliases"]
    chosen = {}
    for name in names:
        folded = aliases.get(name.lower(), name.lower())
        if folded not in known:
            raise UserError(unknown_name("metric", name, known, "for this model there are"))
        chosen[name] = known[folded]
    return chosen
