"""Finds the tables that a select reads. This package sends SQL only and uses no driver.

A result table that its own statement reads must not be replaced. A query plan cannot show what is read: the optimiser
removes branches that return no rows, and a plan does not show what functions read. So `postgresql` and `mysql` ask
for the parsed select, before the optimiser changes it, and search the texts of the functions that it depends on.
`dependencies` finds the views and functions that a text names, and those that these name. `sqlite` needs only that,
because SQLite reports each table to the driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RunQuery = Callable[[str], list[tuple[Any, ...]]]
"""Runs one statement and returns its rows. All calls use the same connection.

It raises UserError if the database rejects the statement.
"""

READS = "the statement reads it"


def may_read(why: str) -> str:
    """Returns the reason for a read that is possible but not certain."""
    return f"the statement may read it: {why}"
