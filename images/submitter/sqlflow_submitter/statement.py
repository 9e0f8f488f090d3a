"""Frames about one statement. Each statement has an object of its own, so that no caller passes its index."""

from __future__ import annotations

import sys
import time

from sqlflow_submitter.frames import Content, Display, Ended, Frame, Metrics, Progress, Started
from sqlflow_submitter.spans import Spans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlflow_submitter.channel import Channel

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
        frame = Frame(Started(), self._index)
        if repeatable:
            self._channel.send(frame)
        else:
            self._channel.send_durable(frame)
        self._started_at = time.monotonic()

    def ended(self) -> None:
        """Reports success."""
        self.send(Ended(int((time.monotonic() - self._started_at) * 1e6), None))

    def send(self, content: Content) -> None:
        self._channel.send(Frame(content, self._index))

    def progress(self, phase: str, done: int, total: int, unit: str, always: bool = False) -> None:
        """Reports the progress of a phase, at most ten times a second. The end of a phase is always reported.

        `always`: report in any case, for example because a printed line shows the same number.
        """
        now = time.monotonic()
        if done != total and not always and now < self._next_progress_at.get(phase, 0.0):
            return
        self._next_progress_at[phase] = now + PROGRESS_INTERVAL_SECONDS
        self.send(Progress(phase, done, total, unit))

    def metrics(self, values: Mapping[str, float], step: int | None = None, kept: bool = False) -> None:
        """Sends the metrics of one round, or final metrics if `step` is None.

        `kept`: the model of this round is kept. Its metrics were sent before.
        """
        self.send(Metrics(values, step, kept))

    def display(self, media_type: str, data: bytes) -> None:
        self.send(Display(media_type, data))

    def print_line(self, text: str) -> None:
        """Prints a line for the user."""
        print(text, file=sys.stdout, flush=True)
