"""Calls of the service, and the errors that they end with. No I/O happens here.

What a client does is written once, as a *flow*: a generator that yields calls and pauses, receives answers, and returns
its result. `connection.py` executes flows with blocking calls, and `aio.py` with asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc

from sqlflow import listener
from sqlflow._proto import sqlflow_pb2 as pb
from sqlflow.address import Address
from sqlflow.errors import (
    AccessDenied,
    Error,
    InvalidProgram,
    JobNotFound,
    LimitReached,
    ServerFault,
    ServerUnavailable,
    UsageError,
)
from sqlflow.program_error import with_place

CALL_TIMEOUT = 30.0
"""Deadline of a call, in seconds. Fetch waits for at most a second."""
LARGEST_MESSAGE = 32 * 1024 * 1024
"""Maximum size of a page."""
KEEP_ALIVE_MS = 10_000
CONNECT_TIMEOUT_MS = 5_000

_CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    # A dead connection is detected within twice this time.
    ("grpc.keepalive_time_ms", KEEP_ALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEP_ALIVE_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # By default gRPC waits for up to two minutes before it connects again, and fails all calls meanwhile.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    # A proxy for web pages would not know a server of this network.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of `sqlflow.v1.SQLFlow`."""

    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        return f"/sqlflow.v1.SQLFlow/{self.name}"


RUN = Method("Run", pb.Request, pb.Token)
FETCH = Method("Fetch", pb.Token, pb.Result)
CANCEL = Method("Cancel", pb.Token, pb.Job)
GET_JOB = Method("GetJob", pb.GetJobRequest, pb.Job)
LIST_JOBS = Method("ListJobs", pb.ListJobsRequest, pb.ListJobsResponse)
METHODS = (RUN, FETCH, CANCEL, GET_JOB, LIST_JOBS)


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be made."""

    method: Method
    request: Any
    timeout: float = CALL_TIMEOUT


@dataclass(frozen=True, slots=True)
class Pause:
    """Time to wait."""

    seconds: float


T = TypeVar("T")
Flow: TypeAlias = Generator[Call | Pause, Any, T]


class CallFailed(Exception):
    """A call that ended with an error."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(code, message)
        self.code = code
        self.message = message

    @classmethod
    def of(cls, error: grpc.RpcError) -> CallFailed:
        """The error of a call, of blocking gRPC or of `grpc.aio`."""
        return cls(error.code(), error.details() or "")

    @property
    def is_retryable(self) -> bool:
        """Whether the server did not answer, or says that it will later."""
        return self.code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
        )

    def error(self, server: str, sql: str | None = None) -> Error:
        """The exception for a caller; `sql` is the program that was sent."""
        match self.code:
            case _ if self.is_retryable:
                return ServerUnavailable(f"cannot reach the server at {server}: {self.message}")
            case grpc.StatusCode.INVALID_ARGUMENT if sql is not None:
                return InvalidProgram(with_place(self.message, sql))
            case grpc.StatusCode.NOT_FOUND:
                return JobNotFound(self.message)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return AccessDenied(f"the server at {server} refuses: {self.message}")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return LimitReached(f"the server refused: {self.message}")
            case (
                grpc.StatusCode.INVALID_ARGUMENT
                | grpc.StatusCode.ALREADY_EXISTS
                | grpc.StatusCode.FAILED_PRECONDITION
                | grpc.StatusCode.OUT_OF_RANGE
            ):
                return UsageError(self.message)
            case grpc.StatusCode.UNIMPLEMENTED:
                return ServerFault(f"the server at {server} does not know this call")
            case code:
                return ServerFault(f"the server at {server} is at fault: {self.message} ({code.name})")


def channel_options(target: str) -> list[tuple[str, int | str]]:
    """Options of a connection to a server in gRPC's notation."""
    if target.startswith("unix:"):
        # gRPC would name the socket's path as the host, and such a name is a protocol error for the server.
        return [*_CHANNEL_OPTIONS, ("grpc.default_authority", "localhost")]
    return _CHANNEL_OPTIONS


def stubs(channel: grpc.Channel | grpc.aio.Channel) -> dict[str, Callable[..., Any]]:
    """A callable for each method, by its name."""
    return {
        method.name: channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        for method in METHODS
    }


def metadata(address: Address) -> list[tuple[str, str]]:
    """Metadata of each call. Checks first whose server gets it: `listener` has the rules.

    Raises:
        UsageError: the server is another user's, or the access token cannot be read or sent.
    """
    listener.check(address)
    pairs = [("sqlflow-max-message-bytes", str(LARGEST_MESSAGE))]
    token = address.token()
    if token is not None:
        if not (token.isascii() and token.isprintable()):
            raise UsageError("cannot send the access token: it has characters that no token has")
        pairs.append(("authorization", f"Bearer {token}"))
    return pairs


def credentials(address: Address) -> grpc.ChannelCredentials | None:
    """TLS, for a server that has it.

    Raises:
        UsageError: a certificate cannot be read.
    """
    if not address.has_tls():
        return None
    trusted, key, certificate = address.certificates()
    return grpc.ssl_channel_credentials(trusted, key, certificate)
