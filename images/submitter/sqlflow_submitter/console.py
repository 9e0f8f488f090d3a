"""Replaces the agent if a step's program is run by hand.

The data source comes from the environment and rows are printed as a plain table. Every commit is granted, because
there is no other attempt.
"""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from typing import Any

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.proto.sqlflow.agent.v1.channel_pb2 import SubmitterFrame
from sqlflow_submitter.proto.sqlflow.v1.data_pb2 import Column, Rows

DATASOURCE_VARIABLE = "SQLFLOW_DATASOURCE"
EPOCH = datetime(1970, 1, 1)


class Console(Channel):
    """Prints frames instead of sending them."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def secrets(self) -> dict[str, str]:
        return {"db_conn_str": os.environ.get(DATASOURCE_VARIABLE, "")}

    def send(self, frame: SubmitterFrame) -> None:
        match frame.WhichOneof("frame"):
            case "head":
                self._names = list(frame.head.column_names)
                if not self._names:
                    print("(no columns)")
                print("\t".join(self._names), flush=True)
            case "rows":
                print_rows(frame.rows)
            case "ended" if frame.ended.HasField("rows_affected"):
                print(f"{frame.ended.rows_affected} row(s) affected", flush=True)
            case "metrics" if not frame.metrics.HasField("step"):
                print("  ".join(f"{metric.name}={metric.value:g}" for metric in frame.metrics.metrics), flush=True)
            case "display":
                print(f"({frame.display.media_type}, {len(frame.display.data)} bytes)", flush=True)
            case _:
                pass

    def send_durable(self, frame: SubmitterFrame) -> None:
        self.send(frame)

    def commit(self, statement: int) -> None:
        return


def print_rows(rows: Rows) -> None:
    """Prints one line for each row, with tabs between the values."""
    columns = [cells(column, rows.count) for column in rows.columns]
    for row in zip(*columns, strict=True):
        print("\t".join(row))
    print(end="", flush=True)


def cells(column: Column, count: int) -> list[str]:
    """Formats a column's values as text."""
    kind = column.WhichOneof("values")
    if kind is None:
        return ["NULL"] * count
    values = [_text(kind, value) for value in getattr(column, kind).values]
    for row in range(count):
        if column.nulls and column.nulls[row // 8] >> row % 8 & 1:
            values[row] = "NULL"
    if kind == "timestamps" and column.timestamps.has_zone:
        values = [value if value == "NULL" else f"{value}+00:00" for value in values]
    return values


def _text(kind: str, value: Any) -> str:
    if kind == "mixed":
        field = value.WhichOneof("value")
        return _text(field.removesuffix("_value") + "s", getattr(value, field)) if field else "NULL"
    if kind == "dates":
        return str(date.fromordinal(date(1970, 1, 1).toordinal() + value))
    if kind == "timestamps":
        return str(EPOCH + timedelta(microseconds=value))
    if kind == "blobs":
        return "0x" + bytes(value).hex()
    return str(value)
