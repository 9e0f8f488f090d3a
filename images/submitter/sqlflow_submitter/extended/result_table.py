"""Rules of the database for the names of result tables and their columns."""

from __future__ import annotations

from collections.abc import Iterable

from sqlflow_submitter.database import Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.step import Statement

BATCH_ROWS = 65_536
"""Maximum number of rows of a batch."""

CASE_INSENSITIVE = {"sqlite": "SQLite", "mysql": "MySQL", "duckdb": "DuckDB"}
"""Databases in which two columns of a table cannot have names that differ in case only."""


def table_name(statement: Statement, dialect: str) -> str:
    """Returns the name of the result table, by the database's rules for names without quotes."""
    return ".".join(own_case(part, dialect) for part in (statement.result_table or "").split("."))


def own_case(name: str, dialect: str) -> str:
    """Converts a name by the database's rules for names without quotes. One in double quotes is taken as it is."""
    if name.startswith('"'):
        return name.strip('"')
    return name.lower() if dialect == "postgresql" else name


def check_result_table(statement: Statement, database: Database) -> None:
    """Checks, before any work is done, that the result table can be created or replaced.

    Raises:
        UserError: it cannot.
    """
    if statement.result_table:
        database.check_result(statement.index)


def fold_case(name: str, dialect: str) -> str:
    """Returns a column's name such that two names are equal if a table of the database cannot have both."""
    if dialect == "postgresql":
        return name
    # SQLite and DuckDB fold the case of ASCII letters only.
    return name.encode().lower().decode() if dialect in ("sqlite", "duckdb") else name.lower()


def check_column_case(statement: Statement, names: Iterable[str], database: Database) -> None:
    """Checks that a table of the database can have all columns of the select that it keeps.

    Raises:
        UserError: two names differ in case only, and the database does not allow that.
    """
    if database.dialect not in CASE_INSENSITIVE:
        return
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(fold_case(name, database.dialect), name)
        if other != name:
            raise UserError(
                f"cannot write table {statement.result_table}: the names of columns {other} and {name} differ in case "
                f"only, and a table of {CASE_INSENSITIVE[database.dialect]} cannot have both; rename one with AS"
            )
