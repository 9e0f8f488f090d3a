"""Client of the SQLFlow job runner.

    import sqlflow

    client = sqlflow.connect()
    job = client.run("SELECT * FROM iris")
    for event in job:
        print(event)
    frame = job.result().to_pandas()

`sqlflow.aio` has the same for asyncio, `sqlflow.dbapi` a DB-API 2.0 connection, and `%load_ext sqlflow` the notebook's
`%%sqlflow`.
"""

from __future__ import annotations

from typing import Any

from sqlflow import aio
from sqlflow.connection import Client, connect
from sqlflow.errors import (
    AccessDenied,
    ConversionError,
    Error,
    InvalidProgram,
    JobCancelled,
    JobFailed,
    JobNotFound,
    LimitReached,
    MissingPackage,
    NoResultSet,
    ResultTooLarge,
    ServerFault,
    ServerUnavailable,
    UsageError,
)
from sqlflow.events import (
    Columns,
    Display,
    Event,
    Gap,
    JobEnded,
    Log,
    Metrics,
    ModelDropped,
    ModelPublished,
    Notice,
    Pending,
    Progress,
    Reconnected,
    Reconnecting,
    Rows,
    State,
    StatementEnded,
    StatementStarted,
)
from sqlflow.job import Job
from sqlflow.jobinfo import JobInfo
from sqlflow.result import Result, Table
from sqlflow.values import ColumnInfo

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "Client",
    "ColumnInfo",
    "Columns",
    "ConversionError",
    "Display",
    "Error",
    "Event",
    "Gap",
    "InvalidProgram",
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobFailed",
    "JobInfo",
    "JobNotFound",
    "LimitReached",
    "Log",
    "Metrics",
    "MissingPackage",
    "ModelDropped",
    "ModelPublished",
    "NoResultSet",
    "Notice",
    "Pending",
    "Progress",
    "Reconnected",
    "Reconnecting",
    "Result",
    "ResultTooLarge",
    "Rows",
    "ServerFault",
    "ServerUnavailable",
    "State",
    "StatementEnded",
    "StatementStarted",
    "Table",
    "UsageError",
    "aio",
    "connect",
]


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext sqlflow` defines `%%sqlflow`."""
    from sqlflow.magic import load_ipython_extension

    load_ipython_extension(shell)
