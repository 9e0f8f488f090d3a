"""TERM and INT: the running statement is ended, and no other one begins.

Then the process ends by the signal, so that its agent can tell whether the signal was its own. The rules are those of
`data/src/shutdown.rs`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.frames import Failure, Frame

SIGNALS = {signal.SIGTERM, signal.SIGINT}
TIME_TO_END = 3.0
"""Time in which the main thread has to end after the signal, in seconds."""
CANCEL_INTERVAL = 0.1
"""Pause between two cancellations: the first may arrive before the statement does. In seconds."""


class Terminated(SubmitterError):
    """A signal has arrived."""

    def __init__(self) -> None:
        super().__init__("cannot continue: the step was terminated")


class Shutdown:
    """Waits for signals in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancellers: list[Callable[[], None]] = []
        self._is_busy = False
        """Whether a statement runs, its results are being sent, or a staging table exists."""
        self._is_cleaning_up = False
        """Whether a staging table is being dropped: nothing is ended any more."""
        self._reports_to: Channel | None = None
        self._signal: signal.Signals | None = None

    def listen(self) -> None:
        """Begins to wait. Must be called before other threads are started, which would get the signals."""
        # Python's own handler would raise an exception.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=lambda: self._end(signal.Signals(signal.sigwait(SIGNALS))), daemon=True).start()

    def add_canceller(self, cancel: Callable[[], None]) -> None:
        """Adds what ends a running statement, or a read that waits for another program."""
        with self._lock:
            self._cancellers.append(cancel)

    def begin_statement(self) -> None:
        """A statement begins. Raises Terminated if it may not."""
        with self._lock:
            self._check()
            self._is_busy = True
            self._is_cleaning_up = False

    def check(self) -> None:
        """Raises Terminated if a signal has arrived."""
        with self._lock:
            self._check()

    def _check(self) -> None:
        if self._signal is not None:
            raise Terminated

    def end_statement(self) -> None:
        """The statement has ended, and its results are sent."""
        with self._lock:
            self._is_busy = False

    def begin_clean_up(self) -> None:
        """From now on, nothing is ended: what follows must complete."""
        with self._lock:
            self._is_busy = self._is_cleaning_up = True

    def set_leaves_nothing(self, channel: Channel | None) -> None:
        """Says whether nothing of this process remains in the database, and the submitter has not succeeded.

        `channel`: where that is reported when a signal arrives. None: something may remain.
        """
        with self._lock:
            self._reports_to = channel

    def end_by_signal(self) -> None:
        """Ends the process, if a signal has arrived."""
        with self._lock:
            if self._signal is not None:
                self._end_process(self._signal)

    def _end(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._is_busy:
                self._end_process(number)
            self._signal = number
        # For example, nobody reads the channel.
        deadline = time.monotonic() + TIME_TO_END
        while time.monotonic() < deadline:
            # With the lock, so that a cancellation that is under way ends before a clean-up begins.
            with self._lock:
                for cancel in [] if self._is_cleaning_up else self._cancellers:
                    with suppress(Exception):
                        cancel()
            time.sleep(CANCEL_INTERVAL)
        _end_by(number)

    def _end_process(self, number: signal.Signals) -> None:
        if self._reports_to is not None:
            failure = Failure("the data process was terminated")
            failure.not_executed = True
            # What the submitter reports is the cause.
            failure.peer_lost = True
            with suppress(Exception):
                self._reports_to.send(Frame(failure))
        _end_by(number)


def _end_by(number: signal.Signals) -> None:
    """Ends the process by a signal that it has blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    os._exit(128 + number)
