"""DuckDB: the step document beside user code, which owns the file, and quoted names in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent import StandInAgent

from sqlflow_submitter.duckdb_data.step import STEP_DIGEST


def test_document_that_a_program_has_changed_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "data.duckdb"
    agent = StandInAgent(tmp_path, f"duckdb://{database}?mode=rwc")
    agent.secrets[STEP_DIGEST] = hashlib.sha256(b"the document of the server").hexdigest()
    run = agent.run("CREATE TABLE planted (a INT)")
    expected = "cannot read the step document step.json: a program has changed it since the server assigned it"
    assert (run.failure().message, run.exit_code) == (expected, 1)
    assert not database.exists()

    # This is the document that it wrote.
    agent.secrets[STEP_DIGEST] = hashlib.sha256((tmp_path / "step.json").read_bytes()).hexdigest()
    agent.run("CREATE TABLE planted (a INT)").succeeded()
    assert database.exists()


def test_quoted_parts_of_a_result_table_are_taken_as_they_are(tmp_path: Path) -> None:
    agent = StandInAgent(tmp_path, f"duckdb://{tmp_path}/data.duckdb?mode=rwc")
    rows = "SELECT i AS a, i % 3 AS y FROM range(1000) AS t(i)"
    train = {"kind": "train", "select": rows, "label": "y", "model": "m", "output": "m", "columns": {}}
    attributes = {"objective": "multi:softmax", "train.num_boost_round": 3}
    agent.run({**train, "estimator": "xgboost.gbtree", "attributes": attributes, "pretrained": None}).succeeded()
    predict = {"kind": "predict", "select": rows, "model": "m", "model_dir": "m", "repeatable": False}
    result = {"result_table": 'main."My order"', "result_column": '"Class of it"'}
    # The second one replaces what the first one has made.
    for _ in range(2):
        agent.run({**predict, **result}).succeeded()
        assert agent.run('SELECT count("Class of it") FROM "My order"').rows() == [("1000",)]
