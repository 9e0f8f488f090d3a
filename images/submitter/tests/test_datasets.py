"""Five data sets of scikit-learn: in each database, features and predictions equal those of XGBoost alone."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import xgboost
from conftest import Runner
from sklearn import datasets
from tables import make, meta, trained

ROUNDS = 5
MAX_ROWS = 600


class Label(NamedTuple):
    """A label column, and the expected result."""

    kind: str
    values: list[Any]
    objective: str
    classes: list[Any] | None


def labels(name: str, target: Any, names: Any) -> dict[str, Label]:
    """Creates a label of each kind that the data set allows. None of them has an objective."""
    above = [bool(value) for value in target >= np.median(target)]
    found = {"y_boolean": Label("boolean", above, "binary:logistic", [False, True])}
    if name == "diabetes":
        found["y_number"] = Label("number", target.tolist(), "reg:squarederror", None)
        found["y_integer"] = Label("integer", [int(value) for value in target], "reg:squarederror", None)
        return found
    codes = [int(code) for code in target]
    # Names in alphabetical order have other codes than the numbers.
    words = [f"the {names[code]}" for code in codes]
    objective = "binary:logistic" if len(names) == 2 else "multi:softprob"
    found["y_integer"] = Label("integer", codes, objective, sorted(set(codes)))
    found["y_text"] = Label("text", words, objective, sorted(set(words)))
    return found


def xgboost_alone(label: Label, train: Any, test: Any, codes: Any) -> Any:
    """Returns the predictions of XGBoost alone: probabilities by class, or numbers."""
    parameters: dict[str, Any] = {"objective": label.objective, "seed": 0}
    if label.objective.startswith("multi"):
        parameters["num_class"] = len(label.classes or ())
    booster = xgboost.train(parameters, xgboost.DMatrix(train, label=codes), ROUNDS)
    predicted = booster.predict(xgboost.DMatrix(test))
    return np.column_stack([1 - predicted, predicted]) if label.objective == "binary:logistic" else predicted


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_predictions_equal_those_of_xgboost_alone(runner: Runner, name: str) -> None:
    data = getattr(datasets, f"load_{name}")()
    # A part of it, because inserting all of it takes too long.
    inputs, target = data.data[:MAX_ROWS], data.target[:MAX_ROWS]
    columns = [f"f{place}" for place in range(inputs.shape[1])]
    found = labels(name, target, getattr(data, "target_names", None))
    is_test = np.arange(len(target)) % 4 == 0
    definition = {
        "part": "integer",
        "place": "integer",
        **dict.fromkeys(columns, "number"),
        **{label: its.kind for label, its in found.items()},
    }
    rows = [
        [int(is_test[place]), place, *values, *(its.values[place] for its in found.values())]
        for place, values in enumerate(inputs.tolist())
    ]
    make(runner, "sets", definition, rows)
    for label, its in found.items():
        select = ", ".join([*columns, label])
        document = trained(runner, "sets WHERE part = 0", select, label, attributes={"train.num_boost_round": ROUNDS})
        assert document["objective"] == its.objective
        assert document["classes"] == its.classes
        assert document["features"] == [
            {"kind": "dense", "width": 1, "column": column, "form": "number"} for column in columns
        ]
        runner.run(
            kind="predict",
            select=f"SELECT place, {', '.join(columns)} FROM sets WHERE part = 1",
            result_table="sets_out",
            result_column="predicted",
            model="m",
            model_dir="m",
            attributes={"predict.probabilities": True} if its.classes else {},
        )
        values = np.array(its.values)
        codes = np.searchsorted(np.array(its.classes), values) if its.classes else values
        expected = xgboost_alone(its, inputs[~is_test], inputs[is_test], codes[~is_test])
        got = runner.sql("SELECT * FROM sets_out ORDER BY place")
        assert len(got) == int(is_test.sum())
        said = [row[1 + len(columns)] for row in got]
        if its.classes is None:
            np.testing.assert_array_equal(np.array(said, dtype=np.float64), expected.astype(np.float64))
            continue
        right = [its.classes[code] for code in expected.argmax(axis=1)]
        # A boolean is a number in databases without this type.
        assert said == [str(value) for value in right] or said == [str(int(value)) for value in right]
        given = np.array([row[2 + len(columns) :] for row in got], dtype=np.float64)
        np.testing.assert_allclose(given, expected, atol=1e-6)
        truth = values[is_test].tolist()
        share = np.mean([one == other for one, other in zip(right, truth, strict=True)])
        print(f"RESULT {name} {label} {its.objective} accuracy {share:.4f}")
    assert meta(runner)["created_by"]
