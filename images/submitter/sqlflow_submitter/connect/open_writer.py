"""Opens the table writer of a database. Each writer has a module of its own, imported only when it is used."""

from __future__ import annotations

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.connect.writer import TableWriter


def open_writer(database: Database) -> TableWriter:
    """Returns a writer that also works while a result set of `database` is being read.

    Raises:
        UserError: the database cannot be written to.
        DatabaseUnavailable: no second connection can be opened.
    """
    connection = database.writing_connection()
    if database.dialect == "sqlite":
        from sqlflow_submitter.connect.sqlite import SQLiteDatabase
        from sqlflow_submitter.connect.sqlite_writer import SQLiteWriter

        assert isinstance(connection, SQLiteDatabase)
        return SQLiteWriter(connection)
    if database.dialect == "mysql":
        from sqlflow_submitter.connect.mysql import MySQLDatabase
        from sqlflow_submitter.connect.mysql_writer import MySQLWriter

        assert isinstance(connection, MySQLDatabase)
        return MySQLWriter(connection)
    from sqlflow_submitter.connect.postgresql import PostgreSQLDatabase
    from sqlflow_submitter.connect.postgresql_writer import PostgreSQLWriter

    assert isinstance(connection, PostgreSQLDatabase)
    return PostgreSQLWriter(connection)
