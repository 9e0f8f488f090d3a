"""Finds names in SQL texts, and the views and functions that a text depends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlflow_submitter.reads import may_read

WORD = re.compile(r"[^\W\d][\w$]*")
CALL = re.compile(r"([^\W\d][\w$]*)[\"`\]]?\s*\(")
QUOTED = re.compile(r'"([^"]+)"|`([^`]+)`|\[([^\]]+)\]')

MAX_NAMES_PER_QUERY = 1_000


class DatabaseObject(NamedTuple):
    """An object with a text: the select itself, a view, or a function."""

    kind: str
    """`select`, `view` or `function`."""
    name: str
    text: str | None
    """None if the database does not show it to this user."""


class ObjectNames(NamedTuple):
    """Names to look up, in lower case."""

    names: Sequence[str]
    """Possible names of views."""
    calls: Sequence[str]
    """Possible names of functions."""


def words(text: str) -> set[str]:
    """Returns every word and every quoted name in lower case, including those in literals and comments."""
    quoted = {part.lower() for parts in QUOTED.findall(text) for part in parts if part}
    return {word.lower() for word in WORD.findall(text)} | quoted


def mentions(text: str, name: str) -> bool:
    """Returns whether a name occurs as a word. Case does not matter."""
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE) is not None


def dependencies(
    start: Iterable[DatabaseObject], find: Callable[[ObjectNames], Iterable[DatabaseObject]]
) -> list[DatabaseObject]:
    """Returns these objects, and recursively all objects whose names occur in their texts.

    The result may be too large, because any word is taken for a name. It is never too small, except for a name that
    is composed at run time. In a select or view, only a word before a bracket can be a function. In a function, which
    may be in another language, any word can be one.

    Args:
        start: the known objects.
        find: returns the views and functions with some names. Each name is looked up once.
    """
    found: dict[tuple[str, str], DatabaseObject] = {}
    searched_names: set[str] = set()
    searched_calls: set[str] = set()
    new = list(start)
    while new:
        found.update({(it.kind, it.name): it for it in new})
        names: set[str] = set()
        calls: set[str] = set()
        for it in new:
            here = words(it.text or "")
            names |= here
            calls |= here if it.kind == "function" else {call.lower() for call in CALL.findall(it.text or "")}
        lookup = ObjectNames(sorted(names - searched_names), sorted(calls - searched_calls))
        searched_names |= names
        searched_calls |= calls
        new = [it for part in _parts(lookup) for it in find(part) if (it.kind, it.name) not in found]
    return list(found.values())


def _parts(lookup: ObjectNames) -> Iterator[ObjectNames]:
    names, calls = iter(lookup.names), iter(lookup.calls)
    while True:
        part = ObjectNames(list(islice(names, MAX_NAMES_PER_QUERY)), list(islice(calls, MAX_NAMES_PER_QUERY)))
        if not part.names and not part.calls:
            return
        yield part


def function_reason(objects: Iterable[DatabaseObject], name: str) -> str | None:
    """Returns the reason why a function may read a table, or None if no function names it."""
    for it in objects:
        if it.kind == "function" and it.text is None:
            return may_read(f"this user cannot see the text of function {it.name}")
        if it.kind == "function" and mentions(it.text or "", name):
            return may_read(f"function {it.name} names it")
    return None
