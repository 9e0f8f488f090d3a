"""Results of events, without a server."""

from __future__ import annotations

from typing import Any

from wire import batch, column

from sqlflow.events import Columns, Rows
from sqlflow.result import Collector
from sqlflow.values import ColumnInfo


def rows(statement: int, *values: int, width: int = 1, columns: Any = None) -> Rows:
    content = batch(len(values), *(column("int64s", values) for _ in range(width)))
    return Rows(position=1, statement=statement, columns=columns, batch=content)


def test_batches_without_columns_are_one_table() -> None:
    named = (ColumnInfo("n", ""),)
    collector = Collector("j", None)
    collector.add(Columns(position=1, statement=0, columns=named))
    collector.add(rows(0, 1, columns=named))
    for event in (rows(1, 2), rows(1, 3, 4), rows(2, 5), rows(2, 6, width=2)):
        collector.add(event)
    collector.add(Columns(position=1, statement=3, columns=named))
    collector.add(rows(3, 7, columns=named))
    collector.add(rows(3, 8))
    tables = collector.result().tables
    assert [list(table) for table in tables] == [[(1,)], [(2,), (3,), (4,)], [(5,)], [(6, 6)], [(7,)], [(8,)]]
    assert [table.column_names for table in tables[2:4]] == [["column_1"], ["column_1", "column_2"]]
