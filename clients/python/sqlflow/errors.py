"""Errors of the client. All of them are an `Error`."""

from __future__ import annotations


class Error(Exception):
    """Anything that this package raises by itself."""


class UsageError(Error, ValueError):
    """An argument, a variable or the stored login is wrong."""


class InvalidProgram(Error):
    """The server rejected the program or its data source; nothing ran. The message shows where the error is."""


class JobNotFound(Error, LookupError):
    """No job has this token or id, or it is somebody else's."""


class AccessDenied(Error):
    """The server does not know the caller, or the caller may not do this."""


class LimitReached(Error):
    """The server has a limit that was reached, such as the number of the caller's jobs."""


class ServerUnavailable(Error):
    """The server could not be reached in time. A job of it continues.

    `for event in job` would begin again. The message of an interrupted reading names the position for
    `job.events(after=position)`, which continues.
    """


class ServerFault(Error):
    """The server answered with something that it should not."""


class NoResultSet(Error, LookupError):
    """The program returned no rows, and a table was asked for."""


class ResultTooLarge(Error):
    """The result has more rows than `max_rows`."""


class ConversionError(Error, TypeError):
    """A value or column has no counterpart in the other system of types."""


class MissingPackage(Error, ImportError):
    """A package that this needs is not installed. The client itself needs few of them."""


class JobFailed(Error):
    """The job ended without success.

    Attributes:
        job: Id of the job.
        cause: Kind of the failure, such as `STATEMENT_FAILED`, `OUT_OF_MEMORY` or `MAY_HAVE_EXECUTED`.
        message: The cause in one sentence.
        statement: Index of the statement that was running, from 0; None if no statement was.
        sql: First 200 characters of this statement.
    """

    def __init__(self, job: str, cause: str, message: str, statement: int | None = None, sql: str | None = None):
        super().__init__(job, cause, message, statement, sql)
        self.job = job
        self.cause = cause
        self.message = message
        self.statement = statement
        self.sql = sql

    def __str__(self) -> str:
        where = "" if self.statement is None else f" at statement {self.statement + 1}"
        return f"job {self.job} failed{where} ({self.cause}): {self.message}"


class JobCancelled(JobFailed):
    """The job was cancelled, by its owner or because nobody read it."""

    def __str__(self) -> str:
        return f"job {self.job} was cancelled: {self.message}" if self.message else f"job {self.job} was cancelled"
