"""The wheel, the example notebook from it, and the Python of the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest
from real_server import REPOSITORY, RealServer

PACKAGE = REPOSITORY / "clients" / "python"


@pytest.fixture(autouse=True)
def of_this_server(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has: the address in a variable, or a server at the usual one."""
    monkeypatch.setenv("SQLFLOW_SERVER", server.address)
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))


@pytest.fixture
def wheel_python(tmp_path: Path) -> Path:
    """Python of a new virtual environment with the wheel. The packages that it requires are those of the tests."""
    # From a copy, because setuptools writes into the source folder.
    source = shutil.copytree(PACKAGE, tmp_path / "source", ignore=shutil.ignore_patterns("tests", "build", "dist"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.rmtree(source)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages, required = (sysconfig.get_path("purelib", vars={"base": base}) for base in (str(venv), sys.prefix))
    Path(packages, "required.pth").write_text(required)
    python = venv / "bin/python"
    # Without an index, this fails if the metadata names a package or version that is not there.
    subprocess.run([*pip, "--python", python, "install", "--no-index", f"{wheel}[arrow,notebook,pandas]"], check=True)
    return python


RUN_NOTEBOOK = """
    import sys
    import nbformat, sqlflow
    from nbclient import NotebookClient
    assert sqlflow.__file__.startswith(sys.prefix), sqlflow.__file__
    notebook = nbformat.read(sys.argv[1], as_version=4)
    NotebookClient(notebook, timeout=120).execute()
    nbformat.write(notebook, sys.argv[2])
    """


def test_example_notebook_runs_from_the_wheel(
    wheel_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    executed = tmp_path / "executed.ipynb"
    command = [wheel_python, "-c", textwrap.dedent(RUN_NOTEBOOK), REPOSITORY / "examples/flowers.ipynb", executed]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for file in ("py.typed", "_proto/sqlflow_pb2.pyi"):
        assert list(wheel_python.parents[1].glob(f"lib/*/site-packages/sqlflow/{file}")), file
    notebook = nbformat.read(executed, as_version=4)
    cells = {cell["id"]: cell for cell in notebook.cells if cell.cell_type == "code"}
    types = {name: [kind for it in cell.outputs for kind in it.get("data", {})] for name, cell in cells.items()}
    assert types["train"].count("image/png") == 2, "the curves and the plot of SHAP values"
    assert types["regress"].count("image/png") == 1 and types["plot"].count("image/png") == 1
    assert not any("application/vnd.jupyter.widget-view+json" in kinds for kinds in types.values()), "kept widgets"
    assert "<td>accuracy</td>" in shown(cells["evaluate"])
    assert shown(cells["regress"]).count("<tr>") == 30, "the rows that were held out"
    assert len(cells) == 5
    assert re.search(r"sqlflow[0-9a-f]{32}", nbformat.writes(notebook)) is None, "a token in a file that is shared"


def shown(cell: Any) -> str:
    """The HTML of a cell's outputs."""
    return "\n".join(output["data"]["text/html"] for output in cell.outputs if "text/html" in output.get("data", {}))


def test_example_notebook_is_kept_without_outputs_and_secrets() -> None:
    text = (REPOSITORY / "examples" / "flowers.ipynb").read_text()
    assert '"outputs": []' in text and "image/png" not in text
    assert re.search(r"sqlflow[0-9a-f]{32}", text) is None


def test_python_of_the_documentation_runs() -> None:
    page = (REPOSITORY / "docs" / "python-client.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    program = "\n".join([*blocks, "assert len(frame) == 150 and counts.num_rows == 3"])
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "image/png" in ran.stdout and "State.SUCCEEDED" in ran.stdout


def test_package_is_importable_with_its_own_dependencies_only() -> None:
    program = """
        import sys
        class Nothing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"pandas", "pyarrow", "IPython", "tqdm", "matplotlib", "numpy"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Nothing())
        import sqlflow
        from sqlflow import dbapi
        result = sqlflow.connect().run("SELECT 1 AS a").result()
        assert list(result) == [(1,)] and repr(result.table).startswith("a")
        for convert, package in (result.to_arrow, "pyarrow"), (result.to_pandas, "pandas"):
            try:
                convert()
            except sqlflow.MissingPackage as error:
                assert f"`pip install {package}`" in str(error), error
            else:
                raise AssertionError("converted without its package")
        """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
