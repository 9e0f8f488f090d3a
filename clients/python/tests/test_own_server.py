"""A server of the user's own, started by clients without an address."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kernel import Kernel
from real_server import PROGRAMS, REPOSITORY, SUBMITTER_PYTHON, iris

import sqlflow

COUNT = "SELECT count(*) AS n FROM iris"
LIMIT = 120.0
"""Time after which a test gives up, in seconds."""


class Person:
    """A user with a home folder and irises."""

    def __init__(self, home: Path):
        self.own = home / ".local/share/sqlflow/own"
        self.iris = iris(home / "iris.db")

    def server(self) -> int | None:
        """The process of the server that listens."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.own / "server.sock"))
            except OSError:
                return None
            user = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid: int = struct.unpack("3i", user)[0]
            return pid

    def kill_server(self) -> None:
        pid = self.server()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            until(lambda: self.server() != pid)


def until(holds: Callable[[], bool]) -> None:
    """Waits for a condition without an event."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < LIMIT, "timeout"
        time.sleep(0.01)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    # Not below pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("SQLFLOW_SERVER_PROGRAM", str(PROGRAMS / "sqlflow-server"))
        monkeypatch.setenv("SQLFLOW_PYTHON", SUBMITTER_PYTHON)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "images/submitter"))
        # Another server of who runs the tests.
        monkeypatch.setattr("sqlflow.address.is_port_open", lambda port: False)
        person = Person(Path(home))
        yield person
        person.kill_server()


def rows(client: sqlflow.Client, person: Person) -> list[object]:
    return list(client.run(COUNT, datasource=person.iris).result())


def test_client_without_an_address_starts_a_server_that_ends_by_itself(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLFLOW_EXIT_WHEN_IDLE", "3s")
    with sqlflow.connect() as client:
        assert person.server() is None, "the first call starts it"
        assert rows(client, person) == [(150,)]
        first = person.server()
        with sqlflow.connect("own") as other:
            assert rows(other, person) == [(150,)]
        assert person.server() == first is not None
        until(lambda: person.server() is None)
        # The next call starts another one, which has the same jobs.
        assert len(client.jobs()) == 2
        assert person.server() not in (first, None)


def test_cell_of_a_notebook_without_an_address_starts_a_server_that_ends_by_itself(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLFLOW_EXIT_WHEN_IDLE", "3s")
    log = person.own / "server.log"
    with Kernel() as kernel:
        # Another server of who runs the tests.
        kernel.run("import sqlflow.address; sqlflow.address.is_port_open = lambda port: False")
        assert kernel.run("%load_ext sqlflow").status == "ok"
        assert not log.exists(), "the first cell starts it"
        for number in (1, 2):
            outputs = kernel.run(f"%%sqlflow answer --datasource duckdb://\nSELECT {number} AS a")
            assert outputs.status == "ok", outputs.text
            assert kernel.value("answer['a'].tolist()") == f"[{number}]"
            assert log.exists()
            # The kernel still runs, and its client is connected.
            until(lambda: person.server() is None)
        assert (person.own / "server.log.old").exists(), "the second cell has started another one"


def test_clients_that_start_at_once_share_one_server(person: Person) -> None:
    with ThreadPoolExecutor() as threads, sqlflow.connect() as first, sqlflow.connect() as second:
        found = [threads.submit(rows, client, person) for client in (first, second, first, second)]
        assert [it.result() for it in found] == [[(150,)]] * 4
    assert not (person.own / "server.log.old").exists(), "there was one start"


def test_killed_server_is_replaced(person: Person) -> None:
    with sqlflow.connect() as client:
        rows(client, person)
        killed = person.server()
        person.kill_server()
        assert (person.own / "server.sock").exists()
        assert rows(client, person) == [(150,)]
        assert person.server() not in (killed, None)


def test_asyncio_has_the_same(person: Person) -> None:
    async def count() -> list[object]:
        async with sqlflow.aio.connect() as client:
            job = await client.run(COUNT, datasource=person.iris)
            return list(await job.result())

    assert asyncio.run(count()) == [(150,)]


def test_server_that_cannot_start_says_why(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlflow.connect() as client:
        monkeypatch.setenv("SQLFLOW_GRACE", "soon")
        with pytest.raises(
            sqlflow.ServerUnavailable, match=r"it ended with status 2; its log .*/server\.log ends with:"
        ):
            client.jobs()
        monkeypatch.setenv("SQLFLOW_SERVER_PROGRAM", "/no/sqlflow-server")
        with pytest.raises(sqlflow.ServerUnavailable, match="/no/sqlflow-server: No such file"):
            client.jobs()
        monkeypatch.delenv("SQLFLOW_SERVER_PROGRAM")
        monkeypatch.setenv("PATH", "/no")
        with pytest.raises(sqlflow.ServerUnavailable, match="sqlflow-server is not on PATH; install it"):
            client.jobs()


def test_server_of_another_version_is_used_with_a_warning(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlflow.connect() as client:
        monkeypatch.setattr("sqlflow.__version__", "0.0.1")
        with pytest.warns(RuntimeWarning, match=r"your own server is version .*, and this client is version 0\.0\.1"):
            assert client.jobs() == []
