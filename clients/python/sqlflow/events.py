"""What a job reports: typed events, and their decoding.

Every event has the position of its record in the job's log. `client.job(token).events(after=position)` reads on behind
it. The last event of a job is `JobEnded`.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlflow._proto import sqlflow_pb2 as pb
from sqlflow.errors import JobCancelled, JobFailed
from sqlflow.values import Batch, Cell, ColumnInfo


class State(enum.Enum):
    """State of a job."""

    PENDING = "PENDING"
    """Recorded; nothing was started yet."""
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    """Every statement succeeded, and every result and model is durable."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    """The server cannot read the state at the moment."""

    @property
    def is_terminal(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a job reports."""

    position: int
    """Position in the job's log. Positions rise, and are unique in a job."""
    statement: int | None = None
    """Index of the statement in the program, from 0; None for an event about the whole job."""
    time: dt.datetime | None = None
    """Time of the record, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementStarted(Event):
    """A statement begins."""

    sql: str
    """Its first 200 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEnded(Event):
    """A statement succeeded."""

    sql: str
    seconds: int
    rows_affected: int | None
    """Number of rows changed; None if the database did not report it, or the statement returned rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns(Event):
    """A result set begins. It may have no rows."""

    columns: tuple[ColumnInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Event):
    """Rows of the result set that began last. Iterating yields tuples."""

    columns: tuple[ColumnInfo, ...] | None
    """None if reading began behind the set's `Columns`."""
    batch: Batch = field(repr=False)

    def __len__(self) -> int:
        return len(self.batch)

    def __iter__(self) -> Iterator[tuple[Cell, ...]]:
        return iter(self.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Event):
    """Output of the job's programs, byte for byte: it may begin or end within a line."""

    stream: str
    """`stdout` or `stderr`."""
    data: bytes
    step: int
    attempt: int

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """Progress of a long statement. A later one replaces an earlier one of the same phase."""

    phase: str
    """Such as `load`, `train` or `predict`."""
    done: int
    total: int | None
    """None: not known."""
    unit: str
    """Such as `rows` or `rounds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(Event):
    """Measurements at one point of a training, or final ones."""

    step: int | None
    """Number of the round; None for final values."""
    values: dict[str, float]
    kept: bool
    """Whether the published model is that of this round, because later ones were not better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending(Event):
    """Why the job waits, in one sentence, or another change of its state."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """A message for people."""

    message: str
    is_warning: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Event):
    """A place where output is missing."""

    reason: str
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Display(Event):
    """A plot or other content for people. A notebook shows it."""

    media_type: str
    data: bytes = field(repr=False)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from sqlflow._notebook.media import mimebundle

        return mimebundle(self.media_type, self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPublished(Event):
    """A model was published. The model with its name, if there was one, is replaced."""

    name: str
    uri: str
    size_bytes: int
    sha256: bytes = field(repr=False)
    has_replaced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDropped(Event):
    """A model was removed."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnecting(Event):
    """The server does not answer; the client tries again. The position is that of the event before."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected(Event):
    """The server answers again; nothing was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Event):
    """The last event. The statement is the one that was running at a failure."""

    job: str
    state: State
    cause: str | None = None
    """Kind of a failure, such as `STATEMENT_FAILED`, `OUT_OF_MEMORY` or `MAY_HAVE_EXECUTED`."""
    message: str = ""
    sql: str | None = None

    def error(self) -> JobFailed | None:
        """The exception for a job without success."""
        if self.state is State.SUCCEEDED:
            return None
        kind = JobCancelled if self.state is State.CANCELLED else JobFailed
        return kind(self.job, self.cause or "UNSPECIFIED", self.message, self.statement, self.sql)


class Decoder:
    """Turns the records of one job, in their order, into events."""

    def __init__(self, job: str):
        self._job = job
        self._columns: dict[int | None, tuple[ColumnInfo, ...]] = {}
        self._running: tuple[int | None, str] | None = None

    def event(self, record: pb.Response) -> Event | None:
        """The event of a record. None for one of a later version, and for the message that `end` repeats.

        Raises:
            ServerFault: the record is inconsistent.
        """
        statement = record.statement if record.HasField("statement") else None
        at: dict[str, Any] = {"position": record.position, "statement": statement, "time": _time(record)}
        field = record.WhichOneof("response")
        match field:
            case "started":
                self._running = (statement, record.started.sql)
                return StatementStarted(**at, sql=record.started.sql)
            case "head":
                self._columns = {statement: _columns(record.head)}
                return Columns(**at, columns=self._columns[statement])
            case "rows":
                return Rows(**at, columns=self._columns.get(statement), batch=Batch(record.rows))
            case "eoe":
                self._running = None
                self._columns = {}
                rows = record.eoe.rows_affected if record.eoe.HasField("rows_affected") else None
                return StatementEnded(
                    **at, sql=record.eoe.sql, seconds=record.eoe.spent_time_seconds, rows_affected=rows
                )
            case "message":
                return _message(record.message, at)
            case None:
                return None
            case _:
                return _SMALL[field](getattr(record, field), at)

    def end(self, status: pb.JobStatus, position: int) -> JobEnded | None:
        """The last event, if the job has ended."""
        state, cause = state_of(status), cause_of(status)
        if not state.is_terminal:
            return None
        statement, sql = self._running or (None, None)
        return JobEnded(
            position=position,
            job=self._job,
            state=state,
            cause=cause,
            message=status.message,
            statement=None if state is State.SUCCEEDED else statement,
            sql=None if state is State.SUCCEEDED else sql,
        )


def state_of(status: pb.JobStatus) -> State:
    """The state. Of failed jobs it distinguishes those that were cancelled."""
    name = pb.JobStatus.Code.Name(status.code) if status.code in pb.JobStatus.Code.values() else "UNKNOWN"
    if name == "FAILED" and cause_of(status) == "CANCELLED":
        return State.CANCELLED
    return State(name)


def cause_of(status: pb.JobStatus) -> str | None:
    """The cause of a failure; that of a later version is `UNSPECIFIED`."""
    if status.code != pb.JobStatus.FAILED:
        return None
    known = status.cause in pb.Cause.values()
    return pb.Cause.Name(status.cause).removeprefix("CAUSE_") if known else "UNSPECIFIED"


def time_of(stamp: Any) -> dt.datetime | None:
    """The time of a `google.protobuf.Timestamp`, if Python can have it."""
    try:
        moment = dt.datetime.fromtimestamp(stamp.seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.replace(microsecond=min(max(stamp.nanos, 0) // 1000, 999_999))


def _time(record: pb.Response) -> dt.datetime | None:
    return time_of(record.time) if record.HasField("time") else None


def _columns(head: Any) -> tuple[ColumnInfo, ...]:
    types = [column.database_type for column in head.column_types]
    types += [""] * (len(head.column_names) - len(types))
    return tuple(ColumnInfo(name, kind) for name, kind in zip(head.column_names, types, strict=False))


def _message(message: pb.Message, at: dict[str, Any]) -> Event | None:
    match message.kind:
        case pb.Message.KIND_STATUS:
            return Pending(**at, message=message.message)
        case pb.Message.KIND_END:
            return None
        case kind:
            return Notice(**at, message=message.message, is_warning=kind == pb.Message.KIND_WARNING)


def _log(log: pb.LogChunk, at: dict[str, Any]) -> Event:
    stream = "stderr" if log.stream == pb.LogChunk.STREAM_STDERR else "stdout"
    return Log(**at, stream=stream, data=log.data, step=log.step, attempt=log.attempt)


def _progress(it: Any, at: dict[str, Any]) -> Event:
    return Progress(**at, phase=it.phase, done=it.done, total=it.total or None, unit=it.unit)


def _metrics(it: Any, at: dict[str, Any]) -> Event:
    values = {metric.name: metric.value for metric in it.metrics}
    return Metrics(**at, step=it.step if it.HasField("step") else None, values=values, kept=it.kept)


def _display(it: Any, at: dict[str, Any]) -> Event:
    return Display(**at, media_type=it.media_type, data=it.data)


def _gap(it: pb.Gap, at: dict[str, Any]) -> Event:
    return Gap(**at, reason=it.reason, bytes=it.bytes if it.HasField("bytes") else None)


def _model(it: pb.Model, at: dict[str, Any]) -> Event:
    if it.removed:
        return ModelDropped(**at, name=it.name, uri=it.uri)
    return ModelPublished(
        **at,
        name=it.name,
        uri=it.uri,
        size_bytes=it.size_bytes,
        sha256=it.sha256,
        has_replaced=it.HasField("replaced"),
    )


_SMALL: dict[str, Callable[[Any, dict[str, Any]], Event]] = {
    "log": _log,
    "progress": _progress,
    "metrics": _metrics,
    "display": _display,
    "gap": _gap,
    "model": _model,
}
