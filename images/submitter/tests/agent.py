"""A fake agent: starts a submitter as the agent does, and implements the agent's side of the channel.

It acknowledges every frame at once, without storing it. Other tests run the real agent with the real submitter.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, Failure, SubmitterFrame
from protos.sqlflow.v1.data_pb2 import Column

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.errors import CommitRefused
from sqlflow_submitter.frames import Commit, Frame

MAIN = 'from sqlflow_submitter import run_step\n\nrun_step("step.json")\n'
PACKAGE = Path(__file__).resolve().parent.parent

DATA_PROCESS_DIALECTS = ("mysql", "postgresql", "sqlite")
"""Databases whose standard statements the data process runs."""


class Run:
    """The recorded run of a submitter."""

    def __init__(self) -> None:
        self.frames: list[SubmitterFrame] = []
        self.exit_code = 0
        self.stdout = ""
        self.stderr = ""
        self.peak_rss = 0
        """In bytes. Measured only if rows are not kept."""

    def kinds(self) -> list[str]:
        """Returns the kinds of all frames except progress, in order."""
        kinds = [frame.WhichOneof("frame") or "" for frame in self.frames]
        return [kind for kind in kinds if kind != "progress"]

    def payloads(self, kind: str) -> list[Any]:
        return [getattr(frame, kind) for frame in self.frames if frame.WhichOneof("frame") == kind]

    def failure(self) -> Failure:
        """Returns the failure. It must be the only one and the last frame, and one line, which the agent prints."""
        failures = self.payloads("failure")
        assert len(failures) == 1, (self.stdout, self.stderr)
        assert self.frames[-1].WhichOneof("frame") == "failure"
        assert self.exit_code == 1
        assert "\n" not in failures[0].message
        assert failures[0].unprinted
        assert failures[0].message not in self.stderr
        failure: Failure = failures[0]
        return failure

    def rows(self, statement: int | None = None) -> list[tuple[str, ...]]:
        """Returns all rows, formatted for people."""
        found: list[tuple[str, ...]] = []
        for frame in self.frames:
            if frame.WhichOneof("frame") == "rows" and statement in (None, frame.statement):
                found += zip(*(cells(column, frame.rows.count) for column in frame.rows.columns), strict=True)
        return found

    def succeeded(self) -> Run:
        assert self.exit_code == 0, (self.stderr, self.payloads("failure"))
        assert not self.payloads("failure")
        return self


class Recorder(Channel):
    """The channel of a statement that runs in the tests' process, which is faster than a process of its own."""

    def __init__(self, grant: bool = True) -> None:
        self.run = Run()
        self._grant = grant

    def secrets(self) -> dict[str, str]:
        return {}

    def send(self, frame: Frame) -> None:
        self.run.frames.append(SubmitterFrame.FromString(b"".join(frame.encode())))

    def send_durable(self, frame: Frame) -> None:
        self.send(frame)

    def commit(self, statement: int) -> None:
        self.send(Frame(Commit(), statement))
        if not self._grant:
            raise CommitRefused("cannot commit: another attempt has started")


class StandInAgent:
    """Runs steps in a folder.

    Args:
        folder: the workspace.
        dsn: the secret `db_conn_str`.
        keep_rows: if false, frames with rows are counted and discarded, for tests of memory.
        answer_commit: returns the reply to a commit; None grants it.
    """

    def __init__(
        self,
        folder: Path,
        dsn: str,
        keep_rows: bool = True,
        answer_commit: Callable[[subprocess.Popen[bytes]], AgentFrame | None] | None = None,
    ) -> None:
        self.folder = folder
        self.dsn = dsn
        self._keep_rows = keep_rows
        self.answer_commit = answer_commit
        self.row_count = 0
        self.before_acknowledging: Callable[[], None] | None = None
        self.while_running: Callable[[subprocess.Popen[bytes]], None] | None = None
        """Is called in a thread of its own."""

    def run(self, *statements: dict[str, Any] | str, replay: tuple[str, ...] = (), **step: Any) -> Run:
        """Runs a step. A string is a standard statement."""
        document = {
            "version": 1,
            "job": "01jtest",
            "step": 1,
            "attempt": 1,
            "scratch_suffix": "01jtest_1_1",
            "replay": [{"index": 90 + place, "sql": sql} for place, sql in enumerate(replay)],
            "statements": [_statement(place, statement) for place, statement in enumerate(statements)],
            **step,
        }
        (self.folder / "step.json").write_text(json.dumps(document))
        (self.folder / "main.py").write_text(MAIN)
        agent_end, submitter_end = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "SQLFLOW_CHANNEL_FD": str(submitter_end.fileno())}
        environment["PYTHONUNBUFFERED"] = "1"
        is_standard = (
            all(isinstance(it, str) or it["kind"] == "standard" for it in statements) and "clean_up" not in step
        )
        has_data_process = self.dsn.partition(":")[0].replace("sqlite3", "sqlite") in DATA_PROCESS_DIALECTS
        command = [data_process(), "step.json"] if is_standard and has_data_process else [sys.executable, "main.py"]
        run = Run()
        with open(self.folder / "stdout", "w+") as stdout, open(self.folder / "stderr", "w+") as stderr:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                pass_fds=[submitter_end.fileno()],
                stdout=stdout,
                stderr=stderr,
            )
            submitter_end.close()
            if self.while_running:
                threading.Thread(target=self.while_running, args=(process,), daemon=True).start()
            # It ends when the submitter exits, which closes the channel.
            self._converse(agent_end, process, run)
            run.exit_code = process.wait()
        run.stdout = (self.folder / "stdout").read_text()
        run.stderr = (self.folder / "stderr").read_text()
        return run

    def _converse(self, channel: socket.socket, process: subprocess.Popen[bytes], run: Run) -> None:
        start = AgentFrame()
        start.start.secrets["db_conn_str"] = self.dsn
        with channel, channel.makefile("rwb") as stream:
            write_frame(stream, start)
            while (body := read_frame(stream)) is not None:
                frame = SubmitterFrame.FromString(body)
                kind = frame.WhichOneof("frame")
                if kind == "rows" and not self._keep_rows:
                    self.row_count += frame.rows.count
                    run.peak_rss = max(run.peak_rss, peak_rss(process.pid))
                    continue
                run.frames.append(frame)
                if frame.ack_id:
                    if self.before_acknowledging:
                        self.before_acknowledging()
                    answer = AgentFrame()
                    answer.ack.ack_id = frame.ack_id
                    write_frame(stream, answer)
                if kind == "commit":
                    answer = AgentFrame()
                    answer.granted.SetInParent()
                    chosen = self.answer_commit(process) if self.answer_commit else answer
                    if chosen is not None:
                        write_frame(stream, chosen)


def data_process() -> str:
    """Returns the program `sqlflow-data`, which `cargo build` makes."""
    target = os.environ.get("CARGO_TARGET_DIR") or PACKAGE.parent.parent / "target"
    return str(Path(target, "debug", "sqlflow-data"))


def _statement(place: int, statement: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(statement, str):
        statement = {"kind": "standard", "sql": statement, "repeatable": False}
    return {"index": place, "repeatable": True, "sql": "", **statement}


def cells(column: Column, count: int) -> list[str]:
    """Formats a column's values as text."""
    kind = column.WhichOneof("values")
    if kind is None:
        return ["NULL"] * count
    values = [_text(kind, value) for value in getattr(column, kind).values]
    for row in range(count):
        if column.nulls and column.nulls[row // 8] >> row % 8 & 1:
            values[row] = "NULL"
    if kind == "timestamps" and column.timestamps.has_zone:
        values = [value if value == "NULL" else f"{value}+00:00" for value in values]
    return values


def _text(kind: str, value: Any) -> str:
    if kind == "mixed":
        field = value.WhichOneof("value")
        return _text(field.removesuffix("_value") + "s", getattr(value, field)) if field else "NULL"
    if kind == "dates":
        return str(date.fromordinal(date(1970, 1, 1).toordinal() + value))
    if kind == "timestamps":
        return str(datetime(1970, 1, 1) + timedelta(microseconds=value))
    if kind == "blobs":
        return "0x" + bytes(value).hex()
    return str(value)


def peak_rss(pid: int) -> int:
    """Returns the peak memory of a process in bytes, or 0 if it has ended.

    rusage is not used, because it includes the parent's memory at the fork.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def write_frame(stream: Any, frame: AgentFrame) -> None:
    """Sends a frame to the program."""
    body = frame.SerializeToString()
    stream.write(bytes(varint(len(body))) + body)
    stream.flush()


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
