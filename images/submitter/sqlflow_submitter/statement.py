"""Frames about one statement. Each statement has an object of its own, so that no caller passes its index."""

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
    """The channel of one statement."""

    def __init__(self, channel: Channel, index: int) -> None:
        self._channel = channel
        self._index = index
        self._started_at = 0.0
        self._next_progress_at: dict[str, float] = {}
        self.spans = Spans(channel, index)

    def started(self, repeatable: bool) -> None:
        """Reports the start. If the statement is not repeatable, waits until the report is durable."""
        frame = SubmitterFrame(statement=self._index)
        frame.started.SetInParent()
        if repeatable:
            self._channel.send(frame)
        else:
            self._channel.send_durable(frame)
        self._started_at = time.monotonic()

    def ended(self, rows_affected: int | None) -> None:
        """Reports success, and the number of changed rows if it is known."""
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
        """Reports the progress of a phase, at most ten times a second. The end of a phase is always reported.

        `always`: report in any case, for example because a printed line shows the same number.
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
        """Sends the metrics of one round, or final metrics if `step` is None.

        `kept`: the model of this round is kept. Its metrics were sent before.
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
        """Waits for the grant to make the effect visible. Raises CommitRefused if it is refused."""
        self._channel.commit(self._index)

    def print_line(self, text: str) -> None:
        """Prints a line for the user."""
        print(text, file=sys.stdout, flush=True)
