"""DB-API cursors, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from wire import batch, column

import sqlflow
from sqlflow import dbapi
from sqlflow.events import Columns, Event, JobEnded, Rows, State, StatementEnded
from sqlflow.values import ColumnInfo


class OneJob:
    """A client, and its only job, which reports these events."""

    def __init__(self, *events: Event):
        self._events = events
        self.is_cancelled = False

    def run(self, program: str, **options: Any) -> OneJob:
        return self

    def events(self) -> Iterator[Event]:
        return iter(self._events)

    def cancel(self) -> None:
        self.is_cancelled = True


def test_types_that_the_database_does_not_report_are_those_of_the_first_rows() -> None:
    columns = (ColumnInfo("a", ""), ColumnInfo("b", "DECIMAL(10,2)"))
    rows = batch(2, column("int64s", [1, 2]), column("decimals", ["1", "2"]))
    ended = {"sql": "", "seconds": 0, "rows_affected": None}
    job = OneJob(
        Columns(position=1, columns=columns),
        StatementEnded(position=2, **ended),  # type: ignore[arg-type]
        Columns(position=3, columns=columns),
        Rows(position=4, columns=columns, batch=rows),
        Rows(position=5, columns=columns, batch=batch(1, column("int64s", [3]), column("decimals", ["3"]))),
        StatementEnded(position=6, **ended),  # type: ignore[arg-type]
        JobEnded(position=6, job="j", state=State.SUCCEEDED),
    )
    cursor = dbapi.Connection(job).cursor().execute("")  # type: ignore[arg-type]
    assert cursor.description is not None and [it[1] for it in cursor.description] == ["null", "DECIMAL(10,2)"]
    assert cursor.fetchall() == []
    assert cursor.nextset() is True
    assert [it[1] for it in cursor.description] == ["int", "DECIMAL(10,2)"]
    assert all(it[1] == dbapi.NUMBER and it[1] != dbapi.STRING for it in cursor.description)
    assert [row[0] for row in cursor.fetchall()] == [1, 2, 3]
    assert cursor.nextset() is None


def test_interrupted_fetch_does_not_look_like_the_end_of_the_rows() -> None:
    class Torn(OneJob):
        def events(self) -> Iterator[Event]:
            yield from self._events
            raise sqlflow.ServerUnavailable("no answer")

    columns = (ColumnInfo("a", ""),)
    job = Torn(
        Columns(position=1, columns=columns),
        Rows(position=2, columns=columns, batch=batch(1, column("int64s", [1]))),
    )
    cursor = dbapi.Connection(job).cursor().execute("")  # type: ignore[arg-type]
    assert cursor.fetchone() == (1,)
    with pytest.raises(dbapi.OperationalError, match="no answer"):
        cursor.fetchone()
    for fetch in (cursor.fetchone, cursor.fetchall, cursor.fetchmany, cursor.nextset):
        with pytest.raises(dbapi.OperationalError, match="cannot read on: an earlier fetch was interrupted"):
            fetch()


def test_executemany_of_nothing_is_an_execute_too() -> None:
    job = OneJob(Columns(position=1, columns=()), Columns(position=2, columns=()))
    cursor = dbapi.Connection(job).cursor().execute("")  # type: ignore[arg-type]
    cursor.executemany("INSERT INTO t VALUES (%s)", [])
    assert job.is_cancelled, "the job that it read before"
    assert (cursor.description, cursor.rowcount) == (None, 0)
    cursor.close()
    with pytest.raises(dbapi.InterfaceError, match="closed"):
        cursor.executemany("INSERT INTO t VALUES (%s)", [])
