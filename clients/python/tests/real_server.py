"""A real server process."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("SQLFLOW_CACHE", Path.home() / ".cache" / "sqlflow"))
PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target")) / "debug"
SUBMITTER_PYTHON = os.environ.get("SQLFLOW_TEST_PYTHON", str(CACHE / "venv" / "bin" / "python"))

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
"""A statement for SQLite that only a cancel ends."""


def iris(file: Path) -> Path:
    """Loads the table `iris` into an SQLite file."""
    loader = [sys.executable, REPOSITORY / "examples/csv_to_sqlite.py", REPOSITORY / "examples/iris.csv"]
    subprocess.run([*loader, file, "iris"], check=True, capture_output=True)
    return file


class RealServer:
    """A server on loopback that can be killed and started again on the same port and state."""

    def __init__(self, folder: Path, datasource: str, *flags: str):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = folder / "server.log"
        self._command = [
            str(PROGRAMS / "sqlflow-server"),
            *("--listen", self.address, "--http-listen", "127.0.0.1:0", "--state-dir", str(folder / "state")),
            *("--datasource", datasource, "--python", SUBMITTER_PYTHON, "--log-format", "json", *flags),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "images/submitter")}
        self._process = subprocess.Popen(
            self._command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        is_ready: queue.Queue[bool] = queue.Queue()
        threading.Thread(target=self._drain, args=(self._process.stderr, is_ready), daemon=True).start()
        assert is_ready.get(timeout=60), f"the server ended: {self._log.read_text()}"

    def _drain(self, lines: IO[bytes], is_ready: queue.Queue[bool]) -> None:
        with lines, open(self._log, "ab") as log:
            for line in lines:
                log.write(line)
                log.flush()
                if _is_ready(line):
                    is_ready.put(True)
        is_ready.put(False)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, by: signal.Signals = signal.SIGKILL) -> None:
        """Ends the server. Its running steps continue."""
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait()

    def __enter__(self) -> RealServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end(signal.SIGTERM)


def _is_ready(line: bytes) -> bool:
    try:
        read = json.loads(line)
        return "listen" in read or "listen" in read.get("fields", ())
    except (ValueError, AttributeError):
        return False
