"""The data process's end of the link to the submitter: requests and answers, a line of JSON each."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from sqlflow_submitter.errors import DatabaseUnavailable, SubmitterError, UserError, one_line

MAX_REQUEST = 16 << 20
"""Maximum length of a request, in bytes."""


class Ended(Exception):
    """The submitter has ended. Its own end says why."""


class ServerLink:
    """The link, as the data process has it."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._reader = self._socket.makefile("rb")

    def end_reading(self) -> None:
        """Ends a read of the link, from another thread."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def next(self) -> tuple[str, Any] | None:
        """Returns the name and the content of the next request; None: the submitter has ended."""
        try:
            line = self._reader.readline(MAX_REQUEST)
        except OSError:
            return None
        if not line:
            return None
        try:
            request = json.loads(line)
            ((name, content),) = [(request, None)] if isinstance(request, str) else request.items()
        except (ValueError, AttributeError) as error:
            raise SubmitterError("cannot read a request: it is no request, or too long") from error
        return name, content

    def bytes(self, count: int) -> bytes:
        """Returns bytes that follow a request."""
        try:
            data = self._reader.read(count)
        except OSError as error:
            raise Ended from error
        if len(data) < count:
            raise Ended
        return data

    def send(self, answer: Any, descriptor: int | None = None) -> None:
        """Answers a request, and passes a file."""
        line = json.dumps(answer).encode() + b"\n"
        try:
            if descriptor is not None:
                sent = socket.send_fds(self._socket, [line], [descriptor])
                line = line[sent:]
            self._socket.sendall(line)
        except OSError as error:
            raise Ended from error

    def send_error(self, error: SubmitterError) -> None:
        kind = "unavailable" if isinstance(error, DatabaseUnavailable) else "undelivered"
        is_syntax, similar = False, []
        if isinstance(error, UserError):
            kind, is_syntax, similar = "user", error.is_syntax, list(error.similar)
        message = one_line(str(error))
        self.send({"error": {"message": message, "kind": kind, "is_syntax": is_syntax, "similar": similar}})
