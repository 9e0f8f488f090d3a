"""What a running statement says: one small object per statement, so that no caller repeats the statement's index."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.proto.sqlflow.agent.v1.channel_pb2 import SubmitterFrame
from sqlflow_submitter.proto.sqlflow.v1.data_pb2 import Head, Rows
from sqlflow_submitter.spans import Spans

PROGRESS_INTERVAL_SECONDS = 0.1


class StatementChannel:
    """The channel, as one statement sees it."""

    def __init__(self, channel: Channel, index: int) -> None:
        self._channel = channel
        self._index = index
        self._started_at = 0.0
        self._next_progress_at: dict[str, float] = {}
        self.spans = Spans(channel, index)

    def started(self, repeatable: bool) -> None:
        """Says that the statement starts. Where it may not be repeated, returns only when that is on record."""
        frame = SubmitterFrame(statement=self._index)
        frame.started.SetInParent()
        if repeatable:
            self._channel.send(frame)
        else:
            self._channel.send_durable(frame)
        self._started_at = time.monotonic()

    def ended(self, rows_affected: int | None) -> None:
        """Says that the statement succeeded, and how many rows it changed, where it is known."""
        frame = SubmitterFrame(statement=self._index)
        frame.ended.duration_micros = int((time.monotonic() - self._started_at) * 1e6)
        if rows_affected is not None:
            frame.ended.rows_affected = rows_affected
        self._channel.send(frame)

    def head(self, head: Head) -> None:
        self._channel.send(SubmitterFrame(statement=self._index, head=head))

    def rows(self, rows: Rows) -> None:
        self._channel.send(SubmitterFrame(statement=self._index, rows=rows))

    def progress(self, phase: str, done: int, total: int, unit: str, always: bool = False) -> None:
        """Says how far a phase is; at most ten times a second, but the end of a phase is always said.

        `always`: it is said anyway, as where a line says the same: the bar must not stay behind.
        """
        now = time.monotonic()
        if done != total and not always and now < self._next_progress_at.get(phase, 0.0):
            return
        self._next_progress_at[phase] = now + PROGRESS_INTERVAL_SECONDS
        frame = SubmitterFrame(statement=self._index)
        frame.progress.phase = phase
        frame.progress.done = done
        frame.progress.total = total
        frame.progress.unit = unit
        self._channel.send(frame)

    def metrics(self, values: Mapping[str, float], step: int | None = None, kept: bool = False) -> None:
        """Sends measurements of one round, or final ones when `step` is None.

        `kept`: the model is that of this round, which was measured before.
        """
        frame = SubmitterFrame(statement=self._index)
        frame.metrics.kept = kept
        if step is not None:
            frame.metrics.step = step
        for name, value in values.items():
            frame.metrics.metrics.add(name=name, value=value)
        self._channel.send(frame)

    def display(self, media_type: str, data: bytes) -> None:
        frame = SubmitterFrame(statement=self._index)
        frame.display.media_type = media_type
        frame.display.data = data
        self._channel.send(frame)

    def commit(self) -> None:
        """Asks for leave to make the effect visible; raises CommitRefused when it is not given."""
        self._channel.commit(self._index)

    def print_line(self, text: str) -> None:
        """Prints a line for the person who waits."""
        print(text, file=sys.stdout, flush=True)
