"""A step's program that a person runs without an agent."""

import os
import subprocess
import sys
from pathlib import Path

from agent import MAIN, PACKAGE


def test_console_prints_rows(tmp_path: Path, sqlite_dsn: str) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "step.json").write_text(
        '{"version": 1, "job": "j", "step": 0, "attempt": 1, "scratch_suffix": "j_0_1", "statements": ['
        '{"index": 0, "kind": "standard", "sql": "CREATE TABLE t AS SELECT 1 AS a", "repeatable": false},'
        '{"index": 1, "kind": "standard", "sql": "INSERT INTO t VALUES (2)", "repeatable": false},'
        """{"index": 2, "kind": "standard", "sql": "SELECT a, NULL AS n, x'00ff' AS b, 1.5 AS f FROM t"}]}"""
    )
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "SQLFLOW_DATASOURCE": sqlite_dsn},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"SQLite file {sqlite_dsn.removeprefix('sqlite://')} did not exist and is created",
        "1 row(s) affected",
        "a\tn\tb\tf",
        "1\tNULL\t0x00ff\t1.5",
        "2\tNULL\t0x00ff\t1.5",
    ]


def test_step_document_of_another_version_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "step.json").write_text('{"version": 2}')
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "cannot read the step document: it has version 2, and this submitter reads version 1\n"
