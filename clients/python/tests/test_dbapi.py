"""DB-API 2.0."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
from real_server import ENDLESS, RealServer

import sqlflow
from sqlflow import dbapi


@pytest.fixture
def connection(server: RealServer) -> Iterator[dbapi.Connection]:
    with dbapi.connect(server.address, dialect="sqlite") as opened:
        yield opened


def test_module_says_what_it_is() -> None:
    assert (dbapi.apilevel, dbapi.paramstyle, dbapi.threadsafety) == ("2.0", "pyformat", 2)
    assert issubclass(dbapi.ProgrammingError, dbapi.DatabaseError) and issubclass(dbapi.DatabaseError, dbapi.Error)


def test_rows_are_fetched_one_by_one_and_together(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT rowid, class FROM iris WHERE class = %s ORDER BY rowid LIMIT 7", [1])
    assert cursor.description is not None
    assert [column[0] for column in cursor.description] == ["rowid", "class"]
    assert cursor.description[1][1] == dbapi.NUMBER and cursor.description[1][1] != dbapi.STRING
    assert cursor.fetchone() == (51, 1)
    assert cursor.fetchmany() == [(52, 1)]
    assert cursor.fetchmany(2) == [(53, 1), (54, 1)]
    assert next(iter(cursor)) == (55, 1)
    assert cursor.fetchall() == [(56, 1), (57, 1)]
    assert cursor.fetchone() is None and cursor.fetchall() == []


def test_statements_change_rows_and_take_parameters(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE people (name TEXT, data BLOB, age INTEGER)")
    assert cursor.description is None
    with pytest.raises(dbapi.ProgrammingError, match="returned none"):
        cursor.fetchone()
    many = [(f"o'{name}\\", bytes([number]), number) for number, name in enumerate("abc")]
    cursor.executemany("INSERT INTO people VALUES (%s, %s, %s)", many)
    assert cursor.rowcount == 3
    assert cursor.execute("SELECT * FROM people WHERE age > %(age)s", {"age": 0}).fetchall() == many[1:]
    cursor.execute("UPDATE people SET age = NULL WHERE age = 0")
    assert cursor.rowcount == 1
    cursor.execute("DROP TABLE people")
    connection.commit()
    with pytest.raises(dbapi.NotSupportedError):
        connection.rollback()


def test_result_sets_follow_each_other(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1 AS a; SELECT 2 AS b UNION ALL SELECT 3")
    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset() is True
    assert cursor.description is not None and cursor.description[0][0] == "b"
    assert cursor.fetchone() == (2,)
    assert cursor.nextset() is None


def test_errors_have_their_classes(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    with pytest.raises(dbapi.ProgrammingError, match="no_such") as error:
        cursor.execute("SELECT * FROM no_such")
    assert isinstance(error.value.__cause__, sqlflow.JobFailed)
    with pytest.raises(connection.DataError):
        cursor.execute("SELECT %s", [object()])
    with pytest.raises(dbapi.InterfaceError):
        dbapi.connect("nowhere")
    cursor.close()
    with pytest.raises(dbapi.InterfaceError, match="closed"):
        cursor.execute("SELECT 1")


def test_closed_cursor_cancels_its_job(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SELECT 1; {ENDLESS}")
    job = cursor.job
    assert job is not None
    cursor.close()
    ended = list(job)[-1]
    assert isinstance(ended, sqlflow.JobEnded) and ended.state is sqlflow.State.CANCELLED


@pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy")
def test_pandas_reads_sql(connection: dbapi.Connection) -> None:
    frame = pd.read_sql("SELECT * FROM iris WHERE class = %s", connection, params=(2,))  # type: ignore[call-overload]
    assert len(frame) == 50 and frame["petal_length"].dtype == "float64"
