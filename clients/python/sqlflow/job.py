"""A job, read with blocking calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlflow import flows, tokens
from sqlflow.events import Event
from sqlflow.flows import Reader
from sqlflow.jobinfo import JobInfo
from sqlflow.result import MAX_ROWS, Collector, Result

if TYPE_CHECKING:
    from sqlflow.connection import Client


class Job:
    """A job of the server.

    Iterating reads its events from the start, or from the cursor of the token that it was found by, until it ends. Each
    iteration reads again, so what was read is not kept in memory.

    Attributes:
        id: Public id. It grants no access.
        token: A secret: anyone who has it reads and cancels the job.
        url: Web page of the job; None unless this client started it. It is a secret, too: it allows reading.
    """

    def __init__(self, client: Client, id: str, token: str, url: str | None = None):
        self._client = client
        self.id = id
        self.token = token
        self.url = url

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def events(self, after: int | None = None) -> Iterator[Event]:
        """Events behind a position, until the job ends. The last one is a `JobEnded`; a failure raises nothing.

        If the server does not answer, the iterator continues where it was, for up to the client's `retry_timeout`.

        Raises:
            ServerUnavailable: the server did not answer for so long.
            JobNotFound: the server does not know the job any more.
        """
        cursor = tokens.split(self.token)[1] or 0 if after is None else after
        reader = Reader(self._client._server, self.id, tokens.at(self.token, cursor))
        while not reader.has_ended:
            yield from self._client._drive(reader.page())

    def result(self, *, max_rows: int | None = MAX_ROWS) -> Result:
        """Waits for the job's end, and returns what it reported: tables, metrics, models, displays.

        Args:
            max_rows: Limit for the rows of all tables together, which are kept in memory. None: no limit.

        Raises:
            JobFailed: the job ended without success; `JobCancelled` if it was cancelled.
            ResultTooLarge: there are more rows. The job continues, and another call reads it from the start.
            Error: the server does not answer, or refuses.
        """
        collector = Collector(self.id, max_rows)
        for event in self.events(after=0):
            collector.add(event)
        return collector.result()

    def cancel(self) -> JobInfo:
        """Requests the job's end, and does not wait for it. No effect on a job that has ended."""
        return self._client._drive(flows.cancel(self._client._server, self.token))

    def info(self) -> JobInfo:
        """The job's state now."""
        return self._client._drive(flows.describe(self._client._server, self.token))

    def __repr__(self) -> str:
        return f"Job({self.id!r})"
