"""The client for asyncio: the same calls as in `sqlflow`, to be awaited.

client = sqlflow.aio.connect()
job = await client.run("SELECT 1")
async for event in job: ...
result = await job.result()
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio

from sqlflow import flows, tokens
from sqlflow.address import Address, Options, resolve
from sqlflow.calls import Call, CallFailed, Flow, Pause, channel_options, credentials, metadata, stubs
from sqlflow.connection import RETRY_TIMEOUT, data_source, remember_token, user_name
from sqlflow.events import Event
from sqlflow.flows import Program, Reader, Server
from sqlflow.jobinfo import JobInfo
from sqlflow.own_server import OwnServer
from sqlflow.result import MAX_ROWS, Collector, Result

T = TypeVar("T")


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
    """Returns a client of a server. The arguments are those of `sqlflow.connect`."""
    options = Options(server, access_token, access_token_file, ca, client_cert, client_key, server_user)
    return Client(resolve(options), data_source(datasource), user_name(user), retry_timeout)


class Client:
    """A client of one server, for tasks of one event loop."""

    def __init__(self, address: Address, datasource: str = "", user: str = "", retry_timeout: float = RETRY_TIMEOUT):
        self.address = address
        self.datasource = datasource
        self.user = user
        self._server = Server(address.server, retry_timeout)
        self._own = OwnServer.of(address)
        self._credentials = credentials(address)
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}

    async def run(
        self,
        sql: str,
        *,
        datasource: str | os.PathLike[str] | None = None,
        fetch_timeout: int | None = None,
        remember: bool = True,
    ) -> Job:
        """Runs a program. The arguments and errors are those of `sqlflow.Client.run`."""
        source = self.datasource if datasource is None else data_source(datasource)
        token = await self._drive(flows.run(self._server, Program(sql, source, self.user, fetch_timeout)))
        if remember:
            await asyncio.to_thread(remember_token, token.job_id, token.token)
        return Job(self, token.job_id, token.token, token.job_tracer_url or None)

    async def job(self, job: str = "last") -> Job:
        """An existing job, by its token, its id, the beginning of its id, or `last`."""
        token = await asyncio.to_thread(tokens.token_of, job)
        info = await self._drive(flows.describe(self._server, token))
        return Job(self, info.id, token)

    async def jobs(self, limit: int = 50, user: str = "") -> list[JobInfo]:
        """The caller's jobs, newest first; for administrators all jobs."""
        return await self._drive(flows.jobs(self._server, limit, user))

    async def close(self) -> None:
        """Closes the connection. Jobs continue."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Client({self.address.server!r})"

    async def _drive(self, flow: Flow[T]) -> T:
        """Executes a flow."""
        try:
            step = next(flow)
            while True:
                match step:
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                        step = next(flow)
                    case Call():
                        try:
                            answer = await self._perform(step)
                        except grpc.RpcError as error:
                            step = flow.throw(CallFailed.of(error))
                        else:
                            step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _perform(self, call: Call) -> Any:
        if self._own is not None and not self._own.is_up():
            await asyncio.to_thread(self._own.ensure)
        if self._channel is None:
            # Here, since a channel belongs to the event loop that runs.
            self._channel = self._open()
            self._calls = stubs(self._channel)
        return await self._calls[call.method.name](call.request, timeout=call.timeout, metadata=metadata(self.address))

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.address.target(), channel_options(self.address.target()))
        return grpc.aio.secure_channel(self.address.target(), self._credentials, channel_options(self.address.target()))


class Job:
    """A job of the server. Its attributes and iteration are those of `sqlflow.Job`."""

    def __init__(self, client: Client, id: str, token: str, url: str | None = None):
        self._client = client
        self.id = id
        self.token = token
        self.url = url

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events behind a position, until the job ends."""
        cursor = tokens.split(self.token)[1] or 0 if after is None else after
        reader = Reader(self._client._server, self.id, tokens.at(self.token, cursor))
        while not reader.has_ended:
            for event in await self._client._drive(reader.page()):
                yield event

    async def result(self, *, max_rows: int | None = MAX_ROWS) -> Result:
        """Waits for the job's end, and returns what it reported. The errors are those of `sqlflow.Job.result`."""
        collector = Collector(self.id, max_rows)
        async for event in self.events(after=0):
            collector.add(event)
        return collector.result()

    async def cancel(self) -> JobInfo:
        """Requests the job's end, and does not wait for it."""
        return await self._client._drive(flows.cancel(self._client._server, self.token))

    async def info(self) -> JobInfo:
        """The job's state now."""
        return await self._client._drive(flows.describe(self._client._server, self.token))

    def __repr__(self) -> str:
        return f"Job({self.id!r})"
