"""The data process of a step, and the agent's side of its channel."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame

from sqlflow_submitter.wire import varint

PACKAGE = Path(__file__).resolve().parent.parent


def program() -> str:
    """Returns the program `sqlflow-data`, which `cargo build` makes."""
    target = os.environ.get("CARGO_TARGET_DIR") or PACKAGE.parent.parent / "target"
    return str(Path(target, "debug", "sqlflow-data"))


def command(dsn: str) -> list[str]:
    """Returns the command of the data process for a data source."""
    if dsn.startswith("duckdb:"):
        return [sys.executable, "-P", "-m", "sqlflow_submitter.duckdb_data", "step.json"]
    return [program(), "step.json"]


class Process:
    """A program with a channel to an agent, and perhaps a link to another program."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        dsn: str,
        on_frame: Callable[[SubmitterFrame], None],
        *,
        link: socket.socket | None = None,
        stdout: Any = None,
        stderr: Any = None,
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`on_frame` is called in a thread of its own, for each frame before it is answered."""
        self._end, channel = socket.socketpair()
        self._on_frame = on_frame
        self.answer_commit: Callable[[], AgentFrame | None] = granted
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "SQLFLOW_CHANNEL_FD": str(channel.fileno())}
        environment["PYTHONUNBUFFERED"] = "1"
        descriptors = [channel.fileno()]
        if link is not None:
            environment["SQLFLOW_COMPANION_FD"] = str(link.fileno())
            descriptors.append(link.fileno())
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, pass_fds=descriptors, stdout=stdout, stderr=stderr
        )
        channel.close()
        if link is not None:
            link.close()
        self._stream = self._end.makefile("rb")
        start = AgentFrame()
        start.start.secrets.update({"db_conn_str": dsn, **secrets})
        self._send(start)
        self._reader = threading.Thread(target=self._converse)
        self._reader.start()

    def _send(self, frame: AgentFrame) -> None:
        try:
            self._end.sendall(encoded(frame))
        except OSError:
            # It has ended.
            return

    def _converse(self) -> None:
        while (body := read_frame(self._stream)) is not None:
            frame = SubmitterFrame.FromString(body)
            self._on_frame(frame)
            if frame.ack_id:
                answer = AgentFrame()
                answer.ack.ack_id = frame.ack_id
                self._send(answer)
            if frame.WhichOneof("frame") == "commit":
                chosen = self.answer_commit()
                if chosen is not None:
                    self._send(chosen)

    def report_success(self) -> None:
        """Reports that the program beside it has succeeded."""
        ended = AgentFrame()
        ended.command_ended.SetInParent()
        self._send(ended)

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int:
        """Waits for the end of the program, and of its channel."""
        code = self.process.wait()
        self._reader.join()
        self._stream.close()
        self._end.close()
        return code


def granted() -> AgentFrame:
    answer = AgentFrame()
    answer.granted.SetInParent()
    return answer


def write_step(folder: Path, document: dict[str, Any]) -> None:
    (folder / "step.json").write_text(json.dumps(document))


def encoded(frame: AgentFrame) -> bytes:
    """Returns a frame as it is sent to a program."""
    body = frame.SerializeToString()
    return varint(len(body)) + body


def read_frame(stream: Any) -> bytes | None:
    """Returns the body of the next frame, or None at the end."""
    size = shift = 0
    while True:
        try:
            byte = stream.read(1)
        except ConnectionResetError:
            return None
        if not byte:
            return None
        size |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return bytes(stream.read(size))
