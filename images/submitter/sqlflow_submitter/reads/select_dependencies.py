"""The views and functions that selects depend on, in each database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sqlflow_submitter.reads import RunQuery, mysql, postgresql, sqlite
from sqlflow_submitter.reads.dependencies import DatabaseObject, ObjectNames, dependencies, mentions

FIND: dict[str, Callable[[ObjectNames, RunQuery], list[DatabaseObject]]] = {
    "mysql": mysql.find,
    "postgresql": postgresql.find,
    "sqlite": sqlite.find,
}

FIND_CHANGED: dict[str, Callable[[ObjectNames, RunQuery], list[DatabaseObject]]] = {
    **FIND,
    "mysql": mysql.find_with_triggers,
    "postgresql": postgresql.find_with_triggers,
}
"""For statements that change rows: also what a database executes for a change of a table."""

CREATES = {
    # A function may create temporary tables only. What it sets is restored.
    "mysql": mysql.CREATES,
    "postgresql": postgresql.CREATES,
}
"""What a function must have in its text to change names: tables, or settings by which they are found."""


def has_creator(dialect: str, run_query: RunQuery) -> bool:
    """Returns whether the database has any function or trigger that may change names."""
    query = {"mysql": mysql.HAS_CREATOR, "postgresql": postgresql.HAS_CREATOR}.get(dialect)
    return query is not None and bool(run_query(query))


def select_dependencies(
    selects: Iterable[str], dialect: str, run_query: RunQuery, *, changes_rows: bool = False
) -> list[DatabaseObject]:
    """Returns the views and functions that selects depend on, without the selects.

    With `changes_rows`, they are statements that change rows, and triggers count, too.
    """
    find = (FIND_CHANGED if changes_rows else FIND)[dialect]
    start = [DatabaseObject("select", str(place), select) for place, select in enumerate(selects)]
    return [it for it in dependencies(start, lambda lookup: find(lookup, run_query)) if it.kind != "select"]


def mention_any(objects: Iterable[DatabaseObject], names: Iterable[str]) -> bool:
    """Returns whether a view or function may depend on one of these tables. One with a hidden text may."""
    names = list(names)
    return any(it.text is None or any(mentions(it.text, name) for name in names) for it in objects)


def may_change_names(objects: Iterable[DatabaseObject], dialect: str) -> bool:
    """Returns whether a function or trigger may create or change tables, or change how they are found.

    In SQLite, none can.
    """
    creates = CREATES.get(dialect)
    return creates is not None and any(
        it.kind == "function" and (it.text is None or re.search(creates, it.text, re.IGNORECASE) is not None)
        for it in objects
    )
