"""Results of many rows: every part has bounded memory. `make drill` reads ten million."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from real_server import SUBMITTER_PYTHON, RealServer, iris

import sqlflow

ROWS = int(os.environ.get("SQLFLOW_DRILL_ROWS", "400000"))
TEXT = 200
"""Characters of a row. In `make test` they take 80 MB, which only the server may have, and 2 GB in the drill."""

SELECTS = {
    "sqlite": f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS}) "
    f"SELECT i, printf('%0{TEXT}d', i) AS t FROM n",
    "duckdb": f"SELECT i, lpad(i::VARCHAR, {TEXT}, '0') AS t FROM range(1, {ROWS + 1}) AS n(i)",
    "mysql": f"SELECT seq AS i, LPAD(seq, {TEXT}, '0') AS t FROM seq_1_to_{ROWS}",
    "postgresql": f"SELECT i, lpad(i::text, {TEXT}, '0') AS t FROM generate_series(1, {ROWS}) AS i",
}

SAMPLE_SECONDS = 0.1
MIB = 1 << 20
LIMITS = {"sqlflow-server": 192 * MIB, "sqlflow-agent": 48 * MIB, "client": 48 * MIB}
"""Maximum memory of each part; of the client, what reading takes beside its libraries."""
DATA_PROCESS = {"sqlflow-data": 32 * MIB}
DATA_PROCESS_OF_DUCKDB = {Path(SUBMITTER_PYTHON).name: 160 * MIB}
"""Of which Python and the libraries take about 90 MiB."""

CLIENT = """
    import re, sys
    import sqlflow

    def peak():
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

    client = sqlflow.connect(sys.argv[1])
    assert list(client.run("SELECT 1").result()) == [(1,)]
    before = peak()
    count = total = 0
    for event in client.run(sys.argv[3], datasource=sys.argv[2]):
        if isinstance(event, sqlflow.Rows):
            for number, text in event:
                count += 1
                total += int(text) - number
    assert event.state is sqlflow.State.SUCCEEDED, event
    print(count, total, peak() - before)
    """


def peaks(ancestor: int) -> dict[int, tuple[str, int]]:
    """Name and peak memory of a process and its descendants, by process id. Other tests run at the same time."""
    found, parents = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except OSError:
            # It has ended.
            continue
        if "VmHWM" in lines:
            pid = int(folder.name)
            parents[pid] = int(lines["PPid"])
            found[pid] = lines["Name"].strip(), int(lines["VmHWM"].split()[0]) * 1024

    def descends(pid: int | None) -> bool:
        while pid is not None and pid != ancestor:
            pid = parents.get(pid)
        return pid == ancestor

    return {pid: peak for pid, peak in found.items() if descends(pid)}


@pytest.mark.parametrize("database", SELECTS)
def test_many_rows_need_bounded_memory(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dsn = request.getfixturevalue(f"{database}_dsn")
    limits = LIMITS | (DATA_PROCESS_OF_DUCKDB if database == "duckdb" else DATA_PROCESS)
    with RealServer(tmp_path, f"sqlite:///{iris(tmp_path / 'iris.db')}") as server:
        command = [sys.executable, "-c", textwrap.dedent(CLIENT), server.address, dsn, SELECTS[database]]
        reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(sqlflow.__path__[0]).parent)
        most: dict[str, int] = defaultdict(int)
        while reader.poll() is None:
            for name, peak in peaks(server.pid).values():
                if name in limits:
                    most[name] = max(most[name], peak)
            with suppress(subprocess.TimeoutExpired):
                reader.wait(SAMPLE_SECONDS)
    assert reader.returncode == 0 and reader.stdout is not None
    with reader.stdout:
        count, total, most["client"] = map(int, reader.stdout.read().split())
    assert (count, total) == (ROWS, 0)
    assert most.keys() == limits.keys(), "each part was seen"
    assert {name: peak for name, peak in most.items() if peak > limits[name]} == {}
