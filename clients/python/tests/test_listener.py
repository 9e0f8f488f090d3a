"""Whose server a client talks to."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

import sqlflow
from sqlflow import listener
from sqlflow.address import Address, Options, resolve
from sqlflow.calls import metadata
from sqlflow.listener import listeners

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux has the table")

STRANGER = 4_000_000_123
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(address: str, port: int, user: int = STRANGER, state: str = "0A") -> str:
    remote = ":".join(["0" * len(address), "0000"])
    timers = "00000000:00000000 00:00000000 00000000"
    return f"   0: {address}:{port:04X} {remote} {state} {timers} {user:5}        0 8131 1 0 0\n"


def of_bytes(packed: bytes) -> str:
    """An address as the kernel of this machine writes it."""
    words = (packed[begin : begin + 4] for begin in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


V4 = of_bytes(socket.inet_pton(socket.AF_INET, "127.0.0.1"))
ANY4 = "0" * 8
V6 = of_bytes(socket.inet_pton(socket.AF_INET6, "::1"))
MAPPED = of_bytes(socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1"))
ANY6 = "0" * 32
LAN = of_bytes(socket.inet_pton(socket.AF_INET, "192.0.2.1"))


@pytest.mark.parametrize(
    ("host", "address", "is_found"),
    [
        ("127.0.0.1", V4, True),
        ("127.0.0.1", MAPPED, True),
        ("127.0.0.1", ANY4, True),
        ("127.0.0.1", ANY6, True),
        ("127.0.0.2", V4, False),
        ("127.0.0.1", V6, False),
        ("127.0.0.1", LAN, False),
        ("[::1]", V6, True),
        ("[::1]", ANY6, True),
        ("[::1]", ANY4, False),
        ("localhost", V4, True),
        ("localhost", V6, True),
        ("localhost", ANY6, True),
        ("localhost", LAN, False),
    ],
)
def test_listener_is_found_by_its_address(host: str, address: str, is_found: bool) -> None:
    table = HEADER + row(address, 50051)
    assert list(listeners(table, host, 50051)) == ([STRANGER] if is_found else [])
    assert list(listeners(table, host, 50052)) == []


def test_connections_are_not_listeners() -> None:
    table = HEADER + row(V4, 50051, 7) + row(V4, 50051, 8, state="01") + row(V4, 50051, 9, state="06")
    assert list(listeners(table, "127.0.0.1", 50051)) == [7]
    assert list(listeners("", "127.0.0.1", 50051)) == list(listeners(HEADER + "torn\n", "127.0.0.1", 50051)) == []


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's table."""
    file = tmp_path / "tcp"
    monkeypatch.setattr(listener, "TABLES", (file, tmp_path / "missing"))
    return file


def test_server_of_another_user_is_refused_before_anything_is_sent(table: Path) -> None:
    address = Address("http://localhost:50051", "secret")
    table.write_text(HEADER + row(V4, 50051))
    with pytest.raises(sqlflow.UsageError, match=f"it belongs to user {STRANGER}.*server_user"):
        metadata(address)
    with pytest.raises(sqlflow.UsageError, match=f"it belongs to user {STRANGER}"):
        metadata(Address("http://localhost:50051"))
    for user in (os.geteuid(), 0):
        table.write_text(HEADER + row(V4, 50051, user))
        assert ("authorization", "Bearer secret") in metadata(address)
    table.unlink()
    assert metadata(address), "nothing is known"


def test_server_of_a_named_user_is_used(table: Path, tmp_path: Path) -> None:
    table.write_text(HEADER + row(V4, 50051))
    here = {"HOME": str(tmp_path)}
    for address in (
        resolve(Options(server_user=str(STRANGER)), here),
        resolve(Options(), {**here, "SQLFLOW_SERVER_USER": str(STRANGER)}),
    ):
        assert metadata(address)
    with pytest.raises(sqlflow.UsageError, match="server_user no such user: there is no such user"):
        metadata(resolve(Options(server_user="no such user"), here))
    with sqlflow.connect(server_user="somebody") as client:
        assert client.address.server_user == "somebody"


@pytest.mark.parametrize("server", ["https://localhost:50051", "unix:///s", "http://192.0.2.1:50051"])
def test_server_that_shows_who_it_is_is_not_looked_up(server: str, table: Path) -> None:
    table.write_text(HEADER + row(V4, 50051))
    assert metadata(Address(server, server_user="no such user"))


def test_own_socket_is_in_the_table_of_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert list(listeners(Path("/proc/net/tcp").read_text(), "127.0.0.1", port)) == [os.geteuid()]
