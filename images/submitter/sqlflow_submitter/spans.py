"""The submitter's part of its job's trace. The agent sends it on; nothing of OpenTelemetry is needed here.

Programs that use OpenTelemetry's own library join the same trace by TRACEPARENT and OTEL_* in the environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.proto.sqlflow.agent.v1.channel_pb2 import Attribute, Span, SubmitterFrame

MAX_EVENTS = 1000
"""Of one span; what comes on top is left out."""

Value = str | int | float


class Spans:
    """The spans of one statement, which are sent as they end; of none when nobody traces the job."""

    def __init__(self, channel: Channel, statement: int) -> None:
        self._channel = channel
        self._statement = statement
        self._is_traced = "TRACEPARENT" in os.environ
        self._open: list[Span] = []
        self._last_id = 0

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Value] | None = None) -> Iterator[None]:
        """A part of the work; those within it are parts of it."""
        if not self._is_traced:
            yield
            return
        self._last_id += 1
        span = Span(id=self._last_id, name=name, begin_unix_micros=_now())
        span.parent = self._open[-1].id if self._open else 0
        _add(span.attributes, attributes or {})
        self._open.append(span)
        try:
            yield
        except Exception as error:
            # Its sentence may quote data; the outcome has it.
            span.error = type(error).__name__
            raise
        finally:
            self._open.remove(span)
            span.end_unix_micros = _now()
            # That the agent is gone shows elsewhere, and must not hide another error.
            with suppress(OSError):
                self._channel.send(SubmitterFrame(statement=self._statement, span=span))

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Something that happened in the span that is open."""
        if not self._open or len(self._open[-1].events) >= MAX_EVENTS:
            return
        event = self._open[-1].events.add(name=name, time_unix_micros=_now())
        _add(event.attributes, attributes)


def _now() -> int:
    return time.time_ns() // 1000


def _add(attributes: object, values: Mapping[str, Value]) -> None:
    for key, value in values.items():
        attribute: Attribute = attributes.add(key=key)  # type: ignore[attr-defined]
        match value:
            case str():
                attribute.text = value
            case int():
                attribute.integer = value
            case float():
                attribute.number = value
