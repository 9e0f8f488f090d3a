"""A result set of a million rows needs bounded memory. TRAIN needs eight bytes for each number."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from agent import StandInAgent

from sqlflow_submitter.features.learn import Learner
from sqlflow_submitter.values import Kind, Values

ROWS = 1_000_000
LIMIT_BYTES = 64 * 1024 * 1024

SELECTS = {
    "sqlite": "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1000000) "
    "SELECT i, 'name ' || i AS t FROM s",
    "mysql": "SELECT seq, CONCAT('name ', seq) AS t FROM seq_1_to_1000000",
    "postgresql": "SELECT i, 'name ' || i AS t FROM generate_series(1, 1000000) AS i",
}


@pytest.mark.parametrize("database", SELECTS)
def test_million_rows_need_bounded_memory(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    agent = StandInAgent(tmp_path, request.getfixturevalue(f"{database}_dsn"), keep_rows=False)
    run = agent.run(SELECTS[database]).succeeded()
    assert agent.row_count == ROWS
    assert 0 < run.peak_rss < LIMIT_BYTES


def test_train_needs_at_most_eight_bytes_for_each_number() -> None:
    batches, rows, columns = 50, 4096, [*"abcd", *(f"f{place}" for place in range(16))]
    random = np.random.default_rng(1)
    learner = Learner([], columns, {"d": "text"}, one_hot=False)
    tracemalloc.start()
    try:
        for number in range(batches):
            learner.add(
                {
                    "a": Values(Kind.FLOAT, random.normal(size=rows).tolist()),
                    "b": Values(Kind.INT, random.integers(2**40, size=rows).tolist()),
                    "c": Values(Kind.TIMESTAMP, [number * 10**12 + row * 1_000_003 for row in range(rows)]),
                    "d": Values(Kind.TEXT, ["ab"[row % 2] for row in range(rows)]),
                    **{name: Values(Kind.FLOAT, random.normal(size=rows).tolist()) for name in columns[4:]},
                }
            )
        matrix = learner.finish().matrix
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert matrix.data.shape == (batches * rows, len(columns))
    numbers = batches * rows * len(columns)
    # Plus a few copies of the two columns that are fitted into 32 bits, and one batch.
    assert peak < 8 * numbers + 9 * 8 * batches * rows
