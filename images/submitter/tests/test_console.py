"""A step's program that a person runs without an agent."""

import os
import subprocess
import sys
from pathlib import Path

from agent import MAIN
from data_process import PACKAGE


def test_console_prints_rows(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "models.json").write_text('[{"name": "m", "size_bytes": 7}]')
    (tmp_path / "step.json").write_text(
        '{"version": 1, "job": "j", "step": 0, "attempt": 1, "scratch_suffix": "j_0_1", "statements": ['
        '{"index": 0, "kind": "show_models", "listing": "models.json", "repeatable": true}]}'
    )
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Model\tSize in bytes\tPublished (UTC)", "m\t7\tNULL"]


def test_statement_with_a_select_needs_the_data_process(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "step.json").write_text(
        '{"version": 1, "job": "j", "step": 0, "attempt": 1, "scratch_suffix": "j_0_1", "statements": ['
        '{"index": 0, "kind": "train", "select": "SELECT 1", "repeatable": true}]}'
    )
    done = run(tmp_path)
    assert done.returncode == 1
    assert "there is no data process beside this program" in done.stderr


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    return subprocess.run(
        [sys.executable, "main.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_step_document_of_another_version_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "step.json").write_text('{"version": 2}')
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr == "cannot read the step document: it has version 2, and this submitter reads version 1\n"
