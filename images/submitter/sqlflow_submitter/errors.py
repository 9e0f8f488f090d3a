"""Errors of a step, distinguished by who can fix them."""

from __future__ import annotations

import itertools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any


class SubmitterError(Exception):
    """A failure. Its message is one line that a person can act on."""

    user_error = False
    """The user can fix it: in the SQL, the attributes or the data."""
    retryable = False
    """The same statement may succeed when it is executed again."""
    peer_lost = False
    """The data process has ended, and its own end says why."""


class UserError(SubmitterError):
    """The user's program or data is wrong. The message names the object, similar names, and the names that exist."""

    user_error = True

    def __init__(
        self,
        message: str,
        *,
        is_syntax: bool = False,
        similar: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.is_syntax = is_syntax
        """Whether the text is not a statement of the database's language, whatever tables and columns exist."""
        self.similar = similar
        """Names that are similar to the one that does not exist."""

    def suggest(self) -> None:
        """Adds the similar names to the message."""
        if self.similar:
            self.args = (f"{self}{did_you_mean(self.similar)}",)
            self.similar = ()


class DatabaseUnavailable(SubmitterError):
    """The database cannot be reached, the connection was lost, or a lock prevented the statement."""

    retryable = True


class CommitRefused(SubmitterError):
    """This attempt must not make its effect visible: another attempt has started, or the job was cancelled."""


def suggestions(name: str, known: Iterable[str]) -> list[str]:
    """Returns up to three of `known` that are similar to `name`, the most similar first."""
    from difflib import get_close_matches

    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.lower(), candidate)
    return [by_folded[match] for match in get_close_matches(name.lower(), by_folded, n=3, cutoff=0.6)]


def unknown_name(what: str, name: str, known: Iterable[str], listed: str = "known") -> str:
    """Returns the message that `what` `name` does not exist, with similar names and the known names.

    The list of known names is bounded, and shorter if a similar name was found.
    """
    known = list(known)
    similar = suggestions(name, known)
    hint = did_you_mean(similar)
    names = listing(known, 12 if similar else 40)
    return f"{what} {name} does not exist{hint} ({listed}: {names})" if known else f"{what} {name} does not exist{hint}"


def did_you_mean(similar: Sequence[str]) -> str:
    """Returns the end of a message about a name that does not exist."""
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


MAX_LISTED = 1_000
"""Maximum length of a list in a message, in characters."""


def listing(names: Collection[Any], count: int) -> str:
    """Returns `a, b and 5 more`: at most `count` names, each of them whole unless it is the first."""
    shown: list[str] = []
    length = 0
    for name in map(str, itertools.islice(names, count)):
        if not shown and len(name) > MAX_LISTED:
            name = name[:MAX_LISTED] + "…"
        length += len(name) + 2
        if shown and length > MAX_LISTED:
            break
        shown.append(name)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def one_line(text: str) -> str:
    """Joins the lines of a message."""
    return " ".join(text.split())


def shortened(text: str, length: int) -> str:
    """Returns at most `length` characters of a text, cut between words if possible."""
    if len(text) <= length:
        return text
    cut = text[:length]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > length // 2 else cut) + " …"
