"""The attributes of XGBoost statements."""

from typing import Any

import numpy as np
import pytest

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.xgb.estimator import resolve_booster
from sqlflow_submitter.xgb.objectives import Task
from sqlflow_submitter.xgb.parameters import Parameters


def test_attributes_are_converted_to_their_types() -> None:
    parameters = Parameters(
        "gbtree",
        {
            "objective": "multi:softmax",
            "num_class": 3.0,
            "eta": "0.1",
            "max_depth": 4,
            "eval_metric": "merror, mlogloss",
            "train.num_boost_round": 20,
            "train.batch_size": -1,
            "validation.select": "SELECT 1",
        },
    )
    assert parameters.native == {
        "booster": "gbtree",
        "objective": "multi:softmax",
        "num_class": 3,
        "eta": 0.1,
        "max_depth": 4,
        "eval_metric": ["merror", "mlogloss"],
        "seed": 0,
    }
    assert parameters.task is Task.MULTI
    assert (parameters.rounds, parameters.epochs, parameters.batch_size) == (20, 1, None)
    assert parameters.validation_select == "SELECT 1"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"max_dept": 3}, r"attribute max_dept does not exist; did you mean max_depth"),
        ({"num_boost_round": 3}, r"did you mean train\.num_boost_round\?"),
        ({"objective": "multi:softmx"}, r"objective multi:softmx does not exist; did you mean multi:softmax"),
        ({"objective": "reg:linear"}, "objective reg:linear does not exist"),
        ({"objective": "rank:ndcg"}, "not supported yet: it needs groups"),
        ({"objective": 3}, "objective is 3; it must be a string"),
        ({"eval_metric": "mlogloss2"}, r"did you mean mlogloss"),
        ({"eval_metric": "tweedie-nloglik"}, "needs an argument, as in tweedie-nloglik@1.5"),
        ({"objective": "multi:softmax", "eval_metric": "rmse"}, "rmse does not fit objective multi:softmax"),
        ({"objective": "reg:gamma", "eval_metric": "quantile"}, "is for objective reg:quantileerror only"),
        ({"objective": "reg:quantileerror"}, "needs the attribute quantile_alpha"),
        ({"objective": "binary:logistic", "num_class": 3}, "num_class is for multi:softmax"),
        ({"eta": 1.5}, "eta is 1.5; it must be a number, at least 0 and at most 1"),
        ({"eta": "fast"}, "eta is 'fast'; it must be a number"),
        ({"subsample": 0}, "above 0"),
        ({"max_depth": 2.5}, "whole number"),
        ({"max_depth": True}, "whole number"),
        ({"tree_method": "gpu_hist"}, r"value of attribute tree_method: gpu_hist does not exist; did you mean hist"),
        ({"gamma": {"ident": "x"}}, "not an expression"),
        ({"train.num_workers": 2}, "not supported yet"),
        ({"train.num_boost_round": 0}, "at least 1"),
        ({"train.early_stopping_rounds": 2}, "validation.select"),
        ({"train.early_stopping_rounds": 2, "validation.select": "s", "train.epoch": 2}, "cannot be combined with"),
    ],
)
def test_mistakes_are_rejected(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Parameters("gbtree", attributes)


def test_negative_numbers_and_lists_are_accepted() -> None:
    minus = {"unary": "-", "of": {"number": 1}}
    native = Parameters("gbtree", {"base_score": minus, "monotone_constraints": [1, minus]}).native
    assert native["base_score"] == -1
    assert native["monotone_constraints"] == "(1, -1)"
    assert Parameters("gbtree", {"interaction_constraints": [[0, 1], [2]]}).native["interaction_constraints"] == (
        "[[0, 1], [2]]"
    )


def test_constraints_can_be_texts_in_the_notation_of_xgboost() -> None:
    native = Parameters("gbtree", {"monotone_constraints": "(1,)", "interaction_constraints": "[[0, 1]]"}).native
    assert (native["monotone_constraints"], native["interaction_constraints"]) == ("(1)", "[[0, 1]]")
    assert Parameters("gbtree", {"monotone_constraints": "[1,-1]"}).native["monotone_constraints"] == "(1, -1)"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"monotone_constraints": [1, 0, 0]}, r"monotone_constraints has 3 values, and the model has 2 feature\(s\)"),
        ({"interaction_constraints": [[0], [1, 9]]}, "names feature 9, and the model has the features 0 to 1"),
    ],
)
def test_constraints_beyond_the_last_feature_are_rejected(attributes: dict[str, object], message: str) -> None:
    parameters = Parameters("gbtree", attributes)
    parameters.check_width(10)
    with pytest.raises(UserError, match=message):
        parameters.check_width(2)


def test_base_score_must_fit_the_objective_of_the_label() -> None:
    parameters = Parameters("gbtree", {"base_score": 2})
    parameters.set_objective("reg:squarederror")
    with pytest.raises(
        UserError, match=r"base_score, with objective binary:logistic, is 2\.0; it must be a number, at"
    ):
        parameters.set_objective("binary:logistic")


def test_metrics_can_have_an_argument() -> None:
    assert Parameters("gbtree", {"eval_metric": "error@0.7"}).native["eval_metric"] == ["error@0.7"]


@pytest.mark.parametrize(
    ("name", "booster"),
    [
        ("xgboost.gbtree", "gbtree"),
        ("XGBoost.GBLinear", "gblinear"),
        ("xgboost.dart", "dart"),
        ("XGBOOSTCLASSIFIER", "gbtree"),
        ("XGBoostRegressor", "gbtree"),
    ],
)
def test_estimator_decides_the_booster(name: str, booster: str) -> None:
    assert resolve_booster(name) == booster


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_attributes_that_the_booster_ignores_are_known(booster: str) -> None:
    """Compares with the library: an ignored attribute changes no prediction."""
    xgboost = pytest.importorskip("xgboost")
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(200, 4))
    data = xgboost.DMatrix(rows, label=rows[:, 0] * rows[:, 1] + rows[:, 2])

    def predictions(**attributes: Any) -> Any:
        parameters = {"booster": booster, "seed": 1, "nthread": 1, "verbosity": 0, "eta": 0.3, **attributes}
        return xgboost.train(parameters, data, num_boost_round=5).predict(data)

    plain = predictions()
    for name, value in {
        "max_depth": 2,
        "max_leaves": 3,
        "gamma": 9,
        "min_child_weight": 60,
        "subsample": 0.5,
        "max_bin": 4,
        "colsample_bytree": 0.3,
        "num_parallel_tree": 3,
        "monotone_constraints": "(1, 1, 1, 1)",
        "lambda": 50,
        "rate_drop": 0.9,
        "one_drop": 1,
        "alpha": 20,
    }.items():
        is_ignored = name in Parameters(booster, {name: value}).without_effect
        assert np.array_equal(plain, predictions(**{name: value})) == is_ignored, name
    assert Parameters("gblinear", {"max_depth": 3, "eta": 0.1, "max_leaves": 2}).without_effect == [
        "max_depth",
        "max_leaves",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("DNNClassifier", "xgboost.dart$"), ("xgboost.gbtre", "did you mean xgboost.gbtree"), ("sqlflow_models.X", "")],
)
def test_other_estimators_are_rejected_in_one_line(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"estimator {name} is not supported yet; supported: xgboost.gbtree.*{hint}"):
        resolve_booster(name)
