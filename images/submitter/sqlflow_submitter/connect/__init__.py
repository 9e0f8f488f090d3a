"""Connections to data sources. Each database has a module of its own, imported only when it is used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import UserError, unknown_name

SCHEMES = ("mysql", "postgresql", "sqlite")
PLANNED_SCHEMES = ("hive", "maxcompute")


def connect(dsn: str, replay: Sequence[str] = (), may_create: bool = True) -> Database:
    """Connects to the data source and replays the session statements (USE, SET) of earlier steps.

    A missing SQLite file is created if `may_create` is true. Otherwise the data source is an empty database.

    Forms: `sqlite:///path/to/file.db`, `mysql://u:p@tcp(h:3306)/db?…`, `postgresql://u:p@h:5432/db`. The messages of
    the raised errors never contain the password.

    Raises:
        UserError: the DSN is malformed, or the database rejected the user, the database's name, or a statement.
        DatabaseUnavailable: there is no response from that address.
    """
    if not dsn:
        raise UserError(
            "no data source is given: set db_conn_str in the session, for example to sqlite:///path/to/file.db"
        )
    scheme, separator, rest = dsn.partition("://")
    # Without `://`, any part of the text may be a password: do not show it.
    if not separator:
        raise UserError(
            "cannot read the data source: it has no scheme; expected sqlite:///…, mysql://… or postgresql://…"
        )
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
