"""Connections to data sources. Each database has a module of its own, imported only when it is used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import UserError, unknown_name

SCHEMES = ("mysql", "postgresql", "sqlite")
PLANNED_SCHEMES = ("hive", "maxcompute")


def connect(dsn: str, replay: Sequence[str] = (), may_create: bool = True) -> Database:
    """Opens the data source and replays the session statements (USE, SET) of earlier steps.

    An SQLite file that is not there is made where `may_create` says so; else the data source is empty, and stays so.

    Forms: `sqlite:///path/to/file.db`, `mysql://u:p@tcp(h:3306)/db?…`, `postgresql://u:p@h:5432/db`. No message that
    this raises holds the DSN's password.

    Raises:
        UserError: the DSN is malformed, or the database refused the user, the database's name, or a statement.
        DatabaseUnavailable: nobody answers at that address.
    """
    if not dsn:
        raise UserError("no data source is given: set db_conn_str in the session, e.g. sqlite:///path/to/file.db")
    scheme, separator, rest = dsn.partition("://")
    # Anything before a missing `://` may well be a password: it is not shown.
    if not separator:
        raise UserError("data source has no scheme; expected sqlite:///…, mysql://… or postgresql://…")
    if scheme in ("sqlite", "sqlite3"):
        from sqlflow_submitter.connect.sqlite import SQLiteDatabase

        return SQLiteDatabase(rest, replay, may_create)
    if scheme == "mysql":
        from sqlflow_submitter.connect.mysql import MySQLDatabase

        return MySQLDatabase(rest, replay)
    if scheme in ("postgresql", "postgres"):
        from sqlflow_submitter.connect.postgresql import PostgreSQLDatabase

        return PostgreSQLDatabase(rest, replay)
    if scheme in PLANNED_SCHEMES:
        raise UserError(f"data source {scheme} is not supported yet; supported: {', '.join(SCHEMES)}")
    raise UserError(unknown_name("data source scheme", scheme, SCHEMES, "supported"))
