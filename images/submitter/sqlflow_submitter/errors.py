"""What can go wrong, told apart by who can mend it."""

from __future__ import annotations

from collections.abc import Iterable


class SubmitterError(Exception):
    """A failure whose message is one line that a person can act on."""

    user_error = False
    """True when the user can mend it: SQL, attributes, data."""
    retryable = False
    """True when the same statement may well succeed when it is run again."""
    unclear = False
    """True when the error does not tell what became of the statement: it may have been executed."""
    not_executed = False
    """True when a transient error is the database's own word that it did not execute the statement, or undid it."""


class UserError(SubmitterError):
    """The user's program or data is wrong; the message names the thing, near misses and what exists."""

    user_error = True

    def __init__(self, message: str, missing_table: str | None = None, missing_column: str | None = None) -> None:
        super().__init__(message)
        self.missing_table = missing_table
        """The table that the database does not have, where that is the error."""
        self.missing_column = missing_column
        """The column that the statement's tables do not have, where that is the error."""


class DatabaseUnavailable(SubmitterError):
    """The database cannot be reached, or went away."""

    retryable = True


class DatabaseBusy(DatabaseUnavailable):
    """The database refused the statement for the time being, and undid what it had done of it: a lock, a deadlock."""

    not_executed = True


class CommitRefused(SubmitterError):
    """Another attempt has taken over, or the job was cancelled: this attempt must not make its effect visible."""


def suggestions(name: str, known: Iterable[str]) -> list[str]:
    """Gives up to three of `known` that a person may have meant by `name`, the likeliest first."""
    from difflib import get_close_matches

    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.lower(), candidate)
    return [by_folded[match] for match in get_close_matches(name.lower(), by_folded, n=3, cutoff=0.6)]


def unknown_name(what: str, name: str, known: Iterable[str], listed: str = "known") -> str:
    """Says that `what` `name` does not exist, what it may have been meant to be, and what there is.

    Not all known names are listed where they are many, and fewer where a near miss is the likely answer.
    """
    known = list(known)
    similar = suggestions(name, known)
    limit = 12 if similar else 40
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    names = ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")
    return f"{what} {name} does not exist{hint} ({listed}: {names})" if known else f"{what} {name} does not exist{hint}"


def one_line(text: str) -> str:
    """Folds a message of several lines into one."""
    return " ".join(text.split())
