"""A server of the user's own: the first client that needs it starts it, all clients of the user share it, and it ends
by itself when nobody uses it.

The same as `sqlflowctl --server own`, with the same folder. Only systems with sockets of Unix have it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from sqlflow._proto import sqlflow_pb2 as pb
from sqlflow.address import Address, is_listening, own_socket
from sqlflow.calls import LIST_JOBS, CallFailed, channel_options, stubs
from sqlflow.errors import ServerUnavailable

PROGRAM_VARIABLE = "SQLFLOW_SERVER_PROGRAM"
"""Variable with the program of the server."""
IDLE_VARIABLE = "SQLFLOW_EXIT_WHEN_IDLE"
"""Option of the server that the user may set, with its default here."""
IDLE_TIME = "10m"
START_TIMEOUT = 60.0
"""Timeout for the start in seconds, in which the server may convert the state of an earlier version."""
PAUSE = 0.02
"""Pause between two looks at a server that starts, in seconds."""
LOG_LINES = 5
LOG_BYTES = 4096
"""What is quoted of the log of a server that did not start."""
VERSION = "sqlflow-server-version"
"""Metadata with the server's version."""

_started: list[subprocess.Popen[bytes]] = []
"""Servers that this process has started. The ends of earlier ones are noticed when another one is started."""


class OwnServer:
    """The user's server, whether it runs or not. Threads may share it."""

    def __init__(self, folder: Path, url: str):
        self._folder = folder
        self._socket = own_socket(folder)
        self._url = url
        self._has_answered = False

    @classmethod
    def of(cls, address: Address) -> OwnServer | None:
        """None: the address is that of another server."""
        return None if address.own_folder is None else cls(address.own_folder, address.server)

    def is_up(self) -> bool:
        """Whether it listens, and this client knows that it answers."""
        return self._has_answered and is_listening(self._socket)

    def ensure(self) -> None:
        """Starts the server unless it runs, and waits until it answers.

        Raises:
            ServerUnavailable: it cannot be started; the message quotes its log.
            Error: the server that runs refuses this client.
        """
        if self.is_up():
            return
        with self._alone():
            self._start()
        self._has_answered = True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One client at a time starts it. The others find it then."""
        import fcntl

        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / "start.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _cannot(f"{error.filename}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _start(self) -> None:
        begun = time.monotonic()
        process: subprocess.Popen[bytes] | None = None
        while time.monotonic() - begun < START_TIMEOUT:
            if is_listening(self._socket):
                # One that is about to end, or not ready yet, does not answer.
                if self._answers():
                    return
            elif process is None:
                process = self._spawn()
            elif process.poll() is not None:
                raise self._failed(f"it ended with status {process.returncode}")
            time.sleep(PAUSE)
        raise self._failed(f"it does not answer after {START_TIMEOUT:.0f} s")

    def _answers(self) -> bool:
        target = f"unix:{self._socket}"
        with grpc.insecure_channel(target, channel_options(target)) as channel:
            call: Any = stubs(channel)[LIST_JOBS.name]
            try:
                _, ended = call.with_call(pb.ListJobsRequest(page_size=1), timeout=START_TIMEOUT)
            except grpc.RpcError as error:
                failure = CallFailed.of(error)
                if failure.is_retryable:
                    return False
                raise failure.error(self._url) from None
        _check_version(dict(ended.initial_metadata()).get(VERSION))
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Starts the process, in a session of its own. Its other options come from the environment."""
        program = os.environ.get(PROGRAM_VARIABLE) or shutil.which("sqlflow-server")
        if program is None:
            raise _cannot(
                f"sqlflow-server is not on PATH; install it, name it with {PROGRAM_VARIABLE}, or name another server "
                "with SQLFLOW_SERVER"
            )
        addresses = ["--listen=", "--http-listen=127.0.0.1:0", "--socket", str(self._socket)]
        command = [os.path.abspath(program), *addresses, "--state-dir", str(self._folder / "state")]
        environment = {IDLE_VARIABLE: IDLE_TIME, **os.environ}
        # That of a notebook's kernel is a module of the kernel.
        environment.pop("MPLBACKEND", None)
        null = subprocess.DEVNULL
        try:
            with self._new_log() as log:
                process = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=environment,
                    stdin=null,
                    stdout=null,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise _cannot(f"{error.filename or program}: {error.strerror}") from error
        _started[:] = [process, *(earlier for earlier in _started if earlier.poll() is None)]
        return process

    def _new_log(self) -> BinaryIO:
        """A new file for the log. That of the start before is kept."""
        with contextlib.suppress(FileNotFoundError):
            self._log().rename(self._folder / "server.log.old")
        return open(self._log(), "ab", opener=_private)

    def _log(self) -> Path:
        return self._folder / "server.log"

    def _failed(self, why: str) -> ServerUnavailable:
        return _cannot(f"{why}; its log {self._log()} ends with:\n{_end_of(self._log())}")


def _cannot(why: str) -> ServerUnavailable:
    return ServerUnavailable(f"cannot start a server of your own: {why}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _end_of(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            text = file.read(LOG_BYTES).decode(errors="replace")
    except OSError as error:
        return f"cannot read it: {error.strerror}"
    return "\n".join(text.splitlines()[-LOG_LINES:])


def _check_version(running: str | None) -> None:
    from sqlflow import __version__

    if running != __version__:
        named = "an earlier version" if running is None else f"version {running}"
        warnings.warn(
            f"your own server is {named}, and this client is version {__version__}; end that server, and the next call "
            "starts another one: its jobs continue",
            RuntimeWarning,
            stacklevel=2,
        )
