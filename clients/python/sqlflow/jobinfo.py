"""Descriptions of jobs, as `Job.info` and `Client.jobs` return them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from sqlflow.events import State, cause_of, state_of, time_of


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job at one moment."""

    id: str
    """Its public id. It grants no access."""
    state: State
    cause: str | None
    """Kind of a failure."""
    message: str
    """Why the job waits, or why it failed, in one sentence."""
    user: str
    title: str
    """First words of the program."""
    created: dt.datetime | None
    ended: dt.datetime | None
    sql: str = field(repr=False)
    """The program; empty in listings."""


def job_info(job: Any) -> JobInfo:
    """Translates the message."""
    return JobInfo(
        id=job.job_id,
        state=state_of(job.status),
        cause=cause_of(job.status),
        message=job.status.message,
        user=job.user_id,
        title=job.title,
        created=time_of(job.created) if job.HasField("created") else None,
        ended=time_of(job.ended) if job.HasField("ended") else None,
        sql=job.sql,
    )
