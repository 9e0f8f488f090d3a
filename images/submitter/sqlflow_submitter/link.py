"""The link to the data process: requests and answers, a line of JSON each.

A request names a select of the step, and never SQL. The rows of a select come as a column file, whose descriptor is
passed with the answer.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from sqlflow_submitter.errors import DatabaseBusy, DatabaseUnavailable, SubmitterError, UserError

DESCRIPTOR_VARIABLE = "SQLFLOW_COMPANION_FD"
STATEMENT = "statement"
VALIDATION = "validation"


class Link:
    """The submitter's end."""

    def __init__(self, descriptor: int) -> None:
        # Programs that user code starts must not inherit the link.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._received = b""
        self._descriptors: list[int] = []

    def request_rows(self, select: str) -> None:
        """Asks for the rows of a select. Other work can be done until `rows` is called."""
        self._send({"read": select})

    def rows(self, on_rows: Callable[[int], None]) -> tuple[Any, int]:
        """Waits for the rows. Calls `on_rows` with their number from time to time.

        Returns the answer and the file's descriptor.

        Raises:
            SubmitterError: the select failed.
        """
        while True:
            answer = self._receive()
            if "rows" in answer:
                on_rows(answer["rows"])
            elif "column_file" in answer:
                return answer["column_file"], self._descriptors.pop()
            else:
                raise _error(answer["error"])

    def _send(self, request: Any) -> None:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise PeerLost(f"cannot reach the data process: {error.strerror}") from error

    def _receive(self) -> Any:
        while b"\n" not in self._received:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, 1)
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


def open_link(descriptor: str) -> Link:
    """Opens the link that the agent left in the environment."""
    if not descriptor.isdigit():
        raise SubmitterError(
            f"cannot open the link to the data process: {DESCRIPTOR_VARIABLE} is not a number: {descriptor}"
        )
    return Link(int(descriptor))


def _error(error: Any) -> SubmitterError:
    message = error["message"]
    match error["kind"]:
        case "user":
            return UserError(message, error.get("missing_table"), error.get("missing_column"))
        case "unavailable":
            return DatabaseUnavailable(message)
        case "busy":
            return DatabaseBusy(message)
        case _:
            return SubmitterError(message)
