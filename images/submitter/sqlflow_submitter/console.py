"""Replaces the agent if a step's program is run by hand.

Rows are printed as a plain table.
"""

from __future__ import annotations

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.frames import Display, Ended, Frame, Head, Metrics
from sqlflow_submitter.rows import Rows


class Console(Channel):
    """Prints frames instead of sending them."""

    def start(self) -> None:
        return

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


def print_rows(rows: Rows) -> None:
    """Prints one line for each row, with tabs between the values."""
    for row in zip(*rows.columns, strict=True):
        print("	".join("NULL" if value is None else str(value) for value in row))
    print(end="", flush=True)
