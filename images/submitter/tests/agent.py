"""A fake agent: starts the programs of a step as the agent does, and implements the agent's side of their channels.

It acknowledges every frame at once, without storing it. Other tests run the real agent with the real programs.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from data_process import Process, command, granted, write_step
from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, Failure, SubmitterFrame
from protos.sqlflow.v1.data_pb2 import Column

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.extended import WITH_SELECT
from sqlflow_submitter.frames import Frame

MAIN = 'from sqlflow_submitter import run_step\n\nrun_step("step.json")\n'


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

    def __init__(self) -> None:
        self.run = Run()

    def start(self) -> None:
        return

    def send(self, frame: Frame) -> None:
        self.run.frames.append(SubmitterFrame.FromString(b"".join(frame.encode())))

    def send_durable(self, frame: Frame) -> None:
        self.send(frame)


class StandInAgent:
    """Runs steps in a folder.

    Args:
        folder: the workspace.
        dsn: the secret `db_conn_str`.
        keep_rows: if false, frames with rows are counted and discarded, for tests of memory.
    """

    def __init__(self, folder: Path, dsn: str, keep_rows: bool = True) -> None:
        self.folder = folder
        self.dsn = dsn
        self._keep_rows = keep_rows
        self.answer_commit: Callable[[subprocess.Popen[bytes]], AgentFrame | None] = lambda process: granted()
        """Returns the reply to a commit of a program."""
        self.secrets: dict[str, str] = {}
        """Further secrets of the data process."""
        self.row_count = 0
        self.before_acknowledging: Callable[[], None] | None = None
        self.while_running: Callable[[subprocess.Popen[bytes]], None] | None = None
        """Is called in a thread of its own, with the program that executes the statements."""

    def run(self, *statements: dict[str, Any] | str, replay: tuple[str, ...] = (), **step: Any) -> Run:
        """Runs a step. A string is a standard statement."""
        document = document_of(*statements, replay=replay, **step)
        write_step(self.folder, document)
        (self.folder / "main.py").write_text(MAIN)
        kinds = {it["kind"] for it in document["statements"]}
        run = Run()
        with open(self.folder / "stdout", "w+") as stdout, open(self.folder / "stderr", "w+") as stderr:

            def start(started_by: list[str], link: socket.socket | None = None) -> Process:
                started: list[Process] = []
                process = Process(
                    started_by,
                    self.folder,
                    self.dsn,
                    lambda frame: self._take(frame, run, started),
                    link=link,
                    stdout=stdout,
                    stderr=stderr,
                    secrets=self.secrets,
                )
                started.append(process)
                process.answer_commit = lambda: self.answer_commit(process.process)
                return process

            if kinds <= {"standard"} or "clean_up" in document:
                processes = [start(command(self.dsn))]
            elif not kinds.isdisjoint(WITH_SELECT) or "ahead" in document:
                ours, theirs = socket.socketpair()
                processes = [start(command(self.dsn), ours), start([sys.executable, "main.py"], theirs)]
            else:
                processes = [start([sys.executable, "main.py"])]
            if self.while_running:
                threading.Thread(target=self.while_running, args=(processes[0].process,), daemon=True).start()
            run.exit_code = _wait(processes)
        _keep_cause(run)
        run.stdout = (self.folder / "stdout").read_text()
        run.stderr = (self.folder / "stderr").read_text()
        return run

    def _take(self, frame: SubmitterFrame, run: Run, started: list[Process]) -> None:
        if frame.WhichOneof("frame") == "rows" and not self._keep_rows:
            self.row_count += frame.rows.count
            if started:
                run.peak_rss = max(run.peak_rss, peak_rss(started[0].process.pid))
            return
        run.frames.append(frame)
        if frame.ack_id and self.before_acknowledging:
            self.before_acknowledging()


def _wait(processes: list[Process]) -> int:
    """Waits for the programs. Returns the exit code of the one whose end is the cause."""
    *companions, command = processes
    code = command.wait()
    for companion in companions:
        if code == 0:
            companion.report_success()
        else:
            companion.terminate()
        own = companion.wait()
        # A companion whose command has failed is ended by the signal of its agent.
        if code == 0 or own == -signal.SIGKILL:
            code = own
    return code


def _keep_cause(run: Run) -> None:
    """Drops failures that are the consequence of another one, as the agent does, and puts the cause last."""
    failures = [frame for frame in run.frames if frame.WhichOneof("frame") == "failure"]
    causes = [frame for frame in failures if not frame.failure.peer_lost] or failures
    run.frames = [frame for frame in run.frames if frame not in failures] + causes[:1]


def document_of(*statements: dict[str, Any] | str, replay: tuple[str, ...] = (), **step: Any) -> dict[str, Any]:
    """Returns the document of a step. A string is a standard statement."""
    return {
        "version": 1,
        "job": "01jtest",
        "step": 1,
        "attempt": 1,
        "scratch_suffix": "01jtest_1_1",
        "replay": [{"index": 90 + place, "sql": sql} for place, sql in enumerate(replay)],
        "statements": [_statement(place, statement) for place, statement in enumerate(statements)],
        **step,
    }


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
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0  # It was waited for; its last frames may be read after that.
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
