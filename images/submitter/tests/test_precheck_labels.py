"""What a label's type and values decide about later statements: metrics, probabilities, and training on numbers."""

from __future__ import annotations

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from prechecks import TRAIN, assert_passes, database_of, existing, rejects, standard, use

OPEN = {**TRAIN, "attributes": {"train.num_boost_round": 1}}
"""A training whose label decides the objective."""


@pytest.fixture
def words(source: Runner) -> str:
    """A select with a label of words, of a declared type."""
    source.sql("CREATE TABLE second (a INT, b INT, y VARCHAR(9), z VARCHAR(9))")
    source.sql("INSERT INTO second VALUES (1, 2, 'low', '1'), (2, 1, 'high', '2'), (3, 3, 'low', '3')")
    return "SELECT a, b, y FROM second"


def measure(metric: str, **fields: Any) -> dict[str, Any]:
    return use("evaluate", attributes={"validation.metrics": metric}, **fields)


def test_metric_of_numbers_for_a_label_of_words(source: Runner, agent: StandInAgent, words: str) -> None:
    first = {**OPEN, "select": words}
    message = rejects(agent, measure("r2_score", select=words), first=first)
    assert "statement 2 (TO EVALUATE): metric r2_score does not exist (for this model there are: accuracy" in message
    assert_passes(agent, measure("accuracy_score", select=words), first=first)
    # Texts that are numbers are numbers.
    digits = words.replace("y", "z AS y")
    assert_passes(agent, measure("r2_score", select=digits), first={**OPEN, "select": digits})
    # By the time of a later training, rows may have changed.
    changed = standard("UPDATE second SET y = '1'", effect="rows", hangs_on_row=True)
    later = {**OPEN, "index": 2, "select": words, "output": ""}
    assert_passes(agent, changed, later, measure("r2_score", index=3, select=words))
    assert "r2_score" in rejects(agent, later, measure("r2_score", index=3, select=words))


def test_metric_of_classes_for_a_label_of_fractions(source: Runner, agent: StandInAgent) -> None:
    kind = {"sqlite": "REAL", "mysql": "DOUBLE", "postgresql": "float8"}[database_of(source)]
    source.sql(f"CREATE TABLE second (a INT, b INT, y {kind})", "INSERT INTO second SELECT * FROM source")
    fractions = "SELECT a, b, y FROM second"
    first = {**OPEN, "select": fractions}
    message = rejects(agent, measure("accuracy"), first=first)
    assert "metric accuracy does not exist (for this model there are: rmse" in message
    probable = use("predict", attributes={"predict.probabilities": True})
    assert "model new has none: it predicts a number" in rejects(agent, probable, first=first)
    assert_passes(agent, measure("rmse"), first=first)
    # An objective decides.
    assert_passes(agent, measure("accuracy"), first={**first, "attributes": {"objective": "multi:softprob"}})
    # Whole numbers may be classes or not.
    assert_passes(agent, measure("accuracy"), first=OPEN)
    assert_passes(agent, measure("rmse"), first=OPEN)


def test_later_training_on_numbers_needs_a_label_without_words(source: Runner, agent: StandInAgent, words: str) -> None:
    later = {**OPEN, "index": 1, "model": "next", "select": words, "output": ""}
    rmse = {**later, "attributes": {"eval_metric": "rmse"}}
    message = rejects(agent, rmse)
    assert (
        message
        == (
            "statement 2 (TO TRAIN): label y: 'low' is not a number, and the statement has eval_metric rmse; "
            "for classes use an objective such as multi:softprob or binary:logistic"
        )
        or "'high' is not" in message
    )
    linear = {**later, "attributes": {"objective": "reg:squarederror"}}
    assert "is not a number, and objective reg:squarederror predicts a number; for" in rejects(agent, linear)
    assert_passes(agent, {**later, "attributes": {"eval_metric": "mlogloss"}})
    digits = words.replace("y", "z AS y")
    assert_passes(agent, {**rmse, "select": digits})
    changed = standard("UPDATE second SET y = '1'", effect="rows", hangs_on_row=True)
    assert_passes(agent, changed, {**rmse, "index": 2})


def test_evaluation_of_numbers_needs_a_label_without_words(source: Runner, agent: StandInAgent, words: str) -> None:
    numbers = existing(source, "numbers", objective="reg:squarederror")
    for fields in ({}, {"model": "numbers", "model_dir": numbers}):
        message = rejects(agent, use("evaluate", select=words, **fields))
        assert message.startswith("statement 2 (TO EVALUATE): label y: '")
        assert message.endswith("' is not a number, and the model predicts a number")
        assert_passes(agent, use("evaluate", select=words.replace("y", "z AS y"), **fields))
