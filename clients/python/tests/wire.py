"""Messages of the wire, for tests without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlflow._proto import data_pb2 as data
from sqlflow._proto import sqlflow_pb2 as pb
from sqlflow.result import Table
from sqlflow.values import Batch, ColumnInfo


def column(field: str, values: Sequence[Any], nulls: Sequence[int] = (), **more: Any) -> data.Column:
    """A column with the values in one of its fields."""
    built = data.Column()
    message = getattr(built, field)
    message.SetInParent()
    message.values.extend(values)
    for name, value in more.items():
        setattr(message, name, value)
    return with_nulls(built, nulls, len(values))


def with_nulls(built: data.Column, nulls: Sequence[int], count: int) -> data.Column:
    if nulls:
        bits = bytearray((count + 7) // 8)
        for row in nulls:
            bits[row // 8] |= 1 << (row % 8)
        built.nulls = bytes(bits)
    return built


def all_null() -> data.Column:
    return data.Column()


def batch(count: int, *columns: data.Column) -> Batch:
    return Batch(data.Rows(count=count, columns=columns))


def table(*batches: Batch, types: Sequence[str] = ()) -> Table:
    """A table with columns `a`, `b`, …"""
    width = len(batches[0].columns) if batches else len(types)
    named = [ColumnInfo(chr(ord("a") + place), types[place] if types else "") for place in range(width)]
    return Table(named, batches)


def page(*records: pb.Response, next: str = "", status: Any = pb.JobStatus.RUNNING, **ended: Any) -> pb.Result:
    return pb.Result(job_status=pb.JobStatus(code=status, **ended), results=list(records), next=pb.Token(token=next))


def record(position: int, statement: int | None = 0, **content: Any) -> pb.Response:
    built = pb.Response(position=position, **content)
    if statement is not None:
        built.statement = statement
    return built
