"""The client with blocking calls."""

from __future__ import annotations

import getpass
import os
import time
from types import TracebackType
from typing import Any, TypeVar

import grpc

from sqlflow import flows, tokens
from sqlflow.address import Address, Options, resolve
from sqlflow.calls import Call, CallFailed, Flow, Pause, channel_options, credentials, metadata, stubs
from sqlflow.flows import Program, Server
from sqlflow.job import Job
from sqlflow.jobinfo import JobInfo
from sqlflow.own_server import OwnServer

T = TypeVar("T")

RETRY_TIMEOUT = 60.0
"""Default timeout for retries while the server does not answer, in seconds."""


def connect(
    server: str | None = None,
    *,
    datasource: str | os.PathLike[str] | None = None,
    access_token: str | None = None,
    access_token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    client_cert: str | os.PathLike[str] | None = None,
    client_key: str | os.PathLike[str] | None = None,
    server_user: str | None = None,
    user: str | None = None,
    retry_timeout: float = RETRY_TIMEOUT,
) -> Client:
    """Returns a client of a server. It connects at the first call, and again after an interruption.

    Args:
        server: `HOST:PORT`, `https://HOST:PORT`, `unix:///PATH`, or `own` for a server of your own, which is started
            when a call needs it. By default `SQLFLOW_SERVER`, the server of `sqlflowctl login`, the socket of a server
            of this user, a server at `127.0.0.1:50051`, or your own.
        datasource: Data source of programs: a name that the server knows, a URI such as `sqlite:////path/file.db`, or
            a `pathlib.Path` of an SQLite file on this machine. By default `SQLFLOW_DATASOURCE`, or the server's own.
        access_token: Access token for a server of several users. By default that of `SQLFLOW_ACCESS_TOKEN`,
            `SQLFLOW_ACCESS_TOKEN_FILE` or the login.
        access_token_file: File with the access token, read before each call.
        ca: Certificates (PEM) that sign the server's. By default `SQLFLOW_CA`, or those of this system.
        client_cert: Certificate (PEM) by which the server knows the caller (`SQLFLOW_CLIENT_CERT`).
        client_key: Its key (`SQLFLOW_CLIENT_KEY`).
        server_user: User whose server this is (`SQLFLOW_SERVER_USER`), if it is on this machine, without TLS, and
            neither root's nor your own. While a server is down, any user could listen at its address.
        user: Name for listings (`SQLFLOW_USER_ID`). By default that of the login on this machine.
        retry_timeout: How long calls are repeated while the server does not answer, in seconds.

    Raises:
        UsageError: a setting is wrong.
    """
    options = Options(server, access_token, access_token_file, ca, client_cert, client_key, server_user)
    return Client(resolve(options), data_source(datasource), user_name(user), retry_timeout)


def data_source(given: str | os.PathLike[str] | None) -> str:
    """The data source of a session; empty for the server's own."""
    if given is None:
        return os.environ.get("SQLFLOW_DATASOURCE", "")
    if isinstance(given, str):
        return given
    return f"sqlite:///{os.path.abspath(given)}"


def user_name(given: str | None) -> str:
    """The user's name for listings."""
    if given is not None:
        return given
    try:
        return os.environ.get("SQLFLOW_USER_ID") or getpass.getuser()
    except (KeyError, OSError):
        # A user without an entry, as in a container.
        return ""


class Client:
    """A client of one server. Threads may share it."""

    def __init__(self, address: Address, datasource: str = "", user: str = "", retry_timeout: float = RETRY_TIMEOUT):
        self.address = address
        self.datasource = datasource
        self.user = user
        self._server = Server(address.server, retry_timeout)
        self._own = OwnServer.of(address)
        secure = credentials(address)
        if secure is None:
            self._channel = grpc.insecure_channel(address.target(), channel_options(address.target()))
        else:
            self._channel = grpc.secure_channel(address.target(), secure, channel_options(address.target()))
        self._calls = stubs(self._channel)

    def run(
        self,
        sql: str,
        *,
        datasource: str | os.PathLike[str] | None = None,
        fetch_timeout: int | None = None,
        remember: bool = True,
    ) -> Job:
        """Runs a program: SQL statements, standard and extended. Returns at once.

        Args:
            sql: The program.
            datasource: Data source of this program in place of the client's.
            fetch_timeout: The server cancels the job if nobody reads it for so many seconds; 0: never.
            remember: Whether the job's token is stored on this machine, so that `client.job("last")` finds the job.

        Raises:
            InvalidProgram: the server rejects it; nothing ran.
            Error: the server does not answer, or refuses.
        """
        source = self.datasource if datasource is None else data_source(datasource)
        token = self._drive(flows.run(self._server, Program(sql, source, self.user, fetch_timeout)))
        if remember:
            remember_token(token.job_id, token.token)
        return Job(self, token.job_id, token.token, token.job_tracer_url or None)

    def job(self, job: str = "last") -> Job:
        """An existing job, by its token, its id, the beginning of its id, or `last`.

        Raises:
            UsageError: the job was not started on this machine, and this is no token.
            JobNotFound: the server does not know it.
            Error: the server does not answer, or refuses.
        """
        token = tokens.token_of(job)
        info = self._drive(flows.describe(self._server, token))
        return Job(self, info.id, token)

    def jobs(self, limit: int = 50, user: str = "") -> list[JobInfo]:
        """The caller's jobs, newest first; for administrators all jobs. `user` selects those of one user."""
        return self._drive(flows.jobs(self._server, limit, user))

    def close(self) -> None:
        """Closes the connection. Jobs continue."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address.server!r})"

    def _drive(self, flow: Flow[T]) -> T:
        """Executes a flow."""
        try:
            step = next(flow)
            while True:
                match step:
                    case Pause(seconds):
                        time.sleep(seconds)
                        step = next(flow)
                    case Call():
                        try:
                            answer = self._perform(step)
                        except grpc.RpcError as error:
                            step = flow.throw(CallFailed.of(error))
                        else:
                            step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def _perform(self, call: Call) -> Any:
        if self._own is not None:
            self._own.ensure()
        return self._calls[call.method.name](call.request, timeout=call.timeout, metadata=metadata(self.address))


def remember_token(job: str, token: str) -> None:
    """Stores a token, if that is possible: a job must not fail because a file cannot be written."""
    import warnings

    from sqlflow.errors import UsageError

    try:
        tokens.TokenStore.of_user().add(job, token)
    except (OSError, ImportError, UsageError) as error:
        warnings.warn(f"the token of job {job} is not stored: {error}", RuntimeWarning, stacklevel=3)
