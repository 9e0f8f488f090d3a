"""A note about the encoding of a session."""

from __future__ import annotations

import sys

_was_printed = False


def print_note() -> None:
    """Prints, once, that the encoding stays UTF-8."""
    global _was_printed
    if not _was_printed:
        _was_printed = True
        print(
            "note: the encoding of the session stays UTF-8: the database converts texts to and from its own encoding",
            file=sys.stderr,
            flush=True,
        )
