"""What the tests of prechecks share: the statement that runs, later ones, and what becomes of them."""

from __future__ import annotations

from contextlib import chdir, redirect_stdout
from io import StringIO
from typing import Any

import pytest
from agent import Recorder, StandInAgent, document_of
from conftest import Runner
from in_process import run_in_process

from sqlflow_submitter.errors import UserError, one_line

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


def run(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any], recorder: Recorder) -> None:
    """Runs a statement with later ones. Python's part runs in this process, which starts faster."""
    with chdir(agent.folder):
        run_in_process(document_of(first, ahead=list(ahead)), agent.dsn, agent.folder, recorder=recorder)


def assert_passes(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any] = TRAIN) -> None:
    run(agent, *ahead, first=first, recorder=Recorder())


def rejects(agent: StandInAgent, *ahead: dict[str, Any], first: dict[str, Any] = TRAIN) -> str:
    """Returns the message about a later statement. No model was trained."""
    recorder, stdout = Recorder(), StringIO()
    with redirect_stdout(stdout), pytest.raises(UserError) as caught:
        run(agent, *ahead, first=first, recorder=recorder)
    assert [kind for kind in recorder.run.kinds() if kind != "failure"] == ["started"]
    assert "loaded" not in stdout.getvalue()
    return one_line(str(caught.value))


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
