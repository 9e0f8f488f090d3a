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

CHANGES = re.compile(r"\b(create|alter|drop|rename|execute)\b", re.IGNORECASE)


def select_dependencies(selects: Iterable[str], dialect: str, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns the views and functions that selects depend on, without the selects."""
    start = [DatabaseObject("select", str(place), select) for place, select in enumerate(selects)]
    return [it for it in dependencies(start, lambda lookup: FIND[dialect](lookup, run_query)) if it.kind != "select"]


def mention_any(objects: Iterable[DatabaseObject], names: Iterable[str]) -> bool:
    """Returns whether a view or function may depend on one of these tables. One with a hidden text may."""
    names = list(names)
    return any(it.text is None or any(mentions(it.text, name) for name in names) for it in objects)


def may_create_tables(objects: Iterable[DatabaseObject], dialect: str) -> bool:
    """Returns whether a function may create or change tables. Only PostgreSQL allows that in a select."""
    return dialect == "postgresql" and any(
        it.kind == "function" and (it.text is None or CHANGES.search(it.text) is not None) for it in objects
    )
