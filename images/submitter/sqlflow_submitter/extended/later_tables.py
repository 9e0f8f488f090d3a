"""Finds later statements that change a missing table, or create an existing one.

Only plain names without quotes are read, in the most common forms of a statement. Others are not checked.
"""

from __future__ import annotations

import re

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import UserError

NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*"
DROP = re.compile(rf"\s*DROP\s+TABLE\s+(?P<names>{NAME}(?:\s*,\s*{NAME})*)(?:\s+RESTRICT)?\s*;?\s*", re.IGNORECASE)
CHANGE = re.compile(
    rf"\s*(?P<verb>ALTER\s+TABLE|TRUNCATE(?:\s+TABLE)?)\s+(?!(?:IF|ONLY|ALL|TABLE)\b)(?P<name>{NAME})(?=[\s;]|$)",
    re.IGNORECASE,
)
CREATE = re.compile(rf"\s*CREATE\s+TABLE\s+(?!IF\b)(?P<name>{NAME})\s*(?=\(|\bAS\b|\bLIKE\b)", re.IGNORECASE)

EXISTS = {
    "sqlite": "SELECT type FROM {schema}.sqlite_master WHERE lower(name) = lower('{name}') AND type <> 'trigger'",
    # The names of tables may differ in case only.
    "mysql": (
        "SELECT table_type FROM information_schema.tables WHERE table_schema = {schema} "
        "AND BINARY table_name = '{name}' AND table_type <> 'TEMPORARY'"
    ),
    "postgresql": "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(format('%I.%I', {schema}, '{name}'))",
}
"""Queries for a table of this name in the place where a new one would be created."""
DEFAULT_SCHEMA = {"sqlite": "main", "mysql": "DATABASE()", "postgresql": "current_schema()"}


def check_tables(sql: str, database: Database, *, may_drop: bool) -> None:
    """Checks a statement that no earlier one of the program makes possible.

    Args:
        sql: the statement.
        database: the database.
        may_drop: whether an earlier statement may drop tables. Then a table that exists may not exist by then.

    Raises:
        UserError: it changes or drops a table that does not exist, or creates one that exists.
    """
    drop, change, create = DROP.fullmatch(sql), CHANGE.match(sql), CREATE.match(sql)
    if drop:
        for name in re.split(r"\s*,\s*", drop["names"]):
            if _is_missing(name, database):
                # Without similar names: the user might drop another table by mistake.
                raise UserError(f"cannot drop table {name}: it does not exist; correct the name, or write IF EXISTS")
    elif change and _is_missing(change["name"], database):
        verb, name = change["verb"].split()[0].lower(), change["name"]
        raise UserError(f"cannot {verb} table {name}: it does not exist", name)
    elif create and not may_drop and _exists(create["name"], database):
        raise UserError(
            f"cannot create table {create['name']}: it exists; choose another name, or drop it before, "
            "or write IF NOT EXISTS"
        )


def _is_missing(name: str, database: Database) -> bool:
    try:
        database.describe(f"SELECT 1 FROM {name}")
    except UserError as error:
        # A view may lack a table of another name.
        missing = (error.missing_table or "").rpartition(".")[2]
        return missing.lower() == name.rpartition(".")[2].lower()
    return False


def _exists(full_name: str, database: Database) -> bool:
    schema, _, name = full_name.rpartition(".")
    if database.dialect == "sqlite" and schema.lower() == "temp":
        return False
    if database.dialect == "postgresql":
        name, schema = name.lower(), schema.lower()
    place = schema if database.dialect == "sqlite" or not schema else f"'{schema}'"
    try:
        query = EXISTS[database.dialect].format(schema=place or DEFAULT_SCHEMA[database.dialect], name=name)
        return bool(database.rows(query))
    except UserError:
        # For example, the schema does not exist.
        return False
