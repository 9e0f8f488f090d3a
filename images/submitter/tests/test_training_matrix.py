"""The matrix of a TRAIN statement, and what XGBoost makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.learn import Learner
from sqlflow_submitter.features.matrix import Matrix
from sqlflow_submitter.values import Kind, Values
from sqlflow_submitter.xgb.booster import fit
from sqlflow_submitter.xgb.parameters import Parameters

ROWS = 3000
TYPES = ["q", "q", "q", "c"]


def labelled(seed: int) -> tuple[Matrix, Any]:
    """Fractions, fractions with missing ones, whole numbers and categories."""
    random = np.random.default_rng(seed)
    data = np.asfortranarray(random.normal(size=(ROWS, 4)), dtype=np.float32)
    labels = (data.sum(axis=1) > 1).astype(np.float64)
    data[random.random(ROWS) < 0.1, 1] = np.nan
    data[:, 2] = np.floor(data[:, 2] * 9)
    data[:, 3] = random.integers(0, 7, ROWS)
    return Matrix(data, TYPES), labels


@pytest.mark.parametrize(
    ("booster", "attributes"),
    [("gbtree", {}), ("gbtree", {"max_bin": 16}), ("dart", {}), ("gbtree", {"tree_method": "approx"})],
)
def test_model_has_the_bytes_of_one_of_plain_xgboost(booster: str, attributes: dict[str, Any]) -> None:
    train, held_out = labelled(1), labelled(2)
    parameters = Parameters(booster, {"objective": "binary:logistic", **attributes})
    measured: list[dict[str, float]] = []
    ours, _ = fit(parameters, train, held_out, None, measured.append)
    plain = [
        xgboost.DMatrix(np.ascontiguousarray(it.data), label=labels, feature_types=TYPES, enable_categorical=True)
        for it, labels in (train, held_out)
    ]
    evals: dict[str, dict[str, list[float]]] = {}
    names = [(plain[0], "train"), (plain[1], "validate")]
    theirs = xgboost.train(parameters.native, plain[0], 10, evals=names, evals_result=evals, verbose_eval=False)
    assert ours.save_raw() == theirs.save_raw()
    assert [it["validate-logloss"] for it in measured] == evals["validate"]["logloss"]


def test_xgboost_without_a_way_for_columns_makes_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method is not public, so another version may not have it."""
    proxy = xgboost.core._ProxyDMatrix
    assert hasattr(proxy, "_ref_data_from_columnar"), "this XGBoost has none: training takes a third longer"
    parameters = Parameters("gbtree", {"objective": "binary:logistic"})
    expected, _ = fit(parameters, labelled(1), None, None, lambda _: None)
    monkeypatch.delattr(proxy, "_ref_data_from_columnar")
    model, _ = fit(parameters, labelled(1), None, None, lambda _: None)
    assert model.save_raw() == expected.save_raw()


def test_error_is_that_of_the_first_column() -> None:
    """Columns are finished at the same time, and the first one takes longest."""
    rows = 8000
    columns = {f"c{place}": [str(row % (rows >> place) + 0.5) for row in range(rows)] for place in range(4)}
    for values in columns.values():
        values[17] = "abc"
    learner = Learner([], list(columns), {}, one_hot=False)
    learner.add({name: Values(Kind.TEXT, values) for name, values in columns.items()})
    with pytest.raises(UserError, match=r"^column c0, row 18: 'abc' is not a number"):
        learner.finish()


def test_columns_stay_in_order() -> None:
    names = [f"c{place}" for place in range(30)]
    learner = Learner([], names, dict.fromkeys(names, "int"), one_hot=False)
    learner.add({name: Values(Kind.INT, [place, place + 1, None]) for place, name in enumerate(names)})
    learned = learner.finish()
    assert [feature.column for feature in learned.features] == names
    assert [report.name for report in learned.reports] == names
    assert learned.matrix.data[0].tolist() == list(range(30))
    assert np.isnan(learned.matrix.data[2]).all()
