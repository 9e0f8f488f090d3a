"""The submitter channel: frames to the agent, and its answers.

Each message is preceded by its length as a varint. The channel is a Unix socket that the agent leaves open as file
descriptor `SQLFLOW_CHANNEL_FD`; nothing that user code prints can pass for a frame.
"""

from __future__ import annotations

import os

from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError
from sqlflow_submitter.proto.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame

DESCRIPTOR_VARIABLE = "SQLFLOW_CHANNEL_FD"
MAX_FRAME_BYTES = 16 * 1024 * 1024


class Channel:
    """What a step says, and asks, while it runs."""

    def secrets(self) -> dict[str, str]:
        """Gives the assignment's secrets by name; called once, before anything is sent."""
        raise NotImplementedError

    def send(self, frame: SubmitterFrame) -> None:
        """Sends a frame and does not wait."""
        raise NotImplementedError

    def send_durable(self, frame: SubmitterFrame) -> None:
        """Sends a frame and returns when a server has it on disk."""
        raise NotImplementedError

    def commit(self, statement: int) -> None:
        """Asks for leave to make a statement's effect visible.

        Raises:
            CommitRefused: this attempt must not do so and should exit.
        """
        raise NotImplementedError


class AgentChannel(Channel):
    """The channel to a real agent, over a stream socket."""

    def __init__(self, descriptor: int) -> None:
        # Programs that user code starts have no business on the channel.
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._reader = os.fdopen(descriptor, "rb", closefd=False)
        self._last_ack_id = 0

    def secrets(self) -> dict[str, str]:
        frame = self._receive()
        if frame.WhichOneof("frame") != "start":
            raise SubmitterError("the agent's first frame is not a start frame")
        return dict(frame.start.secrets)

    def send(self, frame: SubmitterFrame) -> None:
        body = frame.SerializeToString()
        if len(body) > MAX_FRAME_BYTES:
            raise UserError(
                f"rows are too large to be shown: {len(body)} bytes in one batch, the limit is {MAX_FRAME_BYTES}"
            )
        data = memoryview(_varint(len(body)) + body)
        while data:
            data = data[os.write(self._descriptor, data) :]

    def send_durable(self, frame: SubmitterFrame) -> None:
        self._last_ack_id += 1
        frame.ack_id = self._last_ack_id
        self.send(frame)
        while True:
            answer = self._receive()
            kind = answer.WhichOneof("frame")
            if kind == "ack" and answer.ack.ack_id == frame.ack_id:
                return
            if kind == "refused":
                raise CommitRefused(f"this attempt was stopped: {answer.refused.reason}")

    def commit(self, statement: int) -> None:
        frame = SubmitterFrame(statement=statement)
        frame.commit.SetInParent()
        self.send(frame)
        while True:
            answer = self._receive()
            kind = answer.WhichOneof("frame")
            if kind == "granted":
                return
            if kind == "refused":
                raise CommitRefused(f"the result may not be made visible: {answer.refused.reason}")

    def _receive(self) -> AgentFrame:
        size = shift = 0
        while True:
            byte = self._read_exactly(1)[0]
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise SubmitterError("the agent sent a frame with a malformed length")
        if size > MAX_FRAME_BYTES:
            raise SubmitterError(f"the agent sent a frame of {size} bytes, the limit is {MAX_FRAME_BYTES}")
        return AgentFrame.FromString(self._read_exactly(size))

    def _read_exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise SubmitterError("the agent closed the channel")
        return data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
