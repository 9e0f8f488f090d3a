"""Which tables a select reads, asked of the database in SQL alone: no driver is known here.

A result table that its own statement reads must not be replaced. A plan does not tell: the optimiser leaves out what a
condition makes impossible, and no plan shows what a function reads. So `postgresql` and `mysql` ask what the database
has parsed, before anything is left out, and search the texts of the functions behind it. `words` finds what stands
behind a text: views and functions that it names, and those that these name. `sqlite` needs only that: there the driver
is told of each table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RunQuery = Callable[[str], list[tuple[Any, ...]]]
"""Runs one statement on a connection that stays the same, and gives its rows.

It raises UserError when the database refuses the statement.
"""

READS = "the statement reads it"


def may_read(why: str) -> str:
    """Gives the reason where it cannot be told for sure."""
    return f"the statement may read it: {why}"
