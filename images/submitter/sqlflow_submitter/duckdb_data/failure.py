"""Errors of a step, as the agent gets them. The same rules as in `data/src/failure.rs`."""

from __future__ import annotations

from sqlflow_submitter.errors import DatabaseUnavailable, SubmitterError, one_line, shortened
from sqlflow_submitter.frames import Failure

MAX_MESSAGE = 2_000
"""Maximum length of a message, in characters."""


class DatabaseBusy(DatabaseUnavailable):
    """Another program has the lock. Nothing was executed."""


class Broken(SubmitterError):
    """The database is in an unknown state: what the statement did is not known."""


class NotExecuted(Exception):
    """Its cause has failed, and nothing of the statement was executed."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Unclear(NotExecuted):
    """Its cause has failed, and it is not known what remains of the statement in the database."""


class Reported(Exception):
    """The agent knows the error already."""


def failure_of(error: Exception) -> Failure:
    """Returns the failure, with a message in one line of bounded length."""
    cause = error.cause if isinstance(error, NotExecuted) else error
    message = str(cause)
    if not isinstance(cause, SubmitterError):
        message = f"the data process failed: {type(cause).__name__}: {cause}"
    failure = Failure(shortened(one_line(message), MAX_MESSAGE))
    failure.unprinted = True
    if isinstance(cause, SubmitterError):
        failure.user_error = cause.user_error
        failure.transient = cause.retryable
    failure.not_executed = isinstance(cause, DatabaseBusy)
    # An error of this program may have hidden what the statement did.
    failure.unclear = isinstance(cause, Broken) or not isinstance(cause, SubmitterError)
    if isinstance(error, NotExecuted):
        failure.unclear = isinstance(error, Unclear)
        failure.not_executed = not failure.unclear
    return failure
