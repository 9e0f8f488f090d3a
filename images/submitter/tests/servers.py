"""Real database servers for the tests, on loopback. Their data folders are removed when the tests end."""

from __future__ import annotations

import fcntl
import glob
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PASSWORD = "pass/w@rd:secret"
START_LIMIT_SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def program(name: str, package: str, *folders: str) -> str:
    """Finds a server's program. If it is missing, the tests fail and name the package to install."""
    for folder in folders:
        for found in sorted(glob.glob(f"{folder}/{name}"), reverse=True):
            return found
    found_on_path = shutil.which(name)
    assert found_on_path, f"{name} is not installed: apt-get install {package}"
    return found_on_path


def await_line(process: subprocess.Popen[str], text: str) -> None:
    """Waits until the server has logged a text, and drains its log from then on."""
    assert process.stderr is not None
    seen = []
    ready = threading.Event()

    def drain() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if not ready.is_set():
                seen.append(line)
            if text in line:
                ready.set()

    threading.Thread(target=drain, daemon=True).start()
    assert ready.wait(START_LIMIT_SECONDS), "server did not start:\n" + "".join(seen)


def ends_with_us(signal: str) -> list[str]:
    """Returns a command prefix with which the command ends when the tests are killed."""
    return ["setpriv", "--pdeathsig", signal]


def stop(process: subprocess.Popen[str], signal: int) -> None:
    process.send_signal(signal)
    process.wait(60)


def install(*command: str) -> None:
    """Runs a program that makes a data folder. Parallel tests run it one after the other: side by side, some failed."""
    with open(f"{tempfile.gettempdir()}/sqlflow-install-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cannot make a data folder: {command[0]} failed:\n{done.stdout}\n{done.stderr}")


@contextmanager
def mariadb(*options: str) -> Iterator[str]:
    """Runs MariaDB. Yields the DSN of an empty database, in Go's format, with `mysql://`."""
    server = program("mariadbd", "mariadb-server", "/usr/sbin")
    installer = program("mariadb-install-db", "mariadb-server")
    folder = tempfile.mkdtemp(prefix="sqlflow-mariadb-")
    try:
        user = ["--user=root"] if os.getuid() == 0 else []
        install(
            installer,
            "--no-defaults",
            f"--datadir={folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *user,
        )
        setup = f"{folder}/setup.sql"
        with open(setup, "w") as file:
            file.write(
                "CREATE DATABASE test CHARACTER SET utf8mb4;\n"
                f"CREATE USER 'u'@'%' IDENTIFIED BY '{PASSWORD}';\n"
                "GRANT ALL ON *.* TO 'u'@'%' WITH GRANT OPTION;\n"
            )
        # Not before the folder is made, which takes seconds: another program might get the port.
        port = free_port()
        process = subprocess.Popen(
            [
                *ends_with_us("TERM"),
                server,
                "--no-defaults",
                f"--datadir={folder}/data",
                f"--socket={folder}/socket",
                f"--port={port}",
                "--bind-address=127.0.0.1",
                f"--init-file={setup}",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=64M",
                "--max-allowed-packet=64M",
                "--skip-name-resolve",
                *options,
                *user,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            await_line(process, "ready for connections")
            yield f"mysql://u:{PASSWORD}@tcp(127.0.0.1:{port})/test?maxAllowedPacket=0"
        finally:
            stop(process, 15)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def initialize(initdb: str, folder: str, account: dict[str, object]) -> None:
    """Creates PostgreSQL's data folder, with a user `u`."""
    password_file = f"{folder}/password"
    with open(password_file, "w") as file:
        file.write(PASSWORD)
    os.chmod(password_file, 0o644)
    subprocess.run(
        [
            initdb,
            f"--pgdata={folder}/data",
            "--username=u",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        check=True,
        capture_output=True,
        cwd=folder,
        **account,  # type: ignore[call-overload]
    )


@contextmanager
def postgresql() -> Iterator[str]:
    """Runs PostgreSQL, as the user `postgres` if the tests run as root. Yields a DSN."""
    pattern = "/usr/lib/postgresql/*/bin"
    server = program("postgres", "postgresql", pattern)
    folder = tempfile.mkdtemp(prefix="sqlflow-postgresql-")
    try:
        account: dict[str, object] = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam("postgres")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            account = {"user": "postgres", "group": entry.pw_gid, "extra_groups": []}
        initialize(program("initdb", "postgresql", pattern), folder, account)
        port = free_port()
        process = subprocess.Popen(
            [
                *ends_with_us("INT"),
                server,
                "-D",
                f"{folder}/data",
                "-p",
                str(port),
                "-h",
                "127.0.0.1",
                "-k",
                folder,
                "-F",
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            **account,  # type: ignore[call-overload]
        )
        try:
            await_line(process, "ready to accept connections")
            escaped = PASSWORD.replace("/", "%2F").replace("@", "%40").replace(":", "%3A")
            yield f"postgresql://u:{escaped}@127.0.0.1:{port}/postgres"
        finally:
            # SIGINT is a fast shutdown.
            stop(process, 2)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cut_after(dsn: str, size: int, is_reset: bool) -> Iterator[str]:
    """Yields the same data source through a relay, which closes a connection after `size` bytes from the server."""
    match = re.search(r"127\.0\.0\.1:(\d+)", dsn)
    assert match is not None
    port = match.group(1)

    def down(client: socket.socket, server: socket.socket) -> None:
        left = size
        while left > 0 and (data := server.recv(min(left, 65536))):
            client.sendall(data)
            left -= len(data)
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Wakes the other thread, which would keep the socket open.
        client.shutdown(socket.SHUT_RD if is_reset else socket.SHUT_RDWR)
        client.close()
        server.shutdown(socket.SHUT_RDWR)

    def up(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", int(port)))
                for relay in (down, up):
                    threading.Thread(target=relay, args=(client, server), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield dsn.replace(match.group(), f"127.0.0.1:{listener.getsockname()[1]}")
        # Wakes `accept` before the listener is closed.
        listener.shutdown(socket.SHUT_RDWR)
