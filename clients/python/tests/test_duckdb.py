"""DuckDB on a real server: a model from a Parquet file, and its predictions in a table."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from real_server import REPOSITORY, RealServer

import sqlflow

ENDLESS = "SELECT sum(a.i * b.i) FROM range(1000000000) AS a(i), range(1000000000) AS b(i)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("duckdb")


@pytest.fixture(scope="module")
def client(folder: Path):  # type: ignore[no-untyped-def]
    """A client of a server whose data source is a new file. User code is kept from its folder."""
    (folder / "data").mkdir()
    datasource = f"duckdb://{folder}/data/flowers.duckdb?mode=rwc"
    with RealServer(folder, datasource) as server, sqlflow.connect(server.address, datasource=datasource) as connected:
        yield connected


def test_model_from_a_parquet_file_predicts_into_a_table(client: sqlflow.Client, folder: Path) -> None:
    file = folder / "iris.parquet"
    load = f"""
        CREATE TABLE iris AS SELECT row_number() OVER () AS id, * FROM '{REPOSITORY}/examples/iris.csv';
        COPY iris TO '{file}';
        SELECT count(*) AS n FROM '{file}'"""
    assert list(client.run(load).result()) == [(150,)]
    program = f"""
        SELECT * EXCLUDE id FROM '{file}' WHERE id % 5 > 0
        TO TRAIN xgboost.gbtree WITH train.num_boost_round = 5 LABEL class INTO flowers;
        SELECT * FROM '{file}' WHERE id % 5 = 0 TO EVALUATE flowers LABEL class;
        SELECT * FROM '{file}' TO PREDICT predicted.class USING flowers;
        SELECT p.class = i.class AS is_right, count(*) AS n FROM predicted AS p JOIN iris AS i USING (id) GROUP BY 1"""
    result = client.run(program).result()
    assert dict(iter(result.tables[0]))["accuracy"] > 0.8
    counts = dict(iter(result))
    assert sum(counts.values()) == 150 and counts[True] > 130


def test_misspelt_column_is_found_before_the_training(client: sqlflow.Client) -> None:
    program = """
        SELECT 1 AS a, 0 AS y TO TRAIN xgboost.gbtree LABEL y INTO never;
        SELECT b FROM (SELECT 1 AS a)"""
    with pytest.raises(sqlflow.JobFailed, match=r"statement 2 \(SELECT\): .*\"b\" not found"):
        client.run(program).result()


def is_locked(file: Path) -> bool:
    """Whether another process has a database file open: DuckDB locks it, also to read it."""
    with open(file, "r+b") as mine:
        try:
            fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_cancel_ends_the_statement(client: sqlflow.Client, folder: Path) -> None:
    file = folder / "data/flowers.duckdb"
    job = client.run(ENDLESS)
    for event in job:
        if isinstance(event, sqlflow.StatementStarted):
            assert is_locked(file), "the statement runs"
            job.cancel()
    assert isinstance(event, sqlflow.JobEnded) and event.state is sqlflow.State.CANCELLED
    assert not is_locked(file), "no process has it open"
    assert list(client.run("CREATE TABLE written AS SELECT 42 AS a; SELECT a FROM written").result()) == [(42,)]
