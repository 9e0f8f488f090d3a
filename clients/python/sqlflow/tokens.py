"""The text of a job's token, and the tokens of jobs that were started on this machine.

The file of tokens is that of `sqlflowctl`: one line per job, `JOB TOKEN`, oldest first, in
`$XDG_STATE_HOME/sqlflow/tokens`. So a job that a notebook started is `last` in the shell, and the other way round.
Tokens are secrets: only their owner can read the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlflow.errors import UsageError

SHORTEST_PREFIX = 4
"""Minimum number of characters that identify a job."""
MAX_REMEMBERED = 1_000
"""Maximum number of jobs in the file."""
LISTED = 10
"""Maximum number of ids in the error for an ambiguous beginning."""

_TOKEN = re.compile(r"sqlflow[0-9a-fA-F]+")
_JOB_ID = re.compile(r"[0-9a-z]{26}")


def split(text: str) -> tuple[str, int | None]:
    """Splits a text into token or id, and cursor."""
    plain, dot, cursor = text.rpartition(".")
    if dot and cursor.isascii() and cursor.isdigit():
        return plain, int(cursor)
    return text, None


def at(token: str, cursor: int) -> str:
    """The token with this cursor, which replaces an existing one."""
    return f"{split(token)[0]}.{cursor}"


def is_token(text: str) -> bool:
    """Whether the text is a token, with or without a cursor. Otherwise it is a job's id."""
    return _TOKEN.fullmatch(split(text)[0]) is not None


def is_job_id(text: str) -> bool:
    """Whether the text is the whole id of a job, with or without a cursor."""
    return _JOB_ID.fullmatch(split(text)[0]) is not None


class TokenStore:
    """The tokens that a user's programs remember."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def of_user(cls) -> TokenStore:
        """The store of the current user.

        Raises:
            UsageError: the environment names no folder for it.
        """
        state = os.environ.get("XDG_STATE_HOME", "")
        home = os.environ.get("HOME", "")
        if os.path.isabs(state):
            return cls(Path(state) / "sqlflow")
        if os.path.isabs(home):
            return cls(Path(home) / ".local" / "state" / "sqlflow")
        raise UsageError("cannot find the stored tokens: neither XDG_STATE_HOME nor HOME names a folder; set HOME")

    @property
    def file(self) -> Path:
        return self.folder / "tokens"

    def add(self, job: str, token: str) -> None:
        """Stores the token of a job, and removes the oldest if there are too many.

        Raises:
            OSError: the file cannot be written.
        """
        import fcntl

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Programs that run at the same time each add their job: the lock is held until the new file is in place.
        with open(self.folder / "tokens.lock", "w", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = [*self._lines(), f"{job} {token}"][-MAX_REMEMBERED:]
            new = self.folder / "tokens.new"
            with open(new, "w", opener=_private) as written:
                written.write("".join(f"{line}\n" for line in kept))
                written.flush()
                # The tokens exist nowhere else. A power failure may undo the rename, but does not lose what was there.
                os.fsync(written.fileno())
            new.replace(self.file)

    def find(self, job: str) -> str | None:
        """The token of a job, by its id, the beginning of it, or `last` for the newest. None: it is not stored.

        Raises:
            UsageError: the beginning is too short, or several jobs have it.
            OSError: the file cannot be read.
        """
        newest_first = [(key, token) for key, _, token in (line.partition(" ") for line in reversed(self._lines()))]
        for key, token in newest_first:
            if job in ("last", key):
                return token
        begun = {key: token for key, token in reversed(newest_first) if job and key.startswith(job)}
        if not begun:
            return None
        if len(job) < SHORTEST_PREFIX:
            raise UsageError(
                f"cannot find a job by {job!r}: the beginning of an id is too short; "
                f"give at least {SHORTEST_PREFIX} characters"
            )
        if len(begun) > 1:
            ids = list(reversed(begun))
            more = f", and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
            raise UsageError(
                f"{len(ids)} jobs have ids that begin with {job!r}: {', '.join(ids[:LISTED])}{more}; "
                "give more characters"
            )
        return next(iter(begun.values()))

    def _lines(self) -> list[str]:
        try:
            return self.file.read_text().splitlines()
        except FileNotFoundError:
            return []


def token_of(job: str) -> str:
    """The token for `job`: a token, or a stored job's id, beginning of an id or `last`, each with or without a cursor.

    Of the caller's own jobs the server takes the whole id in place of the token.

    Raises:
        UsageError: nothing is known of such a job on this machine.
    """
    if is_token(job):
        return job
    plain, cursor = split(job)
    store = TokenStore.of_user()
    try:
        found = store.find(plain)
    except OSError as error:
        raise UsageError(f"cannot read the stored tokens in {store.file}: {error.strerror}") from error
    if found is not None:
        return found if cursor is None else at(found, cursor)
    if is_job_id(job):
        return job
    if plain == "last":
        raise UsageError("cannot find the last job: no token is stored on this machine; give an id or a token")
    raise UsageError(
        f"cannot access job {job!r}: its token is not stored on this machine; "
        "give the token, or the whole id of a job of yours"
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
