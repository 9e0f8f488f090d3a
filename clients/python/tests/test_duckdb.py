"""DuckDB on a real server: a model from a Parquet file, and its predictions in a table."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from real_server import REPOSITORY, RealServer

import sqlflow
from sqlflow import dbapi

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


def test_cancel_ends_the_statement(client: sqlflow.Client) -> None:
    job = client.run(ENDLESS)
    for event in job:
        if isinstance(event, sqlflow.StatementStarted):
            job.cancel()
    with pytest.raises(sqlflow.JobCancelled):
        job.result()
    # As long as it reads, no other process can write.
    assert list(client.run("CREATE TABLE written AS SELECT 42 AS a; SELECT a FROM written").result()) == [(42,)]


@pytest.mark.parametrize(
    "value",
    [
        *("'1'::HUGEINT", "1::UHUGEINT", "1::UBIGINT", "1::UTINYINT", "1.5::DECIMAL(10, 2)", "1::BOOLEAN"),
        *("'2020-01-01'::TIMESTAMP_S", "'2020-01-01'::TIMESTAMP_MS", "'2020-01-01'::TIMESTAMP_NS", "'a'::BLOB"),
        *("[1, 2]", "[1, 2, 3]::INTEGER[3]", "{'a': 1}", "MAP {'a': 1}", "'2020-01-01'::TIMESTAMPTZ", "'1'::BIGNUM"),
    ],
)
def test_column_without_a_value_has_the_type_of_one_with_values(client: sqlflow.Client, value: str) -> None:
    full, empty = (
        client.run(f"SELECT {value} AS v WHERE {condition}").result().to_pandas() for condition in ("true", "false")
    )
    assert len(full) == 1 and len(empty) == 0
    assert full.v.dtype == empty.v.dtype


def test_sum_of_whole_numbers_is_an_exact_decimal(client: sqlflow.Client) -> None:
    rows = list(client.run("SELECT sum(i * 1000000000000) AS s FROM range(10000001) AS t(i)").result())
    assert rows == [(Decimal("50000005000000000000000000"),)]


def test_parameters_are_bound(client: sqlflow.Client) -> None:
    cursor = dbapi.Connection(client, "sqlite").cursor()
    values = ("it's \\ here", b"\x00\xff", 1.5, None)
    cursor.execute("SELECT %s, %s, %s, %s", values)
    assert cursor.fetchall() == [values]
