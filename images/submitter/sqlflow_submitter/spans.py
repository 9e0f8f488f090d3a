"""The submitter's spans in the trace of its job. The agent exports them, so this module needs no OpenTelemetry library.

User code that uses OpenTelemetry's library joins the same trace: see `attach_context`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sqlflow_submitter.channel import Channel
from sqlflow_submitter.proto.sqlflow.agent.v1.channel_pb2 import Attribute, Span, SubmitterFrame

MAX_EVENTS = 1000
"""Maximum number of events of a span; later events are dropped."""

Value = str | int | float


class Spans:
    """The spans of one statement. Each is sent when it ends. Does nothing if the job is not traced."""

    def __init__(self, channel: Channel, statement: int) -> None:
        self._channel = channel
        self._statement = statement
        self._is_traced = "TRACEPARENT" in os.environ
        self._open: list[Span] = []
        self._last_id = 0

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Value] | None = None) -> Iterator[None]:
        """Opens a span. Spans that are opened inside the block become its children."""
        if not self._is_traced:
            yield
            return
        self._last_id += 1
        span = Span(id=self._last_id, name=name, begin_unix_micros=_now())
        span.parent = self._open[-1].id if self._open else 0
        _add(span.attributes, attributes or {})
        if not self._open:
            _add(span.attributes, _process())
        self._open.append(span)
        try:
            yield
        except Exception as error:
            # Only the type, because the message may quote data. The outcome has the message.
            span.error = type(error).__name__
            raise
        finally:
            self._open.remove(span)
            span.end_unix_micros = _now()
            # If the agent has exited, this must not hide another error.
            with suppress(OSError):
                self._channel.send(SubmitterFrame(statement=self._statement, span=span))

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Adds an event to the innermost open span."""
        if not self._open or len(self._open[-1].events) >= MAX_EVENTS:
            return
        event = self._open[-1].events.add(name=name, time_unix_micros=_now())
        _add(event.attributes, attributes)


def attach_context() -> None:
    """Makes the attempt the parent of spans of user code, if the operator lets it send spans (`--trace-user-code`).

    The library is imported only then, because its import takes time.
    """
    finds_collector = any(name.startswith("OTEL_EXPORTER_OTLP_") for name in os.environ)
    if "TRACEPARENT" not in os.environ or not finds_collector:
        return
    carrier = {name: os.environ.get(name.upper(), "") for name in ("traceparent", "tracestate", "baggage")}
    try:
        from opentelemetry import context, propagate

        # Propagates baggage, and obeys OTEL_PROPAGATORS.
        context.attach(propagate.extract({name: value for name, value in carrier.items() if value}))
    except ImportError:
        return
    except Exception as error:
        # For example, the image's variables name a propagator that it does not have.
        print(f"note: spans of user code have no parent: {error}", file=sys.stderr)


def _process() -> dict[str, Value]:
    """Attributes of this process, by OpenTelemetry's semantic conventions. The agent makes them the resource's."""
    return {
        "process.pid": os.getpid(),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": ".".join(map(str, sys.version_info[:3])),
    }


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
