"""What a client does, as flows: run a program, read its log, cancel it, list jobs.

A call without an answer is repeated, with pauses that grow, until `retry_timeout`. That is safe for each of them: Run
has a request id, Fetch a cursor, Cancel is idempotent, and the others only read. So no effect is repeated.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from sqlflow import tokens
from sqlflow._proto import sqlflow_pb2 as pb
from sqlflow.calls import CANCEL, FETCH, GET_JOB, LIST_JOBS, RUN, Call, CallFailed, Flow, Pause
from sqlflow.errors import ServerUnavailable
from sqlflow.events import Decoder, Event, JobEnded, Reconnected, Reconnecting
from sqlflow.jobinfo import JobInfo, job_info

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
FIRST_ANSWER_TIMEOUT = 5.0
"""Timeout for retries until the server has answered once: its address may be wrong."""
WAITED = 0.05
"""An empty page that arrives sooner shows that the server does not wait, so the client waits."""
LARGEST_PAGE = 1_000
"""Maximum number of jobs in one page of a listing."""

Clock = Callable[[], float]


class Server:
    """What a client knows of its server."""

    def __init__(self, url: str, retry_timeout: float, clock: Clock = time.monotonic):
        self.url = url
        self.retry_timeout = retry_timeout
        self.clock = clock
        self.has_answered = False

    def note(self, failure: CallFailed | None) -> None:
        """Notes the end of a call."""
        self.has_answered |= failure is None or not failure.is_retryable

    def timeout(self) -> float:
        """How long calls are repeated, in seconds."""
        return self.retry_timeout if self.has_answered else min(self.retry_timeout, FIRST_ANSWER_TIMEOUT)


class Outage:
    """A time without an answer."""

    def __init__(self, server: Server):
        self._server = server
        self._begin: float | None = None
        self._pause = FIRST_PAUSE

    @property
    def is_on(self) -> bool:
        return self._begin is not None

    def goes_on(self, failure: CallFailed, asked: float) -> Pause | None:
        """Notes a call without an answer, made at `asked`. The pause before the next one; None: it is time to give up.

        Raises:
            CallFailed: another call would end in the same way.
        """
        if not failure.is_retryable:
            raise failure
        if self._begin is None:
            self._begin = asked
        if self._server.clock() - self._begin + self._pause > self._server.timeout():
            return None
        pause = Pause(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return pause

    def ends(self) -> None:
        self._begin = None
        self._pause = FIRST_PAUSE


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run."""

    sql: str
    datasource: str = ""
    user: str = ""
    fetch_timeout: int | None = None
    """The server cancels the job if nobody reads it for so many seconds. 0: never. None: the server's default."""


def run(server: Server, program: Program) -> Flow[pb.Token]:
    """Runs a program once, even if the answer to a call was lost.

    Raises:
        Error: the server rejects it, or does not answer.
    """
    session = pb.Session(db_conn_str=program.datasource, user_id=program.user)
    if program.fetch_timeout is not None:
        session.fetch_timeout_seconds = program.fetch_timeout
    request = pb.Request(sql=program.sql, session=session, request_id=str(uuid.uuid4()))
    token: pb.Token = yield from _answer(server, Call(RUN, request), program.sql)
    return token


def cancel(server: Server, token: str) -> Flow[JobInfo]:
    """Requests the end of a job."""
    answer = yield from _answer(server, Call(CANCEL, pb.Token(token=tokens.split(token)[0])))
    return job_info(answer)


def describe(server: Server, token: str) -> Flow[JobInfo]:
    """Asks for a job's state."""
    request = pb.GetJobRequest(token=tokens.split(token)[0])
    return job_info((yield from _answer(server, Call(GET_JOB, request))))


def jobs(server: Server, limit: int, user: str) -> Flow[list[JobInfo]]:
    """Lists jobs, newest first."""
    listed: list[JobInfo] = []
    page_token = ""
    while len(listed) < limit:
        size = min(limit - len(listed), LARGEST_PAGE)
        request = pb.ListJobsRequest(page_size=size, page_token=page_token, user_id=user)
        answer = yield from _answer(server, Call(LIST_JOBS, request))
        listed.extend(job_info(job) for job in answer.jobs)
        page_token = answer.next_page_token
        if not page_token:
            break
    return listed[:limit]


def _answer(server: Server, call: Call, sql: str | None = None) -> Flow[Any]:
    outage = Outage(server)
    while True:
        asked = server.clock()
        try:
            answer = yield call
        except CallFailed as failure:
            server.note(failure)
            try:
                pause = outage.goes_on(failure, asked)
            except CallFailed:
                raise failure.error(server.url, sql) from None
            if pause is None:
                raise _gave_up(server, failure, call) from None
            yield pause
        else:
            server.note(None)
            return answer


def _gave_up(server: Server, failure: CallFailed, call: Call) -> ServerUnavailable:
    # A server that never answered was most likely never reached.
    may_be_accepted = call.method is RUN and (server.has_answered or failure.code != grpc.StatusCode.UNAVAILABLE)
    hint = "; the job may have been accepted: see Client.jobs" if may_be_accepted else ""
    return ServerUnavailable(f"{failure.error(server.url)}{hint}")


class Reader:
    """Reads a job's log page by page, each record once, whatever happens to the server and the network.

    It always sends a cursor, so that a page which was lost is sent again, and other readers are not disturbed.
    """

    def __init__(self, server: Server, job: str, token: str):
        self._server = server
        self._decoder = Decoder(job)
        self._token = token
        self._seen = tokens.split(token)[1] or 0
        self._outage = Outage(server)
        self._pause: Pause | None = None
        self.has_ended = False

    def page(self) -> Flow[list[Event]]:
        """The next events; there may be none. Only a page that was returned moves the reader.

        Raises:
            Error: the job is not known, or the server does not answer within the retry timeout.
        """
        if self._pause is not None:
            yield self._pause
            self._pause = None
        asked = self._server.clock()
        try:
            page = yield Call(FETCH, pb.Token(token=self._token))
        except CallFailed as failure:
            return self._unanswered(failure, asked)
        self._server.note(None)
        events = self._accept(page)
        if not page.results and not self.has_ended and self._server.clock() - asked < WAITED:
            yield Pause(FIRST_PAUSE)
        return events

    def _unanswered(self, failure: CallFailed, asked: float) -> list[Event]:
        self._server.note(failure)
        was_on = self._outage.is_on
        try:
            self._pause = self._outage.goes_on(failure, asked)
        except CallFailed:
            raise failure.error(self._server.url) from None
        if self._pause is None:
            raise ServerUnavailable(
                f"cannot reach the server at {self._server.url} for {self._server.timeout():.0f} s: {failure.message}; "
                f"the job may continue; read on with job.events(after={self._seen})"
            )
        if was_on:
            return []
        message = (
            f"the server at {self._server.url} does not answer ({failure.message}); "
            f"trying for {self._server.timeout():.0f} s"
        )
        return [Reconnecting(position=self._seen, message=message)]

    def _accept(self, page: pb.Result) -> list[Event]:
        events: list[Event] = []
        if self._outage.is_on:
            self._outage.ends()
            events.append(Reconnected(position=self._seen))
        seen = self._seen
        for record in page.results:
            if record.position > seen:
                seen = record.position
                event = self._decoder.event(record)
                if event is not None:
                    events.append(event)
        end: JobEnded | None = self._decoder.end(page.job_status, seen)
        if end is not None:
            events.append(end)
            self.has_ended = True
        self._seen = seen
        if page.next.token:
            self._token = page.next.token
        return events
