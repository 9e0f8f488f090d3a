"""Shows a job in a cell, event by event. Does no I/O itself; `Outputs` do."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlflow._notebook.curves import Curves
from sqlflow._notebook.log import LogText
from sqlflow._notebook.outputs import Bar, Outputs
from sqlflow.events import (
    Columns,
    Display,
    Event,
    Gap,
    JobEnded,
    Log,
    Metrics,
    ModelDropped,
    ModelPublished,
    Notice,
    Pending,
    Progress,
    Reconnected,
    Reconnecting,
    Rows,
    State,
    StatementEnded,
    StatementStarted,
)
from sqlflow.result import Table, columns_of

PREVIEW_ROWS = 1_000
"""Rows of a table that are kept to be shown."""
REDRAW = 1.0
"""Minimum time between two drawings of the curves, in seconds."""
MENTION = 60
"""A statement's text is cut to this many characters."""


class View:
    """A job in a cell."""

    def __init__(
        self, job: str, outputs: Outputs, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._job = job
        self._outputs = outputs
        self._quiet = quiet
        self._clock = clock
        self._table: Table | None = None
        self._row_count = 0
        self._bar: Bar | None = None
        self._log = LogText()
        self._curves = Curves()
        self._drawn: float | None = None
        self._begin: Event | None = None
        self._what = ""

    def show(self, event: Event) -> None:
        """Shows an event."""
        if not isinstance(event, Log):
            self._flush_log(event)
        match event:
            case StatementStarted(sql=sql, statement=statement):
                self._end_statement()
                number = "" if statement is None else f" {statement + 1}"
                text = " ".join(sql.split())
                mention = text if len(text) <= MENTION else text[: MENTION - 1] + "…"
                self._what = f"statement{number}: {mention}"
                self._begin = self._begin or event
                self._status(self._what)
            case Columns(columns=columns):
                self._end_table()
                self._table = Table(columns)
            case Rows():
                self._rows(event)
            case StatementEnded(rows_affected=rows):
                self._end_statement()
                if rows is not None:
                    self._outputs.line(f"{rows:,} row{'' if rows == 1 else 's'} affected", "dim")
            case Log():
                self._show_log(self._log.add(event))
            case Progress():
                self._progress(event)
            case Metrics():
                self._metrics(event)
            case Display(media_type=media_type, data=data):
                self._end_bar()
                self._outputs.media(media_type, data)
            case _:
                self._message(event)

    def interrupted(self) -> None:
        """Says that the job is being cancelled."""
        self._outputs.status(f"job {self._job}: cancelling; interrupt again to stop waiting", "warning")

    def leave(self, text: str, tone: str = "warning") -> None:
        """Ends the view before the job's end."""
        self._show_log(self._log.end())
        self._end_statement()
        self._outputs.status(text, tone)

    def _flush_log(self, event: Event) -> None:
        """Shows what was kept back of the log, unless the event says it."""
        match event:
            case Reconnecting() | Reconnected():
                # No records of the job.
                return
            case Notice(message=message):
                self._log.drop_if_in(message)
            case JobEnded(message=message):
                self._log.drop_if_in(message)
                self._show_log(self._log.end())
        self._show_log(self._log.take())

    def _show_log(self, text: str) -> None:
        if text and not self._quiet:
            self._outputs.log(text)

    def _message(self, event: Event) -> None:
        match event:
            case Pending(message=message):
                self._status(message if message.startswith("waiting") else f"waiting: {message}")
            case Reconnecting(message=message):
                self._outputs.status(message, "warning")
            case Reconnected():
                self._status(self._what or "running")
            case Notice(message=message, is_warning=is_warning):
                self._outputs.line(message, "warning" if is_warning else "dim")
            case Gap(reason=reason, bytes=count):
                what = "some output" if count is None else f"{count:,} bytes of output"
                self._outputs.line(f"[{what} is missing here: {reason}]", "warning")
            case ModelPublished(name=name, size_bytes=size, has_replaced=has_replaced):
                earlier = "; it replaced an earlier one" if has_replaced else ""
                self._outputs.line(f"model {name} published ({size / 1000:,.1f} kB){earlier}", "good")
            case ModelDropped(name=name):
                self._outputs.line(f"model {name} dropped", "dim")
            case JobEnded():
                self._end(event)
            case _:
                pass

    def _status(self, text: str) -> None:
        if not self._quiet:
            self._outputs.status(f"job {self._job}: {text}")

    def _rows(self, rows: Rows) -> None:
        if self._table is None:
            self._table = Table(columns_of(rows))
        self._row_count += len(rows)
        if len(self._table) < PREVIEW_ROWS:
            self._table.append(rows.batch)

    def _progress(self, progress: Progress) -> None:
        if self._quiet:
            return
        self._bar = self._bar or self._outputs.bar()
        self._bar.show(progress.phase, progress.done, progress.total, progress.unit, self._curves.last())

    def _metrics(self, metrics: Metrics) -> None:
        self._curves.add(metrics)
        if self._quiet or not self._curves.is_shown:
            return
        now = self._clock()
        if self._drawn is None or now - self._drawn >= REDRAW:
            self._draw()
            self._drawn = now

    def _draw(self) -> None:
        self._outputs.curves(self._curves.png(), self._curves.last())

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _end_table(self) -> None:
        table, self._table = self._table, None
        count, self._row_count = self._row_count, 0
        if table is None:
            return
        frame = table.to_pandas().head(PREVIEW_ROWS)
        self._outputs.frame(frame)
        if count > len(frame):
            self._outputs.line(
                f"the first {len(frame):,} of {count:,} rows; %%sqlflow NAME binds all of them to a variable", "dim"
            )

    def _end_statement(self) -> None:
        self._end_bar()
        self._end_table()
        if self._drawn is not None:
            self._draw()
            self._outputs.curves(None, "")
            self._drawn = None
        self._curves = Curves()
        self._outputs.show_log(failed=False)

    def _end(self, ended: JobEnded) -> None:
        self._end_statement()
        if ended.state is State.FAILED:
            self._outputs.show_log(failed=True)
        match ended.state:
            case State.SUCCEEDED:
                self._outputs.status(f"job {self._job} succeeded", "good")
            case State.CANCELLED:
                self._outputs.status(f"job {self._job} was cancelled", "warning")
            case _:
                self._outputs.status(f"job {self._job} failed ({ended.cause})", "failed")
