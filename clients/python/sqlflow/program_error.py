"""Errors of a program with their places in its text."""

from __future__ import annotations

import re

SHOWN = 100
"""Number of characters shown around the place."""

_PLACE = re.compile(r"line ([1-9]\d*), column ([1-9]\d*)")


def with_place(message: str, sql: str) -> str:
    """The message, one error per line. Below an error that begins with `line L, column C` is that line of the program.

    A caret is below the column. Both count from 1, columns in characters.
    """
    return "\n".join(_with_place(line, sql) for line in message.split("\n"))


def _with_place(message: str, sql: str) -> str:
    place = _PLACE.match(message)
    lines = sql.split("\n")
    if place is None or int(place[1]) > len(lines):
        return message
    source = lines[int(place[1]) - 1].rstrip("\r").replace("\t", " ")
    column = min(int(place[2]) - 1, len(source))
    start = max(column - SHOWN // 2, 0)
    end = min(len(source), start + SHOWN)
    left, right = ("…" if start > 0 else ""), ("…" if end < len(source) else "")
    margin = " " * len(place[1])
    caret = " " * (len(left) + column - start)
    return f"{message}\n{margin} |\n{place[1]} | {left}{source[start:end]}{right}\n{margin} | {caret}^"
