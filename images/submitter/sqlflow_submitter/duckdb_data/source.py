"""The data source: `duckdb:////absolute/path/to/file.duckdb?mode=rwc`, or a database in memory.

The server has checked its form (`crates/data-source`).
"""

from __future__ import annotations

from typing import NamedTuple

from sqlflow_submitter.errors import UserError

MODES = ("ro", "rw", "rwc")
FORM = "duckdb:////absolute/path/to/file.duckdb"


class Source(NamedTuple):
    """A data source."""

    path: str | None
    """The file: always absolute. None: a database in memory."""
    mode: str
    """`ro`: to read. `rw`: it must exist. `rwc`: it may be created."""


def parse(text: str) -> Source:
    """Parses a data source.

    Raises:
        UserError: it has another form.
    """
    scheme, _, rest = text.partition("://")
    path, _, options = rest.partition("?")
    mode = "rw"
    for option in filter(None, options.split("&")):
        name, _, mode = option.partition("=")
        if name != "mode" or mode not in MODES:
            raise UserError(
                "the DuckDB data source has an option that is not supported; supported: ?mode=ro, ?mode=rw, ?mode=rwc"
            )
    if scheme != "duckdb" or (path and not path.startswith("/")):
        raise UserError(f"the data source does not have the form of its scheme; write {FORM}")
    path = path.lstrip("/")
    return Source(None if path in ("", ":memory:") else f"/{path}", mode)
