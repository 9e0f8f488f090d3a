"""SQLite: finds the views that a select depends on. SQLite itself reports to the driver which tables it reads."""

from __future__ import annotations

from sqlflow_submitter.reads import RunQuery
from sqlflow_submitter.reads.dependencies import DatabaseObject, ObjectNames


def find(lookup: ObjectNames, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns the views with some names."""
    if not lookup.names:
        return []
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in lookup.names)
    views = f"type = 'view' AND lower(name) IN ({names})"
    rows = run_query(
        f"SELECT name, sql FROM main.sqlite_master WHERE {views} "
        f"UNION ALL SELECT name, sql FROM temp.sqlite_master WHERE {views}"
    )
    return [DatabaseObject("view", str(name), str(text)) for name, text in rows]
