"""The link to the data process: requests and answers, a line of JSON each.

A request names a statement of the step, and never SQL. Descriptors of files are passed with their answers. Computed
columns follow their request as bytes. The requests are described in `data/src/requests.rs`.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from sqlflow_submitter.errors import DatabaseUnavailable, SubmitterError, UserError


class Link:
    """The submitter's end."""

    def __init__(self, descriptor: int) -> None:
        # Programs that user code starts must not inherit the link.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._received = b""
        self._descriptors: list[int] = []

    def ask(self, request: Any) -> Any:
        """Sends a request and returns the content of its answer.

        Raises:
            SubmitterError: it failed.
        """
        self.send(request)
        return self.answer()[1]

    def send(self, request: Any, data: bytes = b"") -> None:
        """Sends a request, and bytes that belong to it."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n" + data)
        except OSError as error:
            # An error of the database comes first: the data process may have ended after it.
            raise PeerLost(f"cannot reach the data process: {error.strerror}") from error

    def answer(self) -> tuple[str, Any]:
        """Returns the name and the content of the next answer.

        Raises:
            SubmitterError: the request failed.
        """
        answer = self._receive()
        if isinstance(answer, str):
            return answer, None
        ((name, content),) = answer.items()
        if name == "error":
            raise _error(content)
        return name, content

    def descriptor(self) -> int:
        """Returns the descriptor that was passed with the last answer."""
        return self._descriptors.pop(0)

    def _receive(self) -> Any:
        while b"\n" not in self._received:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, 8)
            except OSError as error:
                # Of a data process that has ended before it read the request.
                raise PeerLost(f"the data process has ended: {error.strerror}") from error
            if not data:
                raise PeerLost("the data process has ended")
            self._received += data
            self._descriptors += descriptors
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


class PeerLost(SubmitterError):
    """The data process has ended. Its own end is the cause."""

    peer_lost = True


def to_cell(value: Any) -> Any:
    """Returns a value in the form of the link's JSON. Readers of JSON may round a number, or know no NaN."""
    return {"float": repr(value)} if isinstance(value, float) else value


def from_cell(cell: Any) -> Any:
    """Returns a value from the form of the link's JSON."""
    match cell:
        case {"float": text}:
            return float(text)
        case {"blob": digits}:
            return bytes.fromhex(digits)
    return cell


def _error(error: Any) -> SubmitterError:
    message = error["message"]
    match error["kind"]:
        case "user":
            return UserError(message, is_syntax=error["is_syntax"], similar=error["similar"])
        case "unavailable" | "busy":
            return DatabaseUnavailable(message)
        case _:
            return SubmitterError(message)
