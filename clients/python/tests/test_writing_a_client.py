"""The clients of docs/writing-a-client.md, with generated code and nothing of this package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_server import CACHE, REPOSITORY, RealServer, iris

PAGE = (REPOSITORY / "docs" / "writing-a-client.md").read_text()

HOME = os.environ["HOME"]
"""Of who runs the tests, with the caches of Go and Maven."""

SECONDS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000000) SELECT max(i) AS last FROM n;"
"""A statement for SQLite that runs for some seconds."""


@dataclass(frozen=True)
class PageClient:
    """A client that was made of the page's blocks."""

    folder: Path
    command: tuple[str, ...]
    null: str
    """What it prints for NULL."""

    def started(self, server: RealServer, sql: str) -> subprocess.Popen[str]:
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        # Python keeps back what it prints into a pipe.
        environment |= {"SQLFLOW_SERVER": server.address, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            ["timeout", "120", *self.command, sql],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ran(self, server: RealServer, sql: str) -> tuple[int, str, str]:
        """The exit status and the output."""
        with self.started(server, sql) as process:
            output, errors = process.communicate()
        return process.returncode, output, errors


def block(language: str, text: str = "") -> str:
    """The page's only block of a language that contains the text."""
    blocks = re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    found = [it for it in blocks if text in it]
    assert len(found) == 1, f"{len(found)} blocks of {language} with {text!r}"
    return str(found[0])


def run_commands(folder: Path, text: str) -> None:
    """Runs the page's only block of commands that contains the text. Tools have their caches outside the clone."""
    go = CACHE / "go"
    path = [str(Path(sys.executable).parent), str(go / "bin"), os.environ["PATH"], "/usr/local/go/bin"]
    environment = {**os.environ, "SQLFLOW": str(REPOSITORY), "HOME": HOME, "GOPATH": str(go), "PATH": ":".join(path)}
    commands = ["bash", "-euc", block("sh", text)]
    process = subprocess.run(commands, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def expect_installed(program: str, package: str) -> None:
    path = f"{os.environ['PATH']}:/usr/local/go/bin"
    assert shutil.which(program, path=path), f"{program} is not installed: apt-get install {package}"


def python_client(folder: Path) -> PageClient:
    run_commands(folder, "--python_out")
    (folder / "client.py").write_text(block("python"))
    return PageClient(folder, (sys.executable, "client.py"), "None")


def go_client(folder: Path) -> PageClient:
    expect_installed("go", "golang-go")
    (folder / "go.mod").write_text(block("go.mod"))
    (folder / "main.go").write_text(block("go"))
    run_commands(folder, "--go_out")
    return PageClient(folder, (str(folder / "client"),), "<nil>")


def java_client(folder: Path) -> PageClient:
    expect_installed("javac", "default-jdk-headless")
    expect_installed("mvn", "maven")
    (folder / "pom.xml").write_text(block("xml"))
    sources = folder / "src" / "main" / "java"
    sources.mkdir(parents=True)
    (sources / "Client.java").write_text(block("java"))
    run_commands(folder, "mvn")
    return PageClient(folder, ("java", "-cp", "target/classes:target/dependency/*", "Client"), "null")


@pytest.fixture(scope="module", params=[python_client, go_client, java_client], ids=["python", "go", "java"])
def page_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PageClient:
    make: Callable[[Path], PageClient] = request.param
    return make(tmp_path_factory.mktemp("client"))


def test_client_of_the_page_prints_tables_and_output(page_client: PageClient, server: RealServer) -> None:
    program = """
        SELECT class, count(*) AS n FROM iris GROUP BY class;
        SELECT 1 AS a, NULL AS b, 'x' AS c, 0.5 AS d UNION ALL SELECT 'y', 2, NULL, NULL;
        SELECT * FROM iris TO TRAIN xgboost.gbtree WITH train.num_boost_round = 2 LABEL class INTO small;
        """
    status, output, errors = page_client.ran(server, program)
    assert status == 0, errors
    rows = [line.split("\t") for line in output.splitlines()]
    assert rows[:4] == [["class", "n"], ["0", "50"], ["1", "50"], ["2", "50"]]
    null = page_client.null
    assert rows[4:7] == [["a", "b", "c", "d"], ["1", null, "x", "0.5"], ["y", "2", null, null]]
    assert "the job succeeded" in errors


def test_client_of_the_page_ends_with_the_error_of_its_job(page_client: PageClient, server: RealServer) -> None:
    status, _, errors = page_client.ran(server, "SELECT abs(-9223372036854775807 - 1);")
    assert status == 1
    assert "integer overflow" in errors


def test_client_of_the_page_reads_on_after_a_restart_of_the_server(page_client: PageClient, tmp_path: Path) -> None:
    with RealServer(tmp_path, f"sqlite:///{iris(tmp_path / 'iris.db')}") as server:
        program = f"SELECT 'first' AS a; {SECONDS} SELECT 'last' AS z;"
        with page_client.started(server, program) as process:
            assert process.stdout is not None and process.stderr is not None
            begin = [process.stdout.readline(), process.stdout.readline()]
            server.end()
            server.start()
            output, errors = "".join([*begin, process.stdout.read()]), process.stderr.read()
    assert process.returncode == 0, errors
    assert output.splitlines() == ["a", "first", "last", "5000000", "z", "last"]
