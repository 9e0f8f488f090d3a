"""Replaces the agent if a step's program is run by hand.

The data source comes from the environment and rows are printed as a plain table. Every commit is granted, because
there is no other attempt.
"""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from typing import Any

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.frames import Display, Ended, Frame, Head, Metrics
from sqlflow_submitter.rows import Rows

DATASOURCE_VARIABLE = "SQLFLOW_DATASOURCE"
EPOCH = datetime(1970, 1, 1)


class Console(Channel):
    """Prints frames instead of sending them."""

    def secrets(self) -> dict[str, str]:
        return {"db_conn_str": os.environ.get(DATASOURCE_VARIABLE, "")}

    def send(self, frame: Frame) -> None:
        match frame.content:
            case Head(names=names):
                if not names:
                    print("(no columns)")
                print("\t".join(names), flush=True)
            case Rows() as rows:
                print_rows(rows)
            case Ended(rows_affected=int(affected)):
                print(f"{affected} row(s) affected", flush=True)
            case Metrics(step=None, values=values):
                print("  ".join(f"{name}={value:g}" for name, value in values.items()), flush=True)
            case Display(media_type=media_type, data=data):
                print(f"({media_type}, {len(data)} bytes)", flush=True)
            case _:
                pass

    def send_durable(self, frame: Frame) -> None:
        self.send(frame)

    def commit(self, statement: int) -> None:
        return


def print_rows(rows: Rows) -> None:
    """Prints one line for each row, with tabs between the values."""
    for row in zip(*map(cells, rows.columns), strict=True):
        print("\t".join(row))
    print(end="", flush=True)


def cells(column: Values) -> list[str]:
    """Formats a column's values as text."""
    return ["NULL" if value is None else _text(column.kind, value) for value in column.values]


def _text(kind: Kind, value: Any) -> str:
    match kind, value:
        case Kind.DATE, int():
            return str(date.fromordinal(EPOCH.toordinal() + value))
        case ((Kind.TIMESTAMP | Kind.TIMESTAMP_UTC), int()):
            zone = "+00:00" if kind is Kind.TIMESTAMP_UTC else ""
            return f"{EPOCH + timedelta(microseconds=value)}{zone}"
        case _, bytes():
            return f"0x{value.hex()}"
        case _:
            return str(value)
