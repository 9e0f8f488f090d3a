"""The submitter channel: frames to the agent, and its replies.

Each message is preceded by its length as a varint. The channel is a Unix socket that the submitter inherits as file
descriptor `SQLFLOW_CHANNEL_FD`. It is separate from stdout and stderr, so printed output is never read as a frame.
"""

from __future__ import annotations

import os

from sqlflow_submitter import frames, wire
from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError
from sqlflow_submitter.frames import Frame, Reply

CHANNEL_VARIABLE = "SQLFLOW_CHANNEL_FD"
LINK_VARIABLE = "SQLFLOW_COMPANION_FD"
"""The link to the data process."""
MAX_FRAME_BYTES = 16 * 1024 * 1024


def inherited(variable: str, what: str) -> int | None:
    """Returns a descriptor that the agent left in the environment, once.

    Raises:
        SubmitterError: it is not a number.
    """
    text = os.environ.pop(variable, None)
    if text is not None and not text.isdigit():
        raise SubmitterError(f"cannot open {what}: {variable} is not a number: {text}")
    return None if text is None else int(text)


class Channel:
    """The reports and requests of a running step."""

    def start(self) -> None:
        """Must be called once, before any frame is sent."""
        raise NotImplementedError

    def send(self, frame: Frame) -> None:
        """Sends a frame without waiting for a reply."""
        raise NotImplementedError

    def send_durable(self, frame: Frame) -> None:
        """Sends a frame and waits until a server has acknowledged it as durable."""
        raise NotImplementedError


class AgentChannel(Channel):
    """The channel to an agent, over a stream socket."""

    def __init__(self, descriptor: int) -> None:
        # Programs that user code starts must not inherit the channel.
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._reader = os.fdopen(descriptor, "rb", closefd=False)
        self._last_ack_id = 0

    def start(self) -> None:
        if not isinstance(self._receive(), frames.Start):
            raise SubmitterError("cannot start: the agent's first frame is not a start frame")

    def send(self, frame: Frame) -> None:
        parts = frame.encode()
        size = sum(map(len, parts))
        if size > MAX_FRAME_BYTES:
            raise UserError(
                f"cannot send rows: a batch of {size} bytes is too large to be shown; "
                f"select smaller columns (limit: {MAX_FRAME_BYTES} bytes)"
            )
        data = memoryview(b"".join([wire.varint(size), *parts]))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def send_durable(self, frame: Frame) -> None:
        self._last_ack_id += 1
        frame.ack_id = self._last_ack_id
        self.send(frame)
        while True:
            match self._receive():
                case frames.Ack(ack_id=ack_id) if ack_id == frame.ack_id:
                    return
                case frames.Refused(reason=reason):
                    raise CommitRefused(f"cannot continue: this attempt was stopped: {reason}")

    def _receive(self) -> Reply | None:
        size = shift = 0
        while True:
            byte = self._read_exactly(1)[0]
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise SubmitterError("cannot read from the agent: the length of a frame is malformed")
        if size > MAX_FRAME_BYTES:
            raise SubmitterError(
                f"cannot read from the agent: a frame has {size} bytes, and the limit is {MAX_FRAME_BYTES}"
            )
        try:
            return frames.decode(self._read_exactly(size))
        except ValueError as error:
            raise SubmitterError(f"cannot read from the agent: a frame is malformed: {error}") from error

    def _read_exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise SubmitterError("cannot read from the agent: it closed the channel")
        return data
