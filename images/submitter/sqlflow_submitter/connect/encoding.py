"""Says that a session's encoding stays UTF-8."""

from __future__ import annotations

import sys

_was_told = False


def tell() -> None:
    """Says so once."""
    global _was_told
    if not _was_told:
        _was_told = True
        print(
            "note: the encoding of the session stays UTF-8: texts are converted to and from what the database has",
            file=sys.stderr,
            flush=True,
        )
