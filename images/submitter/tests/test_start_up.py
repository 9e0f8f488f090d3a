"""The modules that a standard step may import. Its start-up time is a benchmark."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from agent import MAIN, PACKAGE

HEAVY = ("numpy", "scipy", "xgboost", "matplotlib", "sklearn", "dataclasses", "inspect", "asyncio", "urllib.request")


def imported(folder: Path, dsn: str) -> set[str]:
    (folder / "main.py").write_text(MAIN)
    (folder / "step.json").write_text(
        '{"version": 1, "job": "j", "step": 0, "attempt": 1, "scratch_suffix": "j_0_1",'
        ' "statements": [{"index": 0, "kind": "standard", "sql": "SELECT 1", "repeatable": true}]}'
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "main.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "SQLFLOW_DATASOURCE": dsn},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))


def test_sqlite_imports_no_other_driver(tmp_path: Path, sqlite_dsn: str) -> None:
    modules = imported(tmp_path, sqlite_dsn)
    assert not modules & {*HEAVY, "pymysql", "psycopg.pq", "socket", "ssl", "decimal"}
    assert "sqlite3" in modules


def test_mysql_imports_no_other_driver(tmp_path: Path, mysql_dsn: str) -> None:
    modules = imported(tmp_path, mysql_dsn)
    assert not modules & {*HEAVY, "sqlite3", "psycopg.pq"}


def test_postgresql_imports_libpq_but_not_psycopg(tmp_path: Path, postgresql_dsn: str) -> None:
    modules = imported(tmp_path, postgresql_dsn)
    # psycopg's errors module uses a few classes of these.
    allowed = {"asyncio", "inspect", "dataclasses"}
    assert not modules & ({*HEAVY, "sqlite3", "pymysql", "psycopg.connection", "psycopg.types"} - allowed)
    assert "psycopg.pq" in modules


@pytest.mark.parametrize("name", ["sqlflow_submitter"])
def test_import_needs_protobuf_only(name: str) -> None:
    code = f"import sys, {name}; print(*sorted(m for m in sys.modules if '.' not in m))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {*HEAVY, "sqlite3", "pymysql", "psycopg"}
