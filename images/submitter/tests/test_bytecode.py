"""The images hold bytecode that Python uses, whatever the times of the files in an image are."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from data_process import PACKAGE

COMPILE = r"python3? -m compileall (-q[^\n]*?)(?= \S*/opt/sqlflow\n| \\\n)"


def options(file: str) -> str:
    """Returns the options with which a file calls the compiler."""
    found = re.search(COMPILE, (PACKAGE.parent.parent / file).read_text())
    assert found, file
    return found[1]


def test_compiled_package_is_used_after_its_times_have_changed(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "sqlflow_submitter", tmp_path / "sqlflow_submitter")
    # A clone may have bytecode that is compared with the times, and is copied into the image.
    subprocess.run([sys.executable, "-m", "compileall", "-q", tmp_path], check=True)
    arguments = shlex.split(options("images/submitter/Dockerfile"))
    subprocess.run([sys.executable, "-m", "compileall", *arguments, tmp_path], check=True)
    for source in tmp_path.rglob("*.py"):
        os.utime(source, (0, 0))
    done = subprocess.run(
        [sys.executable, "-Bv", "-c", "import sqlflow_submitter.console"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = re.findall(rf"^# code object from (.*{re.escape(str(tmp_path))}.*)$", done.stderr, re.MULTILINE)
    assert len(loaded) > 5
    # Only names of files with bytecode are in quotes.
    assert [name for name in loaded if not name.startswith("'")] == []


def test_images_of_the_test_cluster_are_compiled_in_the_same_way() -> None:
    assert options("tests/cluster/images.sh") == options("images/submitter/Dockerfile")
