"""Which tables a statement reads, also through views."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from sqlflow_submitter.duckdb_data.session import Session

NAME = re.compile(r'"(?:[^"]|"")*"|\w+')


def names_in(texts: Iterable[str]) -> set[str]:
    """Returns all words and quoted names of statements, in lower case."""
    return {found.strip('"').replace('""', '"').lower() for text in texts for found in NAME.findall(text)}


def reachable(session: Session, texts: Sequence[str]) -> set[str]:
    """Returns the names in the views and macros that statements name, and in those that these name.

    A name that means something else there, such as a column, counts too.
    """
    views = session.run("SELECT lower(view_name), sql FROM duckdb_views() WHERE NOT internal")
    macros = session.run("SELECT lower(function_name), macro_definition FROM duckdb_functions() WHERE NOT internal")
    texts_of: dict[str, list[str]] = {}
    for name, text in [*views, *macros]:
        texts_of.setdefault(name, []).append(text or "")
    found: set[str] = set()
    waiting = names_in(texts) & texts_of.keys()
    seen = set(waiting)
    while waiting:
        names = names_in(texts_of[waiting.pop()])
        found |= names
        waiting |= (names & texts_of.keys()) - seen
        seen |= waiting
    return found


def reason(session: Session, select: str, places: Collection[str], table: str) -> str | None:
    """Returns why a select reads a table, or may read it.

    `places`: the table's database and schema.
    """
    with session.errors():
        direct: Iterable[str] = session.connection.get_table_names(select, qualified=True)
    for name in direct:
        *schema, last = [part.strip('"').replace('""', '"').lower() for part in name.split(".")]
        is_elsewhere = bool(schema) and schema[-1] not in {place.lower() for place in places}
        if last == table.lower() and not is_elsewhere:
            return "the statement reads it"
    if table.lower() in reachable(session, [select]):
        return "the statement may read it: a view or macro that it uses names it"
    return None
