"""A client as docs/writing-a-client.md has it, with generated code and nothing of this package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_server import REPOSITORY, RealServer

PAGE = (REPOSITORY / "docs" / "writing-a-client.md").read_text()


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks of {language}"
    return str(found[0])


@pytest.fixture(scope="module")
def client_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's client and the code that its commands generate."""
    folder = tmp_path_factory.mktemp("client")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "SQLFLOW": str(REPOSITORY), "PATH": programs}
    subprocess.run(["bash", "-euc", block("sh")], cwd=folder, env=environment, check=True)
    (folder / "client.py").write_text(block("python"))
    return folder


def ran(folder: Path, server: RealServer, sql: str) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment["SQLFLOW_SERVER"] = server.address
    command = [sys.executable, "client.py", sql]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_client_of_the_page_prints_tables_and_output(client_folder: Path, server: RealServer) -> None:
    program = """
        SELECT class, count(*) AS n FROM iris GROUP BY class;
        SELECT 1 AS a, NULL AS b, 'x' AS c UNION ALL SELECT 'y', 2, NULL;
        SELECT * FROM iris TO TRAIN xgboost.gbtree WITH train.num_boost_round = 2 LABEL class INTO small;
        """
    process = ran(client_folder, server, program)
    assert process.returncode == 0, process.stderr
    rows = [line.split("\t") for line in process.stdout.splitlines()]
    assert rows[:4] == [["class", "n"], ["0", "50"], ["1", "50"], ["2", "50"]]
    assert rows[4:7] == [["a", "b", "c"], ["1", "None", "x"], ["y", "2", "None"]]
    assert "the job succeeded" in process.stderr


def test_client_of_the_page_ends_with_the_error_of_its_job(client_folder: Path, server: RealServer) -> None:
    process = ran(client_folder, server, "SELECT abs(-9223372036854775807 - 1);")
    assert process.returncode == 1
    assert "integer overflow" in process.stderr
