"""Fixtures: a data source of each database, and the fake agent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import Run, StandInAgent
from in_process import described, execute, run_in_process
from iris import FEATURES, iris_statements
from servers import mariadb, postgresql

from sqlflow_submitter.values import ColumnInfo

# Before XGBoost is imported. Its trainings are small here, so more threads wait longer for a core than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def mysql_dsn() -> Iterator[str]:
    with mariadb() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def postgresql_dsn() -> Iterator[str]:
    with postgresql() as dsn:
        yield dsn


@pytest.fixture
def sqlite_dsn(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/data.db?mode=rwc"


@pytest.fixture(params=["sqlite", "mysql", "postgresql"])
def dsn(request: pytest.FixtureRequest) -> str:
    """A data source of each database. A test must drop the tables that it needs to create."""
    value: str = request.getfixturevalue(f"{request.param}_dsn")
    return value


@pytest.fixture
def agent(tmp_path: Path, dsn: str) -> StandInAgent:
    return StandInAgent(tmp_path, dsn)


@pytest.fixture
def sqlite_agent(tmp_path: Path, sqlite_dsn: str) -> StandInAgent:
    return StandInAgent(tmp_path, sqlite_dsn)


class Runner:
    """Runs statements on one data source: Python's part in this process. A failure raises its exception."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.attempt = 1
        self.grant = True
        self.replay: tuple[str, ...] = ()
        """Statements that change settings of the session."""

    def run(self, **statement: object) -> Run:
        """Runs a statement. Paths of models are relative to the test's folder."""
        for field in ("output", "model_dir", "pretrained"):
            if statement.get(field):
                statement[field] = str(self.folder / str(statement[field]))
        document = {
            "version": 1,
            "job": "01jtest",
            "step": 1,
            "attempt": self.attempt,
            "scratch_suffix": f"01jtest_1_{self.attempt}",
            "replay": [{"index": 90, "sql": sql} for sql in self.replay],
            "statements": [{"index": 0, "repeatable": True, **statement}],
        }
        return run_in_process(document, self.dsn, self.folder, grant=self.grant)

    def describe(self, select: str) -> list[ColumnInfo]:
        """Returns the columns of a select."""
        return described(select, self.dsn, self.folder)

    def sql(self, *statements: str) -> list[tuple[str, ...]]:
        """Runs standard statements on a new connection. Returns the rows of all, formatted for people."""
        return execute(self.dsn, *statements)

    def train(self, select: str, label: str, output: str = "m", **fields: object) -> Run:
        estimator = fields.pop("estimator", "xgboost.gbtree")
        return self.run(
            kind="train",
            sql=f"{select} TO TRAIN {estimator} …",
            select=select,
            label=label,
            estimator=estimator,
            model="m",
            output=output,
            **fields,
        )

    def predict(
        self, select: str = "SELECT * FROM iris", table: str = "outcome", column: str = "name", **fields: object
    ) -> Run:
        return self.run(
            kind="predict", select=select, result_table=table, result_column=column, model="m", model_dir="m", **fields
        )


@pytest.fixture
def runner(dsn: str, tmp_path: Path) -> Runner:
    return Runner(dsn, tmp_path)


@pytest.fixture
def sqlite_runner(sqlite_dsn: str, tmp_path: Path) -> Runner:
    return Runner(sqlite_dsn, tmp_path)


@pytest.fixture
def iris(runner: Runner) -> Runner:
    """A runner with the table `iris` and a model `m` that predicts the name of an iris, and no result table."""
    return with_iris_model(runner)


@pytest.fixture
def sqlite_iris(sqlite_runner: Runner) -> Runner:
    return with_iris_model(sqlite_runner)


def with_iris_model(runner: Runner) -> Runner:
    runner.sql(*iris_statements(), "DROP TABLE IF EXISTS outcome", "DROP TABLE IF EXISTS outcome__01jtest_1_1")
    runner.train(f"SELECT {FEATURES}, name FROM iris", "name", attributes={"objective": "multi:softmax"})
    return runner


@pytest.fixture
def source(runner: Runner) -> Runner:
    """Creates a table `source`, and drops the tables and views that the programs create."""
    runner.sql(
        "DROP VIEW IF EXISTS later_view",
        'DROP VIEW IF EXISTS "2021_view"' if "mysql" not in runner.dsn else "DROP VIEW IF EXISTS 2021_view",
        *(f"DROP TABLE IF EXISTS {name}" for name in ("outcome", "second", "source")),
        "CREATE TABLE source (a INT, b INT, y INT)",
        "INSERT INTO source VALUES (1, 2, 1), (2, 1, 2), (3, 3, 3)",
    )
    return runner
