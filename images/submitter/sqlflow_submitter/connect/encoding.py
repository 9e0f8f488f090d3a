"""Says that a session's encoding stays UTF-8."""

from __future__ import annotations

import sys

_was_printed = False


def print_note() -> None:
    """Says so once."""
    global _was_printed
    if not _was_printed:
        _was_printed = True
        print(
            "note: the encoding of the session stays UTF-8: texts are converted to and from what the database has",
            file=sys.stderr,
            flush=True,
        )
