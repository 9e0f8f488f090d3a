"""Finds names in SQL texts, and the views and functions that a text depends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlflow_submitter.reads import may_read

# Names may begin with a digit or `$`, and may have any character beyond ASCII.
LETTER = r"[\w$\u0080-\U0010ffff]"
WORD = re.compile(rf"{LETTER}+")
# Quoted names are searched at each quote, because a quote in a literal or comment has no partner.
QUOTED_NAME = r'"(?:[^"]|""){1,300}"|`(?:[^`]|``){1,300}`|\[[^\]]{1,300}\]'
QUOTED = re.compile(rf"(?=({QUOTED_NAME}))")
# Whitespace and comments, also comments whose content MySQL executes.
BETWEEN = r"(?:\s|/\*M?!\d*|/\*.*?\*/|\*/|--[^\n]*|\#[^\n]*)*+"
CALL = re.compile(rf"(?<!{LETTER})({LETTER}++)[\"`\]]?{BETWEEN}\(", re.DOTALL)
QUOTED_CALL = re.compile(rf"(?=({QUOTED_NAME}){BETWEEN}\()", re.DOTALL)

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
    plain = WORD.findall(text) if text.isascii() else [*WORD.findall(text), *re.findall(r"[\w$]+", text)]
    return {word.lower() for word in plain if not word.isdigit()} | _unquoted(QUOTED.findall(text))


def calls(text: str) -> set[str]:
    """Returns in lower case every name before a parenthesis. Whitespace and comments may be between them."""
    return {name.lower() for name in CALL.findall(text)} | _unquoted(QUOTED_CALL.findall(text))


def _unquoted(names: Iterable[str]) -> set[str]:
    return {name[1:-1].replace(name[0] * 2, name[0]).lower() for name in names}


def mentions(text: str, name: str) -> bool:
    """Returns whether a name occurs as a word, or in quotes. Case does not matter."""
    forms = {name, name.replace('"', '""'), name.replace("`", "``")}
    return any(re.search(rf"(?<![\w$]){re.escape(it)}(?![\w$])", text, re.IGNORECASE) for it in forms)


def dependencies(
    start: Iterable[DatabaseObject], find: Callable[[ObjectNames], Iterable[DatabaseObject]]
) -> list[DatabaseObject]:
    """Returns these objects, and recursively all objects whose names occur in their texts.

    The result may be too large, because any word is taken for a name. It is never too small, except for a name that
    is composed at run time. In a select or view, only a word before a parenthesis can be a function. In a function,
    which may be in another language, any word can be one.

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
        called: set[str] = set()
        for it in new:
            here = words(it.text or "")
            names |= here
            called |= here if it.kind == "function" else calls(it.text or "")
        lookup = ObjectNames(sorted(names - searched_names), sorted(called - searched_calls))
        searched_names |= names
        searched_calls |= called
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
