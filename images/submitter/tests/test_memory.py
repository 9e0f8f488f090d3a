"""A result set of a million rows goes through in bounded memory."""

from pathlib import Path

import pytest
from agent import StandInAgent

ROWS = 1_000_000
LIMIT_BYTES = 64 * 1024 * 1024

SELECTS = {
    "sqlite": "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1000000) "
    "SELECT i, 'name ' || i AS t FROM s",
    "mysql": "SELECT seq, CONCAT('name ', seq) AS t FROM seq_1_to_1000000",
    "postgresql": "SELECT i, 'name ' || i AS t FROM generate_series(1, 1000000) AS i",
}


@pytest.mark.parametrize("database", SELECTS)
def test_a_million_rows_in_bounded_memory(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    agent = StandInAgent(tmp_path, request.getfixturevalue(f"{database}_dsn"), keep_rows=False)
    run = agent.run(SELECTS[database]).succeeded()
    assert agent.row_count == ROWS
    assert 0 < run.peak_rss < LIMIT_BYTES
