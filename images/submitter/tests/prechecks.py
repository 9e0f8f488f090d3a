"""What the tests of prechecks share: the statement that runs, later ones, and what becomes of them."""

from __future__ import annotations

from typing import Any

from agent import StandInAgent
from conftest import Runner

TRAIN: dict[str, Any] = {
    "kind": "train",
    "select": "SELECT a, b, y FROM source",
    "estimator": "xgboost.gbtree",
    "label": "y",
    "model": "new",
    "output": "outputs/new",
    "attributes": {"objective": "reg:squarederror", "train.num_boost_round": 2},
}
SOURCE = "SELECT * FROM source"


def use(kind: str, index: int = 1, **fields: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"index": index, "kind": kind, "select": SOURCE, "model": "new"}
    if kind == "predict":
        defaults |= {"result_table": "outcome", "result_column": "p"}
    if kind == "evaluate":
        defaults["label"] = "y"
    return {**defaults, **fields}


def assert_passes(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any] = TRAIN) -> None:
    agent.run(first, ahead=list(ahead)).succeeded()


def rejects(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any] = TRAIN) -> str:
    """Returns the message about a later statement. No model was trained."""
    run = agent.run(first, ahead=list(ahead))
    assert run.kinds() == ["started", "failure"]
    failure = run.failure()
    assert failure.user_error
    assert "loaded" not in run.stdout
    return str(failure.message)


def existing(runner: Runner, name: str, label: str = "y", **attributes: Any) -> str:
    """Trains a model that exists before the program. Returns a folder with its metadata, as the agent provides it."""
    select = "SELECT a, b, y FROM source"
    runner.train(select, label, output=f"ahead/{name}", attributes={"train.num_boost_round": 1, **attributes})
    (runner.folder / f"ahead/{name}/model.ubj").unlink()
    return f"ahead/{name}"


def standard(sql: str, index: int = 1, **fields: Any) -> dict[str, Any]:
    return {"index": index, "kind": "standard", "sql": sql, **fields}


def database_of(runner: Runner) -> str:
    return runner.dsn.partition(":")[0]
