"""The modules that a statement may import. The start-up time is a benchmark."""

import os
import re
import subprocess
import sys
from pathlib import Path

from agent import MAIN
from data_process import PACKAGE

HEAVY = ("numpy", "scipy", "xgboost", "matplotlib", "sklearn", "google.protobuf", "asyncio", "urllib.request")


def imported(folder: Path) -> set[str]:
    (folder / "main.py").write_text(MAIN)
    (folder / "models.json").write_text("[]")
    (folder / "step.json").write_text(
        '{"version": 1, "job": "j", "step": 0, "attempt": 1, "scratch_suffix": "j_0_1", "statements": '
        '[{"index": 0, "kind": "show_models", "listing": "models.json", "repeatable": true}]}'
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "main.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))


def test_statement_without_a_select_imports_nothing_large(tmp_path: Path) -> None:
    modules = imported(tmp_path)
    assert not modules & {*HEAVY, "sqlite3", "socket", "ssl", "ctypes", "argparse", "logging"}


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


def test_package_needs_neither_protobuf_nor_drivers() -> None:
    """Only the tests have protobuf: its import took longer than Python's own start."""
    for path in (PACKAGE / "sqlflow_submitter").rglob("*.py"):
        wrong = r"^\s*(from|import) (google|sqlite3|psycopg|pymysql)\b"
        assert not re.search(wrong, path.read_text(), re.MULTILINE), path
    for name in ("protobuf", "psycopg", "PyMySQL"):
        assert name not in (PACKAGE / "requirements.txt").read_text()
