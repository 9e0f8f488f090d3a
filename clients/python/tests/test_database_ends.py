"""What a database sees of a cancelled job, and what a job says about a lost connection."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from real_server import ENDLESS

import sqlflow

TIMEOUT_SECONDS = 120

SLEEPS = {
    "mysql": (
        "SELECT SLEEP(1000) AS asleep",
        "SELECT id FROM information_schema.processlist WHERE info LIKE CONCAT('%SLEEP', '(1%')",
        "KILL {}",
    ),
    "postgresql": (
        "SELECT pg_sleep(1000)::text AS asleep",
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE concat('%pg_sleep', '(1%')",
        "SELECT pg_terminate_backend({})",
    ),
}
"""A select that takes long, one of the sessions that run it, and what ends such a session."""


def until(what: str, holds: Callable[[], object]) -> None:
    """Waits for a condition without an event."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < TIMEOUT_SECONDS, f"timeout: waited until {what}"


class Sessions:
    """Looks into a database, by jobs of its own."""

    def __init__(self, client: sqlflow.Client, dsn: str):
        self._client = client
        self._dsn = dsn
        self.sleep, self._running, self._end = SLEEPS[dsn.partition(":")[0]]

    def start(self) -> tuple[sqlflow.Job, int]:
        """A job that sleeps, and its session once the database runs it."""
        job = self._client.run(self.sleep, datasource=self._dsn)
        until("the database runs it", self.running)
        (session,) = self.running()
        return job, session

    def running(self) -> list[int]:
        return [int(str(row[0])) for row in self._client.run(self._running, datasource=self._dsn).result()]

    def end(self, session: int) -> None:
        self._client.run(self._end.format(session), datasource=self._dsn).result()


@pytest.fixture(params=sorted(SLEEPS))
def sessions(request: pytest.FixtureRequest, client: sqlflow.Client) -> Sessions:
    return Sessions(client, request.getfixturevalue(f"{request.param}_dsn"))


def test_cancelled_select_is_cancelled_in_the_database_too(sessions: Sessions) -> None:
    job, _ = sessions.start()
    job.cancel()
    with pytest.raises(sqlflow.JobCancelled):
        job.result()
    until("the database runs it no more", lambda: not sessions.running())


def test_cancelled_select_of_sqlite_locks_its_file_no_more(client: sqlflow.Client, sqlite_dsn: str) -> None:
    job = client.run(f"CREATE TABLE held (a); BEGIN; INSERT INTO held {ENDLESS}", datasource=sqlite_dsn)
    for event in job:
        if isinstance(event, sqlflow.StatementStarted) and event.statement == 2:
            job.cancel()
    assert isinstance(event, sqlflow.JobEnded) and event.state is sqlflow.State.CANCELLED
    written = client.run("INSERT INTO held VALUES (1); SELECT * FROM held; DROP TABLE held", datasource=sqlite_dsn)
    assert list(written.result()) == [(1,)], "nothing of the cancelled transaction is left"


def test_lost_connection_is_a_clear_error(sessions: Sessions) -> None:
    job, _ = sessions.start()

    def is_over() -> bool:
        for session in sessions.running():
            sessions.end(session)
        return job.info().state.is_terminal

    # A select of which no row was read is repeated, up to the third attempt.
    until("the job has ended", is_over)
    expect_lost(job, "STATEMENT_FAILED")


def test_lost_connection_of_a_change_says_that_it_may_have_executed(
    sessions: Sessions,
) -> None:
    sessions.sleep = sessions.sleep.replace("SELECT", "CREATE TABLE asleep AS SELECT")
    job, session = sessions.start()
    sessions.end(session)
    expect_lost(job, "MAY_HAVE_EXECUTED")


def expect_lost(job: sqlflow.Job, cause: str) -> None:
    with pytest.raises(sqlflow.JobFailed, match="connection") as failed:
        job.result()
    assert failed.value.cause == cause
    assert "Traceback" not in failed.value.message and "\n" not in failed.value.message
