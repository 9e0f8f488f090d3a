"""What stands behind selects, in each database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sqlflow_submitter.reads import Ask, mysql, postgresql, sqlite
from sqlflow_submitter.reads.words import Object, Wanted, behind, mentions

FIND: dict[str, Callable[[Wanted, Ask], list[Object]]] = {
    "mysql": mysql.find,
    "postgresql": postgresql.find,
    "sqlite": sqlite.find,
}

CHANGES = re.compile(r"\b(create|alter|drop|rename|execute)\b", re.IGNORECASE)


def behind_selects(selects: Iterable[str], dialect: str, ask: Ask) -> list[Object]:
    """Gives the views and functions behind selects, without these themselves."""
    start = [Object("select", str(place), select) for place, select in enumerate(selects)]
    return [it for it in behind(start, lambda wanted: FIND[dialect](wanted, ask)) if it.kind != "select"]


def name_any_of(objects: Iterable[Object], names: Iterable[str]) -> bool:
    """Tells whether a view or function may hang on one of these tables; one that hides its text may."""
    names = list(names)
    return any(it.text is None or any(mentions(it.text, name) for name in names) for it in objects)


def may_make_tables(objects: Iterable[Object], dialect: str) -> bool:
    """Tells whether a function may make or change tables. Only those of PostgreSQL can."""
    return dialect == "postgresql" and any(
        it.kind == "function" and (it.text is None or CHANGES.search(it.text) is not None) for it in objects
    )
