"""The modules that a standard step may import. Its start-up time is a benchmark."""

import os
import re
import subprocess
import sys
from pathlib import Path

from agent import MAIN, PACKAGE

HEAVY = (
    *("numpy", "scipy", "xgboost", "matplotlib", "sklearn", "google.protobuf"),
    *("dataclasses", "inspect", "asyncio", "urllib.request"),
)


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
    # Drivers of other databases import some of these.
    assert not modules & {"traceback", "ctypes", "argparse", "logging"}
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


LIGHT = {"__future__", "_struct", "itertools", "struct", "time"}
"""Modules that the import of the package may import: they are built in, or have a few lines.

A step imports more when it needs it, such as json, and with it re. That takes half as long as the start of Python.
"""


def test_import_of_the_package_imports_little() -> None:
    code = "import sys; before = {*sys.modules}; import sqlflow_submitter; print(*sorted({*sys.modules} - before))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "sqlflow_submitter.runner" in modules
    assert {name for name in modules if not name.startswith("sqlflow_submitter")} <= LIGHT
    # Databases have packages of their own, and need enum, re and typing.
    assert not [name for name in modules if name.startswith("sqlflow_submitter.connect")]


def test_package_needs_no_protobuf() -> None:
    """Only the tests have it: its import took longer than Python's own start."""
    for path in (PACKAGE / "sqlflow_submitter").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) google\b", path.read_text(), re.MULTILINE), path
    assert "protobuf" not in (PACKAGE / "requirements.txt").read_text()
