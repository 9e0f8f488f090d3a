"""Metrics, compared with scikit-learn's."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk

from sqlflow_submitter import metrics
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.metrics import Scores
from sqlflow_submitter.xgb import rules

RANDOM = np.random.default_rng(7)


def classes(count: int) -> Scores:
    truth = RANDOM.integers(count, size=200)
    # Rounded, to create ties.
    probabilities = np.round(RANDOM.dirichlet(np.ones(count), size=200) + np.eye(count)[truth] * 0.3, 1) + 0.01
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Scores(truth, probabilities.argmax(axis=1), probabilities)


@pytest.mark.parametrize("count", [2, 4])
def test_class_metrics_equal_those_of_scikit_learn(count: int) -> None:
    scores = classes(count)
    average = "binary" if count == 2 else "macro"
    truth, predicted, probabilities = scores
    assert probabilities is not None
    assert metrics.accuracy(scores) == pytest.approx(sk.accuracy_score(truth, predicted))
    assert metrics.precision(scores) == pytest.approx(sk.precision_score(truth, predicted, average=average))
    assert metrics.recall(scores) == pytest.approx(sk.recall_score(truth, predicted, average=average))
    assert metrics.f1(scores) == pytest.approx(sk.f1_score(truth, predicted, average=average))
    assert metrics.log_loss(scores) == pytest.approx(sk.log_loss(truth, probabilities))
    given = probabilities[:, 1] if count == 2 else probabilities
    assert metrics.auc(scores) == pytest.approx(sk.roc_auc_score(truth, given, multi_class="ovr"))


def test_absent_classes_are_ignored() -> None:
    scores = Scores(np.array([0, 0, 2]), np.array([0, 2, 2]), np.full((3, 4), 0.25))
    assert metrics.f1(scores) == pytest.approx(sk.f1_score(scores.truth, scores.predicted, average="macro"))
    assert math.isnan(metrics.auc(scores))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmse", sk.root_mean_squared_error),
        ("mse", sk.mean_squared_error),
        ("mae", sk.mean_absolute_error),
        ("mape", sk.mean_absolute_percentage_error),
        ("r2", sk.r2_score),
    ],
)
def test_number_metrics_equal_those_of_scikit_learn(name: str, expected: Callable[..., float]) -> None:
    truth = RANDOM.normal(size=100)
    predicted = truth + RANDOM.normal(size=100)
    assert metrics.NUMBER_METRICS[name](Scores(truth, predicted, None)) == pytest.approx(expected(truth, predicted))


def test_metrics_are_selected_by_name() -> None:
    assert list(metrics.select_metrics([], True)) == ["accuracy", "precision", "recall", "f1", "auc"]
    chosen = metrics.select_metrics(["f1_score", "Accuracy"], True)
    assert chosen == {"f1_score": metrics.f1, "Accuracy": metrics.accuracy}
    with pytest.raises(UserError, match="acuracy does not exist; did you mean accuracy"):
        metrics.select_metrics(["acuracy"], True)
    with pytest.raises(UserError, match="metric accuracy does not exist"):
        metrics.select_metrics(["accuracy"], False)


def test_metrics_match_the_rules_of_the_server() -> None:
    known = rules.document()["metrics"]
    assert list(metrics.CLASS_METRICS) == known["classes"]
    assert list(metrics.NUMBER_METRICS) == known["numbers"]
    assert set(known["aliases"].values()) <= {*metrics.CLASS_METRICS, *metrics.NUMBER_METRICS}
