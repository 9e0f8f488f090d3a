"""SQLite: the views behind a select. Which tables a select reads, SQLite tells the driver itself."""

from __future__ import annotations

from sqlflow_submitter.reads import Ask
from sqlflow_submitter.reads.words import Object, Wanted


def find(wanted: Wanted, ask: Ask) -> list[Object]:
    """Gives the views of some names."""
    if not wanted.names:
        return []
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in wanted.names)
    views = f"type = 'view' AND lower(name) IN ({names})"
    rows = ask(
        f"SELECT name, sql FROM main.sqlite_master WHERE {views} "
        f"UNION ALL SELECT name, sql FROM temp.sqlite_master WHERE {views}"
    )
    return [Object("view", str(name), str(text)) for name, text in rows]
